"""pyradiomics on the arrays that our functions take; its package is ``pyradiomics-bhklab``, which needs a compiler."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from oracle_data import snake_case

# This folder has the name of its package, and is one without a file where ``tests`` is on the path.
_SPEC = importlib.util.find_spec("radiomics")
AVAILABLE = _SPEC is not None and _SPEC.origin is not None
FAMILIES = ("firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")


def pyradiomics_features(
    image: NDArray[np.float64], mask: NDArray[np.bool_], spacing: Sequence[float], bin_count: int
) -> Mapping[str, float]:
    """What its families give, under our names.

    Args:
        image: ``(X, Y, Z)``.
        mask: same shape.
        spacing: mm along each axis.
        bin_count: number of grey levels.
    """
    import SimpleITK as sitk  # noqa: N813 (its own documentation names it so)
    from radiomics import featureextractor

    logging.getLogger("radiomics").setLevel(logging.ERROR)
    extractor = featureextractor.RadiomicsFeatureExtractor(binCount=bin_count)
    extractor.disableAllFeatures()
    for family in FAMILIES:
        extractor.enableFeatureClassByName(family)
    voxels, region = sitk.GetImageFromArray(image), sitk.GetImageFromArray(mask.astype(np.uint8))
    for volume in (voxels, region):
        volume.SetSpacing([float(side) for side in spacing[::-1]])
    found = extractor.execute(voxels, region)
    return {snake_case(key): float(value) for key, value in found.items() if key.startswith("original_")}


def whole_brain(
    n_voxels: int, seed: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[float, float, float]]:
    """A smooth random texture in an ellipsoid of about ``n_voxels`` voxels of 1.4 mm: image, mask, spacing."""
    from scipy import ndimage

    axes = np.array([0.8, 1.0, 0.75])
    half = axes * (n_voxels / (4 / 3 * np.pi * axes.prod())) ** (1 / 3)
    shape = tuple(int(2 * side + 4) for side in half)
    places = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    mask = ((places / half[:, None, None, None]) ** 2).sum(0) <= 1
    noise = np.random.default_rng(seed).normal(size=shape)
    image = 100 + 40 * ndimage.gaussian_filter(noise, 2) / 0.1 + 5 * noise
    return image, mask, (1.4, 1.4, 1.4)
