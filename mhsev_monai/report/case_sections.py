"""Single cases: examples of each grade, and those that were graded farthest from the truth. For a site's own eyes."""

from __future__ import annotations

from collections.abc import Sequence

from mhsev_monai.report.data import ExampleCase, ReportData
from mhsev_monai.report.document import Beside, Block, Card, Cell, Column, Number, Paragraph, Picture, Section, Table

HOW_CHOSEN = (
    "Left: b = 0 image. Right: dynamic feature map of the same slice; orange is darker than its surroundings, blue is "
    "brighter. Circles: findings, the candidates that the model holds for microbleeds with a probability of 0.5 or "
    "more (the score); the count comes from the probabilities of all candidates. The cases are the first test case of "
    "each true grade, by site and id; a few examples show how the method works, not how often it is right."
)
WHAT_FAILED = (
    "Chosen by how many grades they are off, then by how many microbleeds. Look here for a common cause: the scanner, "
    "motion, another disease, a truth that is itself wrong. The numbers of this page say how often; these cases say "
    "how."
)


def examples_section(data: ReportData) -> Section:
    """The example cases, or that there are none."""
    blocks: list[Block] = [Paragraph("not computed: pictures need the scans, which stay at the sites", style="none")]
    if data.examples:
        blocks = [Paragraph(HOW_CHOSEN, style="soft"), _cards(data.examples, "example")]
    return Section("examples", "Example cases", blocks)


def failures_section(data: ReportData) -> Section | None:
    """The worst-graded test cases; None where nobody looked."""
    if data.n_misgraded is None:
        return None
    wrong, n = data.n_misgraded
    told = f"{wrong} of {n} test cases at hand have another grade than the truth."
    blocks: list[Block] = [Paragraph(told)]
    if data.failures:
        blocks += [Paragraph(WHAT_FAILED, style="soft"), _cards(data.failures, "failure")]
    return Section("failures", "Failure analysis", blocks)


def _cards(cases: Sequence[ExampleCase], prefix: str) -> Beside:
    return Beside([[_card(case, f"{prefix}-{number}")] for number, case in enumerate(cases, start=1)])


def _card(case: ExampleCase, prefix: str) -> Card:
    picture = None
    if case.image is not None:
        alt = (
            f"Case {case.case_id} of {case.site}: b = 0 slice beside its dynamic feature map, findings circled. "
            f"{case.orientation}"
        )
        picture = Picture(case.image, alt.strip())
    rows = [
        ("Truth", case.true_grade, case.true_count),
        ("Model", case.predicted_grade, Number(case.predicted_count, _digits(case.predicted_count))),
    ]
    table = Table(
        f"{prefix}-result", f"Result of {case.case_id}", (Column("By"), Column("Grade"), Column("Microbleeds")), rows
    )
    blocks: list[Block] = [table]
    if case.true_grade and case.predicted_grade:
        blocks.append(Paragraph("", "Same grade." if case.true_grade == case.predicted_grade else "Different grade."))
    blocks.append(_findings(case, prefix))
    blocks += [
        Paragraph(text, style=style)
        for text, style in ((case.note[:1].upper() + case.note[1:], "plain"), (case.orientation, "soft"))
        if text
    ]
    return Card(case.case_id, case.site, picture, blocks)


def _digits(count: float | None) -> int:
    """Whole numbers are shown as such."""
    return 0 if count is not None and float(count).is_integer() else 1


def _findings(case: ExampleCase, prefix: str) -> Block:
    if not case.candidates:
        words = "Findings: not computed" if case.image is None else "No findings on this slice"
        return Paragraph(words, style="soft")
    scored = any(candidate.score is not None for candidate in case.candidates)
    columns = (Column("Place"), *([Column("Score", "probability")] if scored else []))
    rows: list[Sequence[Cell]] = [(c.place, *([Number(c.score, 2)] if scored else [])) for c in case.candidates]
    return Table(f"{prefix}-findings", f"Findings of {case.case_id} on this slice", columns, rows)
