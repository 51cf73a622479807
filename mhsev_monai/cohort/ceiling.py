"""The best grade that a count of detected microbleeds allows: a ceiling for every method that counts.

A detector finds each bleed with the same probability, independent of the others, and adds false positives that have
nothing to do with the scan: detected = Binomial(count, sensitivity) + Poisson(false positives). Real misses come
together, as in thick slices or after motion, so that a real detector with the same averages has a lower ceiling.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mhsev_monai.severity import PAPER_SCALE, GradingScale, Severity

_N_GRADES = len(Severity)
_RANKS = np.arange(_N_GRADES)
_SQUARED_DISTANCE = (_RANKS[:, None] - _RANKS) ** 2
_POISSON_TAIL = 1e-14
_SUM_TOLERANCE = 1e-6


class Ceiling(NamedTuple):
    """How well scans can be graded from the number of detected bleeds; shares 0 to 1, kappas -1 to 1.

    Attributes:
        accuracy: of the rule that gives each detected number its most probable grade; no rule has more.
        quadratic_kappa: of that rule (Cohen 1968); a rule that aims at kappa may have a little more. NaN where scans
            and rule know a single grade.
        balanced_accuracy: of that rule, mean over the grades that occur.
        naive_accuracy: of the rule that takes the detected number for the count.
        naive_quadratic_kappa: of that rule, likewise.
    """

    accuracy: float
    quadratic_kappa: float
    balanced_accuracy: float
    naive_accuracy: float
    naive_quadratic_kappa: float


def count_grading_ceiling(
    count_pmf: ArrayLike, sensitivity: float, false_positives: float, scale: GradingScale = PAPER_SCALE
) -> Ceiling:
    """Grade scans by what a detector finds, in exact sums over counts and detections.

    A more sensitive detector is never worse in ``accuracy``, nor is one with fewer false positives: what the weaker one
    reports can be drawn from what the stronger one reports, by dropping detections at random and adding others.

    Args:
        count_pmf: ``(n,)`` probabilities of 0 to n - 1 microbleeds in a scan; they sum to 1.
        sensitivity: share of the bleeds that is detected, 0 to 1.
        false_positives: mean number a scan, 0 or more.
        scale: how counts are graded. Where no scan is free of bleeds, the naive rule grades a detected 0 as the lowest
            grade that occurs.

    Raises:
        ValueError: if an argument is outside its range.
    """
    pmf = _checked_pmf(count_pmf)
    if not 0 <= sensitivity <= 1:
        raise ValueError(f"sensitivity must be a share from 0 to 1, got {sensitivity}")
    if not 0 <= false_positives < np.inf:
        raise ValueError(f"false_positives must be a mean number per scan, 0 or more, got {false_positives}")
    detected = detected_pmf(len(pmf) - 1, sensitivity, false_positives)
    joint = np.zeros((_N_GRADES, detected.shape[1]))
    np.add.at(joint, [int(scale.grade(count)) for count in range(len(pmf))], pmf[:, None] * detected)
    present = np.flatnonzero(joint.sum(axis=1) > 0)
    naive = np.clip([int(scale.grade(number)) for number in range(joint.shape[1])], present[0], present[-1])
    best = _confusion(joint, joint.argmax(axis=0))
    plain = _confusion(joint, naive)
    sensitivities = np.diagonal(best)[present] / best.sum(axis=1)[present]
    return Ceiling(
        accuracy=float(np.trace(best)),
        quadratic_kappa=_quadratic_kappa(best),
        balanced_accuracy=float(sensitivities.mean()),
        naive_accuracy=float(np.trace(plain)),
        naive_quadratic_kappa=_quadratic_kappa(plain),
    )


def detected_pmf(max_count: int, sensitivity: float, false_positives: float) -> NDArray[np.float64]:
    """``(max_count + 1, n)`` probabilities of each number of detections, given 0 to ``max_count`` bleeds.

    The Poisson distribution is cut where less than 1e-14 of it is left, and what is cut falls on its last number.

    Args:
        max_count: largest number of bleeds in a scan.
        sensitivity: share of the bleeds that is detected, 0 to 1.
        false_positives: mean number a scan, 0 or more.
    """
    n_false = int(stats.poisson.isf(_POISSON_TAIL, false_positives)) + 1 if false_positives > 0 else 0
    false = stats.poisson.pmf(np.arange(n_false + 1), false_positives)
    false[-1] += 1 - false.sum()
    counts = np.arange(max_count + 1)
    true = stats.binom.pmf(counts[None, :], counts[:, None], sensitivity)
    return np.stack([np.convolve(row, false) for row in true])


def _checked_pmf(count_pmf: ArrayLike) -> NDArray[np.float64]:
    pmf = np.asarray(count_pmf, dtype=np.float64)
    if pmf.ndim != 1 or not (pmf >= 0).all() or abs(pmf.sum() - 1) > _SUM_TOLERANCE:
        raise ValueError(
            f"a distribution of counts is a list of probabilities that sum to 1, got {pmf.ndim} axes and a sum of "
            f"{pmf.sum():g}"
        )
    return pmf / pmf.sum()


def _confusion(joint: NDArray[np.float64], graded: NDArray[np.intp]) -> NDArray[np.float64]:
    """``(4, 4)`` probabilities of true and given grade, from those of true grade and detected number."""
    table = np.zeros((_N_GRADES, _N_GRADES))
    np.add.at(table.T, graded, joint.T)
    return table


def _quadratic_kappa(confusion: NDArray[np.float64]) -> float:
    """Cohen's kappa with squared distances as weights, of a table of shares; NaN where it knows one grade only."""
    chance = np.outer(confusion.sum(axis=1), confusion.sum(axis=0))
    expected = float((_SQUARED_DISTANCE * chance).sum())
    return 1 - float((_SQUARED_DISTANCE * confusion).sum()) / expected if expected > 0 else float("nan")
