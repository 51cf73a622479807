"""Cases of a site: a BIDS root and its table of participants, and seeded splits by patient."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import CohortError, ScanError
from mhsev_monai.ingest.bvals import find_bvals, image_stem
from mhsev_monai.participants import COUNT_COLUMN, TableRow, is_bids_name, listed, read_table
from mhsev_monai.scan_contrast import ScanContrast
from mhsev_monai.severity import PAPER_SCALE, GradingScale, Severity

logger = logging.getLogger(__name__)

_BAD_NAME = "a folder name other than sub-<letters and digits>"
# The other parts of a complex-valued series; a missing entity means magnitude.
_NOT_MAGNITUDE = ("part-phase", "part-real", "part-imag")


@dataclass(frozen=True)
class Case:
    """One scan of one patient at one session.

    Attributes:
        case_id: ``sub-<label>`` or ``sub-<label>_ses-<label>``.
        image: the diffusion series, ``.nii`` or ``.nii.gz``.
        bvals: its ``.bval`` file; None where there is none.
        count: number of microbleeds that a reader found; None where it is not known.
        clinical: the other columns of the table of participants.
    """

    case_id: str
    image: Path
    bvals: Path | None = None
    count: int | None = None
    clinical: Mapping[str, float | str | None] = field(default_factory=dict, hash=False)

    @property
    def subject(self) -> str:
        """The patient, ``sub-<label>``, whatever the session."""
        return self.case_id.partition("_")[0]


class CaseList(NamedTuple):
    """The cases of a root.

    Attributes:
        cases: sorted by id.
        excluded: id to reason, for every participant and every scan that is not among the cases.
    """

    cases: tuple[Case, ...]
    excluded: Mapping[str, str]


class Split(NamedTuple):
    """Three parts that share no case, each sorted by id."""

    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]


def read_cases(root: Path, *, require_counts: bool = True, contrast: ScanContrast = ScanContrast.DWI) -> CaseList:
    """The cases of a BIDS root: ``sub-*/[ses-*/]dwi/*_dwi.nii[.gz]`` with their rows of ``participants.tsv``.

    A count in ``sub-x/sub-x_sessions.tsv`` goes before the one of ``participants.tsv``, for patients scanned again.
    Images are not opened.

    Args:
        root: folder of the data set.
        require_counts: cases are for training: each needs a count. Otherwise the table may be absent, and a scan
            without a row or a count is a case too.
        contrast: which scans are looked for; those of another contrast lie under other names.

    Raises:
        CohortError: if the folder or its table is missing or malformed, or holds no case.
    """
    root = Path(root)
    if not root.is_dir():
        raise CohortError("the data root is not a folder that is there; check data_root, and that the disk is mounted")
    table = _participants(root, require_counts=require_counts) or {}
    folders = sorted(path for path in root.glob("sub-*") if path.is_dir())
    subjects = [folder for folder in folders if is_bids_name(folder.name, "sub")]
    scans = {case_id: path for subject in subjects for case_id, path in _scans(subject, contrast).items()}
    if not scans:
        where = f"{contrast.folder}/*_{contrast.suffix}.nii.gz"
        raise CohortError(f"the data root holds no {contrast} scan sub-*/{where} or sub-*/ses-*/{where}; add one")
    sessions = {subject.name: _session_counts(subject) for subject in subjects}
    excluded = {folder.name: _BAD_NAME for folder in folders if folder not in subjects}
    scanned = {case_id.partition("_")[0] for case_id in scans}
    if contrast is ScanContrast.DWI:
        # Every patient is expected to have one; of the other contrasts nobody is.
        excluded |= dict.fromkeys(sorted(set(table) - scanned), "no scan *_dwi.nii.gz in its dwi folder")
    cases = []
    for case_id, image in sorted(scans.items()):
        subject_id, _, session_id = case_id.partition("_")
        row = table.get(subject_id, TableRow())
        count = sessions[subject_id].get(session_id, row.count)
        reason = _unlabelled(subject_id in table, count) if require_counts else None
        if reason is None:
            try:
                cases.append(Case(case_id, image, find_bvals(image), count, row.clinical))
                continue
            except ScanError as error:
                reason = str(error)
        excluded[case_id] = reason
    _report(excluded, n_cases=len(cases))
    return CaseList(tuple(cases), excluded)


def _unlabelled(has_row: bool, count: int | None) -> str | None:
    """Why a scan cannot be trained on; None if it can."""
    if not has_row:
        return "no row in participants.tsv"
    return f"no {COUNT_COLUMN}" if count is None else None


def _participants(root: Path, *, require_counts: bool) -> dict[str, TableRow] | None:
    """The table of participants; None where it is absent and may be."""
    path = root / "participants.tsv"
    if path.is_file():
        return read_table(path, "participant_id", require_counts=require_counts)
    if require_counts:
        raise CohortError(
            f"the data root has no participants.tsv; add one with the columns participant_id and {COUNT_COLUMN}"
        )
    return None


def _session_counts(subject: Path) -> dict[str, int]:
    """The counts by session that a patient's sessions table knows."""
    path = subject / f"{subject.name}_sessions.tsv"
    if not path.is_file():
        return {}
    rows = read_table(path, "session_id", require_counts=False)
    return {session_id: row.count for session_id, row in rows.items() if row.count is not None}


def _scans(subject: Path, contrast: ScanContrast) -> dict[str, Path]:
    """The series of one patient by case id, the first run of each session."""
    named = [path for path in subject.glob("ses-*") if path.is_dir()]
    sessions = sorted(path for path in named if is_bids_name(path.name, "ses"))
    if len(sessions) < len(named):
        # Not by name: it is often a date.
        logger.warning(
            "%s: folders of sessions must be named ses-<letters and digits>, %d are not and are left out",
            subject.name,
            len(named) - len(sessions),
        )
    folders = {subject.name: subject, **{f"{subject.name}_{session.name}": session for session in sessions}}
    found = {}
    for case_id, folder in folders.items():
        files = (folder / contrast.folder).glob("sub-*")
        images = sorted((path for path in files if _is_magnitude(path, contrast)), key=_run_order)
        if len(images) > 1:
            logger.warning("%s has %d %s series; the first is used", case_id, len(images), contrast)
        if images:
            found[case_id] = images[0]
    return found


def _is_magnitude(path: Path, contrast: ScanContrast) -> bool:
    stem = image_stem(path.name)
    return stem is not None and contrast.matches(stem) and not set(stem.split("_")) & set(_NOT_MAGNITUDE)


def _run_order(path: Path) -> tuple[int, str]:
    """Run 2 before run 10, then by name."""
    run = re.search(r"_run-(\d+)_", path.name)
    return (int(run.group(1)) if run else 0, path.name)


def _report(excluded: Mapping[str, str], n_cases: int) -> None:
    """Log how many cases are left out and why; refuse a root where none is left."""
    by_reason: dict[str, list[str]] = {}
    for case_id, reason in sorted(excluded.items()):
        by_reason.setdefault(reason, []).append(case_id)
    # A folder that is not named by an id may be named by a patient: it is counted, not listed.
    reasons = "; ".join(
        f"{len(ids)} with {reason}" + ("" if reason == _BAD_NAME else f" ({listed(ids)})")
        for reason, ids in sorted(by_reason.items())
    )
    if not n_cases:
        raise CohortError(f"no case can be used: {reasons}; give each sub- folder a row with a count")
    if excluded:
        logger.warning("cases: %d, left out: %d: %s", n_cases, len(excluded), reasons)


def content_hash(case: Case) -> str:
    """64 hexadecimal digits (SHA-256) over the bytes of the case's image and ``.bval`` file, whatever their names.

    Raises:
        OSError: if a file cannot be read.
    """
    paths = [path for path in (case.image, case.bvals) if path is not None]
    # A hash of hashes: bytes cannot move from one file to the other unnoticed.
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)).hexdigest()


def group_by_content(cases: Iterable[Case], content_hashes: Mapping[str, str]) -> tuple[tuple[Case, ...], ...]:
    """The cases in groups that must not be torn apart, sorted by id: all sessions of a patient, and copies of a scan.

    Args:
        cases: any number, in any order.
        content_hashes: :func:`content_hash` by case id; a case that is not in it is held for no copy.
    """

    def marks(case: Case) -> set[str]:
        return {case.subject, content_hashes.get(case.case_id, case.subject)}

    group_of: dict[str, tuple[Case, ...]] = {}
    for case in cases:
        joined = {group_of[mark] for mark in marks(case) if mark in group_of}
        members = sorted((case, *(member for group in joined for member in group)), key=lambda case: case.case_id)
        group_of |= dict.fromkeys(set().union(*map(marks, members)), tuple(members))
    return tuple(sorted(set(group_of.values()), key=lambda group: group[0].case_id))


def split_cases(
    cases: Sequence[Case],
    seed: int,
    fractions: tuple[float, float, float] = (0.56, 0.14, 0.30),
    *,
    content_hashes: Mapping[str, str] | None = None,
    scale: GradingScale = PAPER_SCALE,
) -> Split:
    """Training, validation and test cases, by patient and stratified by severity.

    All sessions of a patient, and cases of equal content, go into one part. Of the ``n`` patients whose gravest grade
    is the same, each part receives its fraction of ``n`` rounded down or up; where it is rounded up is chosen so that
    the sums over the grades stay near their fractions too. The result depends on the set of cases, not on their order.

    Args:
        cases: cases with counts.
        seed: 0 or more.
        fractions: of the patients in training, validation and test; they sum to 1. By default the paper's 70 % for
            training, a fifth of them for choosing the best round, and 30 % for the test.
        content_hashes: :func:`content_hash` by case id.
        scale: policy that grades a count.

    Raises:
        ValueError: if ``seed`` or ``fractions`` are out of range, a case has no count, or an id comes twice.
    """
    _check_split(cases, seed, fractions)
    strata: dict[Severity, list[tuple[Case, ...]]] = {}
    for group in group_by_content(cases, content_hashes or {}):
        strata.setdefault(max(scale.grade(case.count or 0) for case in group), []).append(group)
    parts: tuple[list[Case], ...] = ([], [], [])
    owed = np.zeros(3)
    for severity, groups in sorted(strata.items()):
        # One stream a grade: a new mild case leaves the order of the severe ones alone.
        shuffled = np.random.default_rng((seed, int(severity))).permutation(len(groups))
        sizes = _part_sizes(np.asarray(fractions) * len(groups), owed)
        owed += np.asarray(fractions) * len(groups) - sizes
        for part, indices in zip(parts, np.split(shuffled, np.cumsum(sizes)[:-1]), strict=True):
            part.extend(case for index in indices for case in groups[index])
    train, validation, test = (tuple(sorted(part, key=lambda case: case.case_id)) for part in parts)
    return Split(train, validation, test)


def _check_split(cases: Sequence[Case], seed: int, fractions: tuple[float, ...]) -> None:
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be three numbers from 0 up that sum to 1, got {fractions}")
    repeated = sorted(case_id for case_id, n in Counter(case.case_id for case in cases).items() if n > 1)
    if repeated:
        raise ValueError(f"each case may come once, got several of {listed(repeated)}")
    unknown = sorted(case.case_id for case in cases if case.count is None)
    if unknown:
        raise ValueError(f"every case needs a {COUNT_COLUMN} for its stratum; leave out {listed(unknown)}")


def _part_sizes(exact: NDArray[np.float64], owed: NDArray[np.float64]) -> NDArray[np.int64]:
    """Each exact size rounded down or up to the same sum; up where most is owed, counting the grades before."""
    # Products such as 0.56 * 25 come out a little beside the whole number that they are.
    exact = exact.round(9)
    sizes = np.floor(exact).astype(np.int64)
    wish = np.where(exact > sizes, (exact - sizes + owed).round(9), -np.inf)
    sizes[np.argsort(-wish, kind="stable")[: round(exact.sum()) - sizes.sum()]] += 1
    return sizes
