"""Radiomics features of a region of a 3-D image, as pyradiomics and IBSI define them; NumPy and SciPy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.radiomics.discretise import discretise
from mhsev_monai.radiomics.feature_table import FEATURE_NAMES, FIRST_ORDER_NAMES
from mhsev_monai.radiomics.first_order import first_order_features
from mhsev_monai.radiomics.glcm import glcm_features
from mhsev_monai.radiomics.gldm import gldm_features
from mhsev_monai.radiomics.glrlm import glrlm_features
from mhsev_monai.radiomics.glszm import glszm_features
from mhsev_monai.radiomics.ngtdm import ngtdm_features
from mhsev_monai.radiomics.parameters import RadiomicsParameters
from mhsev_monai.radiomics.region import FloatArray, gray_level_region

Array = torch.Tensor | NDArray[np.generic]
DEFAULTS = RadiomicsParameters()


def feature_names(parameters: RadiomicsParameters = DEFAULTS) -> tuple[str, ...]:
    """Names of what :func:`radiomics_features` returns: the 93 of the table, then 18 for each scale of the LoG."""
    filtered = [f"{_log_prefix(sigma)}_{name}" for sigma in parameters.log_sigmas_mm for name in FIRST_ORDER_NAMES]
    return (*FEATURE_NAMES, *filtered)


def radiomics_features(
    image: Array, mask: Array, spacing: Sequence[float], parameters: RadiomicsParameters = DEFAULTS
) -> dict[str, float]:
    """Intensities and texture of a region.

    Texture is that of the voxels as they are: 13 directions at a distance of one voxel, whatever its sides, so that
    only images of like spacing compare.

    Args:
        image: ``(X, Y, Z)``, finite in the mask, and everywhere where the Laplacian of Gaussian is asked for.
        mask: same shape, nonzero in the region, at least one voxel.
        spacing: mm along each axis.
        parameters: settings.

    Returns:
        Value by name in the order of :func:`feature_names`, all finite.

    Raises:
        ValueError: if an input cannot be used.
    """
    volume, inside = _checked(image, mask, spacing, parameters)
    if parameters.over_median and (median := float(np.median(volume[inside]))) > 0:
        volume = volume / median
    if parameters.limits is not None:
        volume = np.clip(volume, *parameters.limits)
    voxel_volume = float(np.prod(spacing))
    values = volume[inside]
    levels = discretise(values, parameters.bin_count, parameters.bin_width)
    region = gray_level_region(levels, inside)
    families = {
        "firstorder": first_order_features(values, levels, voxel_volume, parameters.intensity_shift),
        "glcm": glcm_features(region, parameters.merged),
        "glrlm": glrlm_features(region, parameters.merged),
        "glszm": glszm_features(region),
        "gldm": gldm_features(region),
        "ngtdm": ngtdm_features(region),
    }
    found = {f"{family}_{name}": value for family, values in families.items() for name, value in values.items()}
    for sigma in parameters.log_sigmas_mm:
        filtered = laplacian_of_gaussian_3d(volume, spacing, sigma)[inside]
        # A width is in the image's unit, which the filter keeps.
        levels = discretise(filtered, parameters.bin_count, parameters.bin_width)
        of_filtered = first_order_features(filtered, levels, voxel_volume, parameters.intensity_shift)
        found.update({f"{_log_prefix(sigma)}_firstorder_{name}": value for name, value in of_filtered.items()})
    return {name: found[name] for name in feature_names(parameters)}


def laplacian_of_gaussian_3d(image: FloatArray, spacing: Sequence[float], sigma_mm: float) -> FloatArray:
    """``sigma^2`` times the Laplacian of the image smoothed by a Gaussian; positive where a spot is dark.

    Along the axis that it differentiates, it takes the second difference of voxels and smooths by 1/6 voxel^2 less,
    which is what the difference smooths by itself. So an even image gives 0 also where slices are thicker than the
    scale, where sampled derivatives of a Gaussian do not.

    Args:
        image: ``(X, Y, Z)``.
        spacing: mm along each axis.
        sigma_mm: scale.

    Returns:
        ``image``'s shape and unit; the border is mirrored.
    """
    variances = (sigma_mm / np.asarray(spacing, dtype=np.float64)) ** 2
    result = np.zeros(image.shape)
    for axis, variance in enumerate(variances):
        less = variances.copy()
        less[axis] = max(variance - 1 / 6, 0.0)
        smooth = ndimage.gaussian_filter(image, np.sqrt(less), mode="mirror")
        result += variance * ndimage.correlate1d(smooth, [1.0, -2.0, 1.0], axis=axis, mode="mirror")
    return result


def _log_prefix(sigma_mm: float) -> str:
    return f"log_{sigma_mm:g}mm".replace(".", "p")


def _checked(
    image: Array, mask: Array, spacing: Sequence[float], parameters: RadiomicsParameters
) -> tuple[FloatArray, NDArray[np.bool_]]:
    volume = _plain(image).astype(np.float64)
    inside = _plain(mask) != 0
    if volume.ndim != 3 or inside.shape != volume.shape:
        raise ValueError(f"image and mask must be (X, Y, Z) of one shape, got {volume.shape} and {inside.shape}")
    if len(spacing) != 3 or not all(0 < side < np.inf for side in spacing):
        raise ValueError(f"spacing must be 3 positive numbers in mm, got {list(spacing)}")
    if not inside.any():
        raise ValueError("the mask must hold at least one voxel, got none")
    looked_at = volume if parameters.log_sigmas_mm else volume[inside]
    if not np.isfinite(looked_at).all():
        raise ValueError("the image must be finite wherever it is read, got infinities or NaN; replace them first")
    return volume, inside


def _plain(array: Array) -> NDArray[np.generic]:
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
