"""Nyul's standard scale for volumes: what a site tells of its training cases, and a case on a federation's scale."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhsev_monai.errors import ScanError
from mhsev_monai.preprocess.functional import LandmarkSums, landmarks, nyul_standardize
from mhsev_monai.preprocess.nyul import FEWEST_SCANS, PERCENTILES, SCALE_END

# A normal distribution's 10th and 90th percentile are so many standard deviations apart.
_DECILES_APART = 2.5631031310892007
_LOW, _MIDDLE, _HIGH = (PERCENTILES.index(p) for p in (10.0, 50.0, 90.0))


def volume_landmark_sums(volumes: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numbers of cases and sums of their landmarks, channel by channel.

    Args:
        volumes: ``(n, X, Y, Z, C)``, NaN outside the brain.

    Returns:
        ``(C,)`` numbers and ``(C, 11)`` sums, each case's landmarks scaled to 0..100. A channel that is the same in the
        whole brain, as where a scan has no trace, is not counted; fewer than ``FEWEST_SCANS`` cases say too much about
        each, and count as none.
    """
    n_channels = volumes.shape[-1]
    numbers, sums = np.zeros(n_channels), np.zeros((n_channels, len(PERCENTILES)))
    for channel in range(n_channels):
        found = [own for volume in volumes if (own := _landmarks(volume[..., channel].float())) is not None]
        if len(found) >= FEWEST_SCANS:
            told = LandmarkSums.of(found)
            numbers[channel], sums[channel] = told.n_scans, told.sums
    return numbers, sums


def even_scale(n_channels: int) -> Tensor:
    """``(n_channels, 11)``: percentiles at even distances from 0 to 100, where nobody has told any."""
    return torch.linspace(0.0, SCALE_END, len(PERCENTILES)).repeat(n_channels, 1)


def on_standard_scale(volumes: Tensor, scale: Tensor) -> Tensor:
    """Volumes whose intensities are mapped to a standard scale, and then centred for a network.

    After the mapping the scale's median is 0, and 1 is a standard deviation, taken from the scale's 10th and 90th
    percentile as in a normal distribution.

    Args:
        volumes: ``(n, X, Y, Z, C)`` float32, NaN outside the brain.
        scale: ``(C, 11)``, each row rising.

    Returns:
        The same shape and device, float32, NaN outside the brain; a channel without spread in the brain is 0 there.
    """
    mapped = torch.empty_like(volumes)
    for channel, levels in enumerate(scale.tolist()):
        for volume, result in zip(volumes[..., channel], mapped[..., channel], strict=True):
            inside = torch.isfinite(volume)
            result.fill_(torch.nan)
            result[inside] = _centred(volume, inside, levels)
    return mapped


def _centred(volume: Tensor, inside: Tensor, levels: list[float]) -> Tensor:
    """The voxels inside on the scale, less its median, over its standard deviation; 0 without spread."""
    values = volume[inside]
    if len(values) and values.min() < values.max():
        # Where the first and the last percentile are equal, this is all 0, with a warning; else some voxel is at 100.
        values = nyul_standardize(volume, inside, levels)[inside]
        if values.any():
            width = (levels[_HIGH] - levels[_LOW]) / _DECILES_APART or SCALE_END
            return (values - levels[_MIDDLE]) / width
    return torch.zeros_like(values)


def _landmarks(volume: Tensor) -> Tensor | None:
    try:
        return landmarks(volume, torch.isfinite(volume))
    except ScanError:
        return None
