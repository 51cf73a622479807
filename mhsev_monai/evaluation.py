"""From a network and labelled features to the table of counts that a site may send."""

from __future__ import annotations

from torch import nn

from mhsev_monai.metrics import SeverityTable
from mhsev_monai.networks import predict_severity
from mhsev_monai.severity import GradingScale
from mhsev_monai.training import LabelledFeatures


def evaluate_severity(network: nn.Module, data: LabelledFeatures, scale: GradingScale) -> SeverityTable:
    """The evaluation table of ``network`` on ``data``; an empty table where there is no case."""
    prediction = predict_severity(network, data.features, scale)
    return SeverityTable.from_predictions(
        probabilities=prediction.probabilities.numpy(),
        predicted_counts=prediction.counts.numpy(),
        true_counts=data.counts.numpy(),
        true_grades=data.grades(scale).numpy(),
        predicted_grades=prediction.grades.numpy(),
    )
