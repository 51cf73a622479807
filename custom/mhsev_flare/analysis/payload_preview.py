"""What would leave this site in an analysis, entry by entry, from its own data, before it joins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from mhsev_flare.analysis.association_design import Design
from mhsev_flare.analysis.jobs import AnalysisSpec, AssociationSpec, ExplanationSpec, analysis_executor
from mhsev_flare.analysis.player_sizes import SizeMoments
from mhsev_flare.analysis.protocol import (
    TASK_ATTRIBUTE,
    TASK_MEASURE,
    TASK_SLOPES,
    TASK_SUMS,
    TASK_TABLES,
    Entry,
)
from mhsev_flare.payload_preview import LeavingMessage, leaving, preview
from mhsev_flare.protocol import Meta
from mhsev_monai.proportional_odds_fit import NewtonFit
from mhsev_monai.proportional_odds_result import Layout
from mhsev_monai.shapley_background import common_background

Ask = Callable[..., Shareable]


def preview_analysis(
    spec: AnalysisSpec, site: str, local: Path, scope_properties: Mapping[str, Any], filters: Sequence[Filter] = ()
) -> list[LeavingMessage]:
    """What the site would answer to each task of an analysis; see ``payload_preview.preview_payload``.

    Without a trained model the attributions are those of an untrained one, of the same form and size.
    """
    messages = _association if isinstance(spec, AssociationSpec) else _explanation
    return preview(partial(_messages, spec, messages), site, local, scope_properties, filters)


def _messages(
    spec: AnalysisSpec, questions: Any, fl_ctx: FLContext, filters: Sequence[Filter]
) -> Iterator[LeavingMessage]:
    executor = analysis_executor(spec)
    executor.handle_event(EventType.START_RUN, fl_ctx)

    def answer(task: str, data: Mapping[str, Any], **meta: Any) -> Shareable:
        request = DXO(DataKind.WEIGHTS, data=dict(data), meta=meta).to_shareable()
        fl_ctx.set_prop(FLContextKey.TASK_NAME, task, private=True, sticky=False)
        return executor.execute(task, request, fl_ctx, Signal())

    for task, reply in questions(spec, answer):
        yield leaving(task, reply, filters, fl_ctx)


def _association(spec: AssociationSpec, answer: Ask) -> Iterator[tuple[str, Shareable]]:
    design = Design(tuple(spec.columns), tuple(spec.cuts))
    beside = {Entry.DESIGN: design.to_message()}
    reply = answer(TASK_TABLES, {"cuts": np.array(design.cuts)}, **beside)
    yield TASK_TABLES, reply
    if _refused(reply):
        return
    names = tuple(covariate.label for covariate in design.covariates)
    layout = Layout(len(design.labels), names, names, ())
    thresholds, coefficients = layout.split(NewtonFit(layout).proposal, "")
    at = {"thresholds": thresholds, "coefficients": coefficients}
    for task in (TASK_SUMS, TASK_SLOPES):
        reply = answer(task, at, **beside)
        yield task, reply
        if _refused(reply):
            return


def _explanation(spec: ExplanationSpec, answer: Ask) -> Iterator[tuple[str, Shareable]]:
    weights = {key: value.numpy().copy() for key, value in spec.network.state_dict().items()}
    reply = answer(TASK_MEASURE, weights, **{Entry.COVARIANCES: spec.plan.covariances})
    yield TASK_MEASURE, reply
    if _refused(reply):
        return
    told = from_shareable(reply).get_meta_prop(Entry.SIZES)
    edges = SizeMoments.from_arrays(told, len(told["n"])).edges()
    background = common_background(spec.network, spec.plan.n_background, spec.plan.background_seed).numpy()
    yield TASK_ATTRIBUTE, answer(TASK_ATTRIBUTE, weights, **{Entry.BACKGROUND: background, Entry.EDGES: edges})


def _refused(reply: Shareable) -> bool:
    return reply.get_return_code() != ReturnCode.OK or bool(from_shareable(reply).get_meta_prop(Meta.REFUSAL))
