"""Small bodies in world coordinates and the share of each voxel that they fill."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.smooth_fields import VoxelGrid

Box = tuple[slice, slice, slice]


class Body(Protocol):
    """Something that fills a part of space."""

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest position along X, Y and Z, mm."""

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of ``(n, 3)`` positions in mm lie inside."""


class Ellipsoid(NamedTuple):
    """An ellipsoid along the axes of the world; ``centre`` and ``half_axes`` are ``(3,)``, mm."""

    centre: NDArray[np.float64]
    half_axes: NDArray[np.float64]

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest position along X, Y and Z, mm."""
        return self.centre - self.half_axes, self.centre + self.half_axes

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of ``(n, 3)`` positions in mm lie inside."""
        inside: NDArray[np.bool_] = (((points - self.centre) / self.half_axes) ** 2).sum(axis=1) < 1
        return inside


class Tube(NamedTuple):
    """All places within ``radius`` mm of a curve; ``curve`` is ``(n, 3)`` mm, its points about a radius apart."""

    curve: NDArray[np.float64]
    radius: float

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest position along X, Y and Z, mm."""
        return self.curve.min(axis=0) - self.radius, self.curve.max(axis=0) + self.radius

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of ``(n, 3)`` positions in mm lie inside."""
        inside = np.zeros(len(points), dtype=bool)
        for place in self.curve:
            inside |= ((points - place) ** 2).sum(axis=1) < self.radius**2
        return inside


class Filled(NamedTuple):
    """A part of a grid and the share of each of its voxels that a body fills.

    Attributes:
        box: where in the grid.
        share: 0 to 1, of the shape of ``box``.
    """

    box: Box
    share: NDArray[np.float32]


def filled_share(body: Body, grid: VoxelGrid, samples: int) -> Filled:
    """The share of each voxel that a body fills, on the part of the grid that the body touches.

    Args:
        body: what fills.
        grid: voxels of the scan; what lies outside is cut off.
        samples: along each axis of a voxel; the share is counted on ``samples ** 3`` evenly spread points.
    """
    low, high = body.bounds()
    slices, axes = [], []
    for axis in range(3):
        positions = grid.axis(axis)
        half = grid.spacing[axis] / 2
        touched = np.flatnonzero((positions + half > low[axis]) & (positions - half < high[axis]))
        first, last = (int(touched[0]), int(touched[-1]) + 1) if touched.size else (0, 0)
        slices.append(slice(first, last))
        within = ((np.arange(samples) + 0.5) / samples - 0.5) * grid.spacing[axis]
        axes.append((positions[first:last, None] + within).reshape(-1))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    inside = body.contains(points.reshape(-1, 3)).reshape(points.shape[:3])
    n_x, n_y, n_z = (part.stop - part.start for part in slices)
    by_voxel = inside.reshape(n_x, samples, n_y, samples, n_z, samples)
    return Filled((slices[0], slices[1], slices[2]), by_voxel.mean(axis=(1, 3, 5)).astype(np.float32))
