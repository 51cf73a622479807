"""First-order features: the distribution of the intensities, wherever they lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.radiomics.region import FloatArray


def first_order_features(
    values: FloatArray, levels: NDArray[np.intp], voxel_volume: float = 1.0, intensity_shift: float = 0.0
) -> dict[str, float]:
    """The 18 first-order features of pyradiomics, without family in their names.

    Kurtosis is not the excess, so it is 3 for normal values; IBSI subtracts 3. Skewness and kurtosis are 0 where all
    values are equal.

    Args:
        values: ``(n,)`` intensities of the region.
        levels: ``(n,)`` their grey levels from 1, for entropy and uniformity.
        voxel_volume: mm^3.
        intensity_shift: added to the intensities for the features that square them, so that negative ones do not count
            as bright.
    """
    low, p10, q1, median, q3, p90, high = np.percentile(values, [0, 10, 25, 50, 75, 90, 100])
    robust = values[(values >= p10) & (values <= p90)]
    mean, deviations = values.mean(), values - values.mean()
    variance = (deviations**2).mean()
    # Equal values have a mean that rounding sets beside them, and so deviations that mean nothing.
    spread = high > low and variance > 0
    standardised = deviations / np.sqrt(variance) if spread else np.zeros_like(deviations)
    energy = ((values + intensity_shift) ** 2).sum()
    counts = np.bincount(levels)
    shares = counts[counts > 0] / len(levels)
    features = {
        "energy": energy,
        "total_energy": energy * voxel_volume,
        "entropy": -(shares * np.log2(shares)).sum(),
        "minimum": low,
        "10_percentile": p10,
        "90_percentile": p90,
        "maximum": high,
        "mean": mean,
        "median": median,
        "interquartile_range": q3 - q1,
        "range": high - low,
        "mean_absolute_deviation": np.abs(deviations).mean(),
        "robust_mean_absolute_deviation": np.abs(robust - robust.mean()).mean(),
        "root_mean_squared": np.sqrt(energy / len(values)),
        "skewness": (standardised**3).mean(),
        "kurtosis": (standardised**4).mean(),
        "variance": variance,
        "uniformity": (shares**2).sum(),
    }
    return {name: float(value) for name, value in features.items()}
