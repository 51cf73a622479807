"""What a model file knows of how far its probabilities can be trusted, and how a federation finds it from sums.

Three things, all from cases that the network was not trained with: a temperature (``calibration``), thresholds of
prediction sets (``conformal``) and the largest deviation that is usual (``oddness``). The grade and the count stay the
network's own: a temperature keeps the most probable grade, but the median grade, which is what is reported, can move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhsev_monai.calibration import TEMPERATURES, TemperatureSums, at_temperature
from mhsev_monai.checked_arrays import check_entries
from mhsev_monai.conformal import N_BINS, ConformalThresholds, ScoreHistograms
from mhsev_monai.oddness import OddHistogram
from mhsev_monai.severity import Severity

COVERAGE = 0.9
"""Share of cases whose prediction set is meant to hold the true grade."""

LEAST_POOLED = 50
"""Cases over all sites below which no temperature is chosen: it would follow single cases. A network that is right in
most of 25 cases and sure of one error asks for a high temperature, which spoils probabilities that were good."""

LEAST_GAIN = 1.92
"""Nats of all cases together by which a temperature must be better than 1: half of the 95 % point of chi-square with
one degree of freedom, as in a likelihood-ratio test (Wilks 1938)."""


@dataclass(frozen=True)
class GradeCalibration:
    """What is done with a network's probabilities.

    Attributes:
        temperature: above 0; 1 leaves them as they are: none was fitted, see ``choose_temperature``.
        thresholds: of prediction sets, for probabilities at the temperature; None: no sets.
        odd_above: score of ``oddness`` beyond which a scan is unlike the training cases; None: not known.

    Raises:
        ValueError: if a number is outside its range.
    """

    temperature: float = 1.0
    thresholds: ConformalThresholds | None = None
    odd_above: float | None = None

    def __post_init__(self) -> None:
        if not (_is_number(self.temperature) and TEMPERATURES[0] <= self.temperature <= TEMPERATURES[-1]):
            raise ValueError(f"temperature must be a number from 0.25 to 11.3, got {self.temperature!r}")
        if self.odd_above is not None and not (_is_number(self.odd_above) and self.odd_above > 0):
            raise ValueError(f"odd_above must be a number above 0 or None, got {self.odd_above!r}")

    @property
    def is_fitted(self) -> bool:
        """Whether the probabilities are at a temperature that was fitted, and not the network's own."""
        return self.temperature != 1

    def probabilities(self, raw: ArrayLike) -> NDArray[np.float64]:
        """``(n, K)`` probabilities at the temperature; the very numbers that came where it is 1."""
        return at_temperature(raw, self.temperature) if self.is_fitted else np.asarray(raw, dtype=np.float64)

    def sets(self, raw: ArrayLike) -> NDArray[np.bool_] | None:
        """``(n, K)`` whether each grade is in the set of each case, from the network's own probabilities."""
        return None if self.thresholds is None else self.thresholds.sets(self.probabilities(raw))

    def to_json(self) -> dict[str, Any]:
        """Plain values, for messages and the model file."""
        known = self.thresholds
        return {
            "temperature": self.temperature,
            "coverage": None if known is None else known.coverage,
            "n_bins": None if known is None else known.n_bins,
            "last_bins": None if known is None else list(known.last_bins),
            "odd_above": self.odd_above,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> GradeCalibration:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        names = {"temperature", "coverage", "n_bins", "last_bins", "odd_above"}
        check_entries(value, names, "a calibration")
        bins = [value[name] for name in ("coverage", "n_bins", "last_bins")]
        if bins == [None, None, None]:
            return GradeCalibration(value["temperature"], None, value["odd_above"])
        coverage, n_bins, last = bins
        known = _is_number(coverage) and 0 < coverage < 1 and _is_count(n_bins) and isinstance(last, list)
        if not known or len(last) < 2 or not all(_is_count(one) and one < n_bins for one in last):
            raise ValueError("a calibration's coverage, n_bins and last_bins must be those of prediction sets, or None")
        thresholds = ConformalThresholds(tuple(last), n_bins, float(coverage))
        return GradeCalibration(value["temperature"], thresholds, value["odd_above"])


@dataclass(frozen=True, eq=False)
class CalibrationCases:
    """A site's sums over its calibration cases; those of several sites add up.

    Attributes:
        temperatures: loss at each temperature of the grid.
        scores: bins of the true grade's probability, at the temperature that was asked for.
        odd: bins of the deviation from the training cases.

    Raises:
        ValueError: if they are not of the same number of cases.
    """

    temperatures: TemperatureSums
    scores: ScoreHistograms
    odd: OddHistogram

    def __post_init__(self) -> None:
        if not self.temperatures.n == self.scores.counts.sum() == self.odd.counts.sum():
            raise ValueError("temperatures, scores and odd must be of the same cases")

    @property
    def n(self) -> int:
        """Number of cases."""
        return self.temperatures.n

    @staticmethod
    def from_predictions(
        probabilities: ArrayLike, grades: ArrayLike, odd: ArrayLike, temperature: float
    ) -> CalibrationCases:
        """The sums of a site's cases.

        Args:
            probabilities: ``(n, K)``, the network's own.
            grades: ``(n,)`` true grades.
            odd: ``(n,)`` scores of ``oddness``.
            temperature: at which ``scores`` are.

        Raises:
            ValueError: if shapes or ranges disagree.
        """
        scaled = GradeCalibration(temperature).probabilities(probabilities)
        return CalibrationCases(
            TemperatureSums.from_predictions(probabilities, grades),
            ScoreHistograms.from_predictions(scaled, grades),
            OddHistogram.from_scores(odd),
        )

    def __add__(self, other: CalibrationCases) -> CalibrationCases:
        """The sums of both sites' cases."""
        if not isinstance(other, CalibrationCases):
            return NotImplemented
        return CalibrationCases(
            self.temperatures + other.temperatures, self.scores + other.scores, self.odd + other.odd
        )

    def calibration(self, temperature: float) -> GradeCalibration:
        """Sets and limit of these cases, whose ``scores`` are at ``temperature``."""
        return GradeCalibration(temperature, self.scores.thresholds(COVERAGE), self.odd.limit())

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, one entry for each attribute."""
        return {field.name: getattr(self, field.name).to_json() for field in fields(self)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> CalibrationCases:
        """What ``to_json`` wrote of grades of ``Severity``; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(CalibrationCases)}, "calibration sums")
        scores, shape = ScoreHistograms.from_json(value["scores"]), (len(Severity), N_BINS)
        # Histograms of another shape do not add up, so one from elsewhere would end the sum of all.
        if scores.counts.shape != shape:
            raise ValueError(f"scores must have the shape {shape}, got {scores.counts.shape}")
        return CalibrationCases(
            TemperatureSums.from_json(value["temperatures"]), scores, OddHistogram.from_json(value["odd"])
        )


def choose_temperature(sums: TemperatureSums) -> tuple[float, str]:
    """The temperature of the grid with the least loss, and why it is 1 where it is; otherwise the reason is empty."""
    if sums.n < LEAST_POOLED:
        return 1.0, f"{sums.n} cases are too few to choose a temperature, {LEAST_POOLED} are the least"
    try:
        temperature = sums.best()
    except ValueError as error:
        return 1.0, str(error)
    if temperature == 1:
        return 1.0, "no other temperature has a smaller loss"
    if (_loss(sums, 1.0) - _loss(sums, temperature)) < LEAST_GAIN:
        return 1.0, "no other temperature is better than chance would make it (likelihood ratio, 5 %)"
    return temperature, ""


def loss_at(sums: TemperatureSums, temperature: float) -> float | None:
    """Mean negative log-likelihood at a temperature of the grid; None without cases."""
    return _loss(sums, temperature) / sums.n if sums.n else None


def _loss(sums: TemperatureSums, temperature: float) -> float:
    return float(sums.losses[int(np.abs(np.log(TEMPERATURES / temperature)).argmin())])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
