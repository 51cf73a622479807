"""How the federation went: curves, the ledger of its rounds, what the sites' updates were like, and its rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from mhsev_monai.report.data import ReportData, RoundRow
from mhsev_monai.report.document import (
    Beside,
    Block,
    Column,
    Drawing,
    Facts,
    Heading,
    Number,
    Paragraph,
    Section,
    Table,
)
from mhsev_monai.report.svg import Curve, curve_svg, round_up

UPDATES = (
    "An update is refused if it fails a check, and cut if it is too long beside the others. Lengths are relative to "
    "the median of the round, cosines to the coordinate-wise median update. With three sites nothing can tell a "
    "faulty site from an honest one whose patients are unlike the others': these numbers are for people to look at."
)


def federation_section(data: ReportData) -> Section:
    """Rounds, contributions, oddities, and the rules that held."""
    curves = [[Drawing("kappa", _kappa(data))], [Drawing("loss", _loss(data))]]
    words = "Validation cases of the sites that took part, graded by the model with which the round began."
    ledger = Table(
        "rounds",
        "Ledger of the rounds: each site's number is the training cases that its update stands for",
        (
            Column("Round"),
            Column("Quadratic kappa"),
            Column("Loss"),
            Column("Took part (training cases)", is_text=True),
            Column("Rejected, and why", is_text=True),
        ),
        [_ledger_row(row, data.kept_round) for row in data.rounds],
    )
    software = software_table(data)
    return Section(
        "federation",
        "Federation",
        [
            *_rules(data),
            Beside(curves),
            Paragraph(words, style="soft"),
            ledger,
            *_attendance(data),
            *([software] if software else []),
        ],
    )


def _ledger_row(row: RoundRow, kept: int | None) -> tuple[str, Number, Number, str, str]:
    took = ", ".join(f"{site} ({n})" for site, n in row.samples.items()) or "no training"
    refused = "; ".join(f"{site}: {reason}" for site, reason in row.rejected.items()) or "none"
    return (
        f"{row.number} (kept)" if row.number == kept else str(row.number),
        Number(row.quadratic_kappa),
        Number(row.loss),
        took,
        refused,
    )


def _kappa(data: ReportData) -> Markup | None:
    points = [(row.number, row.quadratic_kappa) for row in data.rounds]
    floor = min((value for _, value in points if value is not None), default=0.0)
    limits = (0.0 if floor >= 0 else -1.0, 1.0)
    return curve_svg(Curve("Validation quadratic kappa", points, limits), "kappa", data.kept_round) if points else None


def _loss(data: ReportData) -> Markup | None:
    points = [(row.number, row.loss) for row in data.rounds]
    limits = (0.0, round_up(max((value for _, value in points if value is not None), default=1.0)))
    return curve_svg(Curve("Validation loss", points, limits), "loss", data.kept_round) if points else None


def _rules(data: ReportData) -> list[Block]:
    policy = data.analyses.policy
    return [Heading("Rules of the federation, and what was exchanged"), Facts(policy)] if policy else []


def _attendance(data: ReportData) -> list[Block]:
    if not data.attendance:
        return []
    rows = [
        (
            row.site,
            row.taken,
            row.refused,
            row.absent,
            row.clipped,
            Number(row.mean_share, 2),
            Number(row.largest_ratio, 2),
            Number(row.least_cosine, 2),
        )
        for row in data.attendance
    ]
    columns = (
        Column("Site"),
        Column("Took part", "rounds"),
        Column("Refused", "rounds"),
        Column("No answer", "rounds"),
        Column("Cut", "rounds"),
        Column("Mean share", "of the average, 0 to 1"),
        Column("Largest relative length", "1 is the median"),
        Column("Lowest cosine", "-1 to 1"),
    )
    table = Table("attendance", "Attendance and oddities over the rounds", columns, rows)
    return [Heading("What each site's updates were like"), Paragraph(UPDATES, style="soft"), table]


def software_table(data: ReportData) -> Table | None:
    """What each site runs on; None where no site told."""
    reports = data.analyses.software
    if not reports:
        return None
    names = list(dict.fromkeys(name for report in reports.values() for name in report))
    rows = [(site, *(_word(report, name) for name in names)) for site, report in reports.items()]
    columns = (Column("Site"), *(Column(name, is_text=True) for name in names))
    return Table("software", "Software and device of each site, as the site says", columns, rows)


def _word(report: Mapping[str, Any], name: str) -> str:
    return str(report.get(name, "not told"))
