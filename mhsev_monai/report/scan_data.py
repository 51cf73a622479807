"""What the report of one scan is made of: plain data without a name, a path or a date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mhsev_monai.report.document import Picture


@dataclass(frozen=True)
class FindingLine:
    """A row of the table of findings.

    Attributes:
        number: as beside its circle.
        slice_number: from 1, of the processed volume.
        position_mm: ``(3,)`` RAS+ world position of the source: to the right, to the front, to the top.
        probability: that it is a microbleed; None where the model judges the scan as a whole.
        depth: signal loss, fraction of the surroundings.
        diameter_mm: extent of its darkness in the slice; None where it has none of its own.
        region: label; None where the scan was not laid on the template.
        is_finding: at least as likely a bleed as not; else it is a less likely one, not circled.
    """

    number: int
    slice_number: int
    position_mm: tuple[float, float, float]
    probability: float | None
    depth: float
    diameter_mm: float | None
    region: str | None
    is_finding: bool = True


@dataclass(frozen=True)
class Attribution:
    """What groups of features add to the expected severity.

    Attributes:
        usual: expected severity of the usual scan, 0 to 3.
        expected: of this scan; ``usual`` and all steps together.
        steps: (group, what it adds), the largest first.
        expected_count: mean of the distribution of the count; None where the model has none.
    """

    usual: float
    expected: float
    steps: Sequence[tuple[str, float]]
    expected_count: float | None = None


@dataclass(frozen=True)
class ScanReport:
    """All that the report of one scan shows.

    Attributes:
        grade: label.
        count: microbleeds.
        count_interval: central interval of the count, of ``count_share``; None where the model has none.
        count_share: share of the distribution that the interval holds.
        probabilities: of each grade by its label.
        scale: name of the grading scale.
        calibrated: whether the probabilities are at a temperature that was fitted, and not the network's own.
        prediction_set: grades that may be the true one; None without a calibration.
        set_coverage: share of like cases whose set holds the true grade; None likewise.
        abstains: why the grade is not to be relied on, in words; None is the usual case.
        judges_spots: whether the model points at places.
        n_candidates: dark spots that the model looked at.
        findings: in the order of their numbers.
        pictures: slices with circles.
        n_slices_left: slices with findings that are not among the pictures.
        orientation: how they are hung.
        attribution: None where it was not asked for, or the model cannot be asked.
        quality: measurements of the scan, by name, with their unit.
        flags: reasons to doubt the result, one sentence each.
        model: facts of the model, by name.
        subject: a pseudonym, only where somebody gave one.
        made_on: a date, likewise.
    """

    grade: str
    count: int
    count_interval: tuple[int, int] | None
    count_share: float
    probabilities: Mapping[str, float]
    scale: str
    calibrated: bool = False
    prediction_set: Sequence[str] | None = None
    set_coverage: float | None = None
    abstains: str | None = None
    judges_spots: bool = True
    n_candidates: int = 0
    findings: Sequence[FindingLine] = ()
    pictures: Sequence[Picture] = ()
    n_slices_left: int = 0
    orientation: str = ""
    attribution: Attribution | None = None
    quality: Mapping[str, str | int | float | None] = field(default_factory=dict)
    flags: Sequence[str] = ()
    model: Mapping[str, str | int | float | None] = field(default_factory=dict)
    subject: str | None = None
    made_on: str | None = None
