"""Grey level run lengths (Galloway 1975): how far a level goes on along a straight line."""

from __future__ import annotations

import numpy as np

from mhsev_monai.radiomics.region import GrayLevelRegion, IntArray
from mhsev_monai.radiomics.size_matrix import SizeMatrix, merge, size_matrix, size_statistics


def run_lengths(region: GrayLevelRegion, step: int) -> tuple[IntArray, IntArray]:
    """Rank of the level and length in voxels of each run along one direction.

    All runs are followed at once, a voxel a time, and drop out where they end: the work is the number of voxels.
    """
    starts = np.flatnonzero(region.beside(-step) != region.ranks)
    ranks, heads = region.ranks[starts], region.positions[starts]
    lengths = np.ones(len(starts), dtype=np.intp)
    running = np.arange(len(starts))
    while len(running):
        heads = heads + step
        goes_on = region.padded[heads] == ranks[running]
        heads, running = heads[goes_on], running[goes_on]
        lengths[running] += 1
    return ranks, lengths


def run_length_matrix(region: GrayLevelRegion) -> SizeMatrix:
    """Numbers of runs by level and length, a matrix for each of the 13 directions."""
    runs = [run_lengths(region, step) for step in region.steps]
    return size_matrix([ranks for ranks, _ in runs], [lengths for _, lengths in runs], region.levels)


def glrlm_features(region: GrayLevelRegion, merged: bool = False) -> dict[str, float]:
    """The 16 run length features of pyradiomics, without family in their names.

    Args:
        region: grey levels.
        merged: one matrix over all directions, IBSI's "3D, merged"; otherwise the mean over the directions.
    """
    matrix = run_length_matrix(region)
    n_shared = region.n_voxels
    if merged:
        matrix, n_shared = merge(matrix), n_shared * len(region.steps)
    found = size_statistics(matrix, n_shared)
    return {
        "short_run_emphasis": found.small,
        "long_run_emphasis": found.large,
        "gray_level_non_uniformity": found.level_nonuniformity,
        "gray_level_non_uniformity_normalized": found.level_nonuniformity_share,
        "run_length_non_uniformity": found.size_nonuniformity,
        "run_length_non_uniformity_normalized": found.size_nonuniformity_share,
        "run_percentage": found.percentage,
        "gray_level_variance": found.level_variance,
        "run_variance": found.size_variance,
        "run_entropy": found.entropy,
        "low_gray_level_run_emphasis": found.low,
        "high_gray_level_run_emphasis": found.high,
        "short_run_low_gray_level_emphasis": found.small_low,
        "short_run_high_gray_level_emphasis": found.small_high,
        "long_run_low_gray_level_emphasis": found.large_low,
        "long_run_high_gray_level_emphasis": found.large_high,
    }
