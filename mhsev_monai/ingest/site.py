"""A site's own files into a BIDS root: every series accepted, left out or refused, each with its reason.

Nothing that identifies a patient is written there: images get fresh headers, sidecars an allow-list, subjects keyed
hashes. What became of each series stands in the root's ledger, ``derivatives/mhsev/ingest.json``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bids_root import add_participant, open_root, scan_folder, scan_name
from mhsev_monai.ingest.dicom.convert import ChildLimits
from mhsev_monai.ingest.identity import SubjectKeys
from mhsev_monai.ingest.ledger import Ledger, LedgerEntry
from mhsev_monai.ingest.nifti import read_dwi
from mhsev_monai.ingest.scan_writer import move_scan, write_scan
from mhsev_monai.ingest.sidecar import age_group
from mhsev_monai.ingest.source import Progress, Source, look_through, no_progress
from mhsev_monai.ingest.tasks import SeriesTask, Wanted, series_tasks
from mhsev_monai.ingest.work import clear_abandoned, work_folder
from mhsev_monai.preprocess.diffusion import select_shells
from mhsev_monai.scan_contrast import ScanContrast

_UNREADABLE = (
    "the files cannot be read as DICOM, or cannot be opened: they may be damaged or deflated; which they are stands in "
    "unreadable_files.txt of the site folder; export them again, or mend their permissions"
)
_CLOSED = "the folders cannot be opened; mend their permissions, and ingest again"


@dataclass(frozen=True)
class IngestSummary:
    """What became of a source.

    Attributes:
        entries: one a series, in the order in which they were taken.
        n_others: files that were neither DICOM nor NIfTI.
    """

    entries: tuple[LedgerEntry, ...]
    n_others: int

    def count(self, outcome: str) -> int:
        """How many series came out so."""
        return sum(entry.outcome == outcome for entry in self.entries)


def ingest(source: Path, root: Path, keys: SubjectKeys, *, contrast: ScanContrast = ScanContrast.DWI) -> IngestSummary:
    """Bring DICOM and NIfTI files into a BIDS root: :func:`~.source.look_through`, then :func:`bring_in`.

    Args:
        source: a folder of any depth, with any number of patients and series, or one file.
        root: the BIDS root.
        keys: makes subject keys.
        contrast: which kind of scan is wanted.

    Raises:
        ScanError: if the source is not there.
        CohortError: if the root cannot be written, or its tables are damaged.
        ImportError: if there is DICOM and the extra ``dicom`` is not installed.
    """
    return bring_in(look_through(source, root), root, keys, contrast=contrast)


def bring_in(
    found: Source,
    root: Path,
    keys: SubjectKeys,
    *,
    contrast: ScanContrast = ScanContrast.DWI,
    b_value: float | None = None,
    trace: bool = False,
    limits: ChildLimits | None = None,
    progress: Progress = no_progress,
) -> IngestSummary:
    """Bring the files of a source into a BIDS root.

    Args:
        found: the files.
        root: made if absent. What is there stays; a series that comes again takes its old place.
        keys: makes subject keys; its folder lies outside of ``root``.
        contrast: which kind of scan is wanted.
        b_value: s/mm^2, of separate trace images whose names and sidecars do not tell.
        trace: take trace-weighted series too, if they hold their own b = 0; an original series of the session goes
            before them.
        limits: of the converter's child process.
        progress: called with the number of series done and their total.

    Returns:
        The fate of every series.

    Raises:
        CohortError: if the root cannot be written, or its tables are damaged.
    """
    root = Path(root)
    entries = []
    clear_abandoned()
    with open_root(root) as ledger:
        tasks = series_tasks(found, Wanted(contrast, keys, b_value, limits, trace))
        for done, task in enumerate(tasks, start=1):
            entries.append(_settle(root, task, contrast, ledger))
            ledger.add(entries[-1])
            progress(done, len(tasks))
        for entry in _not_opened(found, keys):
            entries.append(entry)
            ledger.add(entry)
    return IngestSummary(tuple(entries), found.n_others)


def _not_opened(found: Source, keys: SubjectKeys) -> list[LedgerEntry]:
    """Entries for files and folders that could not be read; which files they are is written into the site folder."""
    entries = []
    if found.unreadable:
        keys.note_unreadable(found.unreadable)
        n_files = len(found.unreadable)
        entries.append(LedgerEntry("", "", "unreadable", "unreadable file", n_files, "refused", _UNREADABLE))
    if found.closed:
        entries.append(LedgerEntry("", "", "closed", "closed folder", found.closed, "refused", _CLOSED))
    return entries


def _settle(root: Path, task: SeriesTask, contrast: ScanContrast, ledger: Ledger) -> LedgerEntry:
    """The entry of a series after it was brought in, or with the reason why not."""
    entry = task.entry
    if task.load is None:
        return entry
    try:
        scan, warnings = task.load()
        folder = scan_folder(root, entry.subject, entry.session, contrast)
        with work_folder() as work:
            written = write_scan(scan, work, "scan")
            warnings = (*warnings, *_check(written, contrast))
            name = scan_name(folder, entry, contrast, ledger, written)
            move_scan(written, folder, name)
    except ScanError as error:
        return replace(entry, outcome="refused", reason=str(error))
    except MemoryError:
        return replace(entry, outcome="refused", reason="the series does not fit into memory; split it")
    except Exception as error:
        # The edge of the batch: a fault in one series must not take the others with it, and its text may hold a path.
        reason = f"failed unexpectedly with {type(error).__name__}; please report it, without the files"
        return replace(entry, outcome="refused", reason=reason)
    add_participant(root, entry.subject, task.sex, age_group(task.age))
    return replace(entry, outcome="accepted", reason="", scan=name, warnings=tuple(dict.fromkeys(warnings)))


def _check(image: Path, contrast: ScanContrast) -> tuple[str, ...]:
    """Read a written scan as everything later will; warnings about it."""
    series = read_dwi(image, b0_only=contrast.b0_only)
    shells = select_shells(series.bvals.tolist())
    unweighted = ("no volume is diffusion-weighted; it serves as b0 alone",)
    return (*series.warnings, *shells.flags, *(unweighted if contrast is ScanContrast.DWI and not shells.dwi else ()))
