"""Graded cases in the two settings of the benchmark, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.metrics import N_CLASSES, SeverityTable, severity_metrics
from mhsev_monai.networks import SeverityPrediction
from mhsev_monai.severity import GradingScale, Severity
from mhsev_monai.training import LabelledFeatures

WORST_SITE = "worst_site_balanced_accuracy"
"""Balanced accuracy at the site where it is lowest."""
_OF_TABLE = (
    "accuracy",
    "balanced_accuracy",
    "macro_specificity",
    "macro_f1",
    "quadratic_kappa",
    "cohen_kappa",
    "macro_auc",
    "count_mae",
)
SCORES = (*_OF_TABLE, WORST_SITE)
"""What the benchmark reports: names in ``SeverityMetrics``, and the worst site. Balanced accuracy is the mean
sensitivity over the grades, so there is no other entry of that."""


class Setting(StrEnum):
    """Which cases are judged, and what is known of them beforehand."""

    ALL = "all four grades"
    BLEEDING = "the paper's setting"
    """Cases with at least one bleed, which is known: none is no answer."""


@dataclass(frozen=True)
class Grading:
    """What a grader says of ``n`` cases.

    Attributes:
        grades: ``(n,)`` int64, values of ``Severity``.
        grades_given_bleed: ``(n,)`` int64, MILD or graver: the grade once it is known that there is a bleed.
        probabilities: ``(n, 4)`` float64; rows sum to 1. A rule gives all to its grade.
        counts: ``(n,)`` float64 microbleeds.
    """

    grades: NDArray[np.int64]
    grades_given_bleed: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    counts: NDArray[np.float64]

    @staticmethod
    def of_network(prediction: SeverityPrediction) -> Grading:
        """With a bleed, the median of the grades' probabilities less that of none, brought to a sum of 1."""
        probabilities = prediction.probabilities.double().numpy()
        above = np.cumsum(given_bleed(probabilities)[:, ::-1], axis=1)[:, ::-1]
        return Grading(
            grades=prediction.grades.numpy().astype(np.int64),
            grades_given_bleed=1 + (above[:, Severity.MODERATE :] > 0.5).sum(axis=1),
            probabilities=probabilities,
            counts=prediction.counts.double().numpy(),
        )


def given_bleed(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(n, 4)`` probabilities without none, each row brought to a sum of 1; all to mild where only none had any."""
    kept = np.array(probabilities, dtype=np.float64)
    kept[:, Severity.NONE] = 0.0
    total = kept.sum(axis=1, keepdims=True)
    mild = np.eye(N_CLASSES)[[Severity.MILD]]
    return np.where(total > 0, kept / np.where(total > 0, total, 1.0), mild)


@dataclass(frozen=True)
class GradedCases:
    """Cases with their truth and what one grader says of them; does not leave the benchmark's process.

    Attributes:
        sites: ``(n,)`` name of the site of each case.
        true_counts: ``(n,)`` microbleeds.
        true_grades: ``(n,)`` int64.
        grading: of the same cases.
    """

    sites: NDArray[np.str_]
    true_counts: NDArray[np.float64]
    true_grades: NDArray[np.int64]
    grading: Grading

    @staticmethod
    def of(site: str, data: LabelledFeatures, grading: Grading, scale: GradingScale) -> GradedCases:
        """The cases of one site."""
        grades = data.grades(scale).numpy().astype(np.int64)
        return GradedCases(np.full(len(data), site), data.counts.double().numpy(), grades, grading)

    @staticmethod
    def join(parts: Sequence[GradedCases]) -> GradedCases:
        """The cases of several sites, in the order given."""

        def joined(name: str) -> NDArray[np.float64]:
            return np.concatenate([getattr(part.grading, name) for part in parts])

        return GradedCases(
            sites=np.concatenate([part.sites for part in parts]),
            true_counts=np.concatenate([part.true_counts for part in parts]),
            true_grades=np.concatenate([part.true_grades for part in parts]),
            grading=Grading(
                grades=joined("grades").astype(np.int64),
                grades_given_bleed=joined("grades_given_bleed").astype(np.int64),
                probabilities=joined("probabilities"),
                counts=joined("counts"),
            ),
        )

    def judged(self, setting: Setting) -> NDArray[np.bool_]:
        """``(n,)`` which cases count in ``setting``."""
        everyone = np.ones(len(self.true_grades), dtype=np.bool_)
        return everyone if setting is Setting.ALL else self.true_grades > Severity.NONE

    def grades_in(self, setting: Setting) -> NDArray[np.int64]:
        """Predicted grades of the cases that count in ``setting``."""
        grades = self.grading.grades if setting is Setting.ALL else self.grading.grades_given_bleed
        return grades[self.judged(setting)]

    def table(self, setting: Setting) -> SeverityTable:
        """The evaluation table in ``setting``; with a bleed known, a count is at least 1."""
        return self._table(setting, self.judged(setting))

    def scores(self, setting: Setting) -> dict[str, float]:
        """The reported scores by name, NaN where one is not defined."""
        per_site = [self._table(setting, self.judged(setting) & (self.sites == site)) for site in np.unique(self.sites)]
        balanced = [scores(table)["balanced_accuracy"] for table in per_site if table.n]
        return {**scores(self.table(setting)), WORST_SITE: min(balanced, default=float("nan"))}

    def _table(self, setting: Setting, judged: NDArray[np.bool_]) -> SeverityTable:
        grades = self.grading.grades if setting is Setting.ALL else self.grading.grades_given_bleed
        probabilities, counts = self.grading.probabilities[judged], self.grading.counts[judged]
        if setting is Setting.BLEEDING:
            probabilities, counts = given_bleed(probabilities), np.maximum(counts, 1.0)
        return SeverityTable.from_predictions(
            probabilities=probabilities,
            predicted_counts=counts,
            true_counts=self.true_counts[judged],
            true_grades=self.true_grades[judged],
            predicted_grades=grades[judged],
        )


def scores(table: SeverityTable) -> dict[str, float]:
    """The reported scores of ``table`` by name, but for the worst site's; NaN where one is not defined."""
    metrics = severity_metrics(table)
    values = {name: getattr(metrics, name) for name in _OF_TABLE}
    return {name: float("nan") if value is None else float(value) for name, value in values.items()}
