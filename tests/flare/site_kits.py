"""Real startup kits of one hospital, as FLARE's own provisioning writes them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from mhsev_flare.simulator import nvflare_command

SITE = "site-1"
LIGHTER = "nvflare.lighter.impl"


def provision(folder: Path, with_policy: bool = True) -> Path:
    """The kit of one hospital; without this package's builder it is FLARE's own."""
    project = {
        "api_version": 3,
        "name": "kits",
        "participants": [
            {"name": "server", "type": "server", "org": "o", "default_host": "localhost", "fed_learn_port": 8002},
            {"name": "admin@nvidia.com", "type": "admin", "org": "o", "role": "project_admin"},
            {"name": SITE, "type": "client", "org": "o"},
        ],
        "builders": _builders(with_policy),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.yml").write_text(yaml.safe_dump(project))
    command = [*nvflare_command(), "provision", "-p", "project.yml", "-w", "made"]
    environment = {**os.environ, "HOME": str(folder)}
    subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return folder / "made" / "kits" / "prod_00" / SITE


def _builders(with_policy: bool) -> list[dict[str, Any]]:
    own = [{"path": "mhsev_flare.provision.SitePolicyBuilder"}] if with_policy else []
    return [
        {"path": f"{LIGHTER}.workspace.WorkspaceBuilder", "args": {"template_file": ["master_template.yml"]}},
        {"path": f"{LIGHTER}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
        *own,
        {"path": f"{LIGHTER}.cert.CertBuilder"},
        {"path": f"{LIGHTER}.signature.SignatureBuilder"},
    ]
