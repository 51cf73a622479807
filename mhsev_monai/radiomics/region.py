"""A region of interest as grey levels, and how its voxels neighbour each other."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.intp]
FloatArray = NDArray[np.float64]

DIRECTIONS: tuple[tuple[int, ...], ...] = tuple(itertools.product((-1, 0, 1), repeat=3))[14:]
"""The 13 ways to a neighbour of a voxel, of which no two are opposite; distance 1 in the largest coordinate."""


class GrayLevelRegion(NamedTuple):
    """The voxels of a region with their grey levels, laid out so that a neighbour is one addition away.

    Levels are numbered by rank among those that occur, from 1, so that matrices have no empty rows; 0 is outside.
    """

    padded: IntArray
    """Ranks in the bounding box of the region with one layer of zeros around it, flat."""
    positions: IntArray
    """``(n_voxels,)`` where in ``padded`` the voxels of the region lie, rising."""
    steps: tuple[int, ...]
    """Way in ``padded`` to the neighbour in each of ``DIRECTIONS``; the opposite one is its negative."""
    ranks: IntArray
    """``(n_voxels,)`` rank of the level of each voxel, from 1."""
    levels: FloatArray
    """``(n_ranks,)`` the levels that occur, rising."""

    @property
    def n_voxels(self) -> int:
        """Voxels of the region."""
        return len(self.positions)

    @property
    def n_levels(self) -> int:
        """The greatest level, whether or not all below it occur."""
        return int(self.levels[-1])

    def beside(self, step: int) -> IntArray:
        """``(n_voxels,)`` rank of the voxel that lies a step away from each; 0 where it is outside the region."""
        return self.padded[self.positions + step]


def gray_level_region(levels: IntArray, mask: NDArray[np.bool_]) -> GrayLevelRegion:
    """The region that a mask marks.

    Args:
        levels: ``(n_voxels,)`` level of each voxel in the mask from 1, in the order of ``image[mask]``.
        mask: ``(X, Y, Z)``, at least one voxel.
    """
    axes = range(mask.ndim)
    spans = [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    box = np.pad(mask[tuple(slice(span[0], span[-1] + 1) for span in spans)], 1)
    strides = [int(np.prod(box.shape[axis + 1 :])) for axis in axes]
    steps = tuple(sum(d * s for d, s in zip(direction, strides, strict=True)) for direction in DIRECTIONS)
    present, ranks = np.unique(levels, return_inverse=True)
    positions = np.flatnonzero(box)
    padded = np.zeros(box.size, dtype=np.intp)
    padded[positions] = ranks + 1
    return GrayLevelRegion(padded, positions, steps, ranks.astype(np.intp) + 1, present.astype(np.float64))
