"""The source of results: the slices that findings are marked on, and what other objects say of the files they lie in.

Results refer to one volume of the series, its first of the least diffusion weighting. Its slices are found by their
headers, and compared with the converted volume once more: the place of a finding rests on that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom.frames import Frame
from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.mosaics import mosaic_frames
from mhsev_monai.ingest.dicom.pixels import stored_frames
from mhsev_monai.ingest.dicom.positions import heights, places
from mhsev_monai.ingest.dicom.preflight import is_derived
from mhsev_monai.ingest.dicom.series import DicomSeries
from mhsev_monai.ingest.scan_writer import NewScan
from mhsev_monai.pacs.geometry import RAS_TO_LPS, Affine, PixelPlace, SlicePlane, as_frames
from mhsev_monai.pacs.identity import hashed_uid
from mhsev_monai.pacs.source_headers import reference_header

_AGAIN = "export the series again"
_NO_FRAME_OF_REFERENCE = (
    "the images name no Frame of Reference UID, so results have one of their own, "
    "and viewers may not lay them over the images"
)


class SourceSlice(NamedTuple):
    """One slice of the marked volume.

    Attributes:
        plane: where it lies.
        reference: header of its file, for references to it.
        frame: number of its frame from 1; None where the file holds one picture.
        corner: column and row of its first pixel in the picture: 0, 0 but for tiles of a mosaic.
        stored: ``(rows, columns)`` as stored.
    """

    plane: SlicePlane
    reference: Dataset
    frame: int | None
    corner: tuple[int, int]
    stored: NDArray[Any]

    def in_picture(self, pixel: PixelPlace) -> tuple[float, float]:
        """Column and row in the picture as annotations count them, kept inside of it.

        0 is the outer edge of the first pixel (PS3.3, C.10.5.1.2), so its centre lies at a half.
        """
        column, row = (first + place + 0.5 for first, place in zip(self.corner, pixel, strict=True))
        width, height = float(self.reference.Columns), float(self.reference.Rows)
        return min(max(column, 0.0), width), min(max(row, 0.0), height)


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """A series that results are made of.

    Attributes:
        header: of its first file, as it is.
        slices: of the marked volume, in order along their normal.
        frame_of_reference: UID.
        to_source: ``(4, 4)`` from the converted volume's RAS mm to LPS mm as the headers have it. More than a change of
            signs only where the converter turned pictures that lie upside down under their header.
        is_reversed: whether the converted volume holds the slices in the other order.
        warnings: what is odd.
    """

    header: Dataset
    slices: tuple[SourceSlice, ...]
    frame_of_reference: str
    to_source: Affine
    is_reversed: bool
    warnings: tuple[str, ...]

    def slice_number(self, index: int) -> int:
        """The number of a marked slice from 1, in the order of the converted volume, as pictures and paper tell it."""
        return len(self.slices) - index if self.is_reversed else index + 1

    @property
    def references(self) -> tuple[Dataset, ...]:
        """Headers of the files that hold the marked slices, each once."""
        return tuple({str(each.reference.SOPInstanceUID): each.reference for each in self.slices}.values())


class _Placed(NamedTuple):
    """A slice before its file's header was read."""

    file: DicomFile
    frame: Frame
    stored: NDArray[Any]
    tile: int | None


def source_series(series: DicomSeries, scan: NewScan) -> SourceSeries:
    """The source of a series that was converted.

    Args:
        series: its files.
        scan: what they were converted to.

    Raises:
        ScanError: if identifiers are missing, or the slices are not found in the volume.
    """
    first = series.files[0]
    if not (first.study and first.series and all(file.instance_uid for file in series.files)):
        raise ScanError(f"a UID of study, series or image is missing, so results cannot be filed; {_AGAIN}")
    placed, mirrored = _placed(series, scan)
    header = pydicom.dcmread(placed[0].file.path, stop_before_pixels=True, force=True)
    stated = str(header.get("FrameOfReferenceUID", "") or "")
    frame_of_reference = stated or hashed_uid("frame of reference", first.study, first.series)
    used = {each.file.path: each.file for each in placed}
    marked = {(each.file.path, each.frame.number) for each in placed}
    references = {
        path: reference_header(file, [n for p, n in marked if p == path], frame_of_reference)
        for path, file in used.items()
    }
    slices = tuple(
        SourceSlice(
            plane=_plane(each.frame),
            reference=references[each.file.path],
            frame=each.frame.number + 1
            if each.tile is None and "NumberOfFrames" in references[each.file.path]
            else None,
            corner=_corner(each),
            stored=each.stored,
        )
        for each in placed
    )
    return SourceSeries(
        header=header,
        slices=slices,
        frame_of_reference=frame_of_reference,
        to_source=_to_source(scan, mirrored),
        is_reversed=bool((RAS_TO_LPS @ scan.affine)[:3, 2] @ slices[0].plane.normal < 0),
        warnings=() if stated else (_NO_FRAME_OF_REFERENCE,),
    )


def _plane(frame: Frame) -> SlicePlane:
    return SlicePlane(frame.position, frame.orientation, frame.spacing)


def _corner(placed: _Placed) -> tuple[int, int]:
    if placed.tile is None:
        return 0, 0
    rows, columns = placed.stored.shape
    across = placed.file.columns // columns
    return (placed.tile % across) * columns, (placed.tile // across) * rows


def _placed(series: DicomSeries, scan: NewScan) -> tuple[list[_Placed], bool]:
    """The slices of the marked volume along their normal, and whether the converter turned them upside down."""
    if not any(file.mosaic for file in series.files):
        candidates = [_sorted(_single_slices(series.files))]
    else:
        # Which way round the slices of other vendors' mosaics follow each other, only the pixels tell.
        file = min(series.files, key=lambda each: _order(each, each.frames[0]))
        ways = (False,) if file.vendor == "Siemens" else (False, True)
        candidates = [_sorted(_tiles(file, scan, backwards)) for backwards in ways]
    for placed in candidates:
        mirrored = _how_they_lie(placed, scan)
        if mirrored is not None:
            return placed, mirrored
    raise ScanError(f"the slices of the series are not found in the converted volume; {_AGAIN}")


def _order(file: DicomFile, frame: Frame) -> tuple[float, int, int, int]:
    return (frame.b_value or 0.0, file.acquisition or 0, file.instance or 0, frame.number)


def _single_slices(files: Iterable[DicomFile]) -> list[_Placed]:
    """At each place, the slice of the least b-value that comes first."""
    numbered = [(file, frame) for file in files for frame in file.frames if not is_derived(frame)]
    _, index = places(heights([frame for _, frame in numbered]))
    chosen: dict[int, tuple[DicomFile, Frame]] = {}
    for place, (file, frame) in zip(index.tolist(), numbered, strict=True):
        if place not in chosen or _order(file, frame) < _order(*chosen[place]):
            chosen[place] = (file, frame)
    pixels = {file.path: stored_frames(file) for file, _ in chosen.values()}
    return [_Placed(file, frame, pixels[file.path][frame.number], None) for file, frame in chosen.values()]


def _tiles(file: DicomFile, scan: NewScan, backwards: bool) -> list[_Placed]:
    grid = nib.Nifti1Image(np.broadcast_to(np.uint8(0), scan.stored.shape[:3]), scan.affine)
    found = mosaic_frames(file, stored_frames(file), grid, backwards)
    return [_Placed(file, frame, tile, frame.number) for frame, tile in found]


def _sorted(placed: Sequence[_Placed]) -> list[_Placed]:
    order = np.argsort(heights([each.frame for each in placed]))
    return [placed[index] for index in order]


def _how_they_lie(placed: Sequence[_Placed], scan: NewScan) -> bool | None:
    """Whether the fullest slice lies upside down in the converted volume; None where it does not lie there at all."""
    fullest = max(range(len(placed)), key=lambda n: int(placed[n].stored.sum(dtype=np.int64)))
    frame = placed[fullest].frame
    wanted = placed[fullest].stored * frame.slope + frame.intercept
    volumes = scan.stored if scan.stored.ndim == 4 else scan.stored[..., None]
    to_lps = RAS_TO_LPS @ scan.affine
    found = None
    for t in range(volumes.shape[3]):
        frames = as_frames(volumes[..., t], to_lps, _plane(frame)).array
        if frames.shape != (len(placed), *wanted.shape):
            return None
        real = frames[fullest] * scan.slope + scan.intercept
        if np.allclose(real, wanted, rtol=1e-5, atol=1e-3):
            return False
        if np.allclose(real[::-1], wanted, rtol=1e-5, atol=1e-3):
            found = True
    return found


def _to_source(scan: NewScan, mirrored: bool) -> Affine:
    """See ``SourceSeries.to_source``."""
    if not mirrored:
        return RAS_TO_LPS
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    flip[1, 3] = scan.stored.shape[1] - 1
    return np.asarray(RAS_TO_LPS @ scan.affine @ flip @ np.linalg.inv(scan.affine))
