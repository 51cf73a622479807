"""What run lengths, zones and dependences have in common: how many things of each size have each grey level."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import entr

from mhsev_monai.radiomics.region import FloatArray, IntArray


class SizeMatrix(NamedTuple):
    """Numbers of things by level and size, in several matrices where directions are counted apart."""

    counts: FloatArray
    """``(n_matrices, n_ranks, n_sizes)``; each matrix holds at least one thing."""
    levels: FloatArray
    """``(n_ranks,)``"""
    sizes: FloatArray
    """``(n_sizes,)``"""


class SizeStatistics(NamedTuple):
    """The 16 features of such a matrix, each the mean over the matrices."""

    small: float
    large: float
    level_nonuniformity: float
    level_nonuniformity_share: float
    size_nonuniformity: float
    size_nonuniformity_share: float
    percentage: float
    level_variance: float
    size_variance: float
    entropy: float
    low: float
    high: float
    small_low: float
    small_high: float
    large_low: float
    large_high: float


def size_matrix(ranks: list[IntArray], sizes: list[IntArray], levels: FloatArray) -> SizeMatrix:
    """Count things.

    Args:
        ranks: for each matrix, the rank of the level of each thing, from 1.
        sizes: likewise its size.
        levels: ``(n_ranks,)`` level of each rank.

    Returns:
        The matrices, with a column for each size that occurs in any.
    """
    present = np.unique(np.concatenate(sizes))
    shape = (len(levels), len(present))
    counts = [
        np.bincount((rank - 1) * shape[1] + np.searchsorted(present, size), minlength=shape[0] * shape[1])
        for rank, size in zip(ranks, sizes, strict=True)
    ]
    return SizeMatrix(np.stack(counts).reshape(-1, *shape).astype(np.float64), levels, present.astype(np.float64))


def merge(matrix: SizeMatrix) -> SizeMatrix:
    """One matrix with the sum of the counts."""
    return matrix._replace(counts=matrix.counts.sum(0, keepdims=True))


def size_statistics(matrix: SizeMatrix, n_voxels: int) -> SizeStatistics:
    """The features of each matrix, averaged.

    Args:
        matrix: numbers of things.
        n_voxels: voxels that a matrix shares out among its things; of a merged one, as many times the region's.
    """
    totals = matrix.counts.sum((1, 2))
    p = matrix.counts / totals[:, None, None]
    of_level, of_size = p.sum(2), p.sum(1)
    level2, size2 = matrix.levels**2, matrix.sizes**2

    def joint(level_weights: FloatArray, size_weights: FloatArray) -> FloatArray:
        return np.asarray((p @ size_weights) @ level_weights)

    level_share, size_share = (of_level**2).sum(1), (of_size**2).sum(1)
    each = {
        "small": of_size @ (1 / size2),
        "large": of_size @ size2,
        "level_nonuniformity": level_share * totals,
        "level_nonuniformity_share": level_share,
        "size_nonuniformity": size_share * totals,
        "size_nonuniformity_share": size_share,
        "percentage": totals / n_voxels,
        "level_variance": _variance(of_level, matrix.levels),
        "size_variance": _variance(of_size, matrix.sizes),
        "entropy": entr(p).sum((1, 2)) / np.log(2),
        "low": of_level @ (1 / level2),
        "high": of_level @ level2,
        "small_low": joint(1 / level2, 1 / size2),
        "small_high": joint(level2, 1 / size2),
        "large_low": joint(1 / level2, size2),
        "large_high": joint(level2, size2),
    }
    return SizeStatistics(**{name: float(values.mean()) for name, values in each.items()})


def _variance(shares: FloatArray, values: FloatArray) -> FloatArray:
    mean = shares @ values
    return np.asarray((shares * (values - mean[:, None]) ** 2).sum(1))
