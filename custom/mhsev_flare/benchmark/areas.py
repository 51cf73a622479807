"""Areas under the ROC curves of two rows on the same cases, by DeLong's paired test of their raw probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhsev_flare.benchmark.comparison import CohortReport, Contest, regime_contests, row_contests, same_cases
from mhsev_flare.benchmark.graded import GradedCases, Setting, given_bleed
from mhsev_monai.agreement_tests import AucComparison, delong
from mhsev_monai.severity import Severity
from mhsev_monai.statistics import holm

LEAST_CASES = 10
"""Of a grade and of the others, for a test. The test is one of many cases: with two or three of a grade, p-values far
below 0.05 come several times too often where both scores know equally much, and Holm's method looks at just those."""


class AreaDifference(NamedTuple):
    """The area of one grade against the rest, one grader less another, in the first repeat.

    Attributes:
        name: of what is compared.
        grade: its label.
        found: both areas, their difference and the test.
        adjusted: its p-value by Holm over all grades and comparisons of one table.
    """

    name: str
    grade: str
    found: AucComparison
    adjusted: float = math.nan


def row_areas(report: CohortReport, setting: Setting) -> list[AreaDifference]:
    """The reference row less each other row that gives probabilities."""
    return _adjusted([found for contest in row_contests(report) for found in _areas(contest, setting)])


def regime_areas(report: CohortReport, setting: Setting) -> list[AreaDifference]:
    """Federated less central; several local models are no one score."""
    return _adjusted([found for contest in regime_contests(report) for found in _areas(contest, setting)])


def _areas(contest: Contest, setting: Setting) -> list[AreaDifference]:
    """One entry a grade with enough cases of it and of others; none where a side is several models or a rule."""
    first, second = contest.pairs[0]
    if not contest.have_probabilities or len(first) > 1 or len(second) > 1:
        return []
    sides = [next(iter(models.values())) for models in (first, second)]
    same_cases(sides, contest.name)
    judged = sides[0].judged(setting)
    truth = sides[0].true_grades[judged]
    scores = [_probabilities(side, setting) for side in sides]
    found = []
    for grade in Severity:
        of_grade = truth == grade
        if min(of_grade.sum(), (~of_grade).sum()) >= LEAST_CASES:
            test = delong(of_grade, scores[0][:, grade], scores[1][:, grade])
            found.append(AreaDifference(contest.name, grade.label, test))
    return found


def _probabilities(graded: GradedCases, setting: Setting) -> np.ndarray:
    known = graded.grading.probabilities[graded.judged(setting)]
    return given_bleed(known) if setting is Setting.BLEEDING else known


def _adjusted(entries: Sequence[AreaDifference]) -> list[AreaDifference]:
    adjusted = holm([entry.found.p_value for entry in entries])
    return [entry._replace(adjusted=float(p)) for entry, p in zip(entries, adjusted, strict=True)]
