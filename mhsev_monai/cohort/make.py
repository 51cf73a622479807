"""A cohort of simulated hospitals on disk, made in parallel and gone on with after an interruption."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mhsev_monai._version import __version__
from mhsev_monai.cohort.disease import DIFFICULTIES
from mhsev_monai.cohort.hospitals import HOSPITALS, Hospital
from mhsev_monai.cohort.subject import draw_record, simulate_subject
from mhsev_monai.cohort.template import load_head_template
from mhsev_monai.cohort.writer import is_written, remove_partial, write_hospital, write_subject, write_text
from mhsev_monai.errors import CohortError
from mhsev_monai.severity import Severity, severity_from_count

IMAGE_VERSION = 1
"""Raised whenever the same seed makes other images, so that old and new subjects do not come to lie in one folder."""

MANIFEST = "cohort.json"
MIN_SUBJECTS = 12
MAX_SUBJECTS = 9999

Progress = Callable[[int, int], None]
Job = tuple[Hospital, int]


class SiteSummary(NamedTuple):
    """A hospital of a cohort.

    Attributes:
        name: of the hospital.
        n_subjects: how many it has.
        n_by_severity: how many of them are graded none, mild, moderate and severe.
    """

    name: str
    n_subjects: int
    n_by_severity: tuple[int, int, int, int]


class CohortSummary(NamedTuple):
    """A cohort that is complete.

    Attributes:
        root: folder with one BIDS root a hospital.
        sites: in the order of the hospitals.
        n_made: subjects made by this call; the others were there.
    """

    root: Path
    sites: tuple[SiteSummary, ...]
    n_made: int

    def __str__(self) -> str:
        labels = [severity.label for severity in Severity]
        lines = [f"simulated hospitals in {self.root}, {self.n_made} subjects made now"]
        for site in self.sites:
            grades = ", ".join(f"{label} {n}" for label, n in zip(labels, site.n_by_severity, strict=True))
            lines.append(f"{site.name:<12}{site.n_subjects:>5} subjects   {grades}")
        return "\n".join(lines)


def make_cohort(
    out: Path,
    n_subjects: int,
    seed: int,
    *,
    hospitals: Sequence[Hospital] = HOSPITALS,
    difficulty: str = "easy",
    workers: int = 1,
    progress: Progress | None = None,
) -> CohortSummary:
    """A folder with one BIDS root a hospital; what is already there from the same parameters is kept.

    A subject depends on the seed, its hospital and its number only. With ``workers`` above 1 processes are spawned:
    call it under ``if __name__ == "__main__"``.

    Args:
        out: new or empty folder, or a cohort made with the same parameters and no more subjects.
        n_subjects: in all hospitals together, 12 to 9999.
        seed: of everything random, 0 or more.
        hospitals: protocols and patients; they share the subjects by ``n_reference``.
        difficulty: a name of ``disease.DIFFICULTIES``.
        workers: processes.
        progress: called with the numbers of subjects that are there and of all.

    Raises:
        ValueError: if an argument is outside its range.
        CohortError: if ``out`` is unusable, or nilearn is not installed.
    """
    out = Path(out)
    _check_arguments(n_subjects, seed, difficulty, workers)
    sizes = site_sizes(n_subjects, hospitals)
    parameters = _parameters(seed, hospitals, difficulty)
    _check_out(out, parameters, n_subjects)
    manifest = {"n_subjects": n_subjects, **parameters, "MadeBy": f"mhsev {__version__}"}
    write_text(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    for hospital in hospitals:
        remove_partial(out / hospital.name)
    jobs = [
        (hospital, index)
        for hospital, size in zip(hospitals, sizes, strict=True)
        for index in range(1, size + 1)
        if not is_written(out / hospital.name, index)
    ]
    report = progress or _silent
    report(n_subjects - len(jobs), n_subjects)
    for n_done, _ in enumerate(_run(jobs, partial(_make_subject, out, seed, difficulty), workers), start=1):
        report(n_subjects - len(jobs) + n_done, n_subjects)
    sites = tuple(_finish(out, hospital, size, seed) for hospital, size in zip(hospitals, sizes, strict=True))
    return CohortSummary(out, sites, len(jobs))


def site_sizes(n_subjects: int, hospitals: Sequence[Hospital]) -> tuple[int, ...]:
    """How many of ``n_subjects`` each hospital has: in proportion to ``n_reference``, largest remainders rounded up."""
    total = sum(hospital.n_reference for hospital in hospitals)
    sizes = [n_subjects * hospital.n_reference // total for hospital in hospitals]
    remainders = [n_subjects * hospital.n_reference % total for hospital in hospitals]
    by_remainder = sorted(range(len(sizes)), key=lambda site: -remainders[site])
    for site in by_remainder[: n_subjects - sum(sizes)]:
        sizes[site] += 1
    return tuple(sizes)


def _make_subject(out: Path, seed: int, difficulty: str, job: Job) -> None:
    hospital, index = job
    subject = simulate_subject(hospital, seed, index, difficulty=difficulty)
    write_subject(out / hospital.name, index, hospital, subject)


def _run(jobs: Sequence[Job], make: Callable[[Job], None], workers: int) -> Iterator[None]:
    """Do the jobs and yield after each."""
    if not jobs:
        return
    if min(workers, len(jobs)) == 1:
        yield from map(make, jobs)
        return
    with _pool(min(workers, len(jobs))) as pool:
        for done in as_completed([pool.submit(make, job) for job in jobs]):
            yield done.result()


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool that gives up what has not begun when its block is left early."""
    # Spawned, not forked: the caller may hold threads. The template is loaded once a process.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=load_head_template)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finish(out: Path, hospital: Hospital, size: int, seed: int) -> SiteSummary:
    """Write the tables of a hospital whose subjects are all there."""
    records = [draw_record(hospital, seed, index) for index in range(1, size + 1)]
    write_hospital(out / hospital.name, hospital, records)
    grades = [severity_from_count(record.n_microbleeds) for record in records]
    none, mild, moderate, severe = (grades.count(severity) for severity in Severity)
    return SiteSummary(hospital.name, size, (none, mild, moderate, severe))


def _check_arguments(n_subjects: int, seed: int, difficulty: str, workers: int) -> None:
    if not MIN_SUBJECTS <= n_subjects <= MAX_SUBJECTS:
        raise ValueError(
            f"n_subjects must be {MIN_SUBJECTS} to {MAX_SUBJECTS} in all hospitals together, got {n_subjects}"
        )
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty must be one of {', '.join(DIFFICULTIES)}, got {difficulty}")
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}")


def _parameters(seed: int, hospitals: Sequence[Hospital], difficulty: str) -> dict[str, Any]:
    """What decides a subject's bytes, as JSON gives it back."""
    described = [dataclasses.asdict(hospital) for hospital in hospitals]
    parameters = {"seed": seed, "difficulty": difficulty, "image_version": IMAGE_VERSION, "hospitals": described}
    restored: dict[str, Any] = json.loads(json.dumps(parameters))
    return restored


def _check_out(out: Path, parameters: dict[str, Any], n_subjects: int) -> None:
    """Refuse a folder that holds something else."""
    if out.exists() and not out.is_dir():
        raise CohortError("the place for the cohort is a file; name a new or an empty folder")
    if not out.is_dir() or not any(not path.name.startswith(".") for path in out.iterdir()):
        return
    try:
        held = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        n_held = int(held["n_subjects"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        raise CohortError(
            "the folder for the cohort holds files that are no cohort; name a new or an empty folder"
        ) from None
    other = [name for name in parameters if held.get(name) != parameters[name]]
    if other:
        raise CohortError(
            f"the folder holds a cohort made with other parameters ({', '.join(other)}); choose another folder"
        )
    if n_held > n_subjects:
        raise CohortError(
            f"the folder holds a cohort of {n_held} subjects, {n_subjects} were asked for; "
            f"ask for {n_held} or more, or choose another folder"
        )


def _silent(n_done: int, n_all: int) -> None:
    """Progress that nobody follows."""
