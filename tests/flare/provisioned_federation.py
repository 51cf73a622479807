"""Provisioned kits as a fixture: a server and hospitals that their own ``start.sh`` runs, with TLS, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml
from poc_federation import free_port
from tiny_study import SITES, TEST_MODULES

from mhsev_flare.allowed_classes import ALLOWED_CLASSES
from mhsev_flare.result import read_run
from mhsev_flare.site import SITE_FILE

PROJECT, SERVER, LEAD, PROJECT_ADMIN = "mhsev_provisioned", "server", "lead@example.org", "project@example.org"
LIGHTER = "nvflare.lighter.impl"


def admin_of(site: str) -> str:
    """The organisation's admin of a hospital."""
    return f"admin@{site}.example.org"


def org_of(site: str) -> str:
    """Its organisation, whose name FLARE wants without dashes."""
    return site.replace("-", "_")


def project(sites: Sequence[str], port: int, **policy: Any) -> dict[str, Any]:
    """A ``project.yml`` for a server on loopback."""
    server = {"name": SERVER, "type": "server", "org": "study", "default_host": "localhost", "fed_learn_port": port}
    return {
        "api_version": 3,
        "name": PROJECT,
        "description": "provisioned sites of the tests",
        "participants": [
            server,
            *({"name": site, "type": "client", "org": org_of(site)} for site in sites),
            {"name": PROJECT_ADMIN, "type": "admin", "org": "study", "role": "project_admin"},
            {"name": LEAD, "type": "admin", "org": "study", "role": "lead"},
            *({"name": admin_of(site), "type": "admin", "org": org_of(site), "role": "org_admin"} for site in sites),
        ],
        "builders": [
            {"path": f"{LIGHTER}.workspace.WorkspaceBuilder", "args": {"template_file": ["master_template.yml"]}},
            {"path": f"{LIGHTER}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
            {
                "path": "mhsev_flare.provision.SitePolicyBuilder",
                "args": {"allow": [*ALLOWED_CLASSES, *TEST_MODULES], "loopback": True, **policy},
            },
            {"path": f"{LIGHTER}.cert.CertBuilder"},
            {"path": f"{LIGHTER}.signature.SignatureBuilder"},
        ],
    }


class ProvisionedFederation:
    """Kits in folders of their own, as at as many machines.

    Args:
        folder: holds all of it; processes are found again by its path.
        cohort: one BIDS root a site.
    """

    def __init__(self, folder: Path, cohort: Path) -> None:
        self.folder, self.cohort, self.port = folder, cohort, free_port()
        self.machines, self.first_kits = folder / "machines", folder / "central" / PROJECT / "prod_00"
        (folder / "home").mkdir(parents=True)
        self.environment = {
            # FLARE's own scripts find no Python here that has the packages: the kits must name theirs.
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(Path(__file__).parent),
            "OMP_NUM_THREADS": "1",
        }

    def kit(self, participant: str) -> Path:
        """Where a participant's kit was brought to."""
        return self.machines / participant

    def flare(self, *arguments: str, timeout: float = 240.0) -> str:
        """Run a command of FLARE's; its output."""
        command = [str(Path(sys.executable).with_name("nvflare")), *arguments]
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return done.stdout + done.stderr

    def python(self, script: Path, *arguments: object, timeout: float = 240.0) -> str:
        """Run a program; its output."""
        done = subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return done.stdout + done.stderr

    def provision(self, sites: Sequence[str] = SITES, workspace: str = "central") -> Path:
        """Provision centrally; the folder of the new kits."""
        path = self.folder / f"{workspace}.yml"
        path.write_text(yaml.safe_dump(project(sites, self.port)))
        said = self.flare("provision", "-p", str(path), "-w", str(self.folder / workspace), "--force")
        made = sorted((self.folder / workspace / PROJECT).glob("prod_*"))
        if not made:
            raise RuntimeError(f"nothing was provisioned: {said}")
        return made[-1]

    def bring(self, kit: Path, name: str = "") -> Path:
        """Bring a kit to its machine, and let the site say which Python runs it and where its data lie."""
        target = self.kit(name or kit.name)
        shutil.copytree(kit, target)
        (target / "local" / "python").write_text(f"{sys.executable}\n")
        own = {"data_root": str(self.cohort / kit.name)}
        (target / "local" / SITE_FILE).write_text(json.dumps(own))
        return target

    def start(self, participant: str, **environment: str) -> None:
        """Run the kit's ``start.sh``."""
        with (self.kit(participant) / "console.log").open("w") as console:
            subprocess.run(
                [str(self.kit(participant) / "startup" / "start.sh")],
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                check=True,
            )

    def start_all(self, sites: Sequence[str] = SITES) -> None:
        """Provision, bring and start server and hospitals, and wait until all are joined."""
        for kit in self.provision(sites).iterdir():
            if kit.is_dir():
                self.bring(kit)
        for participant in (SERVER, *sites):
            self.start(participant)
        self.wait_for(lambda: self.joined() >= set(sites), 90)

    def console(self, participant: str) -> str:
        """What the kit's processes said so far."""
        return (self.kit(participant) / "console.log").read_text(errors="replace")

    def joined(self) -> set[str]:
        """The hospitals that the server's log has as joined."""
        return set(re.findall(r"New client (\S+?)@\S* joined", self.console(SERVER)))

    def submit(self, job: Path, kit: str = LEAD) -> str:
        """Submit a job; its id."""
        said = self.flare("job", "submit", "-j", str(job), "--startup-kit", str(self.kit(kit)))
        found = re.search(r"job_id:?\s*[\"']?([0-9a-f-]{36})", said)
        if not found:
            raise RuntimeError(f"the job was not taken: {said}")
        return found.group(1)

    def end(self, job_id: str, timeout: int = 120) -> dict[str, Any]:
        """Wait until FLARE calls the job finished; its meta."""
        own = ("--startup-kit", str(self.kit(LEAD)))
        self.flare("job", "monitor", job_id, "--timeout", str(timeout), *own, timeout=timeout + 60)
        said = self.flare("job", "meta", job_id, *own, "--format", "json")
        return dict(json.loads(said[said.index("{") :])["data"])

    def result(self, job_id: str) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
        """Download; result, ledger and model path."""
        target = self.folder / "downloads"
        self.flare("job", "download", job_id, "-o", str(target), "--startup-kit", str(self.kit(LEAD)))
        return read_run(target / job_id)

    def wait_for(self, what: Callable[[], bool], seconds: float) -> None:
        """Wait until ``what()`` is true."""
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                raise TimeoutError("it did not happen")
            time.sleep(0.3)

    def stop(self) -> None:
        """End every process of these kits."""
        for kit in self.machines.glob("*"):
            (kit / "shutdown.fl").touch()
        with contextlib.suppress(TimeoutError):
            self.wait_for(lambda: not self.processes(), 20)
        self._kill(self.processes())

    def stop_one(self, participant: str) -> None:
        """End one participant's processes, its watching shell first."""
        self._kill(self.processes(participant))
        for name in ("pid.fl", "daemon_pid.fl"):
            (self.kit(participant) / name).unlink(missing_ok=True)

    def _kill(self, processes: Sequence[psutil.Process]) -> None:
        for process in sorted(processes, key=lambda p: p.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(list(processes), timeout=10)

    def processes(self, participant: str = "") -> list[psutil.Process]:
        """Running processes, watching shells included, of a participant or of all."""
        found, where = [], str(self.machines / participant)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if where in " ".join(process.cmdline()) and process.pid != os.getpid():
                    found.append(process)
        return found
