"""Clinical variables of a subject and the severity that they make likely.

The model is ordinal: a latent risk is a weighted sum of the variables plus a standard normal remainder, and the
hospital's severity mix cuts the distribution of the risk. So the mix holds exactly, and older or hypertensive subjects
stand further up in it. The weights are assumptions of plausible size (an odds ratio near 2 for hypertension), not
estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from mhsev_monai.severity import Severity

MEAN_AGE, AGE_SD = 68.0, 9.0
_AGE_RANGE = (45.0, 92.0)
_HYPERTENSION_SHARE, _ANTICOAGULANT_SHARE = 0.55, 0.18
_AGE_WEIGHT, _HYPERTENSION_WEIGHT, _ANTICOAGULANT_WEIGHT = 0.35, 0.40, 0.20

COUNT_RANGES = {
    Severity.NONE: (0, 0),
    Severity.MILD: (1, 5),
    Severity.MODERATE: (6, 10),
    Severity.SEVERE: (11, 25),
}
"""Smallest and largest count of each severity on the paper's scale; 25 keeps every bleed apart from the next."""


class Clinical(NamedTuple):
    """What the table of participants tells of a subject, and the subject's place in the hospital's distribution.

    Attributes:
        age: years.
        sex: ``"F"`` or ``"M"``.
        hypertension: whether diagnosed.
        anticoagulant: whether taken.
        risk_percentile: share of the population whose latent risk is lower, in (0, 1).
    """

    age: int
    sex: str
    hypertension: bool
    anticoagulant: bool
    risk_percentile: float


def draw_clinical(rng: np.random.Generator) -> Clinical:
    """A random subject."""
    years = float(rng.standard_normal())
    sex = "F" if rng.random() < 0.5 else "M"
    hypertension = bool(rng.random() < _HYPERTENSION_SHARE)
    anticoagulant = bool(rng.random() < _ANTICOAGULANT_SHARE)
    risk = _AGE_WEIGHT * years + _HYPERTENSION_WEIGHT * hypertension + _ANTICOAGULANT_WEIGHT * anticoagulant
    percentile = _risk_percentile(risk + float(rng.standard_normal()))
    age = round(float(np.clip(MEAN_AGE + AGE_SD * years, *_AGE_RANGE)))
    return Clinical(age, sex, hypertension, anticoagulant, percentile)


def _risk_percentile(risk: float) -> float:
    """The distribution function of the latent risk: a mixture of four normals, by hypertension and anticoagulant."""
    percentile = 0.0
    for hypertension, anticoagulant in product((0, 1), repeat=2):
        share = _HYPERTENSION_SHARE if hypertension else 1 - _HYPERTENSION_SHARE
        share *= _ANTICOAGULANT_SHARE if anticoagulant else 1 - _ANTICOAGULANT_SHARE
        mean = _HYPERTENSION_WEIGHT * hypertension + _ANTICOAGULANT_WEIGHT * anticoagulant
        percentile += share * float(ndtr((risk - mean) / np.hypot(1.0, _AGE_WEIGHT)))
    return percentile


def severity_at(risk_percentile: float, severity_mix: Sequence[float]) -> Severity:
    """The severity at a place in a hospital's distribution.

    Args:
        risk_percentile: in (0, 1).
        severity_mix: shares of none, mild, moderate and severe; they sum to 1.
    """
    return Severity(int(np.searchsorted(np.cumsum(severity_mix)[:-1], risk_percentile, side="right")))


def draw_count(rng: np.random.Generator, severity: Severity) -> int:
    """A number of microbleeds within a severity; ``k`` is drawn with a weight of ``1 / k``, as few are commoner."""
    low, high = COUNT_RANGES[severity]
    if high == 0:
        return 0
    counts = np.arange(low, high + 1)
    weights = 1 / counts
    return int(rng.choice(counts, p=weights / weights.sum()))
