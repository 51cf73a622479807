"""How far the darkness of a spot reaches in its slice: what a reader would put a ruler on, not the lesion's own size.

A microbleed takes signal from more tissue than it fills, voxels and the point spread widen what is small, and a spin
echo hides part of it. So this is the extent of darkness on the image, and no diameter of a lesion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LARGEST_MM = 10.0
"""Microbleeds measure up to 10 mm (Greenberg et al., Lancet Neurology 2009;8:165-174). Darkness that is wider is
joined with a sulcus or the rim, and has no extent of its own."""
_STEP_MM = 0.25
"""Of the grid that a slice is interpolated on; an extent is the same within about this length."""
_SEARCH_VOXELS = 1
"""The darkest voxel lies at most this far from where a spot is pointed at."""


def darkness_extent(
    image: NDArray[np.floating], voxel: Sequence[float], spacing: Sequence[float], inside: NDArray[np.bool_]
) -> float | None:
    """Diameter, mm, of the circle as large as the part of a slice around a spot that is darker than half its depth.

    Args:
        image: ``(X, Y, Z)``, 1 at the level of parenchyma; slices along Z.
        voxel: ``(3,)`` indices of the spot.
        spacing: mm.
        inside: same shape, where the image is one; the rest counts as parenchyma.

    Returns:
        From about the size of a voxel on; None where the spot is not darker than parenchyma, or its darkness is wider
        than ``LARGEST_MM`` or goes on farther than that.
    """
    x, y, z = (round(float(index)) for index in voxel)
    reach = [math.ceil(LARGEST_MM / side) + _SEARCH_VOXELS for side in spacing[:2]]
    columns = [slice(max(0, at - r), at + r + 1) for at, r in zip((x, y), reach, strict=True)]
    plane = np.where(inside[:, :, z], image[:, :, z], 1.0)[columns[0], columns[1]].astype(np.float64)
    spot = (x - columns[0].start, y - columns[1].start)
    near = tuple(slice(max(0, at - _SEARCH_VOXELS), at + _SEARCH_VOXELS + 1) for at in spot)
    darkest = np.unravel_index(int(plane[near].argmin()), plane[near].shape)
    peak = [int(at) + part.start for at, part in zip(darkest, near, strict=True)]
    depth = 1.0 - float(plane[tuple(peak)])
    if not depth > 0:
        return None
    return _equal_circle(plane, peak, 1.0 - depth / 2, spacing)


def _equal_circle(
    plane: NDArray[np.float64], peak: Sequence[int], level: float, spacing: Sequence[float]
) -> float | None:
    """Diameter, mm, of the circle as large as the connected part below a level that holds ``peak``."""
    steps = [max(1, round(side / _STEP_MM)) for side in spacing[:2]]
    axes = [np.arange((n - 1) * step + 1) / step for n, step in zip(plane.shape, steps, strict=True)]
    fine = ndimage.map_coordinates(plane, np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest")
    parts, _ = ndimage.label(fine <= level)
    middle = tuple(at * step for at, step in zip(peak, steps, strict=True))
    pixel = np.array([side / step for side, step in zip(spacing, steps, strict=False)])
    points = np.argwhere(parts == parts[middle])
    if np.linalg.norm((points - middle) * pixel, axis=1).max() > LARGEST_MM:
        return None
    diameter = 2 * math.sqrt(len(points) * float(pixel.prod()) / math.pi)
    return diameter if diameter <= LARGEST_MM else None
