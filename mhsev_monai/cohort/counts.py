"""How many microbleeds the subjects of a hospital have.

Real counts: of 206 positive scans of five public data sets the median is 2, 49 % have exactly one, the mean is 4.65,
the 90th percentile 11 and the largest 83. A lognormal distribution rounded to whole numbers fits them best of those
tried (mu -1.15, sigma 1.98): the probability of ``k`` is that of the interval from ``k - 1/2`` to ``k + 1/2``, given
that the value is at least 1/2. What lies above 83 is added to 83. So made, the median is 2, 47 % have one, the mean is
4.7 and the 90th percentile 10.

Hospitals differ: among the five sets the share of more than ten bleeds in positive scans is 4 to 33 %. Here the
location of the lognormal moves until a hospital has its share; its spread stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr

from mhsev_monai.cohort.clinical import Clinical
from mhsev_monai.cohort.hospitals import Hospital
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.severity import PAPER_SCALE, Severity

MAX_COUNT = 83
LOGNORMAL_MU, LOGNORMAL_SIGMA = -1.15, 1.98

COUNT_RANGES = {
    Severity.NONE: (0, 0),
    Severity.MILD: (1, 5),
    Severity.MODERATE: (6, 10),
    Severity.SEVERE: (11, 25),
}
"""Smallest and largest count of each severity on the paper's scale in a balanced mix."""

_FIRST_SEVERE = PAPER_SCALE.lower_bounds[2]
# Severe shares of 1e-6 to 0.9 lie between.
_MU_RANGE = (-60.0, 20.0)


def subject_count(clinical: Clinical, hospital: Hospital, settings: CohortSettings) -> int:
    """The number of microbleeds of a subject: the quantile of the hospital's distribution at the subject's risk."""
    return count_at(clinical.risk_percentile, count_probabilities(hospital, settings.mix, settings.negatives))


def count_at(percentile: float, probabilities: NDArray[np.float64]) -> int:
    """The smallest count whose cumulative probability exceeds a percentile.

    Args:
        percentile: in [0, 1).
        probabilities: ``(n,)`` of the counts from 0; they sum to 1.
    """
    count = int(np.searchsorted(np.cumsum(probabilities), percentile, side="right"))
    # The sum may end a little below 1.
    return min(count, int(np.flatnonzero(probabilities)[-1]))


@lru_cache(maxsize=64)
def count_probabilities(hospital: Hospital, mix: str, negatives: float) -> NDArray[np.float64]:
    """``(84,)``, the probability of each count from 0 at a hospital; not to be written to.

    Args:
        hospital: whose patients.
        mix: ``balanced`` or ``lognormal``, see ``settings.CohortSettings``.
        negatives: probability of 0.
    """
    if mix == "lognormal":
        positive = lognormal_probabilities(mu_of_severe_share(hospital.lognormal_severe_share))
    else:
        positive = balanced_probabilities(hospital.severity_mix[-3:])
    probabilities = np.concatenate([[negatives], (1 - negatives) * positive])
    probabilities.flags.writeable = False
    return probabilities


def balanced_probabilities(severity_mix: Sequence[float]) -> NDArray[np.float64]:
    """``(83,)``, of the counts from 1: within a severity ``k`` has a weight of ``1 / k``, as few are commoner.

    Args:
        severity_mix: relative shares of mild, moderate and severe.
    """
    probabilities = np.zeros(MAX_COUNT)
    for severity, share in zip((Severity.MILD, Severity.MODERATE, Severity.SEVERE), severity_mix, strict=True):
        low, high = COUNT_RANGES[severity]
        weights = 1 / np.arange(low, high + 1)
        probabilities[low - 1 : high] = share / sum(severity_mix) * weights / weights.sum()
    return probabilities


def lognormal_probabilities(mu: float = LOGNORMAL_MU, sigma: float = LOGNORMAL_SIGMA) -> NDArray[np.float64]:
    """``(83,)``, of the counts from 1: a lognormal distribution rounded, without its zeros, ended at 83.

    Args:
        mu: mean of the logarithm.
        sigma: its standard deviation.
    """
    edges = np.arange(MAX_COUNT) + 0.5
    # Relative to the first interval, in logarithms: far from mu both are too small to be divided.
    log_above = log_ndtr((mu - np.log(edges)) / sigma)
    above = np.exp(log_above - log_above[0])
    return above - np.append(above[1:], 0.0)


@lru_cache(maxsize=64)
def mu_of_severe_share(share: float, sigma: float = LOGNORMAL_SIGMA) -> float:
    """The location of the lognormal at which a share of the positive subjects has more than ten microbleeds.

    Args:
        share: in (0, 0.9].
        sigma: standard deviation of the logarithm.

    Raises:
        ValueError: if ``share`` is out of range.
    """
    if not 0 < share <= 0.9:
        raise ValueError(f"lognormal_severe_share must be above 0 and at most 0.9, got {share}")

    def excess(mu: float) -> float:
        return float(lognormal_probabilities(mu, sigma)[_FIRST_SEVERE - 1 :].sum()) - share

    return float(brentq(excess, *_MU_RANGE, xtol=1e-10))
