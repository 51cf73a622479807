"""A simulated second reader, who misses faint bleeds and takes a few mimics for bleeds.

Whether a bleed is found depends on its expected contrast to noise alone, by a logistic curve in the logarithm; what is
found beside the bleeds is a Poisson number. Both constants were chosen so that two such readers of one cohort agree on
the presence of microbleeds as experts do: Cohen's kappa 0.68 between raters (Gregoire et al., Neurology
2009;73:1759-1766, who report 0.93 for the intraclass correlation of the count). An approximation on purpose: no image
is read, and misses of one scan are independent of each other, which those of real readers are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

HALF_FOUND_CONTRAST = 5.0
"""Contrast to noise at which a bleed is found half of the time."""

STEEPNESS = 4.0
"""Of the logistic curve, per unit of the contrast's natural logarithm."""

FALSE_BLEEDS = 0.15
"""Expected number of findings a scan that are no bleeds."""


def detection_probability(contrasts: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that a reader finds each bleed, ``(n,)``.

    Args:
        contrasts: ``(n,)`` contrast to noise, 0 or more; see ``disease.contrast_to_noise``.
    """
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.asarray(contrasts, dtype=np.float64) / HALF_FOUND_CONTRAST)
    probabilities: NDArray[np.float64] = expit(STEEPNESS * logarithms)
    return probabilities


def read_count(rng: np.random.Generator, contrasts: Sequence[float] | NDArray[np.float64]) -> int:
    """The number of microbleeds that a reader reports.

    Args:
        rng: of the reader; nothing else may draw from it.
        contrasts: contrast to noise of every bleed in the head, whether it counts or not.
    """
    n_false = int(rng.poisson(FALSE_BLEEDS))
    found = rng.random(len(contrasts)) < detection_probability(contrasts)
    return n_false + int(found.sum())
