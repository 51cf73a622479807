"""What to do with each series of a source: wanted or not, under which keys, and how it is loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bvals import B0_MAX, find_bvals, read_bvals
from mhsev_monai.ingest.dicom.convert import ChildLimits
from mhsev_monai.ingest.dicom.headers import quiet_parser
from mhsev_monai.ingest.dicom.kinds import ACCEPTED, SeriesKind
from mhsev_monai.ingest.dicom.series import DicomSeries, convert_series, group_series
from mhsev_monai.ingest.identity import SubjectKeys
from mhsev_monai.ingest.ledger import LedgerEntry
from mhsev_monai.ingest.loose_files import LooseScan, Role, group_images, load_scan
from mhsev_monai.ingest.scan_writer import NewScan
from mhsev_monai.ingest.source import Source
from mhsev_monai.scan_contrast import ScanContrast

_SEXES = ("M", "F", "O")
_LOOSE_KINDS = {
    ScanContrast.DWI: (Role.SERIES, Role.UNKNOWN),
    ScanContrast.SE_EPI: (Role.SERIES, Role.UNKNOWN, Role.B0),
    ScanContrast.T2STAR: (Role.UNKNOWN, Role.T2STAR),
    ScanContrast.SWI: (Role.UNKNOWN, Role.SWI),
}
"""Without b-values a picture whose name says nothing may be the one that is meant."""
_SEVERAL_PEOPLE = "one Patient ID stands for people with different sexes or days of birth; check whose scan this is"
_NO_PATIENT = "no Patient ID tells whose scan this is, so each study counts as a patient of its own"


@dataclass(frozen=True)
class SeriesTask:
    """One series before it is brought in.

    Attributes:
        entry: what is known of it; its outcome is that of a series which is left out.
        load: makes the scan and warnings about it, or raises ``ScanError``; None where it is not wanted.
        sex: ``M``, ``F`` or ``O``; empty if unknown.
        age: years at the study.
    """

    entry: LedgerEntry
    load: Callable[[], tuple[NewScan, tuple[str, ...]]] | None = None
    sex: str = ""
    age: int | None = None


@dataclass(frozen=True)
class Wanted:
    """Which scans a site wants, and how they are named and converted; see ``site.bring_in``."""

    contrast: ScanContrast
    keys: SubjectKeys
    b_value: float | None = None
    limits: ChildLimits | None = None
    trace: bool = False

    @property
    def kinds(self) -> tuple[SeriesKind, ...]:
        """The kinds of DICOM series that are taken."""
        extra = (SeriesKind.TRACE,) if self.trace and self.contrast is ScanContrast.DWI else ()
        return (*ACCEPTED[self.contrast], *extra)


def series_tasks(found: Source, wanted: Wanted) -> list[SeriesTask]:
    """A task for each series, those of DICOM first."""
    # The first run of a session is the one that is graded: originals with a usual shell come first.
    order = {kind: rank for rank, kind in enumerate(wanted.kinds)}
    series = sorted(
        group_series(found.dicom), key=lambda each: (order.get(each.kind, len(order)), not each.has_usual_shell)
    )
    loose = group_images(found.nifti, found.root)
    people: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for file in found.dicom:
        people[file.patient].add((file.born, file.sex))
    several = frozenset(patient for patient, persons in people.items() if patient and not _may_be_one(persons))
    return [*(_dicom_task(each, wanted, several) for each in series), *(_loose_task(each, wanted) for each in loose)]


def _may_be_one(persons: set[tuple[str, str]]) -> bool:
    """Whether days of birth and sexes, some of which may be empty, can be those of one person."""
    return all(len({person[i] for person in persons if person[i]}) <= 1 for i in (0, 1))


def _dicom_task(series: DicomSeries, wanted: Wanted, several: frozenset[str]) -> SeriesTask:
    first = series.files[0]
    identified = first.patient or first.study
    entry = LedgerEntry(
        subject=wanted.keys.subject(identified) if identified else "",
        session=wanted.keys.session(identified, first.study) if first.study else "",
        series=wanted.keys.series(series.identity),
        kind=series.kind,
        n_files=len(series.files),
        outcome="left out",
        reason=_unwanted(series.kind, wanted.contrast),
    )
    if series.kind not in wanted.kinds:
        return SeriesTask(entry)

    def load() -> tuple[NewScan, tuple[str, ...]]:
        if not identified:
            raise ScanError("neither Patient ID nor Study Instance UID is there; export the series again")
        with quiet_parser():
            scan, warnings = convert_series(series, wanted.limits)
        about = (_NO_PATIENT,) if not first.patient else (_SEVERAL_PEOPLE,) if first.patient in several else ()
        return scan, (*about, *warnings)

    return SeriesTask(entry, load, first.sex if first.sex in _SEXES else "", first.age)


def _loose_task(scan: LooseScan, wanted: Wanted) -> SeriesTask:
    try:
        content = scan.content()
    except OSError:
        content = ""
    entry = LedgerEntry(
        subject=wanted.keys.subject(scan.patient),
        session=wanted.keys.session(scan.patient, scan.study) if scan.study else "",
        series=wanted.keys.series("\0".join((scan.patient, scan.study, content))),
        kind=scan.kind,
        n_files=len(scan.files),
        outcome="left out",
        reason=_unwanted(scan.kind, wanted.contrast),
    )
    if scan.kind not in _LOOSE_KINDS[wanted.contrast] or (wanted.contrast.b0_only and _is_weighted(scan)):
        return SeriesTask(entry)
    return SeriesTask(entry, lambda: load_scan(scan, wanted.contrast, wanted.b_value))


def _is_weighted(scan: LooseScan) -> bool:
    """Whether b-values that belong to a scan say that it is diffusion-weighted."""
    try:
        path = find_bvals(next(iter(scan.files.values())))
        return path is not None and bool(read_bvals(path).max() > B0_MAX)
    except ScanError:
        return False


def _unwanted(kind: str, contrast: ScanContrast) -> str:
    """Why a series is left out."""
    for other, kinds in ACCEPTED.items():
        if kind in kinds and other is not contrast:
            return f"this is of the kind {kind}, which --contrast {contrast} leaves out and --contrast {other} takes"
    return f"this is of the kind {kind}; original {ACCEPTED[contrast][0]} series are taken"
