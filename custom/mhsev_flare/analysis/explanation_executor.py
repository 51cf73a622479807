"""The executor of the job ``explain``: sums of what a trained network's answers on this site's cases are made of."""

from __future__ import annotations

from typing import Any

import torch
from nvflare.apis.dxo import DXO, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from torch import nn

from mhsev_flare.analysis.explanation_plan import ExplanationPlan
from mhsev_flare.analysis.explanation_site import (
    ExplanationSite,
    chosen_cases,
    load_weights,
    question_arrays,
)
from mhsev_flare.analysis.protocol import EXPLANATION_TASKS, TASK_MEASURE, Entry
from mhsev_flare.analysis.site_edge import SiteEdge, Told
from mhsev_flare.site import load_site_data
from mhsev_flare.site_context import site_folders
from mhsev_flare.site_data import SiteData, SiteError
from mhsev_flare.site_policy import SitePolicy
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.severity import SCALES
from mhsev_monai.shapley_explain import Effort
from mhsev_monai.shapley_tables import LEAST_CASES


class ExplanationExecutor(Executor):
    """Attributes the answers of the network whose weights come, and sends sums over cases.

    Args:
        network: equal to the trained one; its weights are replaced by those that arrive.
        inputs: turns a case into the network's input.
        scale: name of the grading scale, a key of ``mhsev_monai.severity.SCALES``.
        seed: of the splits, that of the training run.
        plan: which cases, and how carefully.

    Raises:
        ValueError: if there is no such scale.
    """

    def __init__(self, network: nn.Module, inputs: CaseInputs, scale: str, seed: int, plan: ExplanationPlan) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale}")
        self.network = network
        self.inputs = inputs
        self.scale = scale
        self.seed = seed
        self.plan = plan
        self._site = ""
        self._data: SiteData | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Learn the site's name at the start of a run, and drop its data at the end."""
        if event_type == EventType.START_RUN:
            self._site = fl_ctx.get_identity_name()
            # Sites share the machine in the simulator; values do not depend on the number of threads.
            torch.set_num_threads(1)
        elif event_type == EventType.END_RUN:
            self._data = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:  # noqa: ARG002
        """Do one task; what this site does not tell becomes a refusal."""
        if task_name not in EXPLANATION_TASKS:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        edge = SiteEdge(self, fl_ctx, self.inputs.fingerprint(), self.scale, self.plan.of_training)
        return edge.answer(task_name, lambda policy: self._tell(task_name, from_shareable(shareable), policy, fl_ctx))

    def _tell(self, task: str, question: DXO, policy: SitePolicy, fl_ctx: FLContext) -> Told:
        load_weights(self.network, question.data)
        least = max(policy.least, LEAST_CASES)
        features = chosen_cases(self._site_data(fl_ctx), self.plan.split)
        part = ExplanationSite(self.network, tuple(self.inputs.feature_names), features, least)
        if task != TASK_MEASURE:
            background, edges = question_arrays(question.meta)
            return Told(part.attributed(background, edges, Effort(n_passes=self.plan.n_passes)), {})
        beside = self._second_moments(part, policy) if question.get_meta_prop(Entry.COVARIANCES) is True else {}
        return Told(part.measured(), beside)

    def _second_moments(self, part: ExplanationSite, policy: SitePolicy) -> dict[str, Any]:
        """Second moments, or why they are not told; the explanation goes on without."""
        try:
            if Entry.SECOND_MOMENTS in policy.blocked:
                raise SiteError("the policy of this site withholds second moments")
            return {Entry.SECOND_MOMENTS: part.second_moments()}
        except SiteError as error:
            return {Entry.WITHHELD: {Entry.SECOND_MOMENTS: str(error)}}

    def _site_data(self, fl_ctx: FLContext) -> SiteData:
        if self._data is None:
            folders = site_folders(self._site, fl_ctx)
            self._data = load_site_data(self._site, folders, self.inputs, self.seed, SCALES[self.scale])
        return self._data
