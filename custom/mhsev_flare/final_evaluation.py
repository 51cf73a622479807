"""What is asked of the sites once training has ended: tables of the kept model, and of what sites make alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel

from mhsev_flare.gates import ExpectedUpdate, array_refusal, is_number
from mhsev_flare.protocol import TASK_PERSONALISE, TASK_SUBMIT_MODEL, TASK_VALIDATE, Meta
from mhsev_flare.result import compare_with_site_models, evaluation_entry, pool_tables
from mhsev_monai.metrics import SeverityTable


class AskSites(Protocol):
    """Sends a task to all sites of the study; answers sorted by site, at least one."""

    def __call__(self, task: str, params: Mapping[str, np.ndarray], **meta: Any) -> list[FLModel]:
        """Ask, and wait for the answers."""


def tables_of(answers: list[FLModel]) -> dict[str, SeverityTable]:
    """Evaluation table by site."""
    return {str(a.meta["client_name"]): SeverityTable.from_json(a.meta[Meta.TABLE]) for a in answers}


def is_usable(task: str, answer: FLModel, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether an answer is what the task asks for: a table and a loss, or a model of these shapes.

    One site's malformed answer must cost that site's part of the result, and not the study.
    """
    if task == TASK_SUBMIT_MODEL:
        return not array_refusal(answer.params or {}, ExpectedUpdate(shapes, ""))
    if not is_number((answer.metrics or {}).get("loss")):
        return False
    try:
        SeverityTable.from_json((answer.meta or {}).get(Meta.TABLE, {}))
    except (ValueError, TypeError, OverflowError):
        return False
    return True


@dataclass(frozen=True)
class FinalEvaluation:
    """Evaluations of the kept model.

    Attributes:
        ask: sends a task to the sites.
    """

    ask: AskSites

    def judge(
        self, weights: Mapping[str, np.ndarray], split: str
    ) -> tuple[dict[str, SeverityTable], list[tuple[float, int]]]:
        """Tables of ``weights`` by site, and (loss, number of cases) of each."""
        answers = self.ask(TASK_VALIDATE, weights, **{Meta.SPLIT: split})
        tables = tables_of(answers)
        return tables, [(a.metrics["loss"], tables[str(a.meta["client_name"])].n) for a in answers]

    def site_models(self, pooled: SeverityTable, initial: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The global model, of table ``pooled``, beside what each site trains alone from ``initial``."""
        own = {}
        for answer in self.ask(TASK_SUBMIT_MODEL, initial):
            tables, _ = self.judge(answer.params, "test")
            own[str(answer.meta["client_name"])] = pool_tables(tables)
        return compare_with_site_models(pooled, own)

    def personalised(self, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What each site's further training of ``weights`` scores on that site's own test cases."""
        tables = tables_of(self.ask(TASK_PERSONALISE, weights))
        return {site: evaluation_entry(tables[site]) for site in sorted(tables)}
