"""Tests of whether graders, or areas under the curve, differ: from a site's own scores, or from tables that add up.

``delong`` needs the scores of single cases and so is for one site. The tests of a square table need its counts alone:
the table of two graders on the same cases, summed over sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mhsev_monai.checked_arrays import whole_numbers
from mhsev_monai.metrics import severity_metrics
from mhsev_monai.severity_table import SeverityTable


class AucComparison(NamedTuple):
    """Two areas under the ROC curve of the same cases.

    Attributes:
        first: area of the first score.
        second: area of the second.
        difference: first - second.
        standard_error: of the difference.
        z: difference / standard_error; 0 where the two rank all cases alike.
        p_value: two-sided, of equal areas.
    """

    first: float
    second: float
    difference: float
    standard_error: float
    z: float
    p_value: float


class SquareTest(NamedTuple):
    """A chi-square test of a square table."""

    statistic: float
    degrees_of_freedom: int
    p_value: float


class NaiveAnova(NamedTuple):
    """One-way ANOVA of scores over repeated splits, which does not hold its level: see ``warning``."""

    statistic: float
    degrees_of_freedom: tuple[int, int]
    p_value: float
    warning: str


class WorstSite(NamedTuple):
    """The site with the lowest value of a metric, among those where it is defined."""

    site: str
    value: float
    n: int


NAIVE_ANOVA_WARNING = (
    "scores over repeated splits share cases, which ANOVA takes for independent: with two equally good models it "
    "called one better in 35 % of 600 simulations of 10 splits, where 5 % were meant; "
    "use the corrected resampled t-test"
)

_MORE_IS_BETTER = (
    "accuracy",
    "balanced_accuracy",
    "macro_specificity",
    "macro_f1",
    "macro_auc",
    "cohen_kappa",
    "quadratic_kappa",
)


def delong(positive: ArrayLike, first: ArrayLike, second: ArrayLike) -> AucComparison:
    """Compare the areas under the ROC curves of two scores of the same cases (DeLong et al. 1988, Biometrics 44:837).

    Args:
        positive: ``(n,)`` booleans; at least two cases of either kind.
        first: ``(n,)`` finite scores, higher for positive cases.
        second: the same of the other.

    Raises:
        ValueError: if shapes differ, a score is not finite, or a kind has fewer than two cases.
    """
    truth = np.asarray(positive, dtype=bool)
    scores = [np.asarray(score, dtype=np.float64) for score in (first, second)]
    if truth.ndim != 1 or any(score.shape != truth.shape or not np.isfinite(score).all() for score in scores):
        raise ValueError("positive, first and second must be (n,) of the same cases, and scores finite")
    if min(truth.sum(), (~truth).sum()) < 2:
        raise ValueError("two areas can be compared with two or more positive and two or more negative cases")
    of_positives, of_negatives = zip(*(_placements(score, truth) for score in scores), strict=True)
    area, other = (float(placement.mean()) for placement in of_positives)
    covariance = np.cov(of_positives) / truth.sum() + np.cov(of_negatives) / (~truth).sum()
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference, error = area - other, float(np.sqrt(max(variance, 0.0)))
    # Scores that rank all cases alike have no variance but what rounding leaves.
    same = all(np.array_equal(a, b) for a, b in (of_positives, of_negatives))
    z = 0.0 if same else float(np.divide(difference, error)) if error > 0 else float(np.sign(difference)) * np.inf
    return AucComparison(area, other, difference, error, z, float(2 * stats.norm.sf(abs(z))))


def _placements(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """Share of negatives below each positive, and of positives above each negative; a tie counts one half."""
    positives, negatives = scores[truth], scores[~truth]
    ranks = stats.rankdata(np.concatenate([positives, negatives]))
    m, n = positives.size, negatives.size
    below = (ranks[:m] - stats.rankdata(positives)) / n
    above = 1.0 - (ranks[m:] - stats.rankdata(negatives)) / m
    return below, above


def stuart_maxwell(table: ArrayLike) -> SquareTest:
    """Test of equal margins: whether two graders use the grades equally often (Stuart 1955; Maxwell 1970).

    Args:
        table: ``(K, K)`` cases, rows the first grader, columns the second. Tables of several sites may be added.

    Returns:
        Chi-square; grades that neither uses are left out, and with one grade left the statistic is 0 of 0 degrees.

    Raises:
        ValueError: if the table is not square whole numbers, or the graders' use of the grades falls into parts that
            cannot be compared (a grade on which they always agree while others differ is left out first).
    """
    counts = _square(table)
    # On a grade in which all off-diagonal cells are 0 the margins are equal by themselves.
    off = counts - np.diag(np.diag(counts))
    used = (off.sum(axis=0) + off.sum(axis=1)) > 0
    off = off[np.ix_(used, used)].astype(np.float64)
    if off.size == 0:
        return SquareTest(0.0, 0, 1.0)
    differences = off.sum(axis=1) - off.sum(axis=0)
    covariance = np.diag(off.sum(axis=1) + off.sum(axis=0)) - off - off.T
    freedom = off.shape[0] - 1
    if np.linalg.matrix_rank(covariance) < freedom:
        raise ValueError("the graders confuse grades only within separate groups; test each group by itself")
    statistic = float(differences[:-1] @ np.linalg.solve(covariance[:-1, :-1], differences[:-1]))
    return SquareTest(statistic, freedom, float(stats.chi2.sf(statistic, freedom)))


def bowker(table: ArrayLike) -> SquareTest:
    """Test of symmetry: whether two graders confuse each pair of grades equally often either way (Bowker 1948).

    Args:
        table: as of :func:`stuart_maxwell`.

    Returns:
        Chi-square with a degree of freedom for each pair of grades that is confused at all.

    Raises:
        ValueError: if the table is not square whole numbers.
    """
    counts = _square(table).astype(np.float64)
    upper, lower = counts[np.triu_indices_from(counts, 1)], counts.T[np.triu_indices_from(counts, 1)]
    confused = (upper + lower) > 0
    statistic = float(((upper - lower)[confused] ** 2 / (upper + lower)[confused]).sum())
    freedom = int(confused.sum())
    return SquareTest(statistic, freedom, float(stats.chi2.sf(statistic, freedom)) if freedom else 1.0)


def _square(table: ArrayLike) -> NDArray[np.int64]:
    shape = np.shape(table)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2:
        raise ValueError(f"table must be square, of two or more grades, got the shape {shape}")
    return whole_numbers(table, "table", shape)


def naive_anova(scores: ArrayLike) -> NaiveAnova:
    """One-way ANOVA of models over repeated splits, for comparison with reports that give it; it comes with a warning.

    Args:
        scores: ``(models, repeats)``, two or more of either.

    Raises:
        ValueError: if the shape is another, a score is not finite, or all scores of each model are the same.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError(f"scores must be (models, repeats) finite numbers, two or more of either, got {values.shape}")
    if (np.ptp(values, axis=1) == 0).all():
        raise ValueError("the scores of each model are all the same, so there is no variance to compare with")
    models, repeats = values.shape
    freedom = (models - 1, models * (repeats - 1))
    between = repeats * ((values.mean(axis=1) - values.mean()) ** 2).sum()
    within = ((values - values.mean(axis=1, keepdims=True)) ** 2).sum()
    statistic = float(between / freedom[0] / (within / freedom[1]))
    return NaiveAnova(statistic, freedom, float(stats.f.sf(statistic, *freedom)), NAIVE_ANOVA_WARNING)


def worst_site(tables: Mapping[str, SeverityTable], metric: str = "balanced_accuracy") -> WorstSite:
    """The site where a model does worst: the mean over sites hides it.

    Args:
        tables: by site.
        metric: a number of ``SeverityMetrics`` of which more is better.

    Raises:
        ValueError: if there is no such metric, or it is not defined at any site.
    """
    if metric not in _MORE_IS_BETTER:
        raise ValueError(f"metric must be one of {', '.join(_MORE_IS_BETTER)}, got {metric}")
    found = {site: getattr(severity_metrics(table), metric) for site, table in tables.items()}
    values = {site: float(value) for site, value in found.items() if value is not None}
    if not values:
        raise ValueError(f"{metric} is not defined at any site")
    site = min(values, key=lambda name: (values[name], name))
    return WorstSite(site, values[site], tables[site].n)
