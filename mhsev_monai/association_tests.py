"""Tests made of added tables (``association_tables``): chi-square, analysis of variance, Spearman's rank correlation.

Each equals SciPy's or statsmodels' on the cases that the table holds. Grades that sites left out are missing from all
of them: that makes no association, but weakens one that is there. P-values of several variables are to be adjusted
together (``statistics.holm``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from mhsev_monai.association_tables import AssociationTable, GroupSums


class ChiSquare(NamedTuple):
    """Pearson's test of independence.

    Attributes:
        statistic: chi-square, without Yates' correction.
        degrees_of_freedom: of the rows and columns that hold a case.
        p_value: of independence.
        cramers_v: size of the association, 0 to 1 (Cramer 1946).
        smallest_expected: the smallest expected number of cases of a cell.
        share_below_5: share of cells whose expected number is below 5.
        reliable: whether no expected number is below 1 and at most a fifth are below 5 (Cochran 1954, Biometrics
            10:417-451); otherwise the p-value is not to be relied on, and categories should be joined.
    """

    statistic: float
    degrees_of_freedom: int
    p_value: float
    cramers_v: float
    smallest_expected: float
    share_below_5: float
    reliable: bool


class Anova(NamedTuple):
    """One-way analysis of variance of a number by grade.

    It takes the number to be independent between cases and near normal within each grade, and (unless by Welch) of one
    variance in all grades. With tens of cases a grade the first two matter little but for heavy tails.

    Attributes:
        statistic: F.
        between: degrees of freedom of the grades.
        within: degrees of freedom of the cases within grades; not whole by Welch.
        p_value: of equal means.
        eta_squared: share of the variance that lies between grades, 0 to 1.
        means: of each grade that has a case, by its label.
    """

    statistic: float
    between: int
    within: float
    p_value: float
    eta_squared: float
    means: dict[str, float]


class Spearman(NamedTuple):
    """A rank correlation; the p-value from the t distribution with n - 2 degrees of freedom."""

    correlation: float
    n: int
    p_value: float


def chi_square(table: AssociationTable) -> ChiSquare:
    """Pearson's chi-square of independence of rows and columns; those without a case are left out.

    Raises:
        ValueError: if fewer than two rows or two columns hold a case.
    """
    counts = table.counts[table.counts.sum(axis=1) > 0][:, table.counts.sum(axis=0) > 0].astype(np.float64)
    if min(counts.shape, default=0) < 2:
        raise ValueError("independence can be tested with cases in two or more rows and columns, there are less")
    n = counts.sum()
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / n
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    below = float((expected < 5).mean())
    return ChiSquare(
        statistic=statistic,
        degrees_of_freedom=freedom,
        p_value=float(stats.chi2.sf(statistic, freedom)),
        cramers_v=float(np.sqrt(statistic / n / (min(counts.shape) - 1))),
        smallest_expected=float(expected.min()),
        share_below_5=below,
        reliable=bool(expected.min() >= 1 and below <= 0.2),
    )


def one_way_anova(sums: GroupSums, *, welch: bool = False) -> Anova:
    """Analysis of variance of the grades that hold a case.

    Args:
        sums: of all sites.
        welch: whether grades may differ in variance (Welch 1951, Biometrika 38:330-336).

    Raises:
        ValueError: if fewer than two grades hold a case, or there is no variance within grades (by Welch: in a grade).
    """
    held = sums.n > 0
    n, total, squares = (values[held].astype(np.float64) for values in (sums.n, sums.total, sums.squares))
    if n.size < 2 or n.sum() <= n.size:
        raise ValueError("analysis of variance needs two or more grades and more cases than grades, there are less")
    means = total / n
    # The variance of equal numbers can be a rounding error, on either side of 0.
    spread = np.where(squares - total * means > 1e-12 * squares, squares - total * means, 0.0)
    grand = total.sum() / n.sum()
    between, within = float((n * (means - grand) ** 2).sum()), float(spread.sum())
    if within == 0 or (welch and ((n < 2) | (spread == 0)).any()):
        raise ValueError("the number does not vary within grades, so there is no variance to compare with")
    freedom = n.size - 1
    if welch:
        statistic, rest = _welch(n, means, spread / np.maximum(n - 1, 1))
    else:
        rest = float(n.sum() - n.size)
        statistic = between / freedom / (within / rest)
    labels = [label for label, present in zip(sums.rows, held, strict=True) if present]
    return Anova(
        statistic=statistic,
        between=freedom,
        within=rest,
        p_value=float(stats.f.sf(statistic, freedom, rest)),
        eta_squared=between / (between + within),
        means=dict(zip(labels, (means + sums.centre).tolist(), strict=True)),
    )


def _welch(n: np.ndarray, means: np.ndarray, variances: np.ndarray) -> tuple[float, float]:
    """Welch's F and its second degrees of freedom."""
    weights = n / variances
    k, mean = n.size, (weights * means).sum() / weights.sum()
    unequal = ((1 - weights / weights.sum()) ** 2 / (n - 1)).sum() / (k**2 - 1)
    statistic = (weights * (means - mean) ** 2).sum() / (k - 1) / (1 + 2 * (k - 2) * unequal)
    return float(statistic), float(1 / (3 * unequal))


def spearman(table: AssociationTable) -> Spearman:
    """Spearman's rank correlation of the grade with a number in bins, all cases of a bin taken as tied.

    It is exact for the bins. For the number itself, ties hide its order within a bin, which in general draws the
    correlation towards 0: how far is measured in docs/associations.md.

    Raises:
        ValueError: if there are fewer than three cases, or they all lie in one row or one column.
    """
    counts = table.counts.astype(np.float64)
    n = int(counts.sum())
    ranks = []
    for margin in (counts.sum(axis=1), counts.sum(axis=0)):
        # The mean rank of a row's cases is that of the middle one.
        ranks.append(np.cumsum(margin) - margin / 2 - n / 2)
    down, across = ranks
    if n < 3 or min((counts.sum(axis=1) > 0).sum(), (counts.sum(axis=0) > 0).sum()) < 2:
        raise ValueError("a rank correlation needs three or more cases that differ in grade and bin")
    spread = np.sqrt((counts.sum(axis=1) @ down**2) * (counts.sum(axis=0) @ across**2))
    correlation = float(np.clip(down @ counts @ across / spread, -1.0, 1.0))
    if abs(correlation) == 1.0:
        return Spearman(correlation, n, 0.0)
    t = correlation * np.sqrt((n - 2) / (1 - correlation**2))
    return Spearman(correlation, n, float(2 * stats.t.sf(abs(t), n - 2)))
