"""Smooth random functions on a voxel grid: tensor products of uniform cubic B-splines with random coefficients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Variance of a sum of one axis' four cubic weights times independent unit normals, averaged over a knot interval:
# the integral of the sum of squared weights, 151/315.
_VARIANCE_PER_AXIS = 151.0 / 315.0


class VoxelGrid(NamedTuple):
    """A box of voxels whose axes point right, anterior and superior.

    Attributes:
        shape: voxels along X, Y and Z.
        spacing: mm.
        centre: world position, mm, of the middle of the box.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def axis(self, axis: int) -> NDArray[np.float64]:
        """Positions of the voxels along an axis, mm."""
        n = self.shape[axis]
        steps = np.arange(n, dtype=np.float64) - (n - 1) / 2
        return self.centre[axis] + steps * self.spacing[axis]

    def extent(self, axis: int) -> float:
        """Length of the box along an axis, mm."""
        return self.shape[axis] * self.spacing[axis]


class SmoothField(NamedTuple):
    """A random function in mm coordinates.

    Attributes:
        coefficients: ``(K, L, M)`` B-spline coefficients.
        origin: position of the first knot interval, mm.
        knot_spacing: mm between knots; the correlation length.
    """

    coefficients: NDArray[np.float64]
    origin: tuple[float, float, float]
    knot_spacing: float

    def on_axes(self, axes: tuple[NDArray[np.float64], ...]) -> NDArray[np.float32]:
        """Values on the grid that three axes span, ``(X, Y, Z)``."""
        values = self.coefficients
        for axis, positions in enumerate(axes):
            weights = _cubic_weights((positions - self.origin[axis]) / self.knot_spacing, self.coefficients.shape[axis])
            # tensordot moves the new axis to the end; three times brings the order round.
            values = np.tensordot(values, weights, axes=(0, 1))
        return values.astype(np.float32)


def random_field(rng: np.random.Generator, grid: VoxelGrid, knot_spacing: float, sd: float) -> SmoothField:
    """A field with mean 0 and standard deviation ``sd``, on the box of ``grid`` and one voxel around it.

    Args:
        rng: where the coefficients come from; their number follows the box and the knots, not the voxels.
        grid: whose box is covered.
        knot_spacing: correlation length, mm.
        sd: root of the mean variance of the field.
    """
    margins = [grid.extent(axis) / 2 + grid.spacing[axis] for axis in range(3)]
    n_knots = [int(np.ceil(2 * margin / knot_spacing)) + 3 for margin in margins]
    coefficients = rng.normal(0.0, sd / _VARIANCE_PER_AXIS**1.5, size=n_knots)
    first, second, third = (centre - margin for centre, margin in zip(grid.centre, margins, strict=True))
    return SmoothField(coefficients, (first, second, third), knot_spacing)


def _cubic_weights(positions: NDArray[np.float64], n_knots: int) -> NDArray[np.float64]:
    """``(n, n_knots)`` cubic B-spline weights; each row has four that are not zero, and they sum to 1."""
    first = np.clip(np.floor(positions).astype(int), 0, n_knots - 4)
    t = positions - first
    four = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    weights = np.zeros((len(positions), n_knots))
    np.put_along_axis(weights, first[:, None] + np.arange(4), four, axis=1)
    return weights
