"""Files of a folder as series, and one series as a scan."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bvals import read_bvals
from mhsev_monai.ingest.dicom.convert import ChildLimits, Converted, convert
from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.kinds import SeriesKind, classify
from mhsev_monai.ingest.dicom.preflight import check_series
from mhsev_monai.ingest.dicom.verify import Verified, checked_b_values, open_image, verify
from mhsev_monai.ingest.scan_writer import NewScan, scan_from_nifti, with_scales
from mhsev_monai.ingest.sidecar import allowed_sidecar, from_header
from mhsev_monai.preprocess.diffusion import USUAL_B

_WITHOUT_SIGNS = (SeriesKind.SE_EPI, SeriesKind.FMRI, SeriesKind.T2STAR, SeriesKind.OTHER_MR)


class _Part(NamedTuple):
    """What files of one kind have in common."""

    sop_class: str
    image_type: tuple[str, ...]
    component: str
    echo: float | None


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
        parts = (first.series, self.kind, "" if echo is None or len(first.frames) > 1 else f"{echo:.1f}")
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
    by_uid: dict[tuple[str, str, str], dict[_Part, list[DicomFile]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        echo = file.frames[0].echo_time if len(file.frames) == 1 else None
        part = _Part(file.sop_class, file.image_type, file.component, None if echo is None else round(echo, 1))
        by_uid[file.patient, file.study, file.series][part].append(file)
    found = []
    for parts in by_uid.values():
        by_kind: dict[tuple[SeriesKind, float | None], list[DicomFile]] = defaultdict(list)
        kinds = {part: classify(members) for part, members in parts.items()}
        for part, members in parts.items():
            # b = 0 slices may lack every sign of diffusion, which their series has.
            among = SeriesKind.DIFFUSION in kinds.values() and kinds[part] in _WITHOUT_SIGNS
            by_kind[SeriesKind.DIFFUSION if among else kinds[part], part.echo].extend(members)
        for (kind, _), members in by_kind.items():
            found.append(DicomSeries(tuple(sorted(members, key=lambda file: str(file.path))), kind))
    return tuple(
        sorted(found, key=lambda s: (s.files[0].patient, s.files[0].study, s.files[0].series_number, s.identity))
    )


def convert_series(series: DicomSeries, limits: ChildLimits | None = None) -> tuple[NewScan, tuple[str, ...]]:
    """One series as a scan that is compared, slice by slice, with its files; and warnings about it.

    Raises:
        ScanError: if the series is incomplete or damaged, or the converter fails on it.
    """
    plan = check_series(series.files)
    with tempfile.TemporaryDirectory(prefix="mhsev-") as work:
        converted = convert([file.path for file in plan.files], Path(work), limits)
        image = open_image(converted.image)
        verified = verify(image, plan)
        n_volumes = (*image.shape, 1)[3]
        b_values = None
        if series.kind in (SeriesKind.DIFFUSION, SeriesKind.TRACE):
            given = None if converted.bvals is None else read_bvals(converted.bvals)
            b_values = checked_b_values(given, verified, n_volumes)
            if b_values is None:
                raise ScanError(
                    "no b-value was found in the headers; convert the series to NIfTI with a .bval file and give that"
                )
        scan = scan_from_nifti(image, verified.volumes)
        if verified.scales is not None:
            scan = with_scales(scan, verified.scales)
        directions = _directions(converted, verified, n_volumes)
    sidecar = from_header(plan.files[0]) | allowed_sidecar(converted.sidecar)
    return (
        replace(scan, b_values=b_values, directions=directions, sidecar=sidecar),
        (*plan.warnings, *verified.warnings),
    )


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
