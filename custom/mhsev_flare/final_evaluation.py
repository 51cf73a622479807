"""What is asked of the sites once training has ended: sums over the kept model's answers, and over those of others.

One site's malformed answer, or one that lacks a part, must cost that part of that site, and not the study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel

from mhsev_flare.analysis.answer_bounds import MOST_CASES_OF_A_SITE
from mhsev_flare.answers import site_of
from mhsev_flare.protocol import (
    TASK_COMPARE,
    TASK_PERSONALISE,
    TASK_SUBMIT_MODEL,
    TASK_VALIDATE,
    Meta,
)
from mhsev_flare.subgroup_results import read_subgroups
from mhsev_monai.grade_calibration import CalibrationCases, GradeCalibration
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.pair_table import PairTable
from mhsev_monai.subgroups import fewer_than
from mhsev_monai.uncertainty import UncertaintySums

Part = TypeVar("Part")

NOT_TOLD, MALFORMED = "not told", "malformed"


class AskSites(Protocol):
    """Sends a task to all sites of the study; answers sorted by site, at least one."""

    def __call__(self, task: str, params: Mapping[str, np.ndarray], **meta: Any) -> list[FLModel]:
        """Ask, and wait for the answers."""


@dataclass(frozen=True)
class Told:
    """A part of the sites' answers.

    Attributes:
        parts: by site, of the sites that told it.
        without: by site why it told none, of the others that answered: ``<5`` for fewer cases than it tells of.
    """

    parts: Mapping[str, Any]
    without: Mapping[str, str]


@dataclass(frozen=True)
class TestAnswers:
    """What the sites told of their test cases.

    Attributes:
        tables: at the temperature.
        uncertainty: sums; of those that told them.
        subgroups: tables by dimension and label.
        least: each site's fewest cases; of those that told it.
    """

    __test__ = False  # pytest takes a class of this name for one of its own

    tables: Mapping[str, SeverityTable]
    uncertainty: Told
    subgroups: Told
    least: Mapping[str, int]


def tables_of(answers: Sequence[FLModel]) -> dict[str, SeverityTable]:
    """Evaluation table by site."""
    return {site_of(a): SeverityTable.from_json(a.meta[Meta.TABLE]) for a in answers}


def told_parts(answers: Sequence[FLModel], entry: str, read: Callable[[Any], Part]) -> Told:
    """One entry of each answer; one of more cases than the answer's table is malformed."""
    parts, without = {}, {}
    for answer in answers:
        part = _part(answer, entry, read)
        if part is not None and _n_cases(part) <= _most_cases(answer):
            parts[site_of(answer)] = part
        elif entry in answer.meta:
            without[site_of(answer)] = MALFORMED
        else:
            without[site_of(answer)] = _why_without(answer)
    return Told(parts, without)


def _part(answer: FLModel, entry: str, read: Callable[[Any], Part]) -> Part | None:
    try:
        return read(answer.meta[entry]) if entry in answer.meta else None
    except (ValueError, TypeError, OverflowError):
        return None


def _n_cases(part: Any) -> int:
    """Cases that a part says it is of; 0 where it is of none."""
    if not isinstance(part, Mapping):
        return int(getattr(part, "n", 0))
    tables = ([each for each in groups.values() if isinstance(each, SeverityTable)] for groups in part.values())
    return max((sum(table.n for table in each) for each in tables), default=0)


def _most_cases(answer: FLModel) -> int:
    table = _part(answer, Meta.TABLE, SeverityTable.from_json)
    return MOST_CASES_OF_A_SITE if table is None else table.n


def _why_without(answer: FLModel) -> str:
    """``<5`` where the site says that it has fewer cases; it may also have decided not to tell."""
    least, table = _part(answer, Meta.LEAST, whole_number), _part(answer, Meta.TABLE, SeverityTable.from_json)
    few = least is not None and (table is None or table.n < least)
    return fewer_than(least) if few and least is not None else NOT_TOLD


def whole_number(value: Any) -> int:
    """A number of cases, small enough to be a threshold; raises ``ValueError`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 10**6:
        raise ValueError("a threshold must be a whole number above 0")
    return value


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
        return tables, [(a.metrics["loss"], tables[site_of(a)].n) for a in answers]

    def calibration_cases(self, weights: Mapping[str, np.ndarray], temperature: float) -> Told:
        """Sums over the validation cases, with the bins of scores at ``temperature``."""
        asked: dict[str, Any] = {Meta.SPLIT: "validation", Meta.TEMPERATURE: temperature}
        return told_parts(self.ask(TASK_VALIDATE, weights, **asked), Meta.CALIBRATION_SUMS, CalibrationCases.from_json)

    def test(self, weights: Mapping[str, np.ndarray], calibration: GradeCalibration, **meta: Any) -> TestAnswers:
        """What the sites tell of their test cases, at the temperature; ``meta`` goes into the message."""
        asked: dict[str, Any] = {Meta.SPLIT: "test", Meta.CALIBRATION: calibration.to_json()}
        answers = self.ask(TASK_VALIDATE, weights, **asked, **meta)
        return TestAnswers(
            tables=tables_of(answers),
            uncertainty=told_parts(answers, Meta.UNCERTAINTY, partial(UncertaintySums.under, calibration)),
            subgroups=told_parts(answers, Meta.SUBGROUPS, read_subgroups),
            least=told_parts(answers, Meta.LEAST, whole_number).parts,
        )

    def site_models(self, initial: Mapping[str, np.ndarray]) -> dict[str, dict[str, SeverityTable]]:
        """Tables of the test cases by owner of the model, which each site trains alone from ``initial``, and site."""
        answers = self.ask(TASK_SUBMIT_MODEL, initial)
        return {site_of(answer): self.judge(answer.params, "test")[0] for answer in answers}

    def pairs(self, weights: Mapping[str, np.ndarray], tables: Mapping[str, SeverityTable]) -> Told:
        """Each site's test cases by ``weights`` and by the model that the site trained alone.

        Such an answer has no table of its own that limits it, so it must be of the very cases of the site's table.

        Args:
            weights: of the global model.
            tables: of the global model's test by site; whoever has none there, or one of other cases, is malformed.
        """
        told = told_parts(self.ask(TASK_COMPARE, weights), Meta.PAIRS, PairTable.from_json)
        fitting = {site: pairs for site, pairs in told.parts.items() if site in tables and pairs.n == tables[site].n}
        return Told(fitting, {**told.without, **dict.fromkeys(set(told.parts) - set(fitting), MALFORMED)})

    def personalised(self, weights: Mapping[str, np.ndarray]) -> dict[str, SeverityTable]:
        """Tables of what each site's further training of ``weights`` makes of that site's own test cases."""
        return tables_of(self.ask(TASK_PERSONALISE, weights))
