"""The checked volume, and the intensities that decomposition and Laplacian work on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray
"""A tensor of any device, or a NumPy array."""


def as_tensor(array: Array) -> Tensor:
    """The array as a plain tensor without gradient, shared where torch can share it."""
    if isinstance(array, np.ndarray) and (
        not array.dtype.isnative or not array.flags.writeable or any(step < 0 for step in array.strides)
    ):
        # Files in the other byte order, memory maps and flipped views are no tensors to torch.
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.as_tensor(array).detach().as_subclass(torch.Tensor)


def check_volume(
    image: Array, spacing: Sequence[float], mask: Array | None
) -> tuple[Tensor, Tensor, tuple[float, float, float]]:
    """Image and mask as ``(Z, X, Y)`` double and bool tensors with three spacings, or one sentence about what is wrong.

    Raises:
        ValueError: see :func:`dynamic_spectral_decomposition`.
    """
    volume = as_tensor(image)
    if volume.is_complex():
        raise ValueError("image must be real, got a complex one; pass its magnitude")
    if volume.dim() not in (2, 3) or 0 in volume.shape:
        raise ValueError(f"image must be (X, Y) or (X, Y, Z) with no empty axis, got shape {tuple(volume.shape)}")
    sides = tuple(float(side) for side in spacing)
    if len(sides) < volume.dim() or not all(0 < side < float("inf") for side in sides):
        raise ValueError(f"spacing must be {volume.dim()} positive finite numbers in mm, got {sides}")
    inside = torch.ones_like(volume, dtype=torch.bool) if mask is None else as_tensor(mask)
    if inside.shape != volume.shape:
        raise ValueError(f"mask must have the image's shape {tuple(volume.shape)}, got {tuple(inside.shape)}")
    if not volume.isfinite().all():
        raise ValueError("image must be finite, got NaN or infinite voxels; replace them first")
    if inside.isnan().any():
        raise ValueError("mask must be zero or not, got NaN voxels; replace them first")
    inside = inside.to(volume.device) != 0
    if not inside.any():
        raise ValueError("mask must mark at least one voxel, got an empty one")
    if volume.dim() == 2:
        volume, inside = volume[..., None], inside[..., None]
    sides = (*sides, 1.0)[:3] if len(sides) < 3 else sides[:3]
    volume = volume.permute(2, 0, 1).contiguous().double()
    return volume, inside.permute(2, 0, 1).contiguous(), (sides[0], sides[1], sides[2])


def contrast_image(volume: Tensor, inside: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Intensities over their median in the mask, at most ``clip``, and 1 outside the mask; with that median.

    Args:
        volume: any shape, floating point.
        inside: same shape, bool.
        clip: see ``DSDParameters``.

    Raises:
        ValueError: if the median is not positive.
    """
    level = volume.masked_select(inside).median()
    if not level > 0:
        raise ValueError("image must have a positive median inside the mask; pass intensities, not standard scores")
    if not (volume.abs().max() / level).isfinite():
        raise ValueError("image must lie within the range of float64 times its median in the mask; check its scale")
    # In place on its own copy: fresh memory for a whole volume costs more than the arithmetic.
    return (volume / level).clamp_(max=clip).masked_fill_(~inside, 1.0), level
