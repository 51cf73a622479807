"""A cohort of simulated hospitals on disk, made in parallel and gone on with after an interruption."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mhsev_monai.cohort.hospitals import HOSPITALS, Hospital
from mhsev_monai.cohort.manifest import (
    CHECKSUMS,
    MANIFEST,
    check_out,
    checksums_text,
    cohort_parameters,
    known_checksums,
    manifest_text,
)
from mhsev_monai.cohort.reader import read_count
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.subject import draw_record, random_streams, simulate_subject
from mhsev_monai.cohort.tables import Participant, read_lesions
from mhsev_monai.cohort.template import load_head_template
from mhsev_monai.cohort.writer import (
    is_written,
    lesions_path,
    remove_partial,
    subject_id,
    write_hospital,
    write_subject,
    write_text,
)
from mhsev_monai.severity import Severity, severity_from_count

MIN_SUBJECTS = 12
MAX_SUBJECTS = 9999

DEFAULT_SETTINGS = CohortSettings()
"""Of the demonstration: easy, balanced, one in ten without microbleeds."""

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
    settings: CohortSettings = DEFAULT_SETTINGS,
    workers: int = 1,
    progress: Progress | None = None,
) -> CohortSummary:
    """A folder with one BIDS root a hospital; what is already there from the same parameters is kept.

    A subject depends on the seed, its hospital, its number and the settings. With ``workers`` above 1 processes are
    spawned: call it under ``if __name__ == "__main__"``.

    Args:
        out: new or empty folder, or a cohort made with the same parameters and no more subjects.
        n_subjects: in all hospitals together, 12 to 9999.
        seed: of everything random, 0 or more.
        hospitals: protocols and patients; they share the subjects by ``n_reference``.
        settings: what holds for every subject.
        workers: processes.
        progress: called with the numbers of subjects that are there and of all.

    Raises:
        ValueError: if an argument is outside its range.
        CohortError: if ``out`` or the backgrounds are unusable, or nilearn is not installed.
    """
    out = Path(out)
    _check_arguments(n_subjects, seed, workers)
    sizes = site_sizes(n_subjects, hospitals)
    parameters = cohort_parameters(seed, hospitals, settings)
    check_out(out, parameters, n_subjects)
    write_text(out / MANIFEST, manifest_text(n_subjects, parameters))
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
    for n_done, _ in enumerate(_run(jobs, partial(_make_subject, out, seed, settings), workers), start=1):
        report(n_subjects - len(jobs) + n_done, n_subjects)
    sites = tuple(_finish(out, hospital, size, seed, settings) for hospital, size in zip(hospitals, sizes, strict=True))
    _write_checksums(out, hospitals, jobs)
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


def _make_subject(out: Path, seed: int, settings: CohortSettings, job: Job) -> None:
    hospital, index = job
    subject = simulate_subject(hospital, seed, index, settings=settings)
    write_subject(out / hospital.name, index, hospital, subject, settings.contrast)


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


def _finish(out: Path, hospital: Hospital, size: int, seed: int, settings: CohortSettings) -> SiteSummary:
    """Write the tables of a hospital whose subjects are all there."""
    root = out / hospital.name
    participants = [_participant(root, hospital, index, seed, settings) for index in range(1, size + 1)]
    write_hospital(root, hospital, participants)
    grades = [severity_from_count(participant.n_microbleeds) for participant in participants]
    none, mild, moderate, severe = (grades.count(severity) for severity in Severity)
    return SiteSummary(hospital.name, size, (none, mild, moderate, severe))


def _participant(root: Path, hospital: Hospital, index: int, seed: int, settings: CohortSettings) -> Participant:
    """The row of a subject whose files are there: what the second reader finds depends on the bleeds planted."""
    record = draw_record(hospital, seed, index, settings)
    planted = read_lesions(lesions_path(root, index, settings.contrast))
    rng = random_streams(seed, hospital.name, index)["reader"]
    return Participant(record.clinical, record.n_microbleeds, planted.n_occult, read_count(rng, planted.contrasts))


def _write_checksums(out: Path, hospitals: Sequence[Hospital], made: Sequence[Job]) -> None:
    """Put the list of checksums beside the manifest; only what this call wrote is read."""
    anew = {(hospital.name, subject_id(index)) for hospital, index in made}

    def is_kept(path: str) -> bool:
        site, *folders = Path(path).parts
        subjects = [folder for folder in folders if folder.startswith("sub-")]
        return bool(subjects) and (site, subjects[0]) not in anew

    known = known_checksums(out, is_kept)
    write_text(out / CHECKSUMS, checksums_text(out, known, [hospital.name for hospital in hospitals]))


def _check_arguments(n_subjects: int, seed: int, workers: int) -> None:
    if not MIN_SUBJECTS <= n_subjects <= MAX_SUBJECTS:
        raise ValueError(
            f"n_subjects must be {MIN_SUBJECTS} to {MAX_SUBJECTS} in all hospitals together, got {n_subjects}"
        )
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}")


def _silent(n_done: int, n_all: int) -> None:
    """Progress that nobody follows."""
