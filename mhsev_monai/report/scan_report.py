"""From a graded scan to its report: what ``grade_scan`` returns in, plain data and pictures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mhsev_monai._version import __version__
from mhsev_monai.model_file import SeverityModel
from mhsev_monai.prediction import INTERVAL_SHARE, Finding, ScanGrade
from mhsev_monai.report.document import Picture
from mhsev_monai.report.scan_data import Attribution, FindingLine, ScanReport
from mhsev_monai.report.scan_pictures import findings_on, orientation_of, slice_index, slice_of, slices_with_findings
from mhsev_monai.scan_explanation import ScanExplanation
from mhsev_monai.trust import ABSTENTIONS

MOST_PICTURES = 6
MOST_LINES = 60
"""Findings and possible ones that are listed."""


@dataclass(frozen=True)
class ReportContext:
    """What a report says beside the answer; nothing of it names a patient unless somebody puts it there.

    Attributes:
        model_digest: SHA-256 of the model file, or None.
        subject: a pseudonym to print; None prints none.
        made_on: a date to print; None prints none.
        notes: what is odd about the source, one sentence each; printed among the reasons to doubt the result.
    """

    model_digest: str | None = None
    subject: str | None = None
    made_on: str | None = None
    notes: Sequence[str] = ()


def scan_report(
    grade: ScanGrade,
    entries: Mapping[str, Any],
    model: SeverityModel,
    explanation: ScanExplanation | None = None,
    context: ReportContext | None = None,
) -> ScanReport:
    """The report of one scan.

    Args:
        grade: from ``grade_scan``.
        entries: likewise.
        model: that graded it.
        explanation: from ``explain_graded``; None leaves the attribution out.
        context: None prints neither digest nor subject nor date.
    """
    given = context or ReportContext()
    pictures = _pictures(grade, entries)
    n_slices = len({slice_index(finding) for finding in grade.findings}) if grade.judges_spots else 0
    return ScanReport(
        grade=grade.grade.label,
        count=grade.count,
        count_interval=grade.count_interval,
        count_share=INTERVAL_SHARE,
        probabilities=grade.probabilities,
        scale=model.scale.name,
        calibrated=grade.calibrated,
        prediction_set=grade.prediction_set,
        set_coverage=grade.set_coverage,
        abstains=None if grade.abstains is None else ABSTENTIONS.get(grade.abstains, grade.abstains),
        judges_spots=grade.judges_spots,
        n_candidates=grade.n_candidates,
        findings=_lines(grade),
        pictures=pictures,
        n_slices_left=max(0, n_slices - len(pictures)),
        orientation=orientation_of(entries),
        attribution=None if explanation is None else _attribution(explanation),
        quality=_quality(grade),
        flags=[*grade.flags, *given.notes],
        model=_model_facts(model, given.model_digest),
        subject=given.subject,
        made_on=given.made_on,
    )


def _lines(grade: ScanGrade) -> list[FindingLine]:
    if not grade.judges_spots:
        return []
    listed = [*((spot, True) for spot in grade.findings), *((spot, False) for spot in grade.possible)]
    return [
        FindingLine(
            number=number,
            slice_number=slice_index(spot) + 1,
            position_mm=spot.position_mm,
            probability=spot.probability,
            depth=spot.depth,
            diameter_mm=spot.diameter_mm,
            region=spot.region,
            is_finding=is_finding,
        )
        for number, (spot, is_finding) in enumerate(listed[:MOST_LINES], start=1)
    ]


def _pictures(grade: ScanGrade, entries: Mapping[str, Any]) -> list[Picture]:
    findings: Sequence[Finding] = grade.findings if grade.judges_spots else ()
    numbers = {id(finding): str(number) for number, finding in enumerate(findings, start=1)}
    pictures = []
    for z in slices_with_findings(findings, entries, MOST_PICTURES):
        here = findings_on(findings, z)
        marks = [numbers[id(finding)] for finding in here]
        shown = slice_of(entries, z, here, marks)
        what = f"circled: {'finding' if len(marks) == 1 else 'findings'} {', '.join(marks)}" if marks else "no finding"
        caption = f"Slice {z + 1} of {shown.n_slices}; {what}."
        beside = " beside its dynamic feature map" if shown.has_map else ""
        pictures.append(Picture(shown.png, f"b = 0 slice {z + 1} of {shown.n_slices}{beside}; {what}.", caption))
    return pictures


def _attribution(explanation: ScanExplanation) -> Attribution:
    steps = [(each.name, each.severity) for each in explanation.contributions]
    return Attribution(explanation.usual_severity, explanation.expected_severity, steps, explanation.expected_count)


def _quality(grade: ScanGrade) -> dict[str, str | int | float | None]:
    told = grade.quality
    facts: dict[str, str | int | float | None] = {}
    if "brain_mask_ml" in told:
        facts["brain mask"] = f"{told['brain_mask_ml']:.0f} ml"
    if told.get("spacing_mm"):
        facts["voxel"] = " x ".join(f"{side:.2f}" for side in told["spacing_mm"]) + " mm"
    if "n_b0" in told:
        facts["b = 0 volumes"] = told["n_b0"]
    if "n_dwi" in told:
        facts["diffusion-weighted volumes used"] = told["n_dwi"]
    if told.get("b_value"):
        facts["their b-value"] = f"{told['b_value']:.0f} s/mm²"
    if grade.oddness is not None:
        limit = "" if grade.oddness.limit is None else f" (odd above {grade.oddness.limit:.2f})"
        facts["deviation from the training cases"] = f"{grade.oddness.score:.2f} standard deviations{limit}"
    return facts


def _model_facts(model: SeverityModel, digest: str | None) -> dict[str, str | int | float | None]:
    versions = model.provenance.get("versions") or {}
    facts: dict[str, str | int | float | None] = {"mhsev": __version__, "network": type(model.network).__name__}
    if model.provenance.get("sites") is not None:
        facts["trained at"] = f"{model.provenance['sites']} sites"
    if "mhsev" in versions:
        facts["trained with mhsev"] = versions["mhsev"]
    if digest:
        facts["model SHA-256"] = digest
    return facts
