"""A site's policy as a step of FLARE's provisioning: what of this package a site allows, and what leaves its logs.

Named in a ``project.yml`` behind FLARE's static file builder and before its certificate builder::

    - path: mhsev_flare.provision.SitePolicyBuilder
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvflare.lighter.constants import CtxKey
from nvflare.lighter.spec import Builder

from mhsev_flare.allowed_classes import ALLOWED_CLASSES, LEAKING_CLASSES
from mhsev_flare.kit_digest import write_digest
from mhsev_flare.kit_scripts import PYTHON_FILE, START_SCRIPTS, with_site_environment

SERVER, CLIENT = "server", "client"
STORAGE = "storage"
AUTHORIZATION = "authorization.json.default"

WORKING_FOLDER = Path("/proc/self/cwd")
"""FLARE takes absolute folders alone, and a kit does not know where it will lie. Its processes work in the kit's own
folder, which Linux calls so."""


class SitePolicyBuilder(Builder):
    """Lets the jobs of this package run where no job may bring code, and keeps the sites' logs at the sites.

    FLARE 2.9 checks every class that a job names against a list of the site, which holds none of another package; it
    streams a site's error log to the server unless told otherwise; its server takes ten minutes to notice that a
    hospital is gone, and keeps jobs and models below ``/tmp``; its start scripts take any ``python3``; and it does not
    notice when a kit was changed. Every kit gets a digest of its files (:mod:`mhsev_flare.kit_digest`), at which its
    start script looks.

    Args:
        allow: classes that jobs may name beside FLARE's own; a name that ends with a dot allows all that begins so,
            functions too.
        allow_code: whether a job may bring code to a site or to the server.
        heart_beat_timeout: seconds without a sign after which the server takes a site for gone.
        storage: folder for the server's jobs and snapshots: below the server's kit, or absolute.
        python: the Python that runs the kits, written into each one's ``local/python``; empty: a site says it there, or
            in ``MHSEV_PYTHON``, or leaves it to PATH.
        loopback: the server listens on 127.0.0.1 alone, for federations on one machine.
    """

    def __init__(
        self,
        allow: Sequence[str] = ALLOWED_CLASSES,
        allow_code: bool = False,
        heart_beat_timeout: int = 60,
        storage: str = STORAGE,
        python: str = "",
        loopback: bool = False,
    ) -> None:
        super().__init__()
        self.allow = tuple(allow)
        self.allow_code = allow_code
        self.heart_beat_timeout = heart_beat_timeout
        self.storage = storage
        self.python = python
        self.loopback = loopback

    def build(self, project: Any, ctx: Any) -> None:
        """Change the files that FLARE's own builders wrote into each kit."""
        for participant in project.get_all_participants():
            local, startup = Path(ctx.get_local_dir(participant)), Path(ctx.get_kit_dir(participant))
            self._set_scripts(startup, local)
            if participant.type in (SERVER, CLIENT):
                self._set_resources(local / "resources.json.default", participant.type)
                self._write_authorization(local)
            if participant.type == SERVER and self.loopback:
                listen_on_loopback(startup / "fed_server.json")

    def finalize(self, project: Any, ctx: Any) -> None:
        """Write the digest of each kit, whose certificates are there by now."""
        for participant in project.get_all_participants():
            for context in Path(ctx.get_kit_dir(participant)).glob("*.tenseal"):
                context.chmod(0o600)  # FLARE leaves the sites' secret key readable for everybody
            write_digest(Path(ctx.get_ws_dir(participant)), ctx.get(CtxKey.ROOT_PRI_KEY))

    def _set_scripts(self, startup: Path, local: Path) -> None:
        for script in (startup / name for name in START_SCRIPTS):
            if script.is_file():
                script.write_text(with_site_environment(script.read_text()))
        if self.python:
            (local / PYTHON_FILE).write_text(self.python + "\n")

    def _set_resources(self, path: Path, participant_type: str) -> None:
        stored = json.loads(path.read_text())
        stored["class_allow_list"] += [path for path in self.allow if path not in stored["class_allow_list"]]
        if participant_type == SERVER:
            self._set_server(stored)
        else:
            stored["class_allow_list"] = [p for p in stored["class_allow_list"] if p not in LEAKING_CLASSES]
            stored["allow_log_streaming"] = False
            stored["components"] = [c for c in stored["components"] if c["id"] != "site_log_streamer"]
        path.write_text(json.dumps(stored, indent=2) + "\n")

    def _set_server(self, resources: dict[str, Any]) -> None:
        for server in resources["servers"]:
            server["heart_beat_timeout"] = self.heart_beat_timeout
        resources["components"].append({"id": "ghost_jobs", "path": "mhsev_flare.ghost_jobs.GhostJobs", "args": {}})
        root = WORKING_FOLDER / self.storage
        resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(root / "snapshot-storage")
        for component in resources["components"]:
            if component["id"] == "job_manager":
                component["args"]["uri_root"] = str(root / "jobs-storage")

    def _write_authorization(self, local: Path) -> None:
        """Deny code of jobs to every role.

        In FLARE's own ``.default`` file, so that ``local/authorization.json`` is the site's to write.
        """
        if self.allow_code:
            return
        path = local / AUTHORIZATION
        stored = json.loads(path.read_text())
        for role, rights in stored["permissions"].items():
            # A role may be one word for all rights; it is spelled out to take this one from it.
            if not isinstance(rights, dict):
                stored["permissions"][role] = {**dict.fromkeys(RIGHTS, rights), "byoc": "none"}
            else:
                rights["byoc"] = "none"
        path.write_text(json.dumps(stored, indent=2) + "\n")


def listen_on_loopback(server_config: Path) -> None:
    """Let a server listen on 127.0.0.1: FLARE 2.9 does where the host of its own address is ``localhost``."""
    stored = json.loads(server_config.read_text())
    for server in stored["servers"]:
        port = server["service"]["target"].rpartition(":")[2]
        server["service"]["target"] = f"localhost:{port}"
    server_config.write_text(json.dumps(stored, indent=2) + "\n")


RIGHTS = ("submit_job", "clone_job", "manage_job", "download_job", "view", "operate", "shell_commands", "byoc")
"""FLARE's rights, as its default authorization names them."""
