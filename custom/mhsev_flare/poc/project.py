"""The ``project.yml`` of POC mode: who takes part, and what FLARE's provisioning makes of it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from mhsev_flare.allowed_classes import ALLOWED_CLASSES

PROJECT = "mhsev"
SERVER = "server"
ADMIN = "admin@nvidia.com"
"""FLARE's POC commands know their administrator by this name."""

DEFAULT_PORT = 8002
SITES = ("site-1", "site-2", "site-3")


KEYS_FOR_ENCRYPTED_JOBS: Mapping[str, Any] = {
    "path": "nvflare.lighter.impl.he.HEBuilder",
    "args": {"poly_modulus_degree": 8192, "coeff_mod_bit_sizes": [60, 40, 40], "scale_bits": 40, "scheme": "CKKS"},
}
"""FLARE's builder of the sites' secret key and the server's public part; ``poc/project_he.yml`` holds it."""


def poc_project(
    sites: Sequence[str] = SITES,
    port: int = DEFAULT_PORT,
    allow: Sequence[str] = ALLOWED_CLASSES,
    builders: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What ``nvflare poc prepare -i`` reads; ``poc/project.yml`` holds it for three sites.

    The server listens on loopback alone.

    Args:
        sites: names of the hospitals' FLARE clients.
        port: of the server; the only one that listens.
        allow: classes that jobs may name beside FLARE's own; see ``SitePolicyBuilder``.
        builders: further builders, behind the one of this package and before the certificates.

    Raises:
        ValueError: if there is no site, or a name stands twice or is the server's.
    """
    if not sites or len({SERVER, *sites}) != len(sites) + 1:
        raise ValueError(f"sites must be different names, none of them {SERVER!r}, got {list(sites)}")
    policy: dict[str, Any] = {"path": "mhsev_flare.provision.SitePolicyBuilder", "args": {"loopback": True}}
    if tuple(allow) != ALLOWED_CLASSES:
        policy["args"]["allow"] = list(allow)
    lighter = "nvflare.lighter.impl"
    return {
        "api_version": 3,
        "name": PROJECT,
        "description": "A server and three hospitals on one machine",
        "participants": [
            {"name": SERVER, "type": "server", "org": "study", "default_host": "localhost", "fed_learn_port": port},
            {"name": ADMIN, "type": "admin", "org": "study", "role": "project_admin"},
            *({"name": site, "type": "client", "org": f"hospital_{n}"} for n, site in enumerate(sites, 1)),
        ],
        "builders": [
            {"path": f"{lighter}.workspace.WorkspaceBuilder", "args": {"template_file": ["master_template.yml"]}},
            {"path": f"{lighter}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
            policy,
            *map(dict, builders),
            {"path": f"{lighter}.cert.CertBuilder"},
            {"path": f"{lighter}.signature.SignatureBuilder"},
        ],
    }


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback."""
    with socket.socket() as probe:
        # As FLARE's server does: a port whose last connections still close is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
