"""Which spot of one scan is which spot of another, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mhsev_monai.prediction import FINDING_PROBABILITY, Finding

TOLERANCE_MM = 6.0
"""Two spots are one where they lie at most this far apart after registration: a slice of 5 mm and a voxel beside it."""
CLEAR_CHANGE = 0.3
"""A spot whose probability changes by less is the same as before, whatever side of the operating point it is on."""


class Change(StrEnum):
    """What became of a finding between two dates."""

    NEW = "new"
    """A finding of the follow-up where the baseline has no finding and no possible one."""
    GONE = "gone"
    """A finding of the baseline where the follow-up has none and no possible one."""
    STABLE = "stable"
    """On both dates: twice a finding, or once a possible one whose probability hardly differs."""
    UNSURE = "unsure"
    """A finding on one date and a possible one on the other, with clearly different probabilities."""
    NOT_COVERED = "not covered"
    """A finding of one date at a place that the other scan did not show."""

    @property
    def reversed(self) -> Change:
        """What it is where the dates are swapped."""
        return {Change.NEW: Change.GONE, Change.GONE: Change.NEW}.get(self, self)


class Pair(NamedTuple):
    """Indices of a spot of each scan that are one; None where the other scan has none.

    Attributes:
        baseline: index.
        followup: index.
        distance_mm: between the two; None without a partner.
    """

    baseline: int | None
    followup: int | None
    distance_mm: float | None


class Spots(NamedTuple):
    """The spots of one scan.

    Attributes:
        findings: at or above the operating point.
        possible: below it.
        places: ``(n, 3)`` mm of both, findings first, in the space that both scans share.
    """

    findings: Sequence[Finding]
    possible: Sequence[Finding]
    places: NDArray[np.float64]

    def spot(self, index: int) -> Finding:
        """The spot that a pair names."""
        n = len(self.findings)
        return self.findings[index] if index < n else self.possible[index - n]


def match_spots(baseline: Spots, followup: Spots, tolerance_mm: float = TOLERANCE_MM) -> tuple[Pair, ...]:
    """One-to-one pairs of spots of which at least one is a finding; every finding is in exactly one.

    Findings are paired with findings first, so that no possible spot takes a finding's partner; then the rest with
    possible spots. Each time the sum of distances is least, where a spot without partner counts half the tolerance
    (Kuhn, Naval Research Logistics 1955;2:83-97).

    Args:
        baseline: of the first date.
        followup: of the second date, places in the same space.
        tolerance_mm: the largest distance of a pair, above 0.

    Raises:
        ValueError: if the tolerance is not positive.
    """
    if not tolerance_mm > 0:
        raise ValueError(f"tolerance_mm must be positive, got {tolerance_mm}")
    first, second = (list(range(len(spots.findings))) for spots in (baseline, followup))
    pairs = _nearest(baseline, first, followup, second, tolerance_mm)
    first, second = _without(pairs, first, second)
    n_first, n_second = len(baseline.findings), len(followup.findings)
    faint_second = list(range(n_second, n_second + len(followup.possible)))
    faint_first = list(range(n_first, n_first + len(baseline.possible)))
    pairs += _nearest(baseline, first, followup, faint_second, tolerance_mm)
    pairs += _nearest(baseline, faint_first, followup, second, tolerance_mm)
    first, second = _without(pairs, first, second)
    alone = [Pair(index, None, None) for index in first] + [Pair(None, index, None) for index in second]
    return (*pairs, *alone)


def _without(pairs: Sequence[Pair], first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
    """The indices that are in no pair."""
    taken_first, taken_second = {pair.baseline for pair in pairs}, {pair.followup for pair in pairs}
    return [i for i in first if i not in taken_first], [i for i in second if i not in taken_second]


def _nearest(
    baseline: Spots, first: Sequence[int], followup: Spots, second: Sequence[int], tolerance: float
) -> list[Pair]:
    """Pairs of some spots of either scan by the least sum of distances."""
    if not first or not second:
        return []
    difference = baseline.places[list(first)][:, None] - followup.places[list(second)][None]
    distance = np.linalg.norm(difference, axis=-1)
    # Beyond the tolerance a pair costs as much as two spots without partner, and is taken apart again.
    rows, columns = linear_sum_assignment(np.minimum(distance, tolerance))
    return [
        Pair(first[row], second[column], float(distance[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if distance[row, column] <= tolerance
    ]


def change_of(before: Finding | None, after: Finding | None, covered: bool) -> Change:
    """What became of a pair's spot.

    Args:
        before: on the baseline.
        after: on the follow-up.
        covered: whether the scan without the spot shows its place; of no account where both have it.

    Raises:
        ValueError: if neither is given.
    """
    if before is None and after is None:
        raise ValueError("a pair needs a spot on one date at least")
    if before is None or after is None:
        if not covered:
            return Change.NOT_COVERED
        return Change.NEW if before is None else Change.GONE
    before_p, after_p = before.probability or 0.0, after.probability or 0.0
    both = min(before_p, after_p) >= FINDING_PROBABILITY
    return Change.STABLE if both or abs(after_p - before_p) < CLEAR_CHANGE else Change.UNSURE
