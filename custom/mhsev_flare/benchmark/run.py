"""Runs rows on repeated splits: who trains, who is graded, in one process or two."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mhsev_flare.benchmark.averaging import (
    Weights,
    average_federated,
    load_weights,
    start_weights,
    train_alone,
    train_central,
)
from mhsev_flare.benchmark.graded import GradedCases, Grading
from mhsev_flare.benchmark.kept import digest_sites, outcome_key, read_outcome, write_outcome
from mhsev_flare.benchmark.protocol import Cohort, Regime
from mhsev_flare.benchmark.rows import Row
from mhsev_flare.benchmark.rules import Rule
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.site_data import SiteData
from mhsev_monai.errors import CohortError
from mhsev_monai.networks import predict_severity
from mhsev_monai.severity import SCALES, GradingScale
from mhsev_monai.training import LabelledFeatures

Sites = Mapping[str, SiteData]
Outcomes = dict[Regime, dict[str, GradedCases]]
"""Graded cases of each regime by model: one model, or one a site by the name of its owner."""

ONE_MODEL = "all sites"
"""The key where a regime makes one model, or where one answer covers all left-out sites."""


@dataclass(frozen=True)
class Task:
    """One row on one split.

    Attributes:
        method: a job, whose seed is that of the split; or a rule.
        scale: turns counts into grades.
        sites: cases by site, split.
        regimes: which to run; of a job, any but ``RULE``; of a rule, ``RULE`` and leaving a site out.
    """

    method: JobSpec | Rule
    scale: GradingScale
    sites: Sites
    regimes: frozenset[Regime]

    def run(self) -> Outcomes:
        """Grade the test cases."""
        return _run_job(self.method, self) if isinstance(self.method, JobSpec) else _run_rule(self.method, self)

    def parts(self) -> list[Task]:
        """The same task by regime: what is computed, and kept, at once."""
        own = _regimes_of(self.method, self.regimes)
        return [dataclasses.replace(self, regimes=frozenset({regime})) for regime in own]


def _regimes_of(method: JobSpec | Rule, wanted: Collection[Regime]) -> list[Regime]:
    """Those of ``wanted`` that mean something for a job or a rule, in the order of ``Regime``."""
    if isinstance(method, JobSpec):
        own = set(wanted) - {Regime.RULE}
    else:
        own = (set(wanted) & {Regime.LEAVE_ONE_OUT}) | {Regime.RULE}
    return [regime for regime in Regime if regime in own]


class Finished(NamedTuple):
    """A task that was run.

    Attributes:
        outcomes: graded cases by regime and model.
        seconds: that it took, on one thread.
    """

    outcomes: Outcomes
    seconds: float


class RowResults(NamedTuple):
    """A row on all splits.

    Attributes:
        row: what it is.
        repeats: outcomes by repeat, in rising order.
        seconds: by regime, of training and grading on one thread, mean over repeats.
    """

    row: Row
    repeats: tuple[Outcomes, ...]
    seconds: Mapping[Regime, float] = {}


class Sizes(NamedTuple):
    """Numbers of cases of a split over all sites; with training, those that choose the best round."""

    n_train: int
    n_test: int


def run_rows(
    cohort: Cohort,
    rows: Sequence[Row],
    regimes: Collection[Regime],
    n_repeats: int,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    kept: Path | None = None,
) -> list[RowResults]:
    """All rows on the splits with seeds 1 to ``n_repeats``; a job trains with the seed of the split, as FLARE would.

    Args:
        cohort: with the features of every row.
        rows: in the order of the page.
        regimes: which to run.
        n_repeats: number of splits.
        workers: processes; 1 computes in this one.
        progress: called with the number of trainings (row, repeat and regime) done and the total.
        kept: folder in which outcomes are found again, and kept as soon as they are there; None: nothing is kept.

    Raises:
        OSError: if ``kept`` cannot be written.
    """
    n_parts = sum(len(_regimes_of(row.method, regimes)) for row in rows)
    by_repeat = []
    for seed in range(1, n_repeats + 1):

        def shown(done: int, _total: int, before: int = (seed - 1) * n_parts) -> None:
            progress(before + done, n_repeats * n_parts)

        by_repeat.append(_run_repeat(cohort, rows, regimes, seed, workers, shown, kept))
    return [_row_results(row, of_row) for row, of_row in zip(rows, zip(*by_repeat, strict=True), strict=True)]


def _run_repeat(
    cohort: Cohort,
    rows: Sequence[Row],
    regimes: Collection[Regime],
    seed: int,
    workers: int,
    progress: Callable[[int, int], None],
    kept: Path | None,
) -> list[list[Finished]]:
    """The parts of each row on the split of ``seed``.

    One repeat at a time: the splits of all would be several times the features in memory, and volumes are large. The
    price is that one row of one regime is trained by one process, whatever the number of workers.
    """
    tasks = [make_task(cohort, row, seed, regimes) for row in rows]
    finished = iter(_run_parts([part for task in tasks for part in task.parts()], workers, progress, kept))
    return [[next(finished) for _ in task.parts()] for task in tasks]


def _row_results(row: Row, repeats: Sequence[Sequence[Finished]]) -> RowResults:
    """The parts of each repeat put together."""
    seconds: dict[Regime, list[float]] = {}
    for part in (part for parts in repeats for part in parts):
        for regime in part.outcomes:
            seconds.setdefault(regime, []).append(part.seconds)
    outcomes = tuple({r: models for part in parts for r, models in part.outcomes.items()} for parts in repeats)
    return RowResults(row, outcomes, {regime: float(np.mean(each)) for regime, each in seconds.items()})


def make_task(cohort: Cohort, row: Row, seed: int, regimes: Collection[Regime]) -> Task:
    """``row`` on the split of ``seed``."""
    method = dataclasses.replace(row.method, seed=seed) if isinstance(row.method, JobSpec) else row.method
    sites = cohort.split(row.inputs, seed, row.scale, row.masks, row.twins)
    return Task(method, row.scale, sites, frozenset(regimes))


def _run_parts(
    parts: Sequence[Task], workers: int, progress: Callable[[int, int], None], kept: Path | None
) -> list[Finished]:
    """In the order of ``parts``, each of one regime."""
    found = {number: known for number, part in enumerate(parts) if kept and (known := _read(part, kept)) is not None}
    missing = [number for number in range(len(parts)) if number not in found]
    progress(len(found), len(parts))
    for number, finished in _finished(parts, missing, workers):
        found[number] = finished
        if kept:
            _keep(parts[number], finished, kept)
        progress(len(found), len(parts))
    return [found[number] for number in range(len(parts))]


def _finished(parts: Sequence[Task], chosen: Sequence[int], workers: int) -> Iterator[tuple[int, Finished]]:
    """The chosen parts by number, each as soon as it is done."""
    if workers <= 1:
        # As the executor has it: sums in another number of threads are other sums.
        torch.set_num_threads(1)
        yield from ((number, _timed(parts[number])) for number in chosen)
        return
    # spawn: a forked child of a process that has used torch threads can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    try:
        jobs = {pool.submit(_timed, parts[number]): number for number in chosen}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
    except BrokenProcessPool:
        raise CohortError(
            "a worker process was ended from outside, most likely for want of memory; use fewer with --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _timed(part: Task) -> Finished:
    start = time.perf_counter()
    outcomes = part.run()
    return Finished(outcomes, time.perf_counter() - start)


def _key(part: Task) -> str:
    return outcome_key(part.method, str(*part.regimes), digest_sites(part.sites), part.scale.name)


def _read(part: Task, kept: Path) -> Finished | None:
    found = read_outcome(kept, _key(part))
    return None if found is None else Finished(dict.fromkeys(part.regimes, found[0]), found[1])


def _keep(part: Task, finished: Finished, kept: Path) -> None:
    for models in finished.outcomes.values():
        write_outcome(kept, _key(part), models, finished.seconds)


def _run_job(spec: JobSpec, task: Task) -> Outcomes:
    tests = {name: data.test for name, data in task.sites.items()}

    def graded(weights: Weights, on: Mapping[str, LabelledFeatures] = tests) -> GradedCases:
        return grade_with(spec, weights, on)

    outcomes: Outcomes = {}
    if Regime.FEDERATED in task.regimes:
        outcomes[Regime.FEDERATED] = {ONE_MODEL: graded(average_federated(spec, task.sites).weights)}
    if Regime.CENTRAL in task.regimes:
        outcomes[Regime.CENTRAL] = {ONE_MODEL: graded(train_central(spec, task.sites).weights)}
    if Regime.LOCAL in task.regimes:
        start = start_weights(spec, task.sites)
        outcomes[Regime.LOCAL] = {
            name: graded(train_alone(spec, name, data, start).weights) for name, data in task.sites.items()
        }
    if Regime.LEAVE_ONE_OUT in task.regimes:
        outcomes[Regime.LEAVE_ONE_OUT] = {
            name: graded(average_federated(spec, _others(task.sites, name)).weights, {name: _every_case(data)})
            for name, data in task.sites.items()
        }
    return outcomes


def _run_rule(rule: Rule, task: Task) -> Outcomes:
    training = {name: LabelledFeatures.join([data.train, data.validation]) for name, data in task.sites.items()}
    fitted = rule.fit(training, task.scale)
    graded = {
        name: GradedCases.of(name, data.test, fitted.grade(name, data.test), task.scale)
        for name, data in task.sites.items()
    }
    outcomes: Outcomes = {Regime.RULE: {ONE_MODEL: _joined(graded)}} if Regime.RULE in task.regimes else {}
    if Regime.LEAVE_ONE_OUT in task.regimes:
        outcomes[Regime.LEAVE_ONE_OUT] = {}
        for name, data in task.sites.items():
            cases = _every_case(data)
            grading = rule.fit(_others(training, name), task.scale).grade(name, cases)
            outcomes[Regime.LEAVE_ONE_OUT][name] = GradedCases.of(name, cases, grading, task.scale)
    return outcomes


def grade_with(spec: JobSpec, weights: Weights, cases: Mapping[str, LabelledFeatures]) -> GradedCases:
    """The cases of several sites, graded by the network of ``spec`` with ``weights``, in the order of the names."""
    network, scale = copy.deepcopy(spec.network), SCALES[spec.scale]
    load_weights(network, weights)
    return _joined(
        {
            name: GradedCases.of(name, data, Grading.of_network(predict_severity(network, data.features, scale)), scale)
            for name, data in cases.items()
        }
    )


def _joined(graded: Mapping[str, GradedCases]) -> GradedCases:
    return GradedCases.join([graded[name] for name in sorted(graded)])


def _others(sites: Mapping[str, Any], left_out: str) -> dict[str, Any]:
    return {name: data for name, data in sites.items() if name != left_out}


def _every_case(data: SiteData) -> LabelledFeatures:
    return LabelledFeatures.join([data.train, data.validation, data.test])


def sizes_of(sites: Sites) -> Sizes:
    """How many cases of a split make and judge a model."""
    return Sizes(
        sum(len(data.train) + len(data.validation) for data in sites.values()),
        sum(len(data.test) for data in sites.values()),
    )
