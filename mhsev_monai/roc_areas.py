"""Areas under the ROC curve with their standard errors by DeLong's method, from score histograms that sites may send.

The variance of an area follows from where each case stands among those of the other kind (DeLong, DeLong,
Clarke-Pearson, Biometrics 1988;44:837). Cases in one bin are ties, so that histograms tell all of it: it is exactly
that of the scores rounded to their bins. Histograms of several sites are added up first, and one curve ranks the cases
of all. That takes cases for independent draws from one population, the mix of the sites as it is: where sites differ, a
bootstrap within them, which takes the sites for given, has the narrower interval.

Intervals are made on the scale of log(area / (1 - area)), since near 1 they are lopsided. Measured on 400 tables of
simulated cases each (``judged_cases`` of tests/simulated_grades.py, seeds 0 to 399), they held the true area, of the
four grades, in 0.950 to 0.972 with 30 cases, 0.890 to 0.970 with 60 and 0.948 to 0.960 with 200; those around the area
itself in 0.792 to 0.932, 0.858 to 0.958 and 0.938 to 0.965.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from mhsev_monai.checked_arrays import whole_numbers
from mhsev_monai.severity_table import SeverityTable

LEVEL = 0.95
_HALVINGS = 40


class AreaVariance(NamedTuple):
    """An area and the two parts of its variance.

    Attributes:
        area: share of (positive, negative) pairs in which the positive has the higher score; a tie counts one half.
        of_positives: variance of the area from its positive cases; NaN with fewer than two of them.
        of_negatives: the same from its negative ones.
    """

    area: float
    of_positives: float
    of_negatives: float

    @property
    def standard_error(self) -> float:
        """Of the area; NaN with fewer than two cases of either kind."""
        return float(np.sqrt(self.of_positives + self.of_negatives))


def delong_of_histogram(histogram: ArrayLike) -> AreaVariance:
    """The area of binned scores and its variance by DeLong's method.

    Args:
        histogram: ``(2, n_bins)`` whole numbers of negative and positive cases by score, lowest bin first.

    Raises:
        ValueError: if the shape is another, a number is negative or not whole, or a kind has no case.
    """
    counts = whole_numbers(histogram, "histogram", (2, np.shape(histogram)[-1] if np.ndim(histogram) == 2 else 0))
    n_negative, n_positive = (int(n) for n in counts.sum(axis=1))
    if min(n_negative, n_positive) == 0:
        raise ValueError(f"an area needs cases of either kind, got {n_positive} positive and {n_negative} negative")
    negatives, positives = counts.astype(np.float64)
    # Share of the negatives below each positive, and of the positives above each negative.
    below = (np.cumsum(negatives) - negatives / 2) / n_negative
    above = 1 - (np.cumsum(positives) - positives / 2) / n_positive
    area = float(positives @ below / n_positive)
    return AreaVariance(area, _of_mean(below - area, positives), _of_mean(above - area, negatives))


def _of_mean(deviations: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Variance of the mean of cases with these deviations from it; NaN for fewer than two."""
    n = counts.sum()
    return float(counts @ deviations**2 / (n * (n - 1))) if n > 1 else float("nan")


def logit_interval(area: float, standard_error: float, level: float = LEVEL) -> tuple[float, float] | None:
    """The interval of an area, normal on the logit scale; None unless the area is inside (0, 1) and the error known.

    None too where the error is 0: cases that do not overlap say nothing of how rarely they would.
    """
    if not (0 < area < 1 and np.isfinite(standard_error) and standard_error > 0):
        return None
    reach = float(stats.norm.ppf((1 + level) / 2)) * standard_error / (area * (1 - area))
    centre = special.logit(area)
    return float(special.expit(centre - reach)), float(special.expit(centre + reach))


def most_error_of_mean(parts: Sequence[AreaVariance]) -> float:
    """The largest standard error that the mean of the grades' areas, each against the rest, can have.

    How the areas of two grades vary together follows from the joint distribution of their scores, which histograms do
    not tell. But a case of grade t is a positive in the area of t alone, and a negative in all others. So the variance
    is a sum over t of the size of one positive part, ``a_t``, and the shares of the others' negative parts that fall on
    cases of t, squared; it is largest where all of these rise and fall together. With shares ``w_t`` of the variance,
    of sum 1, the Cauchy-Schwarz inequality makes of it the largest sum of ``a_t sqrt(w_t) + b_t sqrt(1 - w_t)``, where
    ``b_t`` is the negative part of the area of t. It is never above the mean of the standard errors.

    Args:
        parts: one a grade that occurs, two or more.

    Returns:
        NaN where a part is.
    """
    positive = np.sqrt([part.of_positives for part in parts])
    negative = np.sqrt([part.of_negatives for part in parts])
    if not np.isfinite([positive, negative]).all():
        return float("nan")
    shares = _best_shares(positive, negative)
    return float((positive * np.sqrt(shares) + negative * np.sqrt(1 - shares)).sum() / len(parts))


def _best_shares(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of sum 1 for which the sum in :func:`most_error_of_mean`, which is concave in them, is largest."""

    def at_slope(slope: float) -> NDArray[np.float64]:
        """Where each term's derivative, which falls, is ``slope``; of angles, so that no end is infinite."""
        low, high = np.zeros_like(positive), np.full_like(positive, np.pi / 2)
        for _ in range(_HALVINGS):
            angle = (low + high) / 2
            sine, cosine = np.sin(angle), np.cos(angle)
            rises = positive * cosine - negative * sine > 2 * slope * sine * cosine
            low, high = np.where(rises, angle, low), np.where(rises, high, angle)
        shares: NDArray[np.float64] = np.sin(low) ** 2
        return shares

    # With equal shares some terms rise more steeply than at the best ones, and some less.
    n = len(positive)
    equal = positive * np.sqrt(n) / 2 - negative / np.sqrt(1 - 1 / n) / 2
    low, high = equal.min(), equal.max()
    for _ in range(_HALVINGS):
        slope = (low + high) / 2
        low, high = (slope, high) if at_slope(slope).sum() > 1 else (low, slope)
    # Not brought to a sum of 1: what is missing belongs to grades without any variance, where it changes nothing.
    return at_slope(high)


def area_entry(table: SeverityTable) -> dict[str, Any]:
    """The areas of a table as ``result.json`` tells them under ``delong``.

    Returns:
        ``level``; ``per_class``, for each grade its ``auc``, ``standard_error`` and ``interval``; ``macro_auc``, the
        same of the mean over the grades that have an area, with the largest standard error that the table allows.
        None for an area without cases of either kind, for an error from fewer than two of a kind, and for both where
        no case overlaps with the other kind; for the mean also where one of its grades lacks it.
    """
    parts = [_known_area(histogram) for histogram in table.score_histograms]
    known = [part for part in parts if part is not None]
    sure = bool(known) and all(part.standard_error > 0 for part in known)
    mean = float(np.mean([part.area for part in known])) if known else None
    error = most_error_of_mean(known) if sure and len(known) > 1 else float("nan")
    per_class = [_told(None, np.nan) if part is None else _told(part.area, part.standard_error) for part in parts]
    return {"level": LEVEL, "macro_auc": _told(mean, error), "per_class": per_class}


def _known_area(histogram: NDArray[np.int64]) -> AreaVariance | None:
    return delong_of_histogram(histogram) if (histogram.sum(axis=1) > 0).all() else None


def _told(area: float | None, error: float) -> dict[str, Any]:
    known = bool(np.isfinite(error)) and error > 0
    interval = None if area is None or not known else logit_interval(area, error)
    return {
        "auc": area,
        "standard_error": float(error) if known else None,
        "interval": None if interval is None else list(interval),
    }
