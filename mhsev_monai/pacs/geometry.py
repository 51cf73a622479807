"""Places of findings: from voxels of processed volumes to the patient's LPS coordinates, source slices and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI's world against DICOM's; its own inverse."""


class PixelPlace(NamedTuple):
    """A place in a picture: column and row of pixel centres from 0, not rounded."""

    column: float
    row: float


@dataclass(frozen=True)
class SlicePlane:
    """Where one slice lies in the patient; LPS mm (PS3.3, C.7.6.2.1.1).

    Attributes:
        position: of the centre of its first pixel.
        orientation: directions of rows and columns, 6 numbers.
        spacing: between rows, between columns.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice."""
        across = np.cross(self.orientation[:3], self.orientation[3:])
        return np.asarray(across / np.linalg.norm(across), dtype=np.float64)

    def distance(self, point: Sequence[float]) -> float:
        """Signed mm from the slice to a point, along the normal."""
        return float((np.asarray(point) - np.asarray(self.position)) @ self.normal)

    def pixel(self, point: Sequence[float]) -> PixelPlace:
        """Column and row of a point's foot on the slice."""
        offset = np.asarray(point) - np.asarray(self.position)
        along, down = np.asarray(self.orientation[:3]), np.asarray(self.orientation[3:])
        return PixelPlace(float(offset @ along) / self.spacing[1], float(offset @ down) / self.spacing[0])


class FrameVolume(NamedTuple):
    """A volume as frames.

    Attributes:
        array: ``(slices, rows, columns)``.
        affine: ``(4, 4)`` from these indices to LPS mm.
    """

    array: NDArray[Any]
    affine: Affine


def as_frames(volume: NDArray[Any], to_lps: Affine, plane: SlicePlane) -> FrameVolume:
    """A volume ``(X, Y, Z)`` as frames whose rows and columns run as those of the source's slices do.

    Args:
        volume: its first two axes lie in the slices, as the converter writes them.
        to_lps: ``(4, 4)`` from its indices to LPS mm.
        plane: a slice of the source.
    """
    array = np.moveaxis(volume, (0, 1, 2), (2, 1, 0))
    affine = to_lps[:, [2, 1, 0, 3]].copy()
    # The directions in which the indices slice, row and column are to rise.
    wanted = (plane.normal, np.asarray(plane.orientation[3:]), np.asarray(plane.orientation[:3]))
    for axis, direction in enumerate(wanted):
        if float(affine[:3, axis] @ direction) < 0:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    return FrameVolume(np.ascontiguousarray(array), affine)


def to_patient(affine: Affine, voxel: Sequence[float]) -> tuple[float, float, float]:
    """LPS mm of a voxel, which need not be whole."""
    x, y, z = (affine @ np.array([*voxel, 1.0]))[:3]
    return float(x), float(y), float(z)


_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))


def patient_orientation(orientation: Sequence[float]) -> tuple[str, str]:
    """Letters of the directions of rows and columns (PS3.3, C.7.6.1.1.1), such as ``("L", "PH")``."""
    return _letters(orientation[:3]), _letters(orientation[3:])


def _letters(direction: Sequence[float]) -> str:
    order = np.argsort(-np.abs(direction))
    # Less than 1/20 of the way is no part of the name.
    return "".join(_LETTERS[axis][int(direction[axis] < 0)] for axis in order if abs(direction[axis]) > 0.05)
