"""A server's questions answered by executors in this process, through a site's own filters and FLARE's messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

from mhsev_flare.answers import usable_answers
from mhsev_flare.executor import SeverityExecutor

Sites = Mapping[str, tuple[SeverityExecutor, FLContext]]


def ask_sites(
    sites: Sites, filters: Mapping[str, Sequence[Filter]], num_rounds: int = 2, result: dict[str, Any] | None = None
):
    """What ``FinalPhase`` takes to ask with: usable answers sorted by site, each behind that site's filters.

    ``result`` is the study's: it may hold what sites told in the handshake, and receives who is absent and why.
    """
    known = {} if result is None else result

    def ask(task: str, params: Mapping[str, np.ndarray], **meta: Any) -> list[FLModel]:
        answers = []
        for site, (made, fl_ctx) in sorted(sites.items()):
            message = DXO(DataKind.WEIGHTS, data=dict(params), meta=dict(meta)).to_shareable()
            message.set_header(AppConstants.NUM_ROUNDS, num_rounds)
            message.set_header(AppConstants.CURRENT_ROUND, 0)
            fl_ctx.set_prop(FLContextKey.TASK_NAME, task, private=True, sticky=False)
            reply = made.execute(task, message, fl_ctx, Signal())
            if reply.get_return_code() != ReturnCode.OK:
                continue
            for step in filters.get(site, ()):
                reply = step.process(reply, fl_ctx)
            answer = FLModelUtils.from_shareable(reply)
            answer.meta["client_name"] = site
            answers.append(answer)
        shapes = {key: np.shape(value) for key, value in params.items()}
        return usable_answers(answers, sorted(sites), task, meta, shapes, known, print, "ask again")

    return ask
