"""Calibration of class probabilities over several sites, from sums: temperature and calibration error.

A temperature T turns the probabilities p of a case into p_k^(1/T), made to sum to 1: above 1 they move towards equal
shares, below 1 apart, and their order stays. Where a network ends in a softmax this is what dividing its logits by T
does (Guo et al. 2017, ICML, section 4.2). The networks of this package end in conditional logits of an ordinal head, or
in the distribution of a count from which such logits are made; to divide those would calibrate the conditional answers
instead. So T is defined here on the grade probabilities that come out, whatever made them. The most probable grade
stays the same; the median grade, which this package predicts, need not, and the grade that is reported should stay the
network's own.

A site sends its summed negative log-likelihood at each of 56 temperatures, and the sum over sites is least at the
temperature of the pooled cases: 56 numbers and a count. They are for cases that the network was not trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhsev_monai.checked_arrays import (
    check_entries,
    class_indices,
    class_probabilities,
    finite_numbers,
    whole_numbers,
)

TEMPERATURES = 2.0 ** ((np.arange(56) - 20) / 10)
"""``(56,)`` from 0.25 to 11.3, each 7 % above the one before; 1 is among them."""
TEMPERATURES.flags.writeable = False

N_BINS = 10
"""Bins of the calibration error."""

LEAST_PROBABILITY = 1e-7
"""Smaller probabilities count as this one: a float32 network gives an exact 0 for what it finds impossible."""


@dataclass(frozen=True, eq=False)
class TemperatureSums:
    """Of ``n`` cases, the negative log-likelihood of their grades at each temperature of ``TEMPERATURES``.

    Raises:
        ValueError: if a shape or a value is not possible.
    """

    n: int
    losses: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", int(whole_numbers(self.n, "n", ())))
        object.__setattr__(self, "losses", finite_numbers(self.losses, "losses", TEMPERATURES.shape))
        if (self.losses < 0).any() or (self.n == 0 and self.losses.any()):
            raise ValueError("losses must be 0 or more, and 0 without cases")

    @staticmethod
    def from_predictions(probabilities: ArrayLike, grades: ArrayLike) -> TemperatureSums:
        """The sums of a site's cases.

        Args:
            probabilities: ``(n, K)``, rows sum to 1.
            grades: ``(n,)`` true grades from 0 to K - 1.

        Raises:
            ValueError: if shapes or ranges disagree.
        """
        scores = class_probabilities(probabilities)
        truth = class_indices(grades, "grades", len(scores), scores.shape[1])
        log_p = _log_at(scores, TEMPERATURES[:, None, None])
        losses = -log_p[:, np.arange(len(scores)), truth].sum(axis=1)
        return TemperatureSums(len(scores), np.maximum(losses, 0.0))

    def __add__(self, other: TemperatureSums) -> TemperatureSums:
        """The sums of both sites' cases."""
        if not isinstance(other, TemperatureSums):
            return NotImplemented
        return TemperatureSums(self.n + other.n, self.losses + other.losses)

    def best(self) -> float:
        """The temperature of the grid with the smallest loss; the one nearest to 1 of equals.

        Raises:
            ValueError: if there is no case, or the loss is least at an end of the grid.
        """
        if self.n == 0:
            raise ValueError("a temperature needs cases, there are none")
        least = np.flatnonzero(self.losses <= self.losses.min() * (1 + 1e-12))
        index = int(least[np.abs(np.log(TEMPERATURES[least])).argmin()])
        if index in (0, TEMPERATURES.size - 1):
            raise ValueError(
                f"the loss is least at {TEMPERATURES[index]:.3g}, an end of the grid: the probabilities say nothing of "
                "these cases, or the network never errs on them; leave it at 1, or calibrate with more cases"
            )
        return float(TEMPERATURES[index])

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, one entry for each attribute."""
        return {"n": self.n, "losses": self.losses.tolist()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TemperatureSums:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(TemperatureSums)}, "temperature sums")
        return TemperatureSums(**value)


def at_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """``(n, K)`` probabilities to the power of 1 / ``temperature``, rows made to sum to 1.

    Args:
        probabilities: ``(n, K)``, rows sum to 1; below ``LEAST_PROBABILITY`` they count as that.
        temperature: above 0.

    Raises:
        ValueError: if shapes or ranges disagree.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be above 0, got {temperature}")
    scaled: NDArray[np.float64] = np.exp(_log_at(class_probabilities(probabilities), np.float64(temperature)))
    return scaled


def _log_at(scores: NDArray[np.float64], temperature: Any) -> NDArray[np.float64]:
    """Logarithms of the probabilities ``(n, K)`` at one temperature, or ``(T, n, K)`` at those of ``(T, 1, 1)``."""
    powers = np.log(np.maximum(scores, LEAST_PROBABILITY)) / temperature
    return np.asarray(powers - np.logaddexp.reduce(powers, axis=-1, keepdims=True))


@dataclass(frozen=True, eq=False)
class CalibrationSums:
    """Sums by the probability of the grade that was predicted, in equal bins over [0, 1].

    Attributes:
        n: ``(B,)`` cases.
        confidence: ``(B,)`` sum of the probability.
        right: ``(B,)`` cases whose grade is the predicted one.

    Raises:
        ValueError: if a shape or a value is not possible.
    """

    n: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.int64]

    def __post_init__(self) -> None:
        n_bins = np.size(self.n)
        object.__setattr__(self, "n", whole_numbers(self.n, "n", (n_bins,)))
        object.__setattr__(self, "right", whole_numbers(self.right, "right", (n_bins,)))
        object.__setattr__(self, "confidence", finite_numbers(self.confidence, "confidence", (n_bins,)))
        edges = np.arange(n_bins + 1) / max(n_bins, 1)
        margin = 1e-9 * (1 + self.n)
        inside = (self.confidence >= self.n * edges[:-1] - margin) & (self.confidence <= self.n * edges[1:] + margin)
        if n_bins == 0 or (self.right > self.n).any() or not inside.all():
            raise ValueError("right must be at most n, and confidence the sum of n numbers of the bin")

    @staticmethod
    def from_predictions(
        probabilities: ArrayLike, grades: ArrayLike, predicted_grades: ArrayLike | None = None, n_bins: int = N_BINS
    ) -> CalibrationSums:
        """The sums of a site's cases.

        Args:
            probabilities: ``(n, K)``, rows sum to 1.
            grades: ``(n,)`` true grades from 0 to K - 1.
            predicted_grades: ``(n,)``, by default the most probable ones.
            n_bins: 1 or more; sums that are added need the same.

        Raises:
            ValueError: if shapes or ranges disagree.
        """
        if n_bins < 1:
            raise ValueError(f"n_bins must be 1 or more, got {n_bins}")
        scores = class_probabilities(probabilities)
        n, n_classes = scores.shape
        truth = class_indices(grades, "grades", n, n_classes)
        chosen = scores.argmax(axis=1) if predicted_grades is None else predicted_grades
        predicted = class_indices(chosen, "predicted_grades", n, n_classes)
        confidence = scores[np.arange(n), predicted]
        index = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)
        return CalibrationSums(
            np.bincount(index, minlength=n_bins),
            np.bincount(index, confidence, n_bins).astype(np.float64),
            np.bincount(index[predicted == truth], minlength=n_bins),
        )

    def __add__(self, other: CalibrationSums) -> CalibrationSums:
        """The sums of both sites' cases.

        Raises:
            ValueError: if they have different numbers of bins.
        """
        if not isinstance(other, CalibrationSums):
            return NotImplemented
        if self.n.size != other.n.size:
            raise ValueError(f"sums to be added need equal numbers of bins, got {self.n.size} and {other.n.size}")
        return CalibrationSums(self.n + other.n, self.confidence + other.confidence, self.right + other.right)

    def expected_error(self) -> float | None:
        """Expected calibration error: mean over cases of |share right - mean probability| of their bin, or None."""
        total = int(self.n.sum())
        return float(np.abs(self.right - self.confidence).sum() / total) if total else None

    def to_json(self) -> dict[str, Any]:
        """Plain lists, one entry for each attribute."""
        return {"n": self.n.tolist(), "confidence": self.confidence.tolist(), "right": self.right.tolist()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> CalibrationSums:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(CalibrationSums)}, "calibration sums")
        return CalibrationSums(**value)
