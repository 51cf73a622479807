"""Two scans of one patient: which findings are new, which were there before, which are gone.

ARIA-H counts microbleeds that are new since a baseline, on T2*-weighted images of treated patients. What is graded
here with its bounds are new findings of DWI; superficial siderosis is not looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.errors import ScanError
from mhsev_monai.head_alignment import Alignment, align, covered
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.lesion_matching import TOLERANCE_MM, Change, Spots, change_of, match_spots
from mhsev_monai.lesion_regions import scan_brain
from mhsev_monai.model_file import SeverityModel
from mhsev_monai.prediction import Finding, ScanGrade, grade_scan
from mhsev_monai.protocol_change import protocol_changes, yardstick_changes
from mhsev_monai.registration import moved
from mhsev_monai.severity import ARIA_H_COUNTS, Severity

REACH_MM = 2.0
"""How far from what the other scan was searched in a place still counts as shown: the error of the map between both,
and a voxel. Farther, a spot that is not there on the other scan is "not covered", and neither new nor gone."""

ARIA_H_LIMIT = (
    "aria-h here grades the number of new findings by the bounds of ARIA-H (1-4, 5-9, 10 and more); ARIA-H itself is "
    "read on T2*-GRE or SWI, and superficial siderosis is not assessed"
)


class LesionChange(NamedTuple):
    """A finding on one date or both.

    Attributes:
        change: what became of it.
        baseline: as the baseline shows it, with its own position; None where it has none.
        followup: as the follow-up shows it, with its own position; None where it has none.
        distance_mm: between the two after registration; None where one is missing.
    """

    change: Change
    baseline: Finding | None
    followup: Finding | None
    distance_mm: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values under stable names."""
        return {
            "change": str(self.change),
            "baseline": None if self.baseline is None else self.baseline.to_json(),
            "followup": None if self.followup is None else self.followup.to_json(),
            "distance_mm": None if self.distance_mm is None else round(self.distance_mm, 1),
        }


@dataclass(frozen=True)
class Comparison:
    """What two dates differ in.

    Attributes:
        baseline: the grade of the first date.
        followup: the grade of the second date.
        lesions: every finding of either date, once.
        alignment: baseline to follow-up.
        flags: reasons to doubt the comparison, one sentence each; those of the two grades are with these.
    """

    baseline: ScanGrade
    followup: ScanGrade
    lesions: Sequence[LesionChange]
    alignment: Alignment
    flags: Sequence[str]

    @property
    def counts(self) -> Mapping[Change, int]:
        """Lesions by change."""
        return {change: sum(lesion.change is change for lesion in self.lesions) for change in Change}

    @property
    def n_unsure_new(self) -> int:
        """Unsure lesions that are findings on the follow-up."""
        return sum(
            lesion.change is Change.UNSURE and _probability(lesion.followup) > _probability(lesion.baseline)
            for lesion in self.lesions
        )

    @property
    def new_grade(self) -> Severity:
        """Grade of the new findings alone by the bounds of ARIA-H."""
        return ARIA_H_COUNTS.grade(self.counts[Change.NEW])

    @property
    def new_grade_at_most(self) -> Severity:
        """The same where unsure ones are new, too."""
        return ARIA_H_COUNTS.grade(self.counts[Change.NEW] + self.n_unsure_new)

    def to_json(self) -> dict[str, Any]:
        """Plain values under stable names."""
        return {
            "counts": {str(change): n for change, n in self.counts.items()},
            "unsure_new": self.n_unsure_new,
            "aria_h_of_new": self.new_grade.label,
            "aria_h_of_new_at_most": self.new_grade_at_most.label,
            "aria_h_limit": ARIA_H_LIMIT,
            "lesions": [lesion.to_json() for lesion in self.lesions],
            "brain_overlap": round(self.alignment.overlap, 3),
            "registration_peakedness": round(self.alignment.peakedness, 2),
            "registration_disagreement_mm": round(self.alignment.disagreement_mm, 2),
            "flags": list(self.flags),
            "baseline": self.baseline.to_json(),
            "followup": self.followup.to_json(),
        }


def compare_scans(
    baseline: Path, followup: Path, model: SeverityModel, b0_only: bool = False, tolerance_mm: float = TOLERANCE_MM
) -> Comparison:
    """Grade two scans of one patient and tell what is new, stable and gone.

    Args:
        baseline: NIfTI of a diffusion series of the first date.
        followup: of the second date.
        model: from ``load_model``.
        b0_only: every volume is b = 0, so that no b-values are looked for.
        tolerance_mm: see ``lesion_matching``.

    Raises:
        ScanError: if a scan cannot be used, the two do not fit each other, or the model judges scans as a whole.
    """
    if not isinstance(model.network, CandidateMLP):
        raise ScanError(
            "the model judges scans as a whole and points at no lesion to compare; name a model that judges candidates"
        )
    graded = [grade_scan(path, model, b0_only=b0_only) for path in (baseline, followup)]
    (first, first_entries), (second, second_entries) = graded
    alignment = align(scan_brain(first_entries), scan_brain(second_entries))
    lesions = lesion_changes((first, first_entries), (second, second_entries), alignment, tolerance_mm)
    flags = [
        *([] if alignment.doubt is None else [alignment.doubt]),
        *protocol_changes((baseline, first.quality), (followup, second.quality)),
        *yardstick_changes(first.familiarity, second.familiarity),
        *(f"baseline: {flag}" for flag in first.flags),
        *(f"follow-up: {flag}" for flag in second.flags),
    ]
    return Comparison(first, second, lesions, alignment, tuple(flags))


Graded = tuple[ScanGrade, Mapping[str, Any]]


def lesion_changes(
    baseline: Graded, followup: Graded, alignment: Alignment, tolerance_mm: float
) -> tuple[LesionChange, ...]:
    """What became of every finding, new ones first, each kind by probability.

    Args:
        baseline: grade and data dictionary of the first date.
        followup: of the second date.
        alignment: baseline to follow-up.
        tolerance_mm: see ``lesion_matching``.
    """
    (first, first_entries), (second, second_entries) = baseline, followup
    before, after = _spots(first, alignment.matrix), _spots(second, np.eye(4))
    own_before = _spots(first, np.eye(4)).places
    in_first = covered(
        moved(np.linalg.inv(alignment.matrix), after.places), *_searched(first_entries), reach_mm=REACH_MM
    )
    in_second = covered(moved(alignment.matrix, own_before), *_searched(second_entries), reach_mm=REACH_MM)
    lesions = []
    for pair in match_spots(before, after, tolerance_mm):
        old = None if pair.baseline is None else before.spot(pair.baseline)
        new = None if pair.followup is None else after.spot(pair.followup)
        shown = in_first[pair.followup or 0] if pair.baseline is None else in_second[pair.baseline]
        lesions.append(LesionChange(change_of(old, new, shown), old, new, pair.distance_mm))
    order = list(Change)
    return tuple(
        sorted(
            lesions,
            key=lambda each: (
                order.index(each.change),
                -max(_probability(each.baseline), _probability(each.followup)),
            ),
        )
    )


def _spots(grade: ScanGrade, matrix: np.ndarray) -> Spots:
    positions = np.array([spot.position_mm for spot in (*grade.findings, *grade.possible)], dtype=np.float64)
    return Spots(grade.findings, grade.possible, moved(matrix, positions.reshape(-1, 3)))


def _searched(entries: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Where a scan was searched, and the affine of it."""
    return np.asarray(entries[Keys.SEARCH_MASK])[0] > 0, np.asarray(entries[Keys.B0].affine, dtype=np.float64)


def _probability(finding: Finding | None) -> float:
    return 0.0 if finding is None else finding.probability or 0.0
