"""A site's policy as a step of FLARE's provisioning: what of this package a site allows, and what leaves its logs.

Named in a ``project.yml`` behind FLARE's static file builder and before its certificate builder::

    - path: mhsev_flare.provision.SitePolicyBuilder
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvflare.lighter.spec import Builder

from mhsev_flare.simulator import PACKAGE_PREFIXES

SERVER, CLIENT = "server", "client"


class SitePolicyBuilder(Builder):
    """Lets the jobs of this package run where no job may bring code, and keeps the sites' logs at the sites.

    FLARE 2.9 checks every class that a job names against a list of the site, which holds none of another package; it
    streams a site's error log to the server unless told otherwise; and its server takes ten minutes to notice that a
    hospital is gone.

    Args:
        allow: prefixes of classes that jobs may name beside FLARE's own.
        allow_code: whether a job may bring code to a site.
        heart_beat_timeout: seconds without a sign after which the server takes a site for gone.
        storage: absolute folder for the server's jobs and snapshots; empty: FLARE's, below ``/tmp/nvflare``.
    """

    def __init__(
        self,
        allow: Sequence[str] = PACKAGE_PREFIXES,
        allow_code: bool = False,
        heart_beat_timeout: int = 60,
        storage: str = "",
    ) -> None:
        super().__init__()
        self.allow = tuple(allow)
        self.allow_code = allow_code
        self.heart_beat_timeout = heart_beat_timeout
        self.storage = storage

    def build(self, project: Any, ctx: Any) -> None:
        """Change the files that FLARE's own builders wrote into each kit."""
        for participant in project.get_all_participants():
            if participant.type not in (SERVER, CLIENT):
                continue
            local = Path(ctx.get_local_dir(participant))
            resources = local / "resources.json.default"
            stored = json.loads(resources.read_text())
            stored["class_allow_list"] += [prefix for prefix in self.allow if prefix not in stored["class_allow_list"]]
            if participant.type == SERVER:
                self._set_server(stored)
            else:
                stored["allow_log_streaming"] = False
                stored["components"] = [c for c in stored["components"] if c["id"] != "site_log_streamer"]
                self._write_authorization(local)
            resources.write_text(json.dumps(stored, indent=2) + "\n")

    def _set_server(self, resources: dict[str, Any]) -> None:
        for server in resources["servers"]:
            server["heart_beat_timeout"] = self.heart_beat_timeout
        if not self.storage:
            return
        root = Path(self.storage)
        resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(root / "snapshot-storage")
        for component in resources["components"]:
            if component["id"] == "job_manager":
                component["args"]["uri_root"] = str(root / "jobs-storage")

    def _write_authorization(self, local: Path) -> None:
        """Deny code of jobs to every role."""
        if self.allow_code:
            return
        stored = json.loads((local / "authorization.json.default").read_text())
        for role, rights in stored["permissions"].items():
            # A role may be one word for all rights; it is spelled out to take this one from it.
            if not isinstance(rights, dict):
                stored["permissions"][role] = {**dict.fromkeys(RIGHTS, rights), "byoc": "none"}
            else:
                rights["byoc"] = "none"
        (local / "authorization.json").write_text(json.dumps(stored, indent=2) + "\n")


RIGHTS = ("submit_job", "clone_job", "manage_job", "download_job", "view", "operate", "shell_commands", "byoc")
"""FLARE's rights, as its default authorization names them."""
