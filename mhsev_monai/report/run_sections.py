"""The parts that every report of a run has: what was run, the key result, the result in full, sites and cases."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mhsev_monai.report.area_table import area_table
from mhsev_monai.report.data import Evaluation, ReportData, metric_number
from mhsev_monai.report.document import (
    Beside,
    Block,
    Cell,
    Column,
    Drawing,
    Facts,
    Heading,
    Named,
    Number,
    Panel,
    Paragraph,
    Section,
    Table,
    Tile,
    Tiles,
    text_of,
)
from mhsev_monai.report.svg import Bar, class_mix_svg, confusion_matrix_svg, site_bars_svg
from mhsev_monai.report.words import (
    CLASS_METRICS,
    GRADES,
    METRIC_NAMES,
    METRIC_ROWS,
    local_models_sentence,
    majority_grade,
    mix_sentence,
    ranges_sentence,
)

KEY_METRICS = ("balanced_accuracy", "quadratic_kappa", "accuracy", "count_mae")
SITE_METRICS = ("balanced_accuracy", "quadratic_kappa", "macro_f1", "accuracy", "macro_auc", "count_mae")
WIDE_AUC = (
    "The interval of the macro AUC is too wide: it takes the areas of the grades to rise and fall as one, and holds "
    "the true value more often than in 95 %."
)


def opening(data: ReportData) -> list[Block]:
    """What was run beside the key result."""
    run = Panel("run", "What was run", [Facts(data.facts)])
    counts = None if data.pooled is None else data.pooled.class_counts
    mix = class_mix_svg([("test cases", counts)], GRADES, "mix") if counts else None
    grade = majority_grade(data.pooled)
    sentences = [
        mix_sentence(data.pooled) or "",
        ranges_sentence(data.scale),
        f"The majority row always answers “{grade}”, the most frequent of these grades." if grade else "",
    ]
    text = " ".join(filter(None, sentences)) or "The mix of grades was not computed."
    verdict = Paragraph(_verdict(data), style="verdict")
    key = Panel(
        "key",
        "Key result",
        [Tiles([_tile(data, name) for name in KEY_METRICS]), Drawing("mix", mix), Paragraph(text), verdict],
    )
    return [Beside([[run], [key]], "first")]


def _verdict(data: ReportData) -> str:
    comparisons = (data.analyses.paired or {}).get("comparisons") or ()
    return local_models_sentence(data.local_models, any(each["second"] == "own model" for each in comparisons))


def _tile(data: ReportData, name: str) -> Tile:
    number = _pooled(data).number(name)
    is_count = name.startswith("count_")
    rival = metric_number(data.majority, {}, name)
    ends = [f"95 %: {text_of(number.ends())}"] if number.known else []
    unit = ["microbleeds a case"] if is_count else []
    return Tile(
        "Count error" if is_count else METRIC_NAMES[name],
        Number(number.value, number.digits, missing=number.missing),
        [*unit, *ends, f"majority: {text_of(rival)}"],
    )


def _pooled(data: ReportData) -> Evaluation:
    return data.pooled or Evaluation("all sites")


def metrics_table(data: ReportData) -> Table:
    """All metrics of the pooled test cases with their intervals, beside the majority row."""
    pooled = _pooled(data)
    n = text_of(None if pooled.metrics is None else pooled.metrics.get("n"))
    rows: list[Sequence[Cell]] = []
    for name, title, words in METRIC_ROWS:
        number = pooled.number(name)
        own = Number(number.value, number.digits, missing=number.missing)
        rows.append((Named(title, words), own, number.ends(), metric_number(data.majority, {}, name)))
    return Table(
        "metrics",
        f"The global model on the test cases of all sites ({n} cases), beside the majority row. {WIDE_AUC}",
        (Column("Metric"), Column("Global model"), Column("95 % interval"), Column("Majority")),
        rows,
    )


def result_section(data: ReportData) -> Section:
    """All metrics, the confusion matrix, and each grade against the rest, with both intervals of its AUC."""
    confusion = _pooled(data).confusion
    svg = confusion_matrix_svg(confusion, GRADES, "confusion") if confusion else None
    figure = Drawing("confusion", svg, "Cases and share of the row; the outlined diagonal is right.")
    groups: list[list[Block]] = [[metrics_table(data)], [Heading("Confusion matrix"), figure]]
    areas = area_table(data.pooled)
    rest: list[Block] = [class_table(data), *([] if areas is None else [areas])]
    return Section("result", "Result in full", [Beside(groups, "two stack"), *rest])


def class_table(data: ReportData) -> Table:
    """Each grade against the rest, on the pooled test cases."""
    pooled = _pooled(data)
    entries = (pooled.metrics or {}).get("per_class") or ()
    rows = [
        (entry["severity"], entry["n"], *(pooled.class_number(position, name) for name, _ in CLASS_METRICS))
        for position, entry in enumerate(entries)
    ]
    columns = (Column("Grade"), Column("Cases"), *(Column(title) for _, title in CLASS_METRICS))
    has_ends = any(isinstance(cell, Number) and cell.has_interval for row in rows for cell in row)
    ends = " with 95 % intervals" if has_ends else ""
    return Table("grades", f"One grade against the rest, test cases of all sites{ends}", columns, rows)


def per_site_table(data: ReportData) -> Table:
    """The model on the test cases of each site."""
    rows = [
        (site.name, (site.metrics or {}).get("n"), *(site.number(name) for name in SITE_METRICS))
        for site in data.per_site
    ]
    columns = (Column("Site"), Column("Cases"), *(Column(METRIC_NAMES[name]) for name in SITE_METRICS))
    caption = f"The global model on the test cases of each site, with 95 % intervals. {WIDE_AUC}"
    return Table("per-site", caption, columns, rows)


def sites_section(data: ReportData) -> Section:
    """The model at each site, the sites' own models, and the cases of each site."""
    chart = Drawing(
        "sites", _site_bars(data) if data.per_site else None, "Whiskers: 95 % interval, where it was computed."
    )
    own: list[Block] = [_local_table(data), Paragraph(_verdict(data))]
    return Section(
        "sites-section",
        "Sites",
        [
            Beside(
                [
                    [Heading("Balanced accuracy at each site"), chart],
                    [Heading("Models that the sites train alone"), *own],
                ]
            ),
            per_site_table(data),
            *_worst(data),
            *_personalised(data),
            Heading("Cases of each site and their mix of grades"),
            *_cases(data),
        ],
    )


def _worst(data: ReportData) -> list[Block]:
    entries = {name: entry for name, entry in (data.analyses.worst_site or {}).items() if entry}
    told = [
        f"{METRIC_NAMES.get(name, name).lower()} {entry['value']:.3f} at {entry['site']} ({entry['n']} cases)"
        for name, entry in entries.items()
    ]
    return [Paragraph("; ".join(told) + ".", "Lowest at any site:")] if told else []


def _personalised(data: ReportData) -> list[Block]:
    """The model as each site trains it further, beside the global one, on the site's own test cases."""
    further = data.analyses.personalised
    if not further:
        return []
    own = {site.name: site for site in data.per_site}
    rows: list[Sequence[Cell]] = [
        (
            site,
            entry["metrics"]["n"],
            own[site].number("balanced_accuracy") if site in own else None,
            metric_number(entry["metrics"], entry.get("intervals") or {}, "balanced_accuracy"),
        )
        for site, entry in further.items()
    ]
    columns = (Column("Site"), Column("Cases"), Column("Global model"), Column("Trained further there"))
    caption = "Balanced accuracy on the site's own test cases, with 95 % intervals"
    return [Heading("Further training at each site"), Table("personalised", caption, columns, rows)]


def _local_table(data: ReportData) -> Table:
    local = data.local_models
    rows: list[Sequence[Cell]] = []
    if local is not None:
        rows = [
            (Named("Global model", strong=True), _with_ends(local.global_balanced_accuracy, local.global_interval)),
            *(
                (f"{site} alone", _with_ends(value, local.intervals.get(site)))
                for site, value in local.balanced_accuracy.items()
            ),
            ("Mean of the sites' own models", Number(local.mean)),
        ]
    caption = "Balanced accuracy" + (f" on {local.cases}" if local else " of the sites' own models")
    return Table("own-models", caption, (Column("Model"), Column("Balanced accuracy")), rows)


def _with_ends(value: float | None, ends: tuple[float, float] | None) -> Number:
    low, high = ends or (None, None)
    return Number(value, 3, low, high)


def _cases(data: ReportData) -> list[Block]:
    mixes = [
        (f"{site.site} {split}", counts)
        for site in data.sites
        for split in site.splits
        if (counts := site.known(split)) is not None
    ]
    svg = class_mix_svg(mixes, GRADES, "site-mix") if mixes else None
    caption = "Only splits of which no number is hidden." if _is_hidden(data) else ""
    return [Drawing("site-mix", svg, caption), cases_table(data)]


def cases_table(data: ReportData) -> Table:
    """Cases of each site, split and grade; what a site hides is said to be hidden."""
    splits = list(dict.fromkeys(split for site in data.sites for split in site.splits))
    told = any(site.excluded is not None for site in data.sites)
    rows: list[Sequence[Cell]] = []
    for site in data.sites:
        cells: list[Cell] = [_split_cell(site.splits.get(split), site.total(split)) for split in splits]
        rows.append((site.site, *cells, *([site.excluded if site.excluded is not None else "hidden"] if told else [])))
    columns = [Column("Site"), *(Column(split) for split in splits), *([Column("left out")] if told else [])]
    words = (
        " A range or “hidden” stands for numbers of few cases that the site does not tell." if _is_hidden(data) else ""
    )
    return Table("cases", f"Cases of each split ({' / '.join(GRADES)}).{words}", columns, rows)


def _is_hidden(data: ReportData) -> bool:
    """Whether a site hides a number of cases."""
    counts = [count for site in data.sites for split in site.splits.values() for count in split]
    return not all(isinstance(count, int) for count in counts)


def _split_cell(counts: Sequence[int | str | None] | None, total: int | str | None) -> str | None:
    if not counts:
        return None
    if all(count is None for count in counts):
        return f"{total if total is not None else 'hidden'} (grades hidden)"
    told = " / ".join("hidden" if count is None else str(count) for count in counts)
    return f"{total if total is not None else 'hidden'} ({told})"


def _site_bars(data: ReportData) -> Markup:
    shown = [*([] if data.pooled is None else [data.pooled]), *data.per_site]
    bars = []
    for evaluation in shown:
        number = evaluation.number("balanced_accuracy")
        bars.append(Bar(evaluation.name, number.value, number.low, number.high))
    majority = None if data.majority is None else data.majority.get("balanced_accuracy")
    reference = None if majority is None else ("always the most frequent grade", float(majority))
    return site_bars_svg(bars, "Balanced accuracy", "sites", reference)
