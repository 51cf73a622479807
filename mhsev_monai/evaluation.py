"""From a network and labelled features to the sums that a site may send."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mhsev_monai.calibration import CalibrationSums
from mhsev_monai.conformal import SetSums
from mhsev_monai.grade_calibration import CalibrationCases, GradeCalibration
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.networks import predict_severity
from mhsev_monai.oddness import odd_scores
from mhsev_monai.severity import GradingScale
from mhsev_monai.training import LabelledFeatures
from mhsev_monai.uncertainty import UncertaintySums

AS_IT_IS = GradeCalibration()
"""The network's own probabilities, no sets, no limit of oddness."""


@dataclass(frozen=True, eq=False)
class JudgedCases:
    """What a network says of cases whose truth is known; stays at the site, its sums may leave.

    Attributes:
        probabilities: ``(n, 4)``, the network's own.
        grades: ``(n,)`` predicted, the network's own.
        counts: ``(n,)`` predicted.
        true_grades: ``(n,)``.
        true_counts: ``(n,)``.
        odd: ``(n,)`` deviation from the training cases, see ``oddness``.
    """

    probabilities: NDArray[np.float64]
    grades: NDArray[np.int64]
    counts: NDArray[np.float64]
    true_grades: NDArray[np.int64]
    true_counts: NDArray[np.float64]
    odd: NDArray[np.float64]

    @staticmethod
    def of(network: nn.Module, data: LabelledFeatures, scale: GradingScale, measure_odd: bool = True) -> JudgedCases:
        """The cases of ``data``; the network is left in evaluation mode. ``odd`` is 0 where it is not asked for."""
        prediction = predict_severity(network, data.features, scale)
        return JudgedCases(
            probabilities=prediction.probabilities.double().numpy(),
            grades=prediction.grades.numpy(),
            counts=prediction.counts.double().numpy(),
            true_grades=data.grades(scale).numpy(),
            true_counts=data.counts.double().numpy(),
            odd=odd_scores(network, data.features) if measure_odd else np.zeros(len(data)),
        )

    def __len__(self) -> int:
        return len(self.grades)

    def take(self, rows: NDArray[np.int64]) -> JudgedCases:
        """The cases of these indices."""
        return JudgedCases(**{name: values[rows] for name, values in vars(self).items()})

    def table(self, calibration: GradeCalibration = AS_IT_IS) -> SeverityTable:
        """Their table; probabilities are at the temperature, grades and counts the network's own."""
        return SeverityTable.from_predictions(
            probabilities=calibration.probabilities(self.probabilities),
            predicted_counts=self.counts,
            true_counts=self.true_counts,
            true_grades=self.true_grades,
            predicted_grades=self.grades,
        )

    def calibration_cases(self, temperature: float) -> CalibrationCases:
        """Their sums for choosing a temperature, and for the sets at ``temperature``."""
        return CalibrationCases.from_predictions(self.probabilities, self.true_grades, self.odd, temperature)

    def uncertainty(self, calibration: GradeCalibration) -> UncertaintySums:
        """How sure the network was of them, and how rightly."""
        after = calibration.probabilities(self.probabilities)
        errors = self.counts - self.true_counts
        scored = (*self._scores(self.probabilities), *self._scores(after), np.abs(errors), errors)
        sets = calibration.sets(self.probabilities)
        return UncertaintySums(
            before=CalibrationSums.from_predictions(self.probabilities, self.true_grades, self.grades),
            after=CalibrationSums.from_predictions(after, self.true_grades, self.grades),
            moments=np.array([[values.sum(), (values**2).sum()] for values in scored]),
            sets=None if sets is None else SetSums.from_sets(sets, self.true_grades),
            n_odd=None if calibration.odd_above is None else int((self.odd > calibration.odd_above).sum()),
        )

    def _scores(self, probabilities: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Brier score (0 to 2) and ranked probability score (0 to 1) of each case, as of ``SeverityTable``."""
        shares = probabilities / probabilities.sum(axis=1, keepdims=True)
        truth = self.true_grades[:, None] == np.arange(shares.shape[1])
        below = np.cumsum(shares - truth, axis=1)[:, :-1]
        return ((shares - truth) ** 2).sum(axis=1), (below**2).sum(axis=1) / below.shape[1]


def evaluate_severity(
    network: nn.Module, data: LabelledFeatures, scale: GradingScale, calibration: GradeCalibration = AS_IT_IS
) -> SeverityTable:
    """The evaluation table of ``network`` on ``data``; an empty table where there is no case."""
    return JudgedCases.of(network, data, scale, measure_odd=False).table(calibration)
