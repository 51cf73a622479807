"""What every engine is given, and what it gives back: a continued volume with a window at each of its anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mhsev_monai.dsd.parameters import DTYPES, DSDParameters
from mhsev_monai.dsd.spectrum import estimate_support, paired_power
from mhsev_monai.dsd.windows import (
    base_window_size,
    boxes_at_anchors,
    choose_window_sizes,
    continue_by_reflection,
    gather_windows,
    sine_taper,
)

TEXTURE_BRAIN = 0.25
"""Brain in the base window of the anchors whose texture the window-size rule compares with."""
LEAST_MEAN = 0.1
"""Windows whose mean is not above this fraction of the brain's median have no contrast to speak of."""
NOTHING_LEFT = 1e-6
"""Energy after the threshold, over that before it, at which a window counts as empty."""
CONSTANT = 1e-12
"""Mean square of the fractional contrast at which a window counts as constant: rounding of float32 lies below."""
SUPPORT_WINDOWS = 4096
"""Windows that the estimate of the acquired k-space reads at most."""


class Lattice(NamedTuple):
    """A continued volume, slice first, and the window that each of its anchors takes."""

    padded: Tensor
    """``(Z, ., .)`` contrast less 1, so that faint structure keeps its digits in float32; reflected at the edges."""
    sizes: Tensor
    """``(Z, a_x, a_y)`` window sides, voxels; 0: no window."""
    stride: int
    """Voxels between anchors."""
    base: int
    """Base window side, voxels."""
    spacing: tuple[float, float]
    """In-plane spacing, mm."""
    support: tuple[float, float]
    """Half-width of the acquired k-space along X and Y, cycles per pixel."""
    shape: tuple[int, int]
    """Voxels of the volume along X and Y."""


class Decomposition(NamedTuple):
    """What an engine gives for a :class:`Lattice`; the fields of ``DSDResult``, slice first."""

    map: Tensor
    """``(Z, X, Y)``, not yet masked."""
    window_size: Tensor
    """``(Z, a_x, a_y)`` int32; 0 also where the window's mean was too low."""
    rank: Tensor
    """``(Z, a_x, a_y)`` int32."""
    noise_scale: Tensor
    """``(Z, a_x, a_y)``."""
    retained_energy: Tensor
    """``(Z, a_x, a_y)``."""
    band_energy: Tensor
    """``(Z, a_x, a_y, n_bands)``."""


def lay_windows(
    volume: Tensor, contrast: Tensor, inside: Tensor, spacing: Sequence[float], parameters: DSDParameters
) -> Lattice:
    """The lattice of a volume.

    Args:
        volume: ``(Z, X, Y)`` intensities over their median in the mask, unclipped, double.
        contrast: the same, clipped and filled outside the mask.
        inside: ``(Z, X, Y)`` bool.
        spacing: voxel size along X, Y and Z, mm.
        parameters: settings.

    Raises:
        ValueError: if no window of the asked size fits in the slices.
    """
    largest = min(volume.shape[1:])
    base = parameters.window_size or base_window_size(spacing, largest)
    if base > largest:
        raise ValueError(
            f"window_size must be at most the smaller side of a slice, {largest} voxels, got {base}; "
            "pass a smaller window_size (8, 16 or 32), or an image of at least 8 x 8 voxels"
        )
    stride = base // parameters.stride_fraction
    brain = boxes_at_anchors(inside.to(contrast), base, stride)
    sizes = torch.full_like(brain, base, dtype=torch.long)
    if parameters.dynamic:
        sizes = choose_window_sizes(contrast, brain >= TEXTURE_BRAIN - 1e-9, spacing, base, stride)
    sizes = sizes * _holds_brain(inside, brain, sizes, stride, parameters.least_brain)
    if parameters.acquired is None:
        support = _acquired_support(volume, brain > 1 - 1e-9, base, stride)
    else:
        support = (parameters.acquired, parameters.acquired)
    padded = continue_by_reflection((contrast - 1).to(DTYPES[parameters.dtype]), stride)
    shape = (volume.shape[1], volume.shape[2])
    return Lattice(padded, sizes, stride, base, (spacing[0], spacing[1]), support, shape)


def _holds_brain(inside: Tensor, brain: Tensor, sizes: Tensor, stride: int, least: float) -> Tensor:
    if least > 0:
        return brain >= least - 1e-9
    # Exactly the windows that can reach a voxel of the mask, whichever side they took.
    touched = torch.zeros_like(brain, dtype=torch.bool)
    for size in sizes.unique().tolist():
        touched |= (sizes == size) & (boxes_at_anchors(inside.to(brain), size, stride) > 0)
    return touched


def _acquired_support(volume: Tensor, full: Tensor, size: int, stride: int) -> tuple[float, float]:
    # Unclipped: clipping is not linear and would fill the frequencies that interpolation left empty.
    anchors = full.nonzero()
    anchors = anchors[:: max(1, -(-len(anchors) // SUPPORT_WINDOWS))]
    patches = gather_windows(volume, anchors, size, stride) - 1
    taper = sine_taper(size, volume)
    contrast, seen = fractional_contrast(patches, taper)
    if not seen.any():
        return 0.5, 0.5
    return estimate_support(paired_power(torch.fft.rfft2(contrast[seen], norm="ortho")), size)


def fractional_contrast(patches: Tensor, taper: Tensor) -> tuple[Tensor, Tensor]:
    """Tapered departures from the weighted mean, over that mean, and which windows have a mean to divide by.

    Args:
        patches: ``(n, W, W)`` intensities over the brain's median, less 1.
        taper: ``(W, W)``.
    """
    above = (patches * taper).sum((1, 2), keepdim=True) / taper.sum()
    mean = 1 + above
    return taper * (patches - above) / mean.clamp(min=LEAST_MEAN), mean[:, 0, 0] > LEAST_MEAN
