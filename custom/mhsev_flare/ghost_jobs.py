"""A component of FLARE's server that ends, in its books, the jobs which a crash of the server ended in fact."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, SystemComponents
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import RunStatus

LOCK_FILE = "mhsev_server.lock"
"""In the server's workspace; whoever holds it is the one server of that workspace."""

UNFINISHED = [RunStatus.DISPATCHED, RunStatus.RUNNING]


class GhostJobs(FLComponent):
    """Calls jobs abnormally finished that a server finds running when it starts.

    A job's processes belong to the server that started it, and FLARE 2.9 does not restore them: after a crash such a
    job stays RUNNING for ever, cannot be aborted or deleted, and keeps ``nvflare poc stop`` from stopping. For
    ``components`` of the server's ``resources.json``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock: IO[str] | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Act before FLARE's job runner starts, so that no job of this server is among them."""
        if event_type != EventType.SYSTEM_BOOTSTRAP:
            return
        if not self._is_the_one_server(fl_ctx):
            self.log_error(fl_ctx, "another server runs in this workspace; its jobs are left as they are")
            return
        manager = fl_ctx.get_engine().get_component(SystemComponents.JOB_MANAGER)
        if manager is None:
            return
        for job in manager.get_jobs_by_status(UNFINISHED, fl_ctx):
            manager.set_status(job.job_id, RunStatus.FINISHED_ABNORMAL, fl_ctx)
            self.log_warning(fl_ctx, f"job {job.job_id} ended with the server that ran it; it can be sent with resume")

    def _is_the_one_server(self, fl_ctx: FLContext) -> bool:
        """Hold the lock as long as this process lives; the system frees it also after a crash."""
        workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        self._lock = (Path(workspace.get_root_dir()) / LOCK_FILE).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
