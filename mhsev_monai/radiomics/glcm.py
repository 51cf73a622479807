"""Grey level co-occurrence (Haralick et al. 1973): how often two levels lie side by side.

In the docstrings, ``p(i, j)`` is the share of neighbouring pairs that have the levels i and j; both orders of a pair
are counted, so p is symmetric.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr, xlogy

from mhsev_monai.radiomics.region import FloatArray, GrayLevelRegion

GLCM_NAMES = (
    *("autocorrelation", "joint_average", "cluster_prominence", "cluster_shade", "cluster_tendency", "contrast"),
    *("correlation", "difference_average", "difference_entropy", "difference_variance", "joint_energy"),
    *("joint_entropy", "imc1", "imc2", "idm", "mcc", "idmn", "id", "idn", "inverse_variance", "maximum_probability"),
    *("sum_average", "sum_entropy", "sum_squares"),
)


def cooccurrence(region: GrayLevelRegion, merged: bool = False) -> FloatArray:
    """``(n_directions, n_ranks, n_ranks)`` shares of the pairs of each direction that has any.

    Args:
        region: grey levels.
        merged: count the pairs of all directions in one matrix.
    """
    side = len(region.levels) + 1
    codes = region.ranks * side
    counts = np.stack([np.bincount(codes + region.beside(step), minlength=side**2) for step in region.steps])
    pairs = counts.reshape(-1, side, side)[:, 1:, 1:]
    pairs = pairs + pairs.transpose(0, 2, 1)
    if merged:
        pairs = pairs.sum(0, keepdims=True)
    totals = pairs.sum((1, 2))
    return pairs[totals > 0] / totals[totals > 0, None, None]


def glcm_features(region: GrayLevelRegion, merged: bool = False) -> dict[str, float]:
    """The 24 co-occurrence features of pyradiomics, without family in their names.

    Args:
        region: grey levels.
        merged: one matrix over all directions, IBSI's "3D, merged"; otherwise each feature is the mean over the
            directions that have pairs, "3D, averaged".

    Returns:
        Value by name; all 0 where no two voxels of the region touch.
    """
    p = cooccurrence(region, merged)
    if not len(p):
        return dict.fromkeys(GLCM_NAMES, 0.0)
    found = {
        **_moments(p, region.levels),
        **_of_sums_and_differences(p, region.levels),
        **_homogeneity(p, region.levels, region.n_levels),
        **_information(p),
    }
    return {name: float(found[name].mean()) for name in GLCM_NAMES}


def _expected(p: FloatArray, weights: FloatArray) -> FloatArray:
    return (p * weights).sum((1, 2))


def _moments(p: FloatArray, levels: FloatArray) -> dict[str, FloatArray]:
    i, j = levels[:, None], levels[None, :]
    mean = p.sum(2) @ levels
    from_mean_i, from_mean_j = i - mean[:, None, None], j - mean[:, None, None]
    variance = _expected(p, from_mean_i**2)
    cluster = from_mean_i + from_mean_j
    covariance = _expected(p, from_mean_i * from_mean_j)
    # Where all pairs have one level, pyradiomics calls them fully correlated.
    correlation = np.divide(covariance, variance, out=np.ones_like(variance), where=variance > 0)
    return {
        "autocorrelation": _expected(p, i * j),
        "joint_average": mean,
        "cluster_prominence": _expected(p, cluster**4),
        "cluster_shade": _expected(p, cluster**3),
        "cluster_tendency": _expected(p, cluster**2),
        "contrast": _expected(p, (i - j) ** 2),
        "correlation": correlation,
        "sum_squares": variance,
    }


def _of_sums_and_differences(p: FloatArray, levels: FloatArray) -> dict[str, FloatArray]:
    i, j = levels[:, None].astype(np.intp), levels[None, :].astype(np.intp)
    flat = p.reshape(len(p), -1)
    sums, differences = (i + j).ravel(), np.abs(i - j).ravel()
    of_sum = np.stack([np.bincount(sums, shares) for shares in flat])
    of_difference = np.stack([np.bincount(differences, shares) for shares in flat])
    sum_values, difference_values = np.arange(of_sum.shape[1]), np.arange(of_difference.shape[1])
    mean_difference = of_difference @ difference_values
    return {
        "sum_average": of_sum @ sum_values,
        "sum_entropy": entr(of_sum).sum(1) / np.log(2),
        "difference_average": mean_difference,
        "difference_entropy": entr(of_difference).sum(1) / np.log(2),
        "difference_variance": ((difference_values - mean_difference[:, None]) ** 2 * of_difference).sum(1),
        # Pairs of equal levels are left out: their inverse has no value.
        "inverse_variance": (of_difference[:, 1:] / difference_values[1:] ** 2).sum(1),
    }


def _homogeneity(p: FloatArray, levels: FloatArray, n_levels: int) -> dict[str, FloatArray]:
    distance = np.abs(levels[:, None] - levels[None, :])
    return {
        "id": _expected(p, 1 / (1 + distance)),
        "idn": _expected(p, 1 / (1 + distance / n_levels)),
        "idm": _expected(p, 1 / (1 + distance**2)),
        "idmn": _expected(p, 1 / (1 + (distance / n_levels) ** 2)),
    }


def _information(p: FloatArray) -> dict[str, FloatArray]:
    margin = p.sum(2)
    product = margin[:, :, None] * margin[:, None, :]
    joint = entr(p).sum((1, 2)) / np.log(2)
    single = entr(margin).sum(1) / np.log(2)
    crossed = -xlogy(p, product).sum((1, 2)) / np.log(2)
    independent = entr(product).sum((1, 2)) / np.log(2)
    imc1 = np.divide(joint - crossed, single, out=np.zeros_like(single), where=single > 0)
    return {
        "joint_energy": (p**2).sum((1, 2)),
        "joint_entropy": joint,
        "maximum_probability": p.max((1, 2)),
        "imc1": imc1,
        # Rounding can take the difference, which is not negative, a little below 0. Entropies in bits, as pyradiomics.
        "imc2": np.sqrt(1 - np.exp(-2 * np.maximum(independent - joint, 0))),
        "mcc": _maximal_correlation(p, margin),
    }


def _maximal_correlation(p: FloatArray, margin: FloatArray) -> FloatArray:
    """Second largest singular value of ``p(i, j) / sqrt(p(i) p(j))``, 1 where there is but one level.

    Haralick's Q has the squares of these values as its eigenvalues, since p is symmetric; a symmetric matrix gives them
    real and to full precision.
    """
    if p.shape[1] < 2:
        return np.ones(len(p))
    # A level that has no pair in this direction has a row of zeros, which adds an eigenvalue 0.
    root = np.sqrt(np.where(margin > 0, margin, 1.0))
    eigenvalues = np.linalg.eigvalsh(p / (root[:, :, None] * root[:, None, :]))
    return np.asarray(np.sort(np.abs(eigenvalues), axis=1)[:, -2])
