"""Files of a folder as series, and one series as a scan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bvals import B0_MAX, read_bvals
from mhsev_monai.ingest.dicom.convert import ChildLimits, Converted, convert
from mhsev_monai.ingest.dicom.directions import image_directions
from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.kinds import SeriesKind, classify
from mhsev_monai.ingest.dicom.preflight import SAME_ECHO_MS, SeriesPlan, check_series
from mhsev_monai.ingest.dicom.renumber import renumbered_copies
from mhsev_monai.ingest.dicom.single_frames import single_frame_copies
from mhsev_monai.ingest.dicom.verify import Verified, check_b0_signal, checked_b_values, open_image, verify
from mhsev_monai.ingest.scan_writer import NewScan, scan_from_nifti, with_scales
from mhsev_monai.ingest.sidecar import allowed_sidecar, from_header
from mhsev_monai.ingest.work import work_folder
from mhsev_monai.preprocess.diffusion import USUAL_B

_WITHOUT_SIGNS = (SeriesKind.SE_EPI, SeriesKind.FMRI, SeriesKind.T2STAR, SeriesKind.OTHER_MR)


class _Part(NamedTuple):
    """What files of one kind have in common."""

    sop_class: str
    image_type: tuple[str, ...]
    component: str
    isotropic: bool
    echo: int


@dataclass(frozen=True)
class DicomSeries:
    """Files of one patient, study and series that are of one kind and echo.

    Attributes:
        files: in the order of their paths.
        kind: what they are.
    """

    files: tuple[DicomFile, ...]
    kind: SeriesKind

    @property
    def identity(self) -> str:
        """What tells this series from any other; to be hashed, never shown."""
        first = self.files[0]
        echo = first.frames[0].echo_time if first.frames else None
        parts = (first.series, self.kind, "" if echo is None or len(first.frames) > 1 else f"{echo:.0f}")
        return "\0".join(map(str, parts))

    @property
    def has_usual_shell(self) -> bool:
        """Whether a frame has a b-value from which an ADC is computed."""
        low, high = USUAL_B
        return any(low <= (frame.b_value or 0.0) <= high for file in self.files for frame in file.frames)


def group_series(files: Iterable[DicomFile]) -> tuple[DicomSeries, ...]:
    """Series by patient, study, series and Image Type, sorted by their place in the study.

    One series of a scanner may hold originals and maps of them: these become series of their own here. Nothing is
    grouped by folder or file name.
    """
    by_uid: dict[tuple[str, str, str], list[DicomFile]] = defaultdict(list)
    for file in files:
        by_uid[file.patient, file.study, file.series].append(file)
    found = []
    for members in by_uid.values():
        found += _by_kind(members)
    return tuple(
        sorted(found, key=lambda s: (s.files[0].patient, s.files[0].study, s.files[0].series_number, s.identity))
    )


def _by_kind(files: Sequence[DicomFile]) -> list[DicomSeries]:
    """Files of one series of the scanner, taken apart by what they are and by echo."""
    echo_of = _echoes(files)
    parts: dict[_Part, list[DicomFile]] = defaultdict(list)
    for file in files:
        echo = echo_of[_echo(file)]
        parts[_Part(file.sop_class, file.image_type, file.component, file.isotropic, echo)].append(file)
    kinds = {part: classify(members) for part, members in parts.items()}
    diffusion = [part for part, kind in kinds.items() if kind is SeriesKind.DIFFUSION]
    directional = any(_is_weighted(file) for part in diffusion if not part.isotropic for file in parts[part])
    by_kind: dict[tuple[SeriesKind, int], list[DicomFile]] = defaultdict(list)
    for part, members in parts.items():
        kind = kinds[part]
        if diffusion and kind in _WITHOUT_SIGNS:
            # b = 0 slices may lack every sign of diffusion, which their series has.
            kind = SeriesKind.DIFFUSION
        elif kind is SeriesKind.DIFFUSION and part.isotropic and directional and any(map(_is_weighted, members)):
            # A trace beside the directions that it was made of.
            kind = SeriesKind.TRACE
        by_kind[kind, part.echo].extend(members)
    return [
        DicomSeries(tuple(sorted(members, key=lambda file: str(file.path))), kind)
        for (kind, _), members in by_kind.items()
    ]


def _is_weighted(file: DicomFile) -> bool:
    return any((frame.b_value or 0.0) > B0_MAX for frame in file.frames)


def _echo(file: DicomFile) -> float:
    """The echo time of a classic image, ms; -1 where it has none, or the file holds many frames."""
    echo = file.frames[0].echo_time if len(file.frames) == 1 else None
    return -1.0 if echo is None else echo


def _echoes(files: Sequence[DicomFile]) -> dict[float, int]:
    """The number of the echo for each echo time that occurs: times closer than half a millisecond are one."""
    times = sorted({_echo(file) for file in files})
    steps = [0, *(int(after - before > SAME_ECHO_MS) for before, after in pairwise(times))]
    return dict(zip(times, accumulate(steps), strict=True))


def convert_series(series: DicomSeries, limits: ChildLimits | None = None) -> tuple[NewScan, tuple[str, ...]]:
    """One series as a scan that is compared, slice by slice, with its files; and warnings about it.

    Where the converter fails on the files as they are, it gets copies that are numbered volume by volume, of enhanced
    images a file a frame.

    Raises:
        ScanError: if the series is incomplete or damaged, or the converter fails on it.
    """
    plan = check_series(series.files)
    with work_folder() as work:
        try:
            return _converted(series, plan, [file.path for file in plan.files], work / "as they are", limits)
        except ScanError:
            copies = work / "copies"
            copies.mkdir()
            files = renumbered_copies(plan, copies) or single_frame_copies(plan, copies)
            if files is None:
                raise
            return _converted(series, plan, files, work / "renumbered", limits)


def _converted(
    series: DicomSeries, plan: SeriesPlan, files: Sequence[Path], work: Path, limits: ChildLimits | None
) -> tuple[NewScan, tuple[str, ...]]:
    """The scan of some files, checked against those of the plan."""
    work.mkdir()
    converted = convert(files, work, limits)
    image = open_image(converted.image)
    verified = verify(image, plan)
    b_values = None
    if series.kind in (SeriesKind.DIFFUSION, SeriesKind.TRACE):
        given = _given_b_values(converted, (*image.shape, 1)[3])
        b_values = checked_b_values(given, verified, plan.files[0].vendor)
        if b_values is None:
            raise ScanError(
                "no b-value was found in the headers; export the series with its private elements, or convert it to "
                "NIfTI with a .bval file and give that"
            )
    if (verified.scales == verified.scales[0, 0]).all():
        # A diffusion series that lost every sign of it looks like spin-echo EPI, all of whose volumes count as b = 0.
        check_b0_signal(image, verified.volumes, np.zeros(len(verified.volumes)) if b_values is None else b_values)
    scan = with_scales(scan_from_nifti(image, verified.volumes), verified.scales)
    directions = _directions(converted, verified, (*image.shape, 1)[3])
    if directions is None and b_values is not None:
        directions = image_directions(verified.directions, b_values.tolist(), np.asarray(image.affine))
    sidecar = from_header(plan.files[0]) | allowed_sidecar(converted.sidecar)
    lossy = ("the pictures were once compressed with loss",) if any(file.lossy for file in plan.files) else ()
    scan = replace(scan, b_values=b_values, directions=directions, sidecar=sidecar)
    return scan, (*plan.warnings, *verified.warnings, *lossy)


def _given_b_values(converted: Converted, n_volumes: int) -> NDArray[np.float64] | None:
    """What the converter wrote; None where that is nothing, or not one a volume."""
    if converted.bvals is None:
        return None
    try:
        found = read_bvals(converted.bvals)
    except ScanError:
        return None
    return found if len(found) == n_volumes else None


def _directions(converted: Converted, verified: Verified, n_volumes: int) -> NDArray[np.float64] | None:
    """Gradient directions of the kept volumes, ``(3, N)``; None where the converter wrote none that fit."""
    if converted.bvecs is None:
        return None
    try:
        found = np.loadtxt(converted.bvecs, ndmin=2)
    except (OSError, ValueError):
        return None
    fits = found.shape == (3, n_volumes) and bool(np.isfinite(found).all())
    return found[:, list(verified.volumes)] if fits else None
