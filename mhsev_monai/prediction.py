"""Grading one scan with a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhsev_monai.candidate_network import BOTH, CandidateMLP
from mhsev_monai.count_distribution import count_quantile
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.errors import ScanError
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.finding_size import darkness_extent
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.model_file import SeverityModel
from mhsev_monai.networks import predict_severity
from mhsev_monai.oddness import Oddness, deviations
from mhsev_monai.quality import quality_flags
from mhsev_monai.severity import Severity
from mhsev_monai.trust import set_text, trust

LIMITS = "Research use only. DWI shows fewer microbleeds than T2*-GRE or SWI."


FINDING_PROBABILITY = 0.5
"""The operating point: a candidate that is at least as likely a bleed as not is a finding. The count does not rest on
it: that is made of the probabilities of all candidates."""
POSSIBLE_PROBABILITY = 0.2
"""Candidates from this probability on that are no findings are listed apart."""

INTERVAL_SHARE = 0.9


class Finding(NamedTuple):
    """A dark spot.

    Attributes:
        voxel: ``(3,)`` indices in the processed volumes, not rounded where the spot's centre is known better.
        position_mm: ``(3,)`` RAS+ world position.
        depth: signal loss, fraction of the surroundings.
        probability: that it is a microbleed; None where the model judges the scan as a whole.
        diameter_mm: extent of its darkness in the slice, not of the lesion, see ``finding_size``; None where it has
            none of its own, or was not measured.
        region: label of a ``regions.Region``; None where the scan was not laid on the template.
    """

    voxel: tuple[float, float, float]
    position_mm: tuple[float, float, float]
    depth: float
    probability: float | None
    diameter_mm: float | None = None
    region: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values under stable names."""
        return {
            "position_mm": [round(x, 1) for x in self.position_mm],
            "depth": round(self.depth, 3),
            "probability": None if self.probability is None else round(self.probability, 3),
            "diameter_mm": None if self.diameter_mm is None else round(self.diameter_mm, 1),
            "region": self.region,
        }


@dataclass(frozen=True)
class ScanGrade:
    """What a model says of one scan.

    Attributes:
        grade: severity on the model's scale.
        count: estimated number of microbleeds.
        count_interval: central 90 % interval of the count; None where the model has no distribution of it.
        probabilities: probability of each grade, by its label; at the model's temperature where one was fitted,
            which leaves grade and count alone.
        judges_spots: whether the model gives each candidate a probability; otherwise it judges the scan as a whole.
        n_candidates: dark spots before the model judges them.
        findings: candidates at or above ``FINDING_PROBABILITY``, most probable first; all of them where the model
            judges the scan as a whole.
        possible: those below it and at or above ``POSSIBLE_PROBABILITY``, most probable first.
        quality: measurements of the scan and its processing.
        flags: reasons to doubt the grade, one sentence each; none is the usual case.
        calibrated: whether the probabilities are at a temperature that was fitted, and not the network's own.
        prediction_set: labels of the grades that may be the true one; None without a calibration.
        set_coverage: share of cases whose set holds the true grade, of cases like those it was made with; or None.
        oddness: how unlike the training cases the scan is.
        familiarity: share of the answer that measures candidates over the federation, not within the scan, 0 to 1;
            None where the model has one yardstick.
        abstains: why the grade is not to be relied on, a key of ``trust.ABSTENTIONS``; None is the usual case.
    """

    grade: Severity
    count: int
    count_interval: tuple[int, int] | None
    probabilities: Mapping[str, float]
    judges_spots: bool
    n_candidates: int
    findings: Sequence[Finding]
    possible: Sequence[Finding]
    quality: Mapping[str, Any]
    flags: Sequence[str]
    calibrated: bool = False
    prediction_set: tuple[str, ...] | None = None
    set_coverage: float | None = None
    oddness: Oddness | None = None
    familiarity: float | None = None
    abstains: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values under stable names."""
        known = self.prediction_set
        return {
            "grade": self.grade.label,
            "count": self.count,
            "count_interval": None if self.count_interval is None else list(self.count_interval),
            "probabilities": {label: round(p, 6) for label, p in self.probabilities.items()},
            "candidates": self.n_candidates,
            "findings": [finding.to_json() for finding in self.findings],
            "possible_findings": [finding.to_json() for finding in self.possible],
            "quality": dict(self.quality),
            "flags": list(self.flags),
            "calibrated": self.calibrated,
            "prediction_set": None if known is None else list(known),
            "prediction_set_text": None if known is None else set_text(known),
            "set_coverage": self.set_coverage,
            "oddness": None if self.oddness is None else self.oddness.to_json(),
            "familiarity": None if self.familiarity is None else round(self.familiarity, 4),
            "abstains": self.abstains,
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
        The grade, and the data dictionary with contrasts, masks and map, for pictures.

    Raises:
        ScanError: if the scan cannot be used.
    """
    if not hasattr(model.inputs, "process"):
        raise ScanError(
            f"the model reads {type(model.inputs).__name__}, which cannot process a scan alone; name another model"
        )
    entries = model.inputs.process(image, bvals, b0_only)
    described: CaseFeatures = model.inputs.describe(entries)  # type: ignore[attr-defined]
    features = torch.from_numpy(model.inputs.assemble(described)).float()[None]
    prediction = predict_severity(model.network, features, model.scale)
    far = deviations(model.network, features)[0].tolist()
    trusted = trust(model.calibration, prediction.probabilities[0].tolist(), far)
    spots = _spots(model.network, features, entries)
    findings, possible = sort_spots(spots)
    grade = ScanGrade(
        grade=Severity(int(prediction.grades[0])),
        count=int(prediction.counts[0]),
        count_interval=_count_interval(model.network, features),
        probabilities=trusted.probabilities,
        judges_spots=isinstance(model.network, CandidateMLP),
        n_candidates=len(spots),
        findings=findings,
        possible=possible,
        quality=described.quality,
        flags=quality_flags(described.quality, far, model.inputs.feature_names),
        calibrated=trusted.calibrated,
        prediction_set=trusted.prediction_set,
        set_coverage=trusted.set_coverage,
        oddness=trusted.oddness,
        familiarity=_familiarity(model.network, features),
        abstains=trusted.abstains,
    )
    return grade, entries


@torch.no_grad()
def _familiarity(network: torch.nn.Module, features: Tensor) -> float | None:
    if not isinstance(network, CandidateMLP) or network.yardstick != BOTH:
        return None
    return float(network.familiarity(features)[0])


@torch.no_grad()
def _count_interval(network: torch.nn.Module, features: Tensor) -> tuple[int, int] | None:
    if not isinstance(network, CandidateMLP):
        return None
    pmf = network.count_distribution(features)
    outside = (1 - INTERVAL_SHARE) / 2
    return int(count_quantile(pmf, outside)[0]), int(count_quantile(pmf, 1 - outside)[0])


def sort_spots(spots: Sequence[Finding]) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """The findings, and the possible ones, each most probable first."""

    def between(low: float, high: float) -> tuple[Finding, ...]:
        chosen = [spot for spot in spots if spot.probability is not None and low <= spot.probability < high]
        return tuple(sorted(chosen, key=lambda spot: -(spot.probability or 0.0)))

    without = tuple(spot for spot in spots if spot.probability is None)
    return without + between(FINDING_PROBABILITY, np.inf), between(POSSIBLE_PROBABILITY, FINDING_PROBABILITY)


@torch.no_grad()
def _spots(network: torch.nn.Module, features: Tensor, entries: Mapping[str, Any]) -> list[Finding]:
    affine = np.asarray(entries[Keys.B0].affine)
    if not isinstance(network, CandidateMLP):
        spots = [(candidate.centre_voxel, candidate.depth, None) for candidate in entries.get(Keys.CANDIDATES, ())]
    else:
        scores = network.candidate_probabilities(features)[0].tolist()
        depths = entries[Keys.DESCRIPTORS][:, DESCRIPTORS.index("cleared_depth")].tolist()
        voxels = [tuple(float(i) for i in voxel) for voxel in entries[Keys.CANDIDATE_VOXELS]]
        spots = list(zip(voxels, depths, scores[: len(voxels)], strict=True))
    return [
        Finding(voxel, _world(affine, voxel), depth, probability, _extent(voxel, probability, entries))
        for voxel, depth, probability in spots
    ]


def _extent(voxel: Sequence[float], probability: float | None, entries: Mapping[str, Any]) -> float | None:
    """How far the darkness of a spot reaches, mm, of those that are listed."""
    if probability is not None and probability < POSSIBLE_PROBABILITY:
        return None
    image, inside = entries[Keys.FUSED], np.asarray(entries[Keys.SEARCH_MASK])[0] > 0
    spacing = [float(side) for side in entries[Keys.B0].pixdim]
    return darkness_extent(np.asarray(image)[0], voxel, spacing, inside)


def _world(affine: NDArray[np.float64], voxel: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (affine @ (*voxel, 1.0))[:3]
    return float(x), float(y), float(z)
