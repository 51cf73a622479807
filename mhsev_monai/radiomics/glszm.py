"""Grey level zone sizes (Thibault et al. 2014): how large the connected patches of one level are."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mhsev_monai.radiomics.region import GrayLevelRegion
from mhsev_monai.radiomics.size_matrix import SizeMatrix, size_matrix, size_statistics


def zone_size_matrix(region: GrayLevelRegion) -> SizeMatrix:
    """Numbers of zones by level and voxels; voxels of a zone touch by faces, edges or corners."""
    numbers = np.zeros(len(region.padded), dtype=np.int32)
    numbers[region.positions] = np.arange(region.n_voxels, dtype=np.int32)
    first, second = [], []
    for step in region.steps:
        alike = np.flatnonzero(region.beside(step) == region.ranks)
        first.append(alike.astype(np.int32))
        second.append(numbers[region.positions[alike] + step])
    ends = np.concatenate(first), np.concatenate(second)
    joined = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(region.n_voxels, region.n_voxels))
    n_zones, zones = connected_components(joined, directed=False)
    ranks = np.empty(n_zones, dtype=np.intp)
    ranks[zones] = region.ranks
    return size_matrix([ranks], [np.bincount(zones)], region.levels)


def glszm_features(region: GrayLevelRegion) -> dict[str, float]:
    """The 16 zone size features of pyradiomics, without family in their names."""
    found = size_statistics(zone_size_matrix(region), region.n_voxels)
    return {
        "small_area_emphasis": found.small,
        "large_area_emphasis": found.large,
        "gray_level_non_uniformity": found.level_nonuniformity,
        "gray_level_non_uniformity_normalized": found.level_nonuniformity_share,
        "size_zone_non_uniformity": found.size_nonuniformity,
        "size_zone_non_uniformity_normalized": found.size_nonuniformity_share,
        "zone_percentage": found.percentage,
        "gray_level_variance": found.level_variance,
        "zone_variance": found.size_variance,
        "zone_entropy": found.entropy,
        "low_gray_level_zone_emphasis": found.low,
        "high_gray_level_zone_emphasis": found.high,
        "small_area_low_gray_level_emphasis": found.small_low,
        "small_area_high_gray_level_emphasis": found.small_high,
        "large_area_low_gray_level_emphasis": found.large_low,
        "large_area_high_gray_level_emphasis": found.large_high,
    }
