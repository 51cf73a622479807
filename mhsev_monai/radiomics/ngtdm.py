"""Neighbourhood grey tone difference (Amadasun and King 1989): how a voxel differs from the mean around it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mhsev_monai.radiomics.region import FloatArray, GrayLevelRegion

LARGEST_COARSENESS = 1e6
"""Coarseness of a region in which no voxel differs from its neighbours; pyradiomics' value."""


class ToneDifferences(NamedTuple):
    """What the features are made of, for each level that a voxel with neighbours has."""

    levels: FloatArray
    """``(n,)``"""
    shares: FloatArray
    """``(n,)`` voxels of the level over all with neighbours."""
    differences: FloatArray
    """``(n,)`` sum over the voxels of the level of |level - mean level of the neighbours in the region|."""
    n_voxels: int
    """Voxels that have a neighbour in the region."""


def tone_differences(region: GrayLevelRegion) -> ToneDifferences:
    """Compare each voxel with those of its 26 neighbours that lie in the region."""
    level_of = np.concatenate([[0.0], region.levels])
    total, n_neighbours = np.zeros(region.n_voxels), np.zeros(region.n_voxels)
    for step in (*region.steps, *(-s for s in region.steps)):
        beside = region.beside(step)
        total += level_of[beside]
        n_neighbours += beside > 0
    has = n_neighbours > 0
    ranks = region.ranks[has]
    difference = np.abs(level_of[ranks] - total[has] / n_neighbours[has])
    counts = np.bincount(ranks, minlength=len(level_of))
    sums = np.bincount(ranks, weights=difference, minlength=len(level_of)).astype(np.float64)
    present = counts > 0
    n_voxels = int(counts.sum())
    return ToneDifferences(level_of[present], counts[present] / max(n_voxels, 1), sums[present], n_voxels)


def ngtdm_features(region: GrayLevelRegion) -> dict[str, float]:
    """The 5 tone difference features of pyradiomics, without family in their names.

    Contrast, busyness, complexity and strength are 0 where their denominator is.
    """
    tones = tone_differences(region)
    if tones.n_voxels == 0:
        empty = dict.fromkeys(("contrast", "busyness", "complexity", "strength"), 0.0)
        return {"coarseness": LARGEST_COARSENESS, **empty}
    p, s, n = tones.shares, tones.differences, len(tones.levels)
    apart = tones.levels[:, None] - tones.levels[None, :]
    both = p[:, None] + p[None, :]
    weighted = (p * s)[:, None] + (p * s)[None, :]
    mean_difference = float((p * s).sum())
    unrest = np.abs((tones.levels * p)[:, None] - (tones.levels * p)[None, :]).sum()
    contrast = (p[:, None] * p[None, :] * apart**2).sum() * s.sum() / tones.n_voxels
    features = {
        "coarseness": 1 / mean_difference if mean_difference > 0 else LARGEST_COARSENESS,
        "contrast": contrast / (n * (n - 1)) if n > 1 else 0.0,
        "busyness": mean_difference / unrest if unrest > 0 else 0.0,
        "complexity": (np.abs(apart) * weighted / both).sum() / tones.n_voxels,
        "strength": (both * apart**2).sum() / s.sum() if s.sum() > 0 else 0.0,
    }
    return {name: float(value) for name, value in features.items()}
