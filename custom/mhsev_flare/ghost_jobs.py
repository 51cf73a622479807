"""A component of FLARE's server that ends, in its books, the jobs which a crash of the server ended in fact."""

from __future__ import annotations

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import SystemComponents
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import RunStatus

UNFINISHED = [RunStatus.DISPATCHED, RunStatus.RUNNING]


class GhostJobs(FLComponent):
    """Calls jobs abnormally finished that a server finds running when it starts.

    A job's processes belong to the server that started it, and FLARE 2.9 does not restore them: after a crash such a
    job stays RUNNING for ever, cannot be aborted or deleted, and keeps ``nvflare poc stop`` from stopping. For
    ``components`` of the server's ``resources.json``.
    """

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Act before FLARE's job runner starts, so that no job of this server is among them."""
        if event_type != EventType.SYSTEM_BOOTSTRAP:
            return
        manager = fl_ctx.get_engine().get_component(SystemComponents.JOB_MANAGER)
        if manager is None:
            return
        for job in manager.get_jobs_by_status(UNFINISHED, fl_ctx):
            manager.set_status(job.job_id, RunStatus.FINISHED_ABNORMAL, fl_ctx)
            self.log_warning(fl_ctx, f"job {job.job_id} ended with the server that ran it; it can be sent with resume")
