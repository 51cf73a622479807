"""Metrics of severity grading, all computed from tables that a site may send, never from patients.

Every metric of a union of sites follows exactly from the sum of their tables. The one approximation is the AUC, from
class probabilities in bins: it is off by at most half the share of (positive, negative) pairs that fall into one bin.

What is not defined is ``None``, never 0: the sensitivity of a grade that no case has, kappa where truth and prediction
know a single grade, everything of an empty table. Accuracy means little without the mix of grades: give
``majority_table`` beside it, and look at balanced accuracy and quadratic kappa first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.severity import PAPER_SCALE, GradingScale, Severity
from mhsev_monai.severity_table import N_BINS, N_CLASSES, SeverityTable

__all__ = [
    "N_BINS",
    "N_CLASSES",
    "ClassMetrics",
    "SeverityMetrics",
    "SeverityTable",
    "majority_table",
    "severity_intervals",
    "severity_metrics",
]

_RANKS = np.arange(N_CLASSES)
_DISTANCE = np.abs(_RANKS[:, None] - _RANKS)


@dataclass(frozen=True)
class ClassMetrics:
    """One grade against the rest; each 0 to 1, or None where it is not defined.

    Attributes:
        severity: label of the grade.
        n: cases whose true grade it is.
        sensitivity: share of them graded so; None without such cases.
        specificity: share of the others not graded so; None without others.
        ppv: share of the cases graded so that are; None if none is graded so.
        f1: harmonic mean of sensitivity and ppv; None if no case is of this grade and none is graded so.
        auc: of this grade's probability, from binned scores; None without cases of it or without others.
    """

    severity: str
    n: int
    sensitivity: float | None
    specificity: float | None
    ppv: float | None
    f1: float | None
    auc: float | None


@dataclass(frozen=True)
class SeverityMetrics:
    """What a table of graded cases says; None where a metric is not defined.

    Attributes:
        n: number of cases.
        accuracy: share of cases with the right grade.
        balanced_accuracy: mean sensitivity over the grades that occur in the truth.
        macro_sensitivity: the same number, by the name that goes with ``macro_specificity``.
        macro_specificity: mean specificity over the grades that occur in the truth.
        macro_f1: mean F1 over the grades that occur in the truth; a grade that is only ever predicted lowers the F1 of
            the others, and has no term of its own.
        macro_auc: mean one-vs-rest AUC over the grades where it is defined.
        cohen_kappa: agreement beyond chance, unweighted (Cohen 1960), -1 to 1.
        quadratic_kappa: the same with squared distances between grades as weights (Cohen 1968), -1 to 1.
        off_by_two_rate: share of cases that are two grades off or more.
        count_mae: mean of |predicted - true number of microbleeds|.
        count_bias: mean of predicted - true number of microbleeds.
        brier: mean over cases of the squared error of the four probabilities, 0 to 2.
        rps: mean ranked probability score, 0 to 1.
        per_class: one entry a grade, in the order of ``Severity``.
    """

    n: int
    accuracy: float | None
    balanced_accuracy: float | None
    macro_sensitivity: float | None
    macro_specificity: float | None
    macro_f1: float | None
    macro_auc: float | None
    cohen_kappa: float | None
    quadratic_kappa: float | None
    off_by_two_rate: float | None
    count_mae: float | None
    count_bias: float | None
    brier: float | None
    rps: float | None
    per_class: tuple[ClassMetrics, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, None and lists; ``per_class`` as a list of mappings."""
        return {**asdict(self), "per_class": [asdict(entry) for entry in self.per_class]}


def severity_metrics(table: SeverityTable) -> SeverityMetrics:
    """All metrics of ``table``."""
    scores = {name: _defined(value) for name, value in confusion_scores(table.confusion).items()}
    rates = {name: _defined_list(value) for name, value in class_rates(table.confusion).items()}
    aucs = histogram_aucs(table.score_histograms)
    truth = table.confusion.sum(axis=1)
    return SeverityMetrics(
        n=table.n,
        **scores,
        macro_sensitivity=scores["balanced_accuracy"],
        macro_auc=_defined(_mean_where(aucs, np.isfinite(aucs))),
        count_mae=_per_case(table.count_absolute_error, table.n),
        count_bias=_per_case(table.count_error, table.n),
        brier=_per_case(table.brier_sum, table.n),
        rps=_per_case(table.rps_sum, table.n),
        per_class=tuple(
            ClassMetrics(
                severity=grade.label,
                n=int(truth[grade]),
                **{name: values[grade] for name, values in rates.items()},
                auc=_defined(aucs[grade]),
            )
            for grade in Severity
        ),
    )


def majority_table(table: SeverityTable, scale: GradingScale = PAPER_SCALE) -> SeverityTable:
    """The table of a rule that knows only how often each grade occurs in ``table``; the row to beat.

    It grades every case with the most frequent grade (the lower one of equals), gives the frequencies as probabilities,
    and the smallest count of that grade as the number of microbleeds. It knows the frequencies of the very cases that
    it grades, so no constant grade is right more often, and no constant probabilities have a lower Brier score.

    Args:
        table: of at least the truth that counts; its predictions are not used.
        scale: the one that graded the truth of ``table``.
    """
    if table.n == 0:
        return table
    truth = table.confusion.sum(axis=1)
    grade = int(truth.argmax())
    count = scale.lower_bounds[grade - 1] if grade else 0
    # On a scale, all counts of lower grades lie below `count`, and all others do not: no absolute value is needed.
    side = np.where(grade > _RANKS, 1, -1)
    excess = count * truth - table.true_count_sums
    share = truth / table.n
    n_bins = table.score_histograms.shape[-1]
    histograms = np.zeros_like(table.score_histograms)
    bins = np.minimum((share * n_bins).astype(np.int64), n_bins - 1)
    histograms[_RANKS, :, bins] = np.stack([table.n - truth, truth], axis=1)
    confusion = np.zeros_like(table.confusion)
    confusion[:, grade] = truth
    below = np.cumsum(share)[:-1]
    return SeverityTable(
        n=table.n,
        confusion=confusion,
        score_histograms=histograms,
        true_count_sums=table.true_count_sums,
        count_absolute_error=float((side * excess).sum()),
        count_error=float(excess.sum()),
        brier_sum=float(table.n * (1 - (share**2).sum())),
        rps_sum=float(table.n * (below * (1 - below)).sum() / (N_CLASSES - 1)),
    )


def severity_intervals(
    tables: Sequence[SeverityTable], seed: int, n_draws: int = 2000, level: float = 0.95
) -> dict[str, tuple[float, float] | None]:
    """Percentile bootstrap intervals of the metrics of the pooled ``tables``.

    Drawing cases with replacement is drawing from the multinomial of the confusion table, so no case is needed; cases
    are drawn within each table, since the sites of a study are fixed. Measured coverage of a nominal 0.95 on one
    simulated table, 400 samples: 0.91 to 0.94 at 30 and 60 cases, 0.94 to 0.95 at 150 (off_by_two_rate strays further).

    Args:
        tables: one a site.
        seed: equal seeds give equal intervals.
        n_draws: bootstrap samples, at least 100.
        level: coverage in (0, 1).

    Returns:
        (low, high) of each metric that follows from the confusion table alone. None where the metric is not defined, or
        where all draws agree: a table without errors says nothing of how rare they are.

    Raises:
        ValueError: if ``n_draws`` or ``level`` is outside its range.
    """
    if n_draws < 100 or not 0 < level < 1:
        raise ValueError(f"n_draws must be 100 or more and level in (0, 1), got {n_draws} and {level}")
    counts = [table.confusion for table in tables] or [SeverityTable.empty().confusion]
    draws = draw_counts(counts, np.random.default_rng(seed), n_draws)
    return {name: percentile_interval(values, level) for name, values in confusion_scores(draws).items()}


def draw_counts(tables: Sequence[NDArray[np.int64]], random: np.random.Generator, n_draws: int) -> NDArray[np.int64]:
    """``(n_draws, ...)`` sums of tables drawn anew, each from the multinomial of its own counts.

    Args:
        tables: counts of one shape, one table a site; at least one.
        random: of the draws.
        n_draws: how many.
    """
    draws = np.zeros((n_draws, tables[0].size), dtype=np.int64)
    for table in tables:
        if (n := int(table.sum())) > 0:
            draws += random.multinomial(n, table.ravel() / n, size=n_draws)
    return draws.reshape(n_draws, *tables[0].shape)


def percentile_interval(draws: NDArray[np.float64], level: float) -> tuple[float, float] | None:
    """The middle ``level`` of the draws; None where all agree, or over a tenth of them are NaN."""
    defined = draws[np.isfinite(draws)]
    # Where many draws leave the metric undefined, the rest no longer stands for it.
    if defined.size < 0.9 * draws.size:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high)) if high > low else None


def confusion_scores(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Scores of ``(..., 4, 4)`` tables, each ``(...)``, NaN where undefined."""
    n = confusion.sum(axis=(-2, -1))
    truth, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    rates = class_rates(confusion)
    present = truth > 0
    chance = truth[..., :, None] * predicted[..., None, :]

    def kappa(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return 1 - _ratio(n * (weights * confusion).sum(axis=(-2, -1)), (weights * chance).sum(axis=(-2, -1)))

    return {
        "accuracy": _ratio(np.trace(confusion, axis1=-2, axis2=-1), n),
        "balanced_accuracy": _mean_where(rates["sensitivity"], present),
        "macro_specificity": _mean_where(rates["specificity"], present & (truth < n[..., None])),
        "macro_f1": _mean_where(rates["f1"], present),
        "cohen_kappa": kappa((_DISTANCE > 0).astype(np.int64)),
        "quadratic_kappa": kappa(_DISTANCE**2),
        "off_by_two_rate": _ratio((confusion * (_DISTANCE >= 2)).sum(axis=(-2, -1)), n),
    }


def class_rates(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """One-vs-rest rates of ``(..., 4, 4)`` tables, each ``(..., 4)``, NaN where undefined."""
    n = confusion.sum(axis=(-2, -1))[..., None]
    truth, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return {
        "sensitivity": _ratio(hits, truth),
        "specificity": _ratio(n - truth - predicted + hits, n - truth),
        "ppv": _ratio(hits, predicted),
        "f1": _ratio(2 * hits, truth + predicted),
    }


def histogram_aucs(histograms: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(...)`` P(score of a positive > of a negative) + P(equal) / 2, NaN where one of them is missing.

    Args:
        histograms: ``(..., 2, n_bins)`` negative and positive cases by score.
    """
    negatives, positives = histograms[..., 0, :], histograms[..., 1, :]
    lower = np.cumsum(negatives, axis=-1) - negatives
    # Twice the wins, to count a tie as one half in whole numbers.
    wins = (positives * (2 * lower + negatives)).sum(axis=-1)
    return _ratio(wins, 2 * positives.sum(axis=-1) * negatives.sum(axis=-1))


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    """The quotient, NaN where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=np.asarray(denominator) != 0)


def _mean_where(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the last axis of the chosen values, NaN where none is."""
    return _ratio(np.where(chosen, values, 0.0).sum(axis=-1), chosen.sum(axis=-1))


def _defined(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _defined_list(values: NDArray[np.float64]) -> list[float | None]:
    return [_defined(value) for value in values]


def _per_case(total: float, n: int) -> float | None:
    return total / n if n else None
