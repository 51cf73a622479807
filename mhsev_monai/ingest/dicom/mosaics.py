"""Pictures that hold the slices of a volume side by side, as Siemens (MOSAIC) and UIH (VFRAME) store them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom import tags
from mhsev_monai.ingest.dicom.frames import Frame
from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.positions import normal

_AGAIN = "export the series again, or give it as NIfTI"


def mosaic_frames(
    file: DicomFile, stored: NDArray[Any], image: Any, backwards: bool = False
) -> Iterator[tuple[Frame, NDArray[Any]]]:
    """The slices of a mosaic, each with its place.

    Siemens' place and direction are computed from the header. What the position of other vendors' mosaics means is
    not documented; for these the image's own place is taken, and only the order of the slices is compared.

    Args:
        file: one picture.
        stored: ``(1, rows, columns)``.
        image: the converted nibabel image; its first two sides are those of a tile.
        backwards: the image holds the slices in the other order than the picture; not for Siemens, whose header tells.

    Raises:
        ScanError: if the picture cannot be cut into such tiles, or shows more slices than the image holds.
    """
    columns, rows, n_slices = image.shape[:3]
    across, down = file.columns // columns, file.rows // rows
    if across * columns != file.columns or down * rows != file.rows or across * down < n_slices:
        raise ScanError(
            f"a mosaic of {file.rows} x {file.columns} does not hold {n_slices} slices of {rows} x {columns}; {_AGAIN}"
        )
    tiles = stored.reshape(down, rows, across, columns).transpose(0, 2, 1, 3).reshape(-1, rows, columns)
    unused = sum(bool(tile.any()) for tile in tiles[n_slices:])
    if unused or not (file.n_tiles or tiles[n_slices - 1].any()):
        raise ScanError(f"a mosaic shows another number of slices than the {n_slices} that were converted; {_AGAIN}")
    first, step = _places(file, image)
    if backwards:
        first, step = first + (n_slices - 1) * step, -step
    frame = file.frames[0]
    for number, tile in enumerate(tiles[:n_slices]):
        yield replace(frame, number=number, position=tuple((first + number * step).tolist())), tile


def _places(file: DicomFile, image: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place of the first slice's first pixel and the way from slice to slice, mm in LPS."""
    # DICOM's world is LPS, NIfTI's RAS.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    frame = file.frames[0]
    cosines = np.asarray(frame.orientation)
    along, below = cosines[:3] * frame.spacing[1], cosines[3:] * frame.spacing[0]
    step = affine[:3, 2]
    distance = float(np.linalg.norm(step))
    if file.vendor != "Siemens":
        corner = [
            image.shape[axis] - 1 if float(way @ affine[:3, axis]) < 0 else 0 for axis, way in enumerate((along, below))
        ]
        return affine[:3] @ np.array([*corner, 0.0, 1.0]), step
    direction = slice_normal(file)
    if direction is None:
        # Either way round fits the pixels, and one of them is a mirror image.
        raise ScanError(
            "the header does not tell in which direction the slices of the mosaic follow each other: its private "
            "elements were removed; export the series with them, or give it as NIfTI"
        )
    if file.slice_steps and min(abs(distance - stated) for stated in file.slice_steps) > 0.02 * distance:
        raise ScanError(
            f"the converted slices lie {distance:.2f} mm apart where the header says {file.slice_steps[0]:.2f} mm; "
            f"{_AGAIN}"
        )
    # Image Position (Patient) is that of the first pixel which the first slice would have if it were as large as the
    # whole picture, about the same centre (nibabel's documentation, "Siemens mosaic").
    offset = along * (file.columns - image.shape[0]) / 2 + below * (file.rows - image.shape[1]) / 2
    return np.asarray(frame.position) + offset, direction * distance


def slice_normal(file: DicomFile) -> NDArray[np.float64] | None:
    """The direction in which a Siemens mosaic's slices follow each other; None where the header does not tell."""
    import pydicom
    from nibabel.nicom import csareader

    try:
        with_csa = pydicom.dcmread(file.path, stop_before_pixels=True, specific_tags=[tags.SIEMENS_CSA, 0x00290010])
        header = csareader.get_csa_header(with_csa)
        found = csareader.get_vector(header, "SliceNormalVector", 3) if header else None
    except Exception:
        # A private format that nobody documents: what cannot be read counts as absent.
        return None
    if found is None or abs(float(np.asarray(found) @ normal(file.frames[0].orientation))) < 0.99:
        return None
    return np.asarray(found, dtype=np.float64)
