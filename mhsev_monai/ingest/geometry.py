"""Where the voxels of a NIfTI image lie, checked: its affine and its voxel size."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError

_SPACING_RANGE = (0.2, 12.0)
# Cosine between two axes from which the image counts as sheared, and the volume of the unit axes below which as flat.
_SHEAR_COSINE = 0.01
_SMALLEST_VOLUME = 1e-3
_SPACING_TOLERANCE = 0.02


class Geometry(NamedTuple):
    """The grid of a scan.

    Attributes:
        affine: ``(4, 4)`` from voxel indices to RAS+ world coordinates in mm.
        spacing: distance of neighbouring voxels along X, Y and Z, mm.
        warnings: what is odd about the header yet can be worked with.
    """

    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    warnings: tuple[str, ...]


def checked_geometry(header: Any) -> Geometry:
    """The geometry in a nibabel NIfTI header; its sform wins over its qform, as in nibabel and MONAI.

    Raises:
        ScanError: if the affine is zero, singular or not finite, or a voxel size lies outside 0.2 to 12 mm.
    """
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    axes = affine[:3, :3]
    if not np.isfinite(affine).all() or not axes.any():
        state = "all zero" if np.isfinite(affine).all() else "not finite"
        raise ScanError(f"the header's affine is {state}, so no voxel has a place; convert the series again")
    lengths = np.linalg.norm(axes, axis=0)
    low, high = _SPACING_RANGE
    if lengths.min() < low or lengths.max() > high:
        raise ScanError(
            f"the voxel size is {_millimetres(lengths)}; {low:g} to {high:g} mm is accepted along each axis; "
            "convert the series again, or correct the header"
        )
    cosines = axes / lengths
    if abs(np.linalg.det(cosines)) < _SMALLEST_VOLUME:
        raise ScanError("the header's affine is singular: two axes coincide; convert the series again")
    spacing = (float(lengths[0]), float(lengths[1]), float(lengths[2]))
    return Geometry(affine, spacing, tuple(_oddities(header, lengths, cosines)))


def _oddities(header: Any, lengths: NDArray[np.float64], cosines: NDArray[np.float64]) -> list[str]:
    """Warnings about a usable header."""
    found = []
    sform, sform_code = header.get_sform(coded=True)
    try:
        qform, qform_code = header.get_qform(coded=True)
    except ValueError:
        # Its quaternion is no rotation. Without an sform such a header does not get this far.
        return ["the qform of the header cannot be read; the sform is used"]
    if not qform_code and not sform_code:
        found.append("the header has no orientation; left and right may be exchanged")
    if qform_code and sform_code and _largest_offset(qform, sform, header.get_data_shape()) > lengths.min() / 2:
        found.append("sform and qform of the header disagree by more than half a voxel; the sform is used")
    overlap = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if overlap > _SHEAR_COSINE:
        found.append(f"the axes are sheared (largest cosine {overlap:.2f}); distances along them are approximate")
    zooms = np.asarray(header.get_zooms()[:3], dtype=np.float64)
    if not np.allclose(zooms, lengths, rtol=_SPACING_TOLERANCE):
        found.append(f"the header's voxel size is {_millimetres(zooms)} but its affine's {_millimetres(lengths)}, used")
    return found


def _largest_offset(first: NDArray[np.float64], second: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """How far apart, in mm, two affines put the same corner of the image."""
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape[:3]))], dtype=np.float64)
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def _millimetres(lengths: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths) + " mm"
