"""A head that moves between the volumes of a series, and images that eddy currents stretch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mhsev_monai.cohort.smooth_fields import VoxelGrid

# Standard deviations of a step between two volumes; patients who lie still drift by some tenths of a millimetre.
_STEP_MM, _STEP_DEGREES = 0.25, 0.20
_LARGEST_MM, _LARGEST_DEGREES = 1.8, 1.5
# Voxels beyond which a spline's value at an edge is nothing.
_SPLINE_REACH = 6
# Residual eddy currents of diffusion gradients, as shares of the phase encoding.
_STRETCH_SD, _SHEAR_SD = 0.003, 0.003


class Pose(NamedTuple):
    """Where the head is in one volume against the first.

    Attributes:
        rotation_degrees: ``(3,)`` about X, Y and Z of the middle of the box.
        shift_mm: ``(3,)``.
        stretch: relative growth of the image along the phase encoding, Y.
        shear: displacement along Y per mm along X.
    """

    rotation_degrees: NDArray[np.float64]
    shift_mm: NDArray[np.float64]
    stretch: float = 0.0
    shear: float = 0.0


def draw_poses(rng: np.random.Generator, b_values: tuple[float, ...]) -> list[Pose]:
    """A pose for each volume: a random walk that starts with no motion; only weighted volumes are stretched.

    Args:
        rng: where the motion comes from.
        b_values: of the volumes, s/mm^2.
    """
    rotation, shift, poses = np.zeros(3), np.zeros(3), []
    for number, b in enumerate(b_values):
        steps = rng.standard_normal((2, 3))
        stretch, shear = rng.standard_normal(2) * (_STRETCH_SD, _SHEAR_SD)
        if number:
            rotation = np.clip(rotation + _STEP_DEGREES * steps[0], -_LARGEST_DEGREES, _LARGEST_DEGREES)
            shift = np.clip(shift + _STEP_MM * steps[1], -_LARGEST_MM, _LARGEST_MM)
        weighted = float(b > 50)
        poses.append(Pose(rotation, shift, weighted * float(stretch), weighted * float(shear)))
    return poses


def moved(signal: NDArray[np.float32], pose: Pose, grid: VoxelGrid) -> NDArray[np.float32]:
    """The signal as it lies in a pose, interpolated once by cubic splines; without motion it is returned as it is.

    Args:
        signal: ``(X, Y, Z)``, of the head where the first volume shows it.
        pose: of the volume; turns and shifts of more than a few mm may cut signal off that was not at the border.
        grid: voxels of the scan.
    """
    forward = Rotation.from_euler("xyz", pose.rotation_degrees, degrees=True).as_matrix()
    image = np.eye(3)
    image[1, 1], image[1, 0] = 1 + pose.stretch, pose.shear
    forward = image @ forward
    if np.array_equal(forward, np.eye(3)) and not pose.shift_mm.any():
        return signal
    spacing, middle = np.array(grid.spacing), (np.array(grid.shape) - 1) / 2
    # From a voxel of the result back to the place in the signal, in voxels.
    backward = np.linalg.inv(forward)
    matrix = backward * spacing[None, :] / spacing[:, None]
    offset = middle - matrix @ middle - backward @ pose.shift_mm / spacing
    # The air around the head stays empty and need not be interpolated.
    box = _signal_box(signal, margin=[int(np.ceil(_LARGEST_MM / size)) + _SPLINE_REACH for size in grid.spacing])
    low = np.array([part.start for part in box], dtype=np.float64)
    turned = np.zeros(grid.shape, dtype=np.float32)
    inner_offset = offset + matrix @ low - low
    turned[box] = ndimage.affine_transform(
        signal[box], matrix, inner_offset, order=3, mode="nearest", output=np.float32
    )
    # Splines overshoot at edges; a signal is never below zero.
    return np.maximum(turned, 0, out=turned)


def _signal_box(signal: NDArray[np.float32], margin: list[int]) -> tuple[slice, slice, slice]:
    """The part of a volume that holds signal, with so many voxels around it along each axis."""
    slices = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        there = np.flatnonzero((signal > 0).any(axis=others))
        first, last = (int(there[0]), int(there[-1])) if there.size else (0, 0)
        slices.append(slice(max(first - margin[axis], 0), min(last + margin[axis] + 1, signal.shape[axis])))
    return slices[0], slices[1], slices[2]
