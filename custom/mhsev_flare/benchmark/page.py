"""The benchmark as a Markdown page, without a path or a patient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mhsev_flare.benchmark.areas import AreaDifference, regime_areas, row_areas
from mhsev_flare.benchmark.comparison import (
    N_DRAWS,
    CohortReport,
    Comparison,
    Summary,
    compare_regimes,
    compare_rows,
    summaries_of,
)
from mhsev_flare.benchmark.costs import bytes_exchanged
from mhsev_flare.benchmark.graded import SCORES, WORST_SITE, Setting
from mhsev_flare.benchmark.protocol import Regime
from mhsev_monai._version import __version__
from mhsev_monai.severity import Severity
from mhsev_monai.statistics import NORMAL_95

NOT_DEFINED = "–"

_CAVEAT = "Research use only; simulated hospitals stand for no patient. "

_RANDOM_SPLITS = """\
Each repeat splits every site anew by patient, stratified by grade: 70 % for training (a fifth of it chooses the best
round) and 30 % for the test. The seed of repeat r is r, for the split and for training, so a federated row of repeat r
is the FLARE job with seed r, computed in one process."""

_FOLDS = """\
The patients of every site, stratified by grade, are dealt out to {n} folds. Repeats 1 to {n} are the folds of one such
partition, each of which is the test once while a fifth of the others chooses the best round; the next {n} are those of
another. Training has the seed of its repeat."""

_INTRODUCTION = f"""\
Scores are of test cases only: the mean over repeats and its 95 % interval, which counts that splits share cases
(Nadeau and Bengio 2003); it may pass 1. Where a site is left out, all its cases are judged in each repeat, and the mean
stands with the standard deviation over repeats, which is that of training alone. The others' are in the JSON file
beside this page.

- **federated**: every site trains from the common weights, which are averaged after each round.
- **central**: one network on all sites' training cases, as many passes.
- **local**: one network a site, from its cases alone but with the common standardisation; judged by all sites' test
  cases; mean over the sites.
- **leave one site out**: federated over the other sites, judged by all cases of the one left out.
- **rule**: no network. Its numbers are chosen on all sites' training cases together, by quadratic kappa; cut points by
  exact search over every triple, at every depth. Rules give no probabilities, so they have no AUC.

**The paper's setting** judges the cases with at least one bleed in three grades (mild, moderate, severe). The grade is
the median of the predicted distribution once none is ruled out; a count is at least 1.

Differences are the first less the second, so that above 0 the first is better. Those of accuracy and quadratic kappa
are of repeat 1, with 95 % intervals from {N_DRAWS} draws of its test cases within each site; McNemar's test is the
exact one, on the same cases. Those over repeats go with the corrected resampled t-test. P-values of one column of a
table are adjusted by Holm's method. Areas under the ROC curve, each grade against the rest, are compared on the test
cases of repeat 1 by DeLong's paired test of the raw probabilities, with 95 % intervals; their p-values are adjusted
over the whole table. A grade of fewer than 10 cases is not compared: the test finds too much there.

Macro sensitivity is the balanced accuracy. Weights exchanged are those of the federated training, to all sites and
back. Seconds are of one thread; a scan's are from its files to its grade."""


def render_page(command: str, n_repeats: int, reports: Sequence[CohortReport], n_folds: int = 0) -> str:
    """The whole page; ``n_folds``: of which the repeats are folds, 0 for random splits."""
    protocol = _FOLDS.format(n=n_folds) if n_folds else _RANDOM_SPLITS
    head = f"# Grading, measured\n\n`{command}` with mhsev {__version__}, {n_repeats} repeats.\n\n{_CAVEAT}"
    head += f"{protocol} {_INTRODUCTION}\n"
    return "\n".join([head, *(_cohort_section(report) for report in reports)])


def _cohort_section(report: CohortReport) -> str:
    parts = [f"## {report.cohort.name}\n", _settings(report), _mix(report)]
    for setting in Setting:
        parts += [f"### {setting[0].upper()}{setting[1:]}\n", _majority(report, setting), _scores(report, setting)]
        for title, comparisons, areas in (
            (
                f"`{report.reference}` against the other rows",
                compare_rows(report, setting),
                row_areas(report, setting),
            ),
            (
                "Federated against central and local",
                compare_regimes(report, setting),
                regime_areas(report, setting),
            ),
        ):
            if comparisons:
                parts += [f"{title}:\n", _comparisons(comparisons)]
            if areas:
                parts += [f"{title}, areas under the ROC curve:\n", _areas(areas)]
    parts += [_left_out(report), _costs(report)]
    notes = "\n".join(f"- `{result.row.name}`: {result.row.note}" for result in report.results)
    return "\n".join([part for part in parts if part] + [f"Rows:\n\n{notes}\n"])


def _settings(report: CohortReport) -> str:
    told = ", ".join(f"{key} {value}" for key, value in report.cohort.settings.items())
    return f"{told or 'No settings are known: nobody simulated these scans'}.\n"


def _mix(report: CohortReport) -> str:
    rows = []
    for hospital in report.cohort.hospitals:
        mix = report.test_mix[hospital.name].mean(axis=0)
        rows.append([hospital.name, str(len(hospital.contents)), str(len(hospital.listed.excluded)), *_tenths(mix)])
    total = np.sum(list(report.test_mix.values()), axis=0).mean(axis=0)
    cases, excluded = (
        sum(len(part) for part in parts)
        for parts in zip(*((h.contents, h.listed.excluded) for h in report.cohort.hospitals), strict=True)
    )
    rows.append(["all", str(cases), str(excluded), *_tenths(total)])
    header = ["site", "cases", "excluded", *(f"test: {grade.label}" for grade in Severity)]
    return _table(header, rows)


def _tenths(values: np.ndarray) -> list[str]:
    return [f"{value:.1f}".removesuffix(".0") for value in values]


def _majority(report: CohortReport, setting: Setting) -> str:
    total = np.sum(list(report.test_mix.values()), axis=0)
    judged = total if setting is Setting.ALL else total[:, Severity.MILD :]
    rate = float((judged.max(axis=1) / judged.sum(axis=1)).mean())
    return f"The most frequent grade is that of {rate:.3f} of the test cases.\n"


_SCORE_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_specificity": "macro specificity",
    "macro_f1": "macro F1",
    "quadratic_kappa": "quadratic kappa",
    "cohen_kappa": "kappa",
    "macro_auc": "macro AUC",
    "count_mae": "count MAE",
    WORST_SITE: "balanced accuracy, worst site",
}


def _scores(report: CohortReport, setting: Setting) -> str:
    rows = []
    for result in report.results:
        for regime in result.repeats[0]:
            summaries = summaries_of(result, regime, setting, report.sizes)
            rows.append([f"`{result.row.name}`", str(regime), *(_with_range(summaries[name]) for name in SCORES)])
    return _table(["row", "trained", *(_SCORE_TITLES[name] for name in SCORES)], rows)


def _costs(report: CohortReport) -> str:
    rows = []
    for result in report.results:
        exchanged = bytes_exchanged(result.row, len(report.cohort.hospitals))
        trained = [(str(regime), seconds) for regime, seconds in result.seconds.items()]
        scan = report.seconds_per_scan.get(result.row.name)
        rows.append(
            [
                f"`{result.row.name}`",
                ", ".join(f"{regime} {seconds:.0f}" for regime, seconds in trained) or NOT_DEFINED,
                NOT_DEFINED if exchanged is None else f"{exchanged / 1e6:.1f}",
                NOT_DEFINED if scan is None else f"{scan:.2f}",
            ]
        )
    header = ["row", "training and grading, s", "weights exchanged, MB", "a scan to its grade, s"]
    return "### Costs, one thread\n\n" + _table(header, rows)


def _left_out(report: CohortReport) -> str:
    """Quadratic kappa and accuracy on each left-out site."""
    sites = [hospital.name for hospital in report.cohort.hospitals]
    rows = []
    for result in report.results:
        if Regime.LEAVE_ONE_OUT in result.repeats[0]:
            cells = []
            for site in sites:
                each = [outcomes[Regime.LEAVE_ONE_OUT][site].scores(Setting.ALL) for outcomes in result.repeats]
                for name in ("accuracy", "quadratic_kappa"):
                    cells.append(_with_range(Summary.of([entry[name] for entry in each], None)))
            rows.append([f"`{result.row.name}`", *cells])
    if not rows:
        return ""
    header = ["row", *(f"{site}: {name}" for site in sites for name in ("accuracy", "quadratic kappa"))]
    return "### Sites left out, all four grades\n\n" + _table(header, rows)


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    header = ["difference", "accuracy", "McNemar p", "quadratic kappa", "bootstrap p"]
    header += ["quadratic kappa over repeats", "corrected t p"]
    rows = []
    for entry in comparisons:
        rows.append(
            [
                entry.name,
                _with_interval(*entry.accuracy[:3]),
                _p(entry.mcnemar_adjusted),
                _with_interval(*entry.quadratic_kappa[:3]),
                _p(entry.bootstrap_adjusted),
                NOT_DEFINED if entry.repeats is None else f"{entry.repeats.mean:+.3f}",
                _p(entry.repeats_adjusted),
            ]
        )
    return _table(header, rows)


def _areas(entries: Sequence[AreaDifference]) -> str:
    """A row a comparison, a column a grade: both areas' difference and its adjusted p-value."""
    grades = [grade.label for grade in Severity if any(entry.grade == grade.label for entry in entries)]
    by_name: dict[str, dict[str, str]] = {}
    for entry in entries:
        reach = NORMAL_95 * entry.found.standard_error
        value = entry.found.difference
        told = f"{_with_interval(value, value - reach, value + reach)}, p {_p(entry.adjusted)}"
        by_name.setdefault(entry.name, {})[entry.grade] = told
    rows = [[name, *(cells.get(grade, NOT_DEFINED) for grade in grades)] for name, cells in by_name.items()]
    return _table(["difference in AUC", *grades], rows)


def _with_range(summary: Summary) -> str:
    if not math.isfinite(summary.mean):
        return NOT_DEFINED
    if math.isfinite(summary.low):
        return f"{summary.mean:.3f} ({summary.low:.2f} to {summary.high:.2f})"
    return f"{summary.mean:.3f}" + (f" ± {summary.deviation:.3f}" if math.isfinite(summary.deviation) else "")


def _with_interval(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return NOT_DEFINED
    return f"{value:+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if math.isfinite(low) else "")


def _p(value: float) -> str:
    if not math.isfinite(value):
        return NOT_DEFINED
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
