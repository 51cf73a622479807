"""A site's own files into a BIDS root: every series accepted, left out or refused, each with its reason.

Nothing that identifies a patient is written there: images get fresh headers, sidecars an allow-list, subjects keyed
hashes. What became of each series stands in the root's ledger, ``derivatives/mhsev/ingest.json``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bids_root import add_participant, prepare_root, scan_folder, scan_name
from mhsev_monai.ingest.dicom.convert import ChildLimits
from mhsev_monai.ingest.dicom.headers import quiet_parser
from mhsev_monai.ingest.dicom.kinds import ACCEPTED
from mhsev_monai.ingest.dicom.series import DicomSeries, convert_series, group_series
from mhsev_monai.ingest.identity import SubjectKeys
from mhsev_monai.ingest.ledger import LedgerEntry, read_ledger, write_ledger
from mhsev_monai.ingest.loose_files import LooseScan, Role, group_images, load_scan
from mhsev_monai.ingest.nifti import read_dwi
from mhsev_monai.ingest.scan_writer import NewScan, move_scan, write_scan
from mhsev_monai.ingest.sidecar import age_group
from mhsev_monai.ingest.source import Progress, Source, look_through, no_progress
from mhsev_monai.preprocess.diffusion import select_shells
from mhsev_monai.scan_contrast import ScanContrast

Loaded = tuple[NewScan, tuple[str, ...]]


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


def ingest(
    source: Path,
    root: Path,
    keys: SubjectKeys,
    *,
    contrast: ScanContrast = ScanContrast.DWI,
    b_value: float | None = None,
    limits: ChildLimits | None = None,
    reading: Progress = no_progress,
    converting: Progress = no_progress,
) -> IngestSummary:
    """Bring DICOM and NIfTI files into a BIDS root.

    Args:
        source: a folder of any depth, with any number of patients and series, or one file.
        root: the BIDS root; made if absent. What is there stays; a series that comes again takes its old place.
        keys: makes subject keys; its folder lies outside of ``root``.
        contrast: which kind of scan is wanted.
        b_value: s/mm^2, of separate trace images whose names and sidecars do not tell.
        limits: of the converter's child process.
        reading: progress over files.
        converting: progress over series.

    Returns:
        The fate of every series.

    Raises:
        ScanError: if the source is not there.
        CohortError: if the root cannot be written, or its tables are damaged.
        ImportError: if there is DICOM and the extra ``dicom`` is not installed.
    """
    root = Path(root)
    prepare_root(root)
    found = look_through(source, root, reading)
    site = _Site(root, keys, contrast, b_value, limits)
    tasks = _tasks(site, found)
    entries = []
    for done, (entry, load, sex, years) in enumerate(tasks, start=1):
        settled = site.settle(entry, load, sex, years)
        write_ledger(root, [settled])
        entries.append(settled)
        converting(done, len(tasks))
    if found.unreadable:
        entries.append(LedgerEntry("", "", "unreadable", "unreadable DICOM", found.unreadable, "refused", _UNREADABLE))
        write_ledger(root, entries[-1:])
    return IngestSummary(tuple(entries), found.n_others)


_UNREADABLE = "the files cannot be read as DICOM; they may be damaged or deflated; export them again"
_Task = tuple[LedgerEntry, Callable[[], Loaded] | None, str, int | None]


def _tasks(site: _Site, found: Source) -> list[_Task]:
    """What to do with each series: its entry so far, and how to load it if it is wanted."""
    series = group_series(found.dicom)
    # The first run of a session is the one that is graded: series with a usable shell come first.
    ordered = sorted(series, key=lambda s: not s.has_usual_shell)
    tasks = [site.dicom_task(each) for each in ordered]
    return tasks + [site.loose_task(each) for each in group_images(found.nifti, found.root)]


@dataclass(frozen=True)
class _Site:
    """Where scans go and which are wanted."""

    root: Path
    keys: SubjectKeys
    contrast: ScanContrast
    b_value: float | None
    limits: ChildLimits | None

    def dicom_task(self, series: DicomSeries) -> _Task:
        first = series.files[0]
        identified = first.patient or first.study
        entry = LedgerEntry(
            subject=self.keys.subject(identified) if identified else "",
            session=self.keys.session(identified, first.study) if first.study else "",
            series=self.keys.series(series.identity),
            kind=series.kind,
            n_files=len(series.files),
            outcome="left out",
            reason=_unwanted(series.kind, self.contrast),
        )
        if series.kind not in ACCEPTED[self.contrast]:
            return entry, None, "", None
        sex = first.sex if first.sex in ("M", "F", "O") else ""
        warnings = () if first.patient else ("no Patient ID; each study counts as a patient of its own",)

        def load() -> Loaded:
            if not identified:
                raise ScanError("neither Patient ID nor Study Instance UID is there; export the series again")
            with quiet_parser():
                scan, found = convert_series(series, self.limits)
            return scan, (*warnings, *found)

        return entry, load, sex, first.age

    def loose_task(self, scan: LooseScan) -> _Task:
        entry = LedgerEntry(
            subject=self.keys.subject(scan.patient),
            session=self.keys.session(scan.patient, scan.study) if scan.study else "",
            series=self.keys.series("\0".join((scan.patient, scan.study, scan.name))),
            kind=scan.kind,
            n_files=len(scan.files),
            outcome="left out",
            reason=_unwanted(scan.kind, self.contrast),
        )
        wanted = scan.kind in (Role.SERIES, Role.UNKNOWN) or (self.contrast.b0_only and scan.kind is not Role.ADC)
        if not wanted or (scan.kind is Role.OTHER and self.contrast.folder != "anat"):
            return entry, None, "", None
        return entry, lambda: load_scan(scan, self.contrast, self.b_value), "", None

    def settle(self, entry: LedgerEntry, load: Callable[[], Loaded] | None, sex: str, years: int | None) -> LedgerEntry:
        """The entry of a series after it was brought in, or with the reason why not."""
        if load is None:
            return entry
        try:
            scan, warnings = load()
            folder = scan_folder(self.root, entry.subject, entry.session, self.contrast)
            name = scan_name(folder, entry, self.contrast, read_ledger(self.root))
            with tempfile.TemporaryDirectory(prefix="mhsev-") as work:
                written = write_scan(scan, Path(work), name)
                warnings = (*warnings, *_check(written, self.contrast))
                move_scan(written, folder)
        except ScanError as error:
            return replace(entry, outcome="refused", reason=str(error))
        except MemoryError:
            return replace(entry, outcome="refused", reason="the series does not fit into memory; split it")
        add_participant(self.root, entry.subject, sex, age_group(years))
        unique = tuple(dict.fromkeys(warnings))
        return replace(entry, outcome="accepted", reason="", scan=name, warnings=unique)


def _check(image: Path, contrast: ScanContrast) -> tuple[str, ...]:
    """Read a written scan as everything later will; warnings about it."""
    series = read_dwi(image, b0_only=contrast.b0_only)
    return (*series.warnings, *select_shells(series.bvals.tolist()).flags)


def _unwanted(kind: str, contrast: ScanContrast) -> str:
    """Why a series is left out."""
    for other, kinds in ACCEPTED.items():
        if kind in kinds and other is not contrast:
            return f"{kind} is not what --contrast {contrast} takes; ingest it with --contrast {other}"
    return f"{kind} is not graded; original {ACCEPTED[contrast][0]} series are"
