"""From folders of cohorts to the page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mhsev_flare.benchmark.comparison import CohortReport
from mhsev_flare.benchmark.costs import seconds_per_scan
from mhsev_flare.benchmark.kept import FOLDER
from mhsev_flare.benchmark.page import render_page
from mhsev_flare.benchmark.protocol import Bar, Cohort, Regime, load_cohort
from mhsev_flare.benchmark.record import to_json
from mhsev_flare.benchmark.rows import Row
from mhsev_flare.benchmark.run import RowResults, run_rows, sizes_of
from mhsev_flare.site_data import grade_counts


@dataclass(frozen=True)
class Plan:
    """What a benchmark measures.

    Attributes:
        rows: in the order of the page, at least one.
        reference: name of the row that the others are compared with.
        regimes: who trains with whom.
        n_repeats: splits, with seeds 1 to this.
        workers: processes.
        n_folds: 0: each split is random; otherwise ``n_repeats`` is a multiple of it, and splits are folds.
    """

    rows: tuple[Row, ...]
    reference: str
    regimes: frozenset[Regime]
    n_repeats: int
    workers: int
    n_folds: int = 0


def write_benchmark(cohorts: Sequence[Path], out: Path, command: str, plan: Plan, bar: Bar) -> None:
    """Measure ``plan`` on each cohort; write the page ``out`` and a JSON file of the same name beside it.

    Raises:
        CohortError: if a folder is no cohort.
        SiteError: if a hospital has too few cases for a split.
        OSError: if a file cannot be read or written.
    """
    reports = [benchmark_cohort(folder, plan, bar) for folder in cohorts]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render_page(command, plan.n_repeats, reports, plan.n_folds), encoding="utf-8")
    content = json.dumps(to_json(command, plan.n_repeats, reports), allow_nan=False)
    out.with_suffix(".json").write_text(content + "\n", encoding="utf-8")


def benchmark_cohort(folder: Path, plan: Plan, bar: Bar) -> CohortReport:
    """All rows of ``plan`` on one cohort; raises as :func:`write_benchmark`."""
    cohort = load_cohort(folder, [entry for row in plan.rows for entry in row.all_inputs], plan.workers, bar)
    cohort = cohort.in_folds(plan.n_folds)
    with bar(f"{cohort.name}: rows", "training") as progress:
        results = run_rows(cohort, plan.rows, plan.regimes, plan.n_repeats, plan.workers, progress, folder / FOLDER)
    with bar(f"{cohort.name}: seconds a scan", "row") as progress:
        torch.set_num_threads(1)
        seconds: dict[str, float | None] = {}
        for number, row in enumerate(plan.rows, start=1):
            seconds[row.name] = seconds_per_scan(row, folder)
            progress(number, len(plan.rows))
    return dataclasses.replace(report_of(cohort, plan, results), seconds_per_scan=seconds)


def report_of(cohort: Cohort, plan: Plan, results: Sequence[RowResults]) -> CohortReport:
    """The results with the numbers of cases that they rest on."""
    row = plan.rows[0]
    splits = [cohort.split(row.inputs, seed, row.scale) for seed in range(1, plan.n_repeats + 1)]
    mix = {
        hospital.name: np.stack([grade_counts(split[hospital.name].test, row.scale) for split in splits])
        for hospital in cohort.hospitals
    }
    return CohortReport(cohort, tuple(results), plan.reference, sizes_of(splits[0]), mix)
