"""Grey level dependence (Sun and Wee 1983): how many neighbours share a voxel's level."""

from __future__ import annotations

import numpy as np

from mhsev_monai.radiomics.region import GrayLevelRegion
from mhsev_monai.radiomics.size_matrix import SizeMatrix, size_matrix, size_statistics


def dependence_matrix(region: GrayLevelRegion) -> SizeMatrix:
    """Numbers of voxels by level and dependence: the voxel itself and those of its 26 neighbours that equal it."""
    dependence = np.ones(region.n_voxels, dtype=np.intp)
    for step in region.steps:
        dependence += region.beside(step) == region.ranks
        dependence += region.beside(-step) == region.ranks
    return size_matrix([region.ranks], [dependence], region.levels)


def gldm_features(region: GrayLevelRegion) -> dict[str, float]:
    """The 14 dependence features of pyradiomics, without family in their names.

    The two of the 16 that are missing say nothing here: each voxel is one thing, so the percentage is 1 and the levels'
    share is the first-order uniformity.
    """
    found = size_statistics(dependence_matrix(region), region.n_voxels)
    return {
        "small_dependence_emphasis": found.small,
        "large_dependence_emphasis": found.large,
        "gray_level_non_uniformity": found.level_nonuniformity,
        "dependence_non_uniformity": found.size_nonuniformity,
        "dependence_non_uniformity_normalized": found.size_nonuniformity_share,
        "gray_level_variance": found.level_variance,
        "dependence_variance": found.size_variance,
        "dependence_entropy": found.entropy,
        "low_gray_level_emphasis": found.low,
        "high_gray_level_emphasis": found.high,
        "small_dependence_low_gray_level_emphasis": found.small_low,
        "small_dependence_high_gray_level_emphasis": found.small_high,
        "large_dependence_low_gray_level_emphasis": found.large_low,
        "large_dependence_high_gray_level_emphasis": found.large_high,
    }
