"""What to do with each series of a source: wanted or not, under which keys, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mhsev_monai.errors import ScanError
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
_NO_PATIENT = "there is no Patient ID, so each study counts as a patient of its own"


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
    found_series = group_series(found.dicom)
    series = sorted(found_series, key=lambda each: (each.kind is SeriesKind.TRACE, not each.has_usual_shell))
    loose = group_images(found.nifti, found.root)
    return [*(_dicom_task(each, wanted) for each in series), *(_loose_task(each, wanted) for each in loose)]


def _dicom_task(series: DicomSeries, wanted: Wanted) -> SeriesTask:
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
        return scan, warnings if first.patient else (_NO_PATIENT, *warnings)

    return SeriesTask(entry, load, first.sex if first.sex in _SEXES else "", first.age)


def _loose_task(scan: LooseScan, wanted: Wanted) -> SeriesTask:
    entry = LedgerEntry(
        subject=wanted.keys.subject(scan.patient),
        session=wanted.keys.session(scan.patient, scan.study) if scan.study else "",
        series=wanted.keys.series("\0".join((scan.patient, scan.study, scan.name))),
        kind=scan.kind,
        n_files=len(scan.files),
        outcome="left out",
        reason=_unwanted(scan.kind, wanted.contrast),
    )
    kinds = {Role.SERIES, Role.UNKNOWN}
    # Without diffusion weighting a picture by any name may be the one that is meant, but for maps.
    kinds |= {Role.B0, Role.TRACE, Role.OTHER} if wanted.contrast.b0_only else set()
    if scan.kind not in kinds:
        return SeriesTask(entry)
    return SeriesTask(entry, lambda: load_scan(scan, wanted.contrast, wanted.b_value))


def _unwanted(kind: str, contrast: ScanContrast) -> str:
    """Why a series is left out."""
    for other, kinds in ACCEPTED.items():
        if kind in kinds and other is not contrast:
            return f"this is of the kind {kind}, which --contrast {contrast} leaves out and --contrast {other} takes"
    return f"this is of the kind {kind}; original {ACCEPTED[contrast][0]} series are taken"
