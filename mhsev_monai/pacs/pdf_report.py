"""The report of one scan on paper: equal results give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table

from mhsev_monai.prediction import LIMITS, ScanGrade
from mhsev_monai.trust import ABSTENTIONS, set_text

_MARGIN = 18 * mm
_RESEARCH = "RESEARCH USE ONLY - not for diagnosis"
_MOST_ROWS = 200


@dataclass(frozen=True)
class FindingRow:
    """One row of the table of findings.

    Attributes:
        number: as in all results.
        point: LPS mm.
        slice_number: of the source's slices along their normal, from 1.
        probability: that it is a microbleed.
        depth: signal loss, fraction of the surroundings.
        diameter_mm: extent of the darkness in the slice; None where it is not known.
        part: of the brain; None where it is not known.
    """

    number: int
    point: tuple[float, float, float]
    slice_number: int
    probability: float
    depth: float
    diameter_mm: float | None
    part: str | None


def pdf_report(
    grade: ScanGrade, findings: Sequence[FindingRow], model_digest: str, version: str, notes: Sequence[str] = ()
) -> bytes:
    """The report as a PDF without names: whose it is stands in the object around it.

    Args:
        grade: of the scan.
        findings: in the order of their numbers.
        model_digest: SHA-256 of the model file.
        version: of mhsev.
        notes: what is odd about the source, one sentence each.
    """
    style = getSampleStyleSheet()
    text, title, head = style["BodyText"], style["Title"], style["Heading3"]
    story: list[Flowable] = [Paragraph("Cerebral microbleeds on DWI", title), Paragraph(_RESEARCH, head)]
    story += [
        _facts(_results(grade)),
        Spacer(1, 4 * mm),
        Paragraph("Findings", head),
        *_findings(grade, findings, text),
    ]
    doubts = [*grade.flags, *notes]
    story += [Paragraph("Reasons to doubt the result", head)]
    story += [Paragraph(escape(doubt), text) for doubt in doubts] or [Paragraph("None was found.", text)]
    story += [Paragraph("Limits", head), Paragraph(LIMITS, text)]
    story += [Paragraph("Preliminary, and looked at by nobody. Positions are in the patient's coordinates.", text)]
    story += [Paragraph(f"mhsev {version}, model SHA-256 {model_digest}", style["Code"])]
    stream = BytesIO()
    document = SimpleDocTemplate(
        stream,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        invariant=1,
        title="Cerebral microbleeds on DWI",
        author="mhsev",
    )
    document.build(story, onFirstPage=_stamp, onLaterPages=_stamp)
    return stream.getvalue()


def _stamp(canvas: Canvas, document: Any) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica-Bold", 9)
    canvas.setFillColor(colors.firebrick)
    canvas.drawString(_MARGIN, 10 * mm, _RESEARCH)
    canvas.drawRightString(A4[0] - _MARGIN, 10 * mm, f"page {document.page}")
    canvas.restoreState()


def _results(grade: ScanGrade) -> Mapping[str, str]:
    interval = ""
    if grade.count_interval is not None:
        interval = " (90 % interval {} to {})".format(*grade.count_interval)
    facts = {"Grade": grade.grade.label, "Estimated number of microbleeds": f"{grade.count}{interval}"}
    facts |= {f"Probability of {label}": f"{p:.2f}" for label, p in grade.probabilities.items()}
    if grade.prediction_set is not None:
        facts["Grades that may be true"] = set_text(grade.prediction_set)
    if grade.abstains is not None:
        facts["The model abstains"] = ABSTENTIONS[grade.abstains]
    return facts | {"Dark spots before grading": str(grade.n_candidates)}


def _facts(facts: Mapping[str, str]) -> Table:
    table = Table([list(row) for row in facts.items()], hAlign="LEFT", colWidths=[75 * mm, 90 * mm])
    table.setStyle([("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.lightgrey)])
    return table


def _findings(grade: ScanGrade, findings: Sequence[FindingRow], text: Any) -> list[Flowable]:
    if not findings:
        none = "None is marked." if grade.judges_spots else "The model judges the scan as a whole and points at none."
        return [Paragraph(none, text)]
    header = ["no.", "slice", "left mm", "back mm", "up mm", "probability", "signal loss", "dark mm", "part"]
    rows = [header, *(_row(finding) for finding in findings[:_MOST_ROWS])]
    table = Table(rows, hAlign="LEFT", repeatRows=1)
    table.setStyle([("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.lightgrey), ("FONTSIZE", (0, 0), (-1, -1), 8)])
    left = len(findings) - _MOST_ROWS
    more = [Paragraph(f"{left} more stand in the structured report.", text)] if left > 0 else []
    return [table, *more]


def _row(finding: FindingRow) -> list[str]:
    return [
        str(finding.number),
        str(finding.slice_number),
        *(f"{x:.1f}" for x in finding.point),
        f"{finding.probability:.2f}",
        f"{finding.depth:.2f}",
        "-" if finding.diameter_mm is None else f"{finding.diameter_mm:.1f}",
        finding.part or "-",
    ]
