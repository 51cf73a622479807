"""The report of one scan: its document, and that document as HTML and PDF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mhsev_monai.report.document import (
    Beside,
    Block,
    Bullets,
    Cell,
    Column,
    Document,
    Drawing,
    Facts,
    Number,
    Panel,
    Paragraph,
    Section,
    Table,
    Tile,
    Tiles,
)
from mhsev_monai.report.forms import render
from mhsev_monai.report.html_page import render_html
from mhsev_monai.report.scan_data import FindingLine, ScanReport
from mhsev_monai.report.svg import Bar, site_bars_svg
from mhsev_monai.report.waterfall import waterfall_svg
from mhsev_monai.report.words import DWI_LIMIT, RESEARCH_USE, grade_ranges, ranges_sentence

TITLE = "Cerebral microbleeds on DWI: report of one scan"
NOBODY_LOOKED = "Made by software; no radiologist has read it."
_FINDING = (
    "A finding is a dark spot that the model holds for a microbleed at least as likely as not; possible ones are less "
    "likely, and not circled. The number of microbleeds is estimated from the probabilities of all dark spots, so it "
    "need not be the number of findings. “Dark over” is the extent of darkness in the slice, not the size of a lesion. "
    "Positions are world coordinates of the scan: mm to the patient's right, front and top (negative: left, back, "
    "below)."
)


def scan_html(report: ScanReport) -> str:
    """The page as text; equal reports give equal text."""
    return render_html(scan_document(report))


def scan_pdf(report: ScanReport) -> bytes:
    """The PDF; equal reports give equal bytes.

    Raises:
        MissingReportlabError: if reportlab is not installed.
    """
    return render(scan_document(report), "pdf")


def scan_document(report: ScanReport) -> Document:
    """All parts that the report has something for."""
    warnings = [(RESEARCH_USE, NOBODY_LOOKED)]
    if report.abstains is not None:
        warnings.append(("The model abstains:", f"{report.abstains}. Grade and count below are not to be relied on."))
    subject = [] if report.subject is None else [f"Subject {report.subject}"]
    dated = [] if report.made_on is None else [report.made_on]
    sections = (_findings_section(report), _attribution(report), _doubts(report), _limits(report), _made_by(report))
    return Document(
        kind="scan",
        title=TITLE,
        subtitle=" · ".join(["Number and severity grade of microbleeds, from one diffusion series", *subject, *dated]),
        warnings=warnings,
        opening=_opening(report),
        sections=[section for section in sections if section is not None],
        footer=f"{RESEARCH_USE} {NOBODY_LOOKED}",
        short=True,
    )


def _opening(report: ScanReport) -> list[Block]:
    bars = [Bar(grade, probability) for grade, probability in report.probabilities.items()]
    kind = "at a fitted temperature" if report.calibrated else "not calibrated, the network's own: read their order"
    chart = Drawing("probabilities", site_bars_svg(bars, "Probability of each grade", "probabilities"), f"({kind})")
    return [Panel("answer", "Result", [Tiles(_tiles(report)), Paragraph(ranges_sentence(report.scale)), chart])]


def _tiles(report: ScanReport) -> list[Tile]:
    counts = dict(grade_ranges(report.scale)).get(report.grade)
    tiles = [Tile("Severity grade", report.grade, [f"{counts} microbleeds"] if counts else [])]
    share = f"{100 * report.count_share:.0f} % interval"
    if report.count_interval is None:
        interval = f"{share}: not computed"
    else:
        interval = "{}: {} to {}".format(share, *report.count_interval)
    tiles.append(Tile("Number of microbleeds", Number(report.count, 0), ["estimate", interval]))
    if report.prediction_set is not None:
        meant = "" if report.set_coverage is None else f"meant for {100 * report.set_coverage:.0f} % of like scans"
        named = " or ".join(report.prediction_set) or "no grade"
        tiles.append(Tile("Grades that are possible", named, ["set of grades", *([meant] if meant else [])]))
    return tiles


def _findings_section(report: ScanReport) -> Section:
    if not report.judges_spots:
        words = "The model judges the scan as a whole and points at no place; the slice is the one with most brain."
        return Section("findings", "Slice", [Paragraph(words), *_pictures(report)])
    found = [line for line in report.findings if line.is_finding]
    possible = [line for line in report.findings if not line.is_finding]
    summary = (
        f"{_counted(len(found), 'finding')} and {len(possible)} less likely, among {report.n_candidates} dark spots."
    )
    blocks: list[Block] = [
        Paragraph(f"{summary} {_regions(found)}".strip()),
        _table("findings-table", "Findings, most probable first; the numbers are those beside the circles", found),
    ]
    if possible:
        blocks.append(_table("possible-table", "Possible findings, less likely a microbleed than not", possible))
    blocks += [Paragraph(_FINDING, style="soft"), *_pictures(report)]
    return Section("findings", "Findings", blocks)


def _regions(found: Sequence[FindingLine]) -> str:
    counts = Counter(line.region for line in found if line.region is not None)
    if not counts:
        return "Their regions were not determined." if found else ""
    told = ", ".join(f"{n} {region}" for region, n in sorted(counts.items()))
    unknown = sum(line.region is None for line in found)
    rest = f", {unknown} not determined" if unknown else ""
    return (
        f"Regions of the findings: {told}{rest}. DWI misses most microbleeds, so a pattern such as “lobar alone” "
        "cannot be read from them."
    )


def _table(table_id: str, caption: str, lines: Sequence[FindingLine]) -> Table:
    placed = any(line.region is not None for line in lines)
    columns = (
        Column("No."),
        *([Column("Region", is_text=True)] if placed else []),
        Column("Dark over", "mm"),
        Column("Probability", "of a microbleed"),
        Column("Signal loss", "% of the surroundings"),
        Column("Slice", "from 1"),
        Column("Position", "mm, right / front / top"),
    )
    rows: list[Sequence[Cell]] = [
        (
            str(line.number),
            *([line.region or "not determined"] if placed else []),
            Number(line.diameter_mm, 1, missing="no own extent"),
            Number(line.probability, 2),
            Number(100 * line.depth, 0),
            line.slice_number,
            " / ".join(f"{x:.1f}" for x in line.position_mm),
        )
        for line in lines
    ]
    return Table(table_id, caption, columns, rows, empty="none")


def _pictures(report: ScanReport) -> list[Block]:
    if not report.pictures:
        return []
    left = report.n_slices_left
    more = f"{_counted(left, 'slice')} with fewer findings not shown. " if left else ""
    words = (
        "Left: b = 0 image. Right, where the model computes it: dynamic feature map of the same slice; orange is "
        "darker than its surroundings, blue is brighter. Circles are larger than what they mark."
    )
    told = Paragraph(f"{words} {more}{report.orientation}".strip(), style="soft")
    return [told, Beside([[picture] for picture in report.pictures])]


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _attribution(report: ScanReport) -> Section | None:
    found = report.attribution
    if found is None:
        return None
    svg = waterfall_svg(found.usual, found.steps, (0.0, 3.0), "Expected severity (0 none to 3 severe)", "waterfall")
    caption = (
        "From the expected severity of a synthetic usual scan to that of this one. It says what the network did with "
        "its inputs, right or wrong; it is no evidence that the grade is right."
    )
    rows: list[Sequence[Cell]] = [(name, Number(value, 2)) for name, value in found.steps]
    table = Table(
        "attribution-table",
        f"What each group of features adds to the expected severity, from {found.usual:.2f} to {found.expected:.2f}",
        (Column("Group of features"), Column("Adds", "grades")),
        rows,
    )
    count = [] if found.expected_count is None else [f"Expected number of microbleeds: {found.expected_count:.2f}."]
    blocks: list[Block] = [Drawing("waterfall", svg, caption), table, *(Paragraph(words) for words in count)]
    return Section("attribution", "What the grade is attributed to", blocks)


def _doubts(report: ScanReport) -> Section:
    flags = (
        Bullets([flag[:1].upper() + flag[1:] for flag in report.flags])
        if report.flags
        else Paragraph("No reason to doubt the result was found.")
    )
    return Section("doubts", "Quality of the scan, and reasons to doubt the result", [flags, Facts(report.quality)])


def _made_by(report: ScanReport) -> Section:
    return Section("made-by", "Made by", [Facts({**report.model, "grading scale": report.scale})])


def _limits(report: ScanReport) -> Section:
    limits = [
        DWI_LIMIT,
        "Calcifications, vessels and old hemorrhages of another kind can look like microbleeds. Superficial siderosis "
        "is not assessed.",
        "The grade counts microbleeds on this scan. It is no ARIA grade, which counts bleeds that are new since an "
        "earlier one.",
        "The model was not tested on patients of this hospital unless its own report says so.",
    ]
    if report.count_interval is not None:
        limits.append(
            "The interval of the count rests on the model being right about its spots; it does not cover what DWI "
            "hides."
        )
    return Section("limits", "Limits", [Bullets(limits)])
