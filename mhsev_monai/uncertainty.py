"""What a site tells of its test cases beside their table: how sure the model was, and how rightly, in sums.

Before and after the temperature: calibration error, Brier score and ranked probability score; coverage and size of the
prediction sets; sums of squares, from which the intervals of means follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.calibration import N_BINS, CalibrationSums
from mhsev_monai.checked_arrays import check_entries, finite_numbers, whole_numbers
from mhsev_monai.conformal import SetSums
from mhsev_monai.grade_calibration import GradeCalibration
from mhsev_monai.severity import Severity

MEASURES = ("brier_before", "rps_before", "brier", "rps", "count_mae", "count_bias")
"""Means over cases, of which sum and sum of squares are sent; the third and fourth are at the temperature."""


@dataclass(frozen=True, eq=False)
class UncertaintySums:
    """Sums over a site's test cases; those of several sites add up.

    Attributes:
        before: by the probability of the grade that is reported, as the network gives it.
        after: the same at the temperature.
        moments: ``(6, 2)`` sum and sum of squares of each of ``MEASURES``.
        sets: how prediction sets did; None where the model has none.
        n_odd: cases unlike the training cases; None where the model does not know.

    Raises:
        ValueError: if the parts are not of the same cases, or a value is not possible.
    """

    before: CalibrationSums
    after: CalibrationSums
    moments: NDArray[np.float64]
    sets: SetSums | None = None
    n_odd: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "moments", finite_numbers(self.moments, "moments", (len(MEASURES), 2)))
        n = self.n
        if self.after.n.sum() != n or (self.sets is not None and self.sets.sizes.sum() != n):
            raise ValueError("before, after and sets must be of the same cases")
        if self.n_odd is not None:
            object.__setattr__(self, "n_odd", int(whole_numbers(self.n_odd, "n_odd", ())))
            if self.n_odd > n:
                raise ValueError(f"n_odd must be at most the number of cases {n}, got {self.n_odd}")
        total, squares = self.moments.T
        # By Cauchy and Schwarz; the margin covers the order of additions, no more.
        if (total**2 > n * squares * (1 + 1e-9) + 1e-9).any():
            raise ValueError("moments must be sums over the cases: a sum exceeds what its squares allow")

    @property
    def n(self) -> int:
        """Number of cases."""
        return int(self.before.n.sum())

    def mean(self, measure: str) -> float | None:
        """Mean of one of ``MEASURES``; None without cases."""
        return float(self.moments[MEASURES.index(measure), 0]) / self.n if self.n else None

    def __add__(self, other: UncertaintySums) -> UncertaintySums:
        """The sums of both sites' cases; what one of them does not know, both do not."""
        if not isinstance(other, UncertaintySums):
            return NotImplemented
        return UncertaintySums(
            self.before + other.before,
            self.after + other.after,
            self.moments + other.moments,
            None if self.sets is None or other.sets is None else self.sets + other.sets,
            None if self.n_odd is None or other.n_odd is None else self.n_odd + other.n_odd,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, one entry for each attribute."""
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "moments": self.moments.tolist(),
            "sets": None if self.sets is None else self.sets.to_json(),
            "n_odd": self.n_odd,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> UncertaintySums:
        """What ``to_json`` wrote of grades of ``Severity``; raises ``ValueError`` for anything else."""
        check_entries(value, {"before", "after", "moments", "sets", "n_odd"}, "sums of uncertainty")
        read = UncertaintySums(
            CalibrationSums.from_json(value["before"]),
            CalibrationSums.from_json(value["after"]),
            value["moments"],
            None if value["sets"] is None else SetSums.from_json(value["sets"]),
            value["n_odd"],
        )
        # Arrays of another length do not add up, so one from elsewhere would end the sum of all.
        if not read.before.n.size == read.after.n.size == N_BINS:
            raise ValueError(f"before and after must have {N_BINS} bins, got {read.before.n.size}, {read.after.n.size}")
        if read.sets is not None and read.sets.covered.size != len(Severity):
            raise ValueError(f"sets must be of {len(Severity)} grades, got {read.sets.covered.size}")
        return read

    @staticmethod
    def under(calibration: GradeCalibration, value: Mapping[str, Any]) -> UncertaintySums:
        """What ``to_json`` wrote of cases at ``calibration``: with sets and number of odd scans if it has their limits.

        Raises:
            ValueError: if it is malformed, or has other parts than the calibration. What one site does not know the
                sum of all does not, so a part left out would be lost for every site.
        """
        read = UncertaintySums.from_json(value)
        parts = (("sets", read.sets, calibration.thresholds), ("n_odd", read.n_odd, calibration.odd_above))
        for name, told, limit in parts:
            if (told is None) != (limit is None):
                raise ValueError(f"{name} must be {'None' if limit is None else 'told'} with this calibration")
        return read
