"""Why one scan got its grade: what groups of features add, and which spots make the count. It stays at the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.model_file import SeverityModel
from mhsev_monai.prediction import ScanGrade, grade_scan
from mhsev_monai.shapley_background import USUAL_CANDIDATES, common_background
from mhsev_monai.shapley_candidates import explain_lesions
from mhsev_monai.shapley_explain import Effort, explain
from mhsev_monai.shapley_groups import feature_groups

BACKGROUND_ROWS, BACKGROUND_SCANS = 100, 8
BACKGROUND_SEED = 0
"""The background of a model is the same for every scan and site."""
GROUP_PASSES, SPOT_PASSES = 20, 200
"""Up to 8 groups and up to 12 spots are exact with these. Fewer passes give spots of equal probability values of the
severity that differ twofold."""


class Contribution(NamedTuple):
    """What one player adds to the expected severity, 0 to 3, and to the probability of each grade."""

    name: str
    severity: float
    probabilities: Mapping[str, float]


class SpotContribution(NamedTuple):
    """What one spot adds.

    Attributes:
        position_mm: RAS+ world position; None for all spots together that are not listed.
        microbleeds: to their expected number.
        severity: to the expected severity.
    """

    position_mm: tuple[float, float, float] | None
    microbleeds: float
    severity: float


@dataclass(frozen=True)
class ScanExplanation:
    """Attributions of one scan.

    Attributes:
        grade: what the model says.
        expected_severity: sum of grade times probability, 0 to 3; ``usual_severity`` and all contributions together.
        usual_severity: the same of the common background.
        contributions: of groups of features, the largest first.
        expected_count: mean of the count's distribution; None where the model has none, or the scan no spot.
        count_without_spots: microbleeds that the model expects where no spot is one; None likewise.
        spots: likeliest first, all others together at the end.
    """

    grade: ScanGrade
    expected_severity: float
    usual_severity: float
    contributions: Sequence[Contribution]
    expected_count: float | None
    count_without_spots: float | None
    spots: Sequence[SpotContribution]

    def to_json(self) -> dict[str, Any]:
        """Plain values under stable names."""
        return {
            "grade": self.grade.grade.label,
            "count": self.grade.count,
            "expected_severity": self.expected_severity,
            "usual_severity": self.usual_severity,
            "contributions": [each._asdict() for each in self.contributions],
            "expected_count": self.expected_count,
            "count_without_spots": self.count_without_spots,
            "spots": [each._asdict() for each in self.spots],
            "flags": list(self.grade.flags),
        }


def explain_scan(
    image: Path, model: SeverityModel, bvals: Path | None = None, b0_only: bool = False, most_spots: int = 10
) -> ScanExplanation:
    """Grade one scan and attribute the answer.

    Args:
        image: NIfTI of a diffusion series.
        model: from ``load_model``.
        bvals: its b-values, where they are not in the ``.bval`` file beside it.
        b0_only: every volume is b = 0, so that no b-values are looked for.
        most_spots: spots that are listed one by one.

    Raises:
        ScanError: if the scan cannot be used.
        ExplainError: if the model reads volumes.
    """
    return explain_graded(*grade_scan(image, model, bvals, b0_only), model, most_spots)


def explain_graded(
    grade: ScanGrade, entries: Mapping[str, Any], model: SeverityModel, most_spots: int = 10
) -> ScanExplanation:
    """Attribute the answer on a scan that is graded already.

    Args:
        grade: from ``grade_scan``.
        entries: likewise.
        model: that graded it.
        most_spots: spots that are listed one by one.

    Raises:
        ExplainError: if the model reads volumes.
    """
    described: CaseFeatures = model.inputs.describe(entries)  # type: ignore[attr-defined]
    features = torch.from_numpy(model.inputs.assemble(described)).float()[None]
    is_set = isinstance(model.network, CandidateMLP)
    size = BACKGROUND_SCANS if is_set else BACKGROUND_ROWS
    background = common_background(model.network, size, BACKGROUND_SEED, USUAL_CANDIDATES)
    groups = feature_groups(model.inputs.feature_names)
    found = explain(model.network, features, background, groups, effort=Effort(n_passes=GROUP_PASSES))
    severity = found.outputs.index("expected severity")
    contributions = [
        Contribution(name, row[severity], dict(zip(found.outputs[:severity], row, strict=False)))
        for name, row in zip(found.players, found.values.values[0].tolist(), strict=True)
    ]
    count, without, spots = _spots(model.network, features[0], entries, most_spots) if is_set else (None, None, [])
    return ScanExplanation(
        grade=grade,
        expected_severity=float(found.values.outputs[0, severity]),
        usual_severity=float(found.values.base[0, severity]),
        contributions=sorted(contributions, key=lambda each: -abs(each.severity)),
        expected_count=count,
        count_without_spots=without,
        spots=spots,
    )


def _spots(
    network: torch.nn.Module, scan: torch.Tensor, entries: Mapping[str, Any], most: int
) -> tuple[float | None, float | None, list[SpotContribution]]:
    """Expected count, the same without spots, and what each spot adds."""
    assert isinstance(network, CandidateMLP)
    if bool(scan[:, 0].isnan().all()):
        return None, None, []
    rows, found = explain_lesions(network, scan, SPOT_PASSES, BACKGROUND_SEED, most)
    affine = np.asarray(entries[Keys.B0].affine)
    places: list[tuple[float, float, float] | None] = []
    for row in rows:
        x, y, z = (affine @ (*(float(i) for i in entries[Keys.CANDIDATE_VOXELS][row]), 1.0))[:3]
        places.append((float(x), float(y), float(z)))
    values = found.values[0, :, -2:].tolist()
    places += [None] * (len(values) - len(places))
    spots = [SpotContribution(place, count, severity) for place, (severity, count) in zip(places, values, strict=True)]
    return float(found.outputs[0, -1]), float(found.base[0, -1]), spots
