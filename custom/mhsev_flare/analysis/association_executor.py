"""The executor of the job ``associations``: sums of this site's table of participants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from mhsev_flare.analysis.association_design import Design
from mhsev_flare.analysis.association_site import AssociationSite, checked_question, read_association_site
from mhsev_flare.analysis.protocol import (
    ASSOCIATION_TASKS,
    REGRESSION,
    TASK_SLOPES,
    TASK_SUMS,
    TASK_TABLES,
    Entry,
)
from mhsev_flare.analysis.site_edge import SiteEdge, Told
from mhsev_flare.site_context import site_folders
from mhsev_flare.site_data import SiteError
from mhsev_flare.site_policy import SitePolicy
from mhsev_monai.severity import PAPER_SCALE

WITHHELD = "the policy of this site withholds its sums for the regression"


class AssociationExecutor(Executor):
    """Answers with tables and sums; no image is opened, and nothing is kept but a count of answers.

    Variables and grades come with each question, and must be the same in all questions of a job. A site with fewer than
    ten complete cases for each variable sends nothing; one with few cases of a grade or category sends tables alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._site = ""
        self._cases: AssociationSite | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Learn the site's name at the start of a run, and drop its data at the end."""
        if event_type == EventType.START_RUN:
            self._site = fl_ctx.get_identity_name()
        elif event_type == EventType.END_RUN:
            self._cases = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:  # noqa: ARG002
        """Do one task; what this site does not tell becomes a refusal."""
        if task_name not in ASSOCIATION_TASKS:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        question = from_shareable(shareable)
        try:
            design = Design.from_message(question.get_meta_prop(Entry.DESIGN))
        except SiteError as error:
            return SiteEdge(self, fl_ctx, "", PAPER_SCALE.name).refuse(task_name, error)
        edge = SiteEdge(self, fl_ctx, design.digest(), PAPER_SCALE.name)
        return edge.answer(
            task_name, lambda policy: self._tell(task_name, self._part(design, policy, fl_ctx), question.data, policy)
        )

    def _tell(self, task: str, part: AssociationSite, arrays: Any, policy: SitePolicy) -> Told:
        if task == TASK_TABLES:
            told = part.tables()
            # Said before the regression begins, which cannot go on without a site that has begun it.
            blocked = {Entry.SUMS, Entry.SLOPES} & set(policy.blocked)
            withheld = {**told.withheld, REGRESSION: WITHHELD} if blocked else told.withheld
            return Told(told.arrays, {Entry.WITHHELD: withheld, Entry.INCOMPLETE: told.incomplete})
        answers: dict[str, Callable[[Any, Any], Any]] = {TASK_SUMS: part.sums, TASK_SLOPES: part.slopes}
        return Told(answers[task](*checked_question(arrays)), {})

    def _part(self, design: Design, policy: SitePolicy, fl_ctx: FLContext) -> AssociationSite:
        if self._cases is None:
            folders = site_folders(self._site, fl_ctx)
            self._cases = read_association_site(self._site, folders.data_root, design, policy.least)
            self.log_info(fl_ctx, f"associations of {', '.join(design.columns)} with grades {', '.join(design.labels)}")
        return self._cases
