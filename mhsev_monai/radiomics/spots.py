"""Dark spots as regions of interest: where they are, and the features of all of them put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.radiomics.functional import feature_names, laplacian_of_gaussian_3d, radiomics_features
from mhsev_monai.radiomics.parameters import RadiomicsParameters
from mhsev_monai.radiomics.region import FloatArray

STATISTICS = ("mean", "sd", "max")
"""How the features of the spots of a scan are put together."""


class Spots(NamedTuple):
    """Round dark spots, the darkest first.

    Attributes:
        voxels: ``(K, 3)`` index of the middle.
        responses: ``(K,)`` of the Laplacian of Gaussian there, in the image's unit.
    """

    voxels: NDArray[np.intp]
    responses: FloatArray


def dark_spots(
    image: FloatArray,
    mask: NDArray[np.bool_],
    spacing: Sequence[float],
    sigmas_mm: Sequence[float],
    rim_mm: float,
    most: int,
) -> Spots:
    """Maxima of the scale-normalised Laplacian of Gaussian over space and scales (Lindeberg, IJCV 1998;30:79-116).

    Args:
        image: ``(X, Y, Z)``, finite.
        mask: same shape; the region.
        spacing: mm along each axis.
        sigmas_mm: scales, at least one.
        rim_mm: spots nearer than this to the edge of the region are left out: the edge itself is dark.
        most: number of spots at most.
    """
    response = np.max([laplacian_of_gaussian_3d(image, spacing, sigma) for sigma in sigmas_mm], axis=0)
    # A layer around the array: a slab's first and last slices have an edge, too.
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    peaks = (response == ndimage.maximum_filter(response, size=3)) & (response > 0) & (depth > rim_mm)
    voxels = np.argwhere(peaks)
    found = response[peaks]
    order = np.argsort(-found, kind="stable")[:most]
    return Spots(voxels[order], found[order])


def spot_features(
    image: FloatArray,
    spots: Spots,
    spacing: Sequence[float],
    radius_mm: float,
    parameters: RadiomicsParameters,
) -> dict[str, float]:
    """Radiomics features of a ball around each spot, put together over the spots.

    Args:
        image: ``(X, Y, Z)``, finite.
        spots: in it; balls are cut at the border of the array.
        spacing: mm along each axis.
        radius_mm: of a ball.
        parameters: of the features.

    Returns:
        ``{feature}_{statistic}`` for each of ``STATISTICS``; all 0 where there is no spot.
    """
    names = feature_names(parameters)
    keys = [f"{name}_{statistic}" for name in names for statistic in STATISTICS]
    if not len(spots.voxels):
        return dict.fromkeys(keys, 0.0)
    rows = np.array(
        [list(_ball_features(image, voxel, spacing, radius_mm, parameters).values()) for voxel in spots.voxels]
    )
    together = np.stack([rows.mean(axis=0), rows.std(axis=0), rows.max(axis=0)], axis=1)
    return dict(zip(keys, together.ravel().tolist(), strict=True))


def _ball_features(
    image: FloatArray,
    voxel: NDArray[np.intp],
    spacing: Sequence[float],
    radius_mm: float,
    parameters: RadiomicsParameters,
) -> dict[str, float]:
    reach = np.ceil(radius_mm / np.asarray(spacing)).astype(int)
    first, last = np.maximum(voxel - reach, 0), np.minimum(voxel + reach + 1, image.shape)
    box = tuple(slice(low, high) for low, high in zip(first, last, strict=True))
    offsets = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), axis=-1) - voxel
    inside = ((offsets * np.asarray(spacing)) ** 2).sum(axis=-1) <= radius_mm**2
    return radiomics_features(image[box], inside, spacing, parameters)
