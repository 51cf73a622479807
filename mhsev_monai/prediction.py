"""Grading one scan with a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mhsev_monai.inputs import describe
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.model_file import SeverityModel
from mhsev_monai.networks import predict_severity
from mhsev_monai.quality import quality_flags
from mhsev_monai.severity import Severity

LIMITS = "Research use only. DWI shows fewer microbleeds than T2*-GRE or SWI."


@dataclass(frozen=True)
class ScanGrade:
    """What a model says of one scan.

    Attributes:
        grade: severity on the model's scale.
        count: estimated number of microbleeds.
        probabilities: probability of each grade, by its label.
        n_candidates: dark spots that the map shows at the standard threshold, before the model judges them.
        quality: measurements of the scan and its processing.
        flags: reasons to doubt the grade, one sentence each; none is the usual case.
    """

    grade: Severity
    count: int
    probabilities: Mapping[str, float]
    n_candidates: int
    quality: Mapping[str, Any]
    flags: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values under stable names."""
        return {
            "grade": self.grade.label,
            "count": self.count,
            "probabilities": {label: round(p, 6) for label, p in self.probabilities.items()},
            "candidates": self.n_candidates,
            "quality": dict(self.quality),
            "flags": list(self.flags),
        }


def grade_scan(
    image: Path, model: SeverityModel, bvals: Path | None = None, b0_only: bool = False
) -> tuple[ScanGrade, Mapping[str, Any]]:
    """Grade one scan.

    Args:
        image: NIfTI of a diffusion series.
        model: from ``load_model``.
        bvals: its b-values, where they are not in the ``.bval`` file beside it.
        b0_only: every volume is b = 0, so that no b-values are looked for.

    Returns:
        The grade, and the data dictionary with contrasts, masks, map and candidates, for pictures.

    Raises:
        ScanError: if the scan cannot be used.
    """
    entries = model.inputs.process(image, bvals, b0_only)  # type: ignore[attr-defined]
    described = describe(entries)
    features = torch.from_numpy(described.vector(model.inputs.feature_names)).float()[None]
    prediction = predict_severity(model.network, features, model.scale)
    probabilities = {g.label: float(p) for g, p in zip(Severity, prediction.probabilities[0], strict=True)}
    deviation = (features[0] - model.network.get_buffer("feature_mean")) / model.network.get_buffer("feature_scale")
    grade = ScanGrade(
        grade=Severity(int(prediction.grades[0])),
        count=int(prediction.counts[0]),
        probabilities=probabilities,
        n_candidates=len(entries[Keys.CANDIDATES]),
        quality=described.quality,
        flags=quality_flags(described.quality, deviation.abs().tolist(), model.inputs.feature_names),
    )
    return grade, entries
