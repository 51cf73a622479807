"""What the executor asks of FLARE's context: the policy under which a job runs at this site, and the site's folders."""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

from mhsev_flare.privacy_account import PrivacyAccount
from mhsev_flare.protocol import RUN_FOLDER
from mhsev_flare.site import SiteFolders, find_site_folders
from mhsev_flare.site_policy import SitePolicy
from mhsev_flare.site_policy_file import policy_in_force


def site_policy(fl_ctx: FLContext) -> SitePolicy:
    """The site's policy; raises ``SiteError`` where it cannot be read, or the job came by another privacy scope."""
    return policy_in_force(fl_ctx.get_prop(FLContextKey.SCOPE_PROPERTIES), _local_folder(fl_ctx))


def site_folders(site: str, fl_ctx: FLContext) -> SiteFolders:
    """The site's folders; raises ``SiteError`` where none is named or there."""
    return find_site_folders(site, fl_ctx.get_prop(FLContextKey.SCOPE_PROPERTIES), _local_folder(fl_ctx))


def privacy_account(site: str, fl_ctx: FLContext) -> PrivacyAccount:
    """What was spent on the site's cases; raises ``SiteError`` where its folders are none."""
    return PrivacyAccount.of_site(site, _local_folder(fl_ctx).parent, site_folders(site, fl_ctx).cache_root)


def run_folder(fl_ctx: FLContext) -> Path:
    """Where this job's files of the site lie."""
    workspace = fl_ctx.get_engine().get_workspace()
    return Path(workspace.get_run_dir(fl_ctx.get_job_id())) / RUN_FOLDER


def _local_folder(fl_ctx: FLContext) -> Path:
    return Path(fl_ctx.get_engine().get_workspace().get_site_config_dir())


def place_of(error: Exception) -> str:
    """Module and line where an exception arose: enough to find the fault, nothing of the data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" in {trace.tb_frame.f_globals.get('__name__', '?')} line {trace.tb_lineno}" if trace else ""
