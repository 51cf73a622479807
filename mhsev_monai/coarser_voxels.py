"""A scan as a scanner with coarser voxels would have shown it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import TransformBackends
from torch import Tensor


def coarser_in_plane(volume: Tensor, spacing: Sequence[float], target: Sequence[float]) -> tuple[Tensor, list[float]]:
    """The volume with fewer samples along its first two axes: the middle of its k-space, as a smaller matrix acquires.

    Sample 0 stays where it is. Along an axis whose voxels are not finer than asked for, nothing changes.

    Args:
        volume: ``(X, Y, Z)`` magnitudes.
        spacing: mm along the first two axes.
        target: mm wanted along them; the nearest even number of samples is taken.

    Returns:
        ``(X', Y', Z)`` magnitudes, and mm along the first two axes.
    """
    sides = list(spacing[:2])
    for axis in (0, 1):
        n_before = volume.shape[axis]
        n_after = 2 * round(n_before * sides[axis] / target[axis] / 2)
        if sides[axis] >= target[axis] or not 2 <= n_after < n_before:
            continue
        k_space = torch.fft.fftshift(torch.fft.fft(volume, dim=axis), dim=axis)
        middle = k_space.narrow(axis, n_before // 2 - n_after // 2, n_after)
        volume = torch.fft.ifft(torch.fft.ifftshift(middle, dim=axis), dim=axis).abs() * (n_after / n_before)
        sides[axis] *= n_before / n_after
    return volume, sides


def thicker_slices(volume: Tensor, spacing: float, target: float) -> Tensor:
    """The volume with fewer slices along its last axis, each the mean over its thickness; no gap.

    Args:
        volume: ``(X, Y, Z)``.
        spacing: mm from slice to slice.
        target: mm wanted; slices that are not thinner stay.

    Returns:
        ``(X, Y, Z')``; its first slice begins where that of ``volume`` does.
    """
    ratio = target / spacing
    n_after = int(volume.shape[2] / ratio + 1e-9)
    if ratio <= 1 or n_after < 1:
        return volume
    cumulative = torch.nn.functional.pad(volume.cumsum(dim=2), (1, 0))
    edges = (torch.arange(n_after + 1, dtype=torch.float64) * ratio).clamp(max=volume.shape[2])
    below = edges.long().clamp(max=volume.shape[2] - 1)
    share = (edges - below).to(volume.dtype)
    until = cumulative[..., below] * (1 - share) + cumulative[..., below + 1] * share
    return until.diff(dim=2) / ratio


class CoarserVoxelsd(MapTransform):
    """Bring images to coarser voxels, as if they had been acquired so; none gets finer ones.

    Args:
        keys: entries with ``(1, X, Y, Z)`` MetaTensors of magnitudes, slices along the last axis.
        spacing: mm wanted along the three axes.
        allow_missing_keys: leave out entries that are not there.

    Raises:
        ValueError: if ``spacing`` is not three positive numbers.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012

    def __init__(self, keys: KeysCollection, spacing: Sequence[float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(spacing) != 3 or not all(side > 0 for side in spacing):
            raise ValueError(f"spacing must be three positive numbers in mm, got {list(spacing)}")
        self.spacing = tuple(float(side) for side in spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with coarser images; the one given is not changed."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            changed[key] = self._coarser(changed[key])
        return changed

    def _coarser(self, image: MetaTensor) -> MetaTensor:
        affine = image.affine.clone()
        before = [float(side) for side in image.pixdim]
        volume, sides = coarser_in_plane(image.as_tensor()[0].float(), before, self.spacing)
        n_slices = volume.shape[2]
        volume = thicker_slices(volume, before[2], self.spacing[2])
        ratio = max(self.spacing[2] / before[2], 1.0) if volume.shape[2] < n_slices else 1.0
        # The first slice is thicker now, and its middle lies further in.
        affine[:3, 3] += affine[:3, 2] * (ratio - 1) / 2
        affine[:3, :3] *= torch.tensor([sides[0] / before[0], sides[1] / before[1], ratio], dtype=affine.dtype)
        meta = {"original_affine": affine.clone(), "original_channel_dim": 0, "spatial_shape": list(volume.shape)}
        return MetaTensor(volume[None].contiguous(), affine=affine, meta=meta)


CoarserVoxelsD = CoarserVoxelsDict = CoarserVoxelsd
