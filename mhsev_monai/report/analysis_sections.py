"""What the analysis jobs found: which groups of features move the grade, and which clinical variables go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mhsev_monai.report.data import ReportData
from mhsev_monai.report.document import (
    Block,
    Cell,
    Column,
    Drawing,
    Heading,
    Number,
    Paragraph,
    Section,
    Table,
    p_value,
)
from mhsev_monai.report.forest import Axis, ForestRow, forest_svg, log_axis
from mhsev_monai.statistics import NORMAL_95

SEVERITY, COUNT = "expected severity", "expected count"
_SHAPLEY = (
    "Shapley values say what the network did with its inputs, right or wrong; they are no evidence that a grade is "
    "right, and no cause of disease. A value is the difference that a group of features makes from the usual scan, "
    "which is synthetic. Features that go together share their values by what the network happened to learn from. "
    "Much weight on “protocol” is a warning: the grade follows the scanner. Read the order of groups, and no third "
    "digit."
)
_ODDS = (
    "The odds of a higher grade for one unit more of the variable (age: ten years), in patients of one site who are "
    "alike in the other variables; from a proportional-odds regression whose sums the sites send. No association here "
    "is a cause, and an odds ratio is not a ratio of risks."
)


def explanation_section(data: ReportData) -> Section | None:
    """Mean size of the Shapley values of groups; None where the run has none."""
    found = data.analyses.explanation
    pooled = (found or {}).get("pooled")
    if not found or not pooled or not pooled.get("importance"):
        return None
    blocks: list[Block] = [Paragraph(_SHAPLEY, style="soft"), Paragraph(_made(found))]
    for output, unit in ((SEVERITY, "grades, 0 none to 3 severe"), (COUNT, "microbleeds")):
        rows = pooled["importance"].get(output)
        if rows:
            blocks += _importance(rows, output, unit)
    blocks += _by_site(found)
    return Section("explanation", "What the grade is attributed to", blocks)


def _made(found: Mapping[str, Any]) -> str:
    background, pooled = found.get("background") or {}, found["pooled"]
    base = (found.get("base") or {}).get(SEVERITY)
    usual = "" if base is None else f" The usual scan has an expected severity of {base:.2f}."
    digest = (found.get("model") or {}).get("digest")
    refused = "".join(f" {site} told nothing: {reason}." for site, reason in (found.get("refused") or {}).items())
    return (
        f"{pooled['cases']} {found.get('split', 'test')} cases of {len(found.get('sites') or {})} sites, "
        f"{found.get('method', 'permutation')} method, {background.get('n_rows')} background scans that all sites draw "
        f"alike (seed {background.get('seed')}, from {background.get('moments')}).{usual}"
        + (f" Model {digest[:16]}." if digest else "")
        + refused
    )


def _importance(rows: Sequence[Mapping[str, Any]], output: str, unit: str) -> list[Block]:
    figure_id = f"importance-{output.replace(' ', '-')}"
    points = [ForestRow(row["player"], row["mean_absolute"], *_ends(row)) for row in rows]
    most = max(point.high or point.value or 0.0 for point in points)
    top = next((step for step in (0.1, 0.2, 0.4, 0.8, 1.0, 2.0, 4.0, 8.0, 20.0, 40.0) if step >= most), most)
    svg = forest_svg(points, Axis(f"mean size of the change in {output} ({unit})", 0.0, top), figure_id)
    columns = (
        Column("Group of features"),
        Column("Mean size", unit),
        Column("Mean", "with its sign"),
        Column("Share", "of all groups"),
    )
    cells: list[Sequence[Cell]] = [
        (row["player"], Number(row["mean_absolute"], 3, *_ends(row)), Number(row["mean"]), Number(row["share"], 2))
        for row in rows
    ]
    words = "Intervals: 95 %, from the standard error over cases; they do not cover the choice of the background."
    caption = f"Change in {output} by group of features, with 95 % intervals"
    return [Drawing(figure_id, svg, words), Table(f"{figure_id}-table", caption, columns, cells)]


def _ends(row: Mapping[str, Any]) -> tuple[float, float]:
    reach = NORMAL_95 * row["standard_error"]
    return max(0.0, row["mean_absolute"] - reach), row["mean_absolute"] + reach


def _by_site(found: Mapping[str, Any]) -> list[Block]:
    """Whether the sites' cases give another order."""
    sites = {
        site: {row["player"]: row["mean_absolute"] for row in entry["importance"].get(SEVERITY) or ()}
        for site, entry in (found.get("sites") or {}).items()
        if entry.get("importance")
    }
    if len(sites) < 2:
        return []
    cases = {site: (found["sites"][site] or {}).get("cases") for site in sites}
    columns = [Column("Group of features"), *(Column(site, f"{cases[site]} cases") for site in sites)]
    players = [row["player"] for row in found["pooled"]["importance"].get(SEVERITY) or ()]
    rows = [(player, *(Number(values.get(player)) for values in sites.values())) for player in players]
    caption = "Mean size of the change in expected severity (grades), by site"
    return [Table("importance-by-site", caption, columns, rows)]


def associations_section(data: ReportData) -> Section | None:
    """Odds ratios with a forest plot, their checks, and tables by variable; None where the run has none."""
    found = data.analyses.associations
    if not found or not (found.get("regression") or found.get("tables")):
        return None
    regression = found.get("regression")
    blocks: list[Block] = [Paragraph(_ODDS, style="soft")]
    blocks += (
        _regression(regression, found)
        if regression
        else [Paragraph(f"No regression: {found.get('reason') or 'no estimate'}.")]
    )
    if found.get("tables"):
        blocks += [Heading("One variable at a time, not adjusted for site or the others"), _tables(found["tables"])]
    return Section("associations", "Clinical associations", blocks)


def _regression(regression: Mapping[str, Any], found: Mapping[str, Any]) -> list[Block]:
    ratios = regression["odds_ratios"]
    rows = [ForestRow(each["name"], each["odds_ratio"], each["low"], each["high"]) for each in ratios]
    axis = log_axis("odds ratio of a higher grade, with 95 % interval", rows)
    figure = Drawing(
        "odds-forest", forest_svg(rows, axis, "odds-forest"), "Right of the dashed line: higher odds of a higher grade."
    )
    columns = (
        Column("Variable", "adjusted for site and the others"),
        Column("Odds ratio", "95 % Wald interval"),
        Column("p"),
        Column("p, Holm"),
    )
    cells: list[Sequence[Cell]] = [
        (
            each["name"],
            Number(each["odds_ratio"], 2, each["low"], each["high"]),
            p_value(each["p_value"]),
            p_value(each.get("adjusted")),
        )
        for each in ratios
    ]
    table = Table(
        "odds",
        f"Odds ratios of a higher grade, {regression['n']} patients of {len(regression['sites'])} sites",
        columns,
        cells,
    )
    return [Paragraph(_who(regression, found)), figure, table, *_checks(regression)]


def _who(regression: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    grades = found.get("grades") or [f"grade {k}" for k in range(len(regression["grade_counts"]))]
    counts = ", ".join(f"{n} with {grade}" for grade, n in zip(grades, regression["grade_counts"], strict=False))
    left = {**(regression.get("left_out") or {}), **(found.get("refused") or {})}
    out = "".join(f" Without {site}: {reason}." for site, reason in left.items())
    more = regression.get("incomplete")
    missing = "" if not more else f" {more} more have a value that is not known."
    return f"{regression['n']} patients ({counts} microbleeds).{missing}{out}"


def _checks(regression: Mapping[str, Any]) -> list[Block]:
    overall, parallel = regression.get("all_variables"), regression.get("proportional_odds") or []
    rows: list[Sequence[Cell]] = []
    if overall:
        rows.append(_check("all variables together: likelihood ratio", overall))
    rows += [_check(f"odds proportional, {test['name']}: score test", test) for test in parallel]
    columns = (Column("Check"), Column("Statistic", "chi-square"), Column("Degrees of freedom"), Column("p"))
    caption = "Checks; a small p of the score test says that an odds ratio differs between grades"
    return [Table("odds-checks", caption, columns, rows)] if rows else []


def _check(name: str, test: Mapping[str, Any]) -> tuple[Cell, ...]:
    return name, Number(test["statistic"], 1), test["degrees_of_freedom"], p_value(test["p_value"])


def _tables(tests: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        Column("Variable and test"),
        Column("Effect", "Cramer's V, eta squared or rank correlation"),
        Column("Cases"),
        Column("p"),
        Column("p, Holm"),
        Column("Note", is_text=True),
    )
    rows = [
        (
            f"{test['variable']}: {test['test']}",
            Number(test.get("effect"), 2),
            test["n"],
            p_value(test.get("p_value")),
            p_value(test.get("adjusted")),
            test.get("note") or "none",
        )
        for test in tests
    ]
    return Table("associations-table", "Associations from the sites' tables", columns, rows)
