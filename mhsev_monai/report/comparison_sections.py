"""Comparisons: groups of patients, models and sites crossed, and the global model against others on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mhsev_monai.report.data import ReportData, metric_number
from mhsev_monai.report.document import (
    NOT_COMPUTED,
    UNDETERMINED,
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
from mhsev_monai.report.forest import Axis, ForestRow, even_axis, forest_svg
from mhsev_monai.report.site_matrix import site_matrix_svg
from mhsev_monai.report.words import METRIC_NAMES

_GROUPS = (("sex", "Sex"), ("age", "Age, years"), ("scanner", "Scanner"))
_GROUP_METRICS = ("balanced_accuracy", "quadratic_kappa", "accuracy", "count_mae")
_SMALL = (
    "A site tells nothing of a group with fewer cases than its minimum (“<5”), nor of one that would follow from the "
    "others (“hidden”), so groups can have fewer cases than there were. The groups were not compared by a test; "
    "overlapping intervals of few cases say neither that groups differ nor that they are alike."
)
NO_LINE = " Without a line: the cases do not determine an interval, as where none is wrong."
_AGES = {"<65": "under 65", "65-74": "65 to 74", ">=75": "75 or more"}
_MATRIX = (
    "Each site's own model, trained without the others, on the test cases of each site; outlined: on its own site's "
    "cases. A model that does well at home alone has learned its site."
)
_PAIRED = (
    "Both models grade the same cases, so the tests are paired. McNemar's exact test counts cases that only one of "
    "them has right; Stuart and Maxwell's compares how often each grade is given; intervals are from a paired "
    "bootstrap within sites. Each p-value is adjusted by Holm's method over the comparisons of its test. T-tests and "
    "analysis of variance over repeated splits are left out: with two equally good models they called one better in "
    "31 % and 35 % of simulations, where 5 % were meant."
)


def subgroups_section(data: ReportData) -> Section | None:
    """Sex, age and scanner; None where no site told of them."""
    groups = data.analyses.subgroups
    rows = [
        (title, _AGES.get(name, name) if key == "age" else name, entry)
        for key, title in _GROUPS
        for name, entry in ((groups or {}).get(key) or {}).items()
        if isinstance(entry, Mapping)
    ]
    if not rows:
        return None
    points = [_group_point(f"{title}: {name}", entry) for title, name, entry in rows if entry.get("metrics")]
    axis = Axis("Balanced accuracy, with 95 % interval", 0.0, 1.0, _pooled_value(data))
    svg = forest_svg(points, axis, "subgroups-forest") if points else None
    words = "Dashed line: all test cases together." if axis.reference is not None else ""
    words += NO_LINE if _lacks_ends(points) else ""
    columns = (
        Column("Group"),
        Column("Cases"),
        *(Column(METRIC_NAMES[name]) for name in _GROUP_METRICS),
        Column("Cases of each site", is_text=True),
    )
    table = Table(
        "subgroups-table",
        "The global model on groups of test cases, with 95 % intervals; of the count error none is computed",
        columns,
        [_group_row(f"{title}: {name}", entry) for title, name, entry in rows],
    )
    blocks: list[Block] = [Paragraph(_SMALL, style="soft"), Drawing("subgroups-forest", svg, words), table]
    return Section("subgroups", "Subgroups", blocks)


def _lacks_ends(points: Sequence[ForestRow]) -> bool:
    return any(point.value is not None and None in (point.low, point.high) for point in points)


def _pooled_value(data: ReportData) -> float | None:
    return None if data.pooled is None else data.pooled.metric("balanced_accuracy")


def _group_point(name: str, entry: Mapping[str, Any]) -> ForestRow:
    number = metric_number(entry["metrics"], entry.get("intervals") or {}, "balanced_accuracy")
    return ForestRow(name, number.value, number.low, number.high)


def _group_row(name: str, entry: Mapping[str, Any]) -> tuple[Cell, ...]:
    told = ", ".join(f"{site} {n}" for site, n in (entry.get("sites") or {}).items())
    # Sites tell no squares of a group's errors in the count, so that nobody computes an interval of them.
    known = {metric: ends for metric, ends in (entry.get("intervals") or {}).items() if metric != "count_mae"}
    numbers = [metric_number(entry.get("metrics"), known, metric) for metric in _GROUP_METRICS]
    if not entry.get("metrics"):
        return (name, entry.get("n"), *(["not told"] * len(numbers)), told or "none")
    return (name, entry.get("n"), *numbers, told or "none")


def cross_site_section(data: ReportData) -> Section | None:
    """Owner of a model by site of the cases; None without the sites' own models."""
    matrix = data.analyses.matrix
    if not matrix:
        return None
    sites = list(dict.fromkeys(site for row in matrix.values() for site in row))
    values = [[_balanced(row.get(site)) for site in sites] for row in matrix.values()]
    whole = {evaluation.name: evaluation.number("balanced_accuracy") for evaluation in data.per_site}
    values.append([whole.get(site, Number(None)) for site in sites])
    models: list[tuple[str, str | None]] = [(f"{owner} alone", owner) for owner in matrix]
    models.append(("global model", None))
    plain = [[number.value for number in numbers] for numbers in values]
    svg = site_matrix_svg(models, sites, plain, "Balanced accuracy", "cross-site-matrix")
    n = {e.name: (e.metrics or {}).get("n") for e in data.per_site}
    columns = [Column("Model"), *(Column(site, f"{n.get(site)} cases" if n.get(site) else "") for site in sites)]
    rows: list[Sequence[Cell]] = [(name, *numbers) for (name, _), numbers in zip(models, values, strict=True)]
    caption = "Balanced accuracy of each model on the test cases of each site, with 95 % intervals"
    figure = Drawing("cross-site-matrix", svg, "Darker is higher.")
    blocks: list[Block] = [Paragraph(_MATRIX, style="soft"), figure, Table("cross-site-table", caption, columns, rows)]
    return Section("cross-site", "Models across sites", blocks)


def _balanced(entry: Mapping[str, Any] | None) -> Number:
    if not entry:
        return Number(None)
    return metric_number(entry.get("metrics"), entry.get("intervals") or {}, "balanced_accuracy")


def paired_section(data: ReportData) -> Section | None:
    """The global model against the sites' own and the majority, on the same cases; None where not compared."""
    comparisons: Sequence[Mapping[str, Any]] = (data.analyses.paired or {}).get("comparisons") or ()
    if not comparisons:
        return None
    points = [
        ForestRow(f"{each['second']}, {each['cases']}", *_difference(each, "quadratic_kappa")) for each in comparisons
    ]
    axis = even_axis("Global model less the other: quadratic kappa, with 95 % interval", points)
    figure = Drawing(
        "paired-forest",
        forest_svg(points, axis, "paired-forest"),
        f"Right of the dashed line the global model is better.{NO_LINE if _lacks_ends(points) else ''}",
    )
    return Section(
        "paired",
        "Comparisons on the same cases",
        [
            Paragraph(_PAIRED, style="soft"),
            figure,
            _differences(comparisons),
            Heading("Tests of the grades given"),
            _tests(comparisons),
        ],
    )


def _difference(comparison: Mapping[str, Any], name: str) -> tuple[float | None, float | None, float | None]:
    """Difference and ends; draws that are all alike, as of models that differ in no case, tell of no interval."""
    entry = comparison.get(name) or {}
    low, high = entry.get("interval") or (None, None)
    return (entry.get("difference"), None, None) if low == high else (entry.get("difference"), low, high)


def _differences(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    columns = [Column("Global model against"), Column("Test cases of", is_text=True), Column("Cases")]
    for title in ("Accuracy", "Quadratic kappa"):
        columns += [Column(f"{title}, difference"), Column("p"), Column("p, Holm")]
    rows = []
    for each in comparisons:
        cells: list[Cell] = [each["second"], each["cases"], each["n"]]
        for name in ("accuracy", "quadratic_kappa"):
            entry = each.get(name) or {}
            value, low, high = _difference(each, name)
            why = UNDETERMINED if entry.get("interval") else NOT_COMPUTED
            cells += [Number(value, 3, low, high, no_ends=why), p_value(entry.get("p")), p_value(entry.get("p_holm"))]
        rows.append(cells)
    caption = "Global model less the other, with 95 % intervals; p from 2000 draws, which tell of none below 0.001"
    return Table("paired-differences", caption, columns, rows)


def _tests(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        Column("Global model against"),
        Column("Test cases of", is_text=True),
        Column("Only the global is right", "cases"),
        Column("Only the other is right", "cases"),
        Column("McNemar, exact", "p"),
        Column("Holm"),
        Column("Stuart-Maxwell", "p"),
        Column("Holm"),
    )
    rows = []
    for each in comparisons:
        first, margins = each.get("mcnemar") or {}, each.get("stuart_maxwell") or {}
        cells: list[Cell] = [each["second"], each["cases"], first.get("only_first"), first.get("only_second")]
        cells += [p_value(test.get(key)) for test in (first, margins) for key in ("p", "p_holm")]
        rows.append(cells)
    return Table("paired-tests", "Paired tests on the test cases", columns, rows)
