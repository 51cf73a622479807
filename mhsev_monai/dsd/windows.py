"""Where the windows lie, how large they are, and how their results are put together again.

Anchors lie on a lattice of ``stride`` voxels that all window sizes share: the window of side W at anchor (i, j) covers
the voxels ``i * stride - W/2 .. i * stride + W/2 - 1`` along X, and likewise along Y. Beyond its edge an image is
continued by reflection (edge voxel not repeated), as often as a small image needs.

Volumes in this file are slice first, ``(Z, X, Y)``, so that windows of many slices form one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as nnf

from mhsev_monai.dsd.parameters import BASE_WINDOW_MM, WINDOW_SIZES

MARGIN = max(WINDOW_SIZES) // 2
"""Voxels by which a volume is continued at its low edge; a multiple of every stride."""

BACKGROUND_MM = 4.0
"""Standard deviation of the smooth background that the window-size rule takes away."""
FLAT, BUSY = 0.6, 3.0
"""Local texture energy, over its median in the brain, below which windows double and from which they halve."""


def base_window_size(spacing: Sequence[float], largest: int) -> int:
    """The window side nearest to 16 mm, by ratio, among those that fit.

    Args:
        spacing: in-plane, mm.
        largest: smaller side of the image, voxels; where no window fits, the smallest one is returned.
    """
    pixel = math.sqrt(spacing[0] * spacing[1])
    fitting = [size for size in WINDOW_SIZES if size <= largest] or WINDOW_SIZES[:1]
    return min(fitting, key=lambda size: abs(math.log2(size * pixel / BASE_WINDOW_MM)))


def anchor_shape(n_x: int, n_y: int, stride: int) -> tuple[int, int]:
    """Anchors along X and Y that cover ``n_x`` by ``n_y`` voxels."""
    return -(-n_x // stride) + 1, -(-n_y // stride) + 1


def sine_taper(size: int, like: Tensor) -> Tensor:
    """Taper ``(size, size)``, applied before the FFT and again before adding up; its square is a Hann window."""
    position = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    side = torch.sin(math.pi * position)
    return torch.outer(side, side).to(like)


def continue_by_reflection(volume: Tensor, stride: int) -> Tensor:
    """Volume ``(Z, X, Y)`` continued so that every window of every size fits.

    Returns:
        ``(Z, (a_x - 1) * stride + 2 * MARGIN, (a_y - 1) * stride + 2 * MARGIN)`` for ``a_x`` by ``a_y`` anchors;
        voxel 0 lies at ``MARGIN``.
    """
    lengths = [(n - 1) * stride + 2 * MARGIN for n in anchor_shape(volume.shape[1], volume.shape[2], stride)]
    beyond = [length - MARGIN - size for length, size in zip(lengths, volume.shape[1:], strict=True)]
    if max(MARGIN, *beyond) < min(volume.shape[1:]):
        return nnf.pad(volume[None], (MARGIN, beyond[1], MARGIN, beyond[0]), mode="reflect")[0]
    # A small image is continued more often than torch's padding allows.
    for axis, length in zip((1, 2), lengths, strict=True):
        size = volume.shape[axis]
        index = torch.arange(-MARGIN, length - MARGIN, device=volume.device)
        volume = volume.index_select(axis, reflected(index, size))
    return volume


def reflected(index: Tensor, size: int) -> Tensor:
    """Any integer index folded into ``0 .. size - 1`` by reflection about the edge voxels."""
    period = max(2 * (size - 1), 1)
    index = index % period
    return torch.where(index < size, index, period - index)


def box_matrix(n: int, size: int, stride: int, like: Tensor) -> Tensor:
    """Matrix ``(a, n)`` that takes the mean of ``size`` voxels around each anchor of an axis of ``n``, reflected."""
    n_anchors = anchor_shape(n, n, stride)[0]
    first = torch.arange(n_anchors, device=like.device)[:, None] * stride - size // 2
    columns = reflected(first + torch.arange(size, device=like.device), n)
    rows = torch.arange(n_anchors, device=like.device)[:, None].expand(-1, size)
    share = like.new_full((n_anchors, size), 1 / size)
    return like.new_zeros(n_anchors, n).index_put_((rows, columns), share, accumulate=True)


def boxes_at_anchors(volume: Tensor, size: int, stride: int) -> Tensor:
    """Mean of each ``size`` by ``size`` box around the anchors of a volume ``(Z, X, Y)``: ``(Z, a_x, a_y)``."""
    along_x, along_y = (box_matrix(n, size, stride, volume) for n in volume.shape[1:])
    return along_x @ volume @ along_y.mT


def gather_windows(volume: Tensor, anchors: Tensor, size: int, stride: int) -> Tensor:
    """Windows ``(n, size, size)`` around anchors ``(n, 3)``, each (z, i, j), of a reflected volume ``(Z, X, Y)``."""
    offset = torch.arange(size, device=volume.device) - size // 2
    rows, columns = (reflected(anchors[:, [a]] * stride + offset, volume.shape[a]) for a in (1, 2))
    return volume[anchors[:, 0, None, None], rows[:, :, None], columns[:, None, :]]


def windows_at_anchors(padded: Tensor, size: int, stride: int) -> Tensor:
    """View ``(Z, a_x, a_y, size, size)`` of a continued volume's windows."""
    first = MARGIN - size // 2
    return (
        padded[:, first:, first:]
        .unfold(1, size, stride)
        .unfold(2, size, stride)[
            :, : (padded.shape[1] - 2 * MARGIN) // stride + 1, : (padded.shape[2] - 2 * MARGIN) // stride + 1
        ]
    )


def gaussian_matrix(size: int, sigma: float, like: Tensor) -> Tensor:
    """Matrix ``(size, size)`` that smooths an axis: standard deviation ``sigma`` voxels, cut at 4, reflected edges."""
    radius = int(4 * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1, device=like.device)
    weight = torch.exp(-0.5 * (offset.to(like) / sigma) ** 2)
    matrix = like.new_zeros(size, size)
    rows = torch.arange(size, device=like.device)[:, None].expand(-1, len(offset))
    columns = reflected(rows + offset, size)
    return matrix.index_put_((rows, columns), (weight / weight.sum()).expand(size, -1), accumulate=True)


def choose_window_sizes(contrast: Tensor, inside: Tensor, spacing: Sequence[float], base: int, stride: int) -> Tensor:
    """Window side for each anchor from the local texture energy; the paper gives no rule, this one is ours.

    Flat tissue takes twice the base window, busy tissue half of it, never below 8 or above 32.

    Args:
        contrast: ``(Z, X, Y)`` intensities over their median, clipped and filled.
        inside: ``(Z, a_x, a_y)`` bool, anchors whose texture counts for the median.
        spacing: in-plane spacing, mm.
        base: base window side.
        stride: voxels between anchors.

    Returns:
        ``(Z, a_x, a_y)`` integers.
    """
    smooth_x, smooth_y = (
        gaussian_matrix(contrast.shape[axis + 1], BACKGROUND_MM / spacing[axis], contrast) for axis in (0, 1)
    )
    texture = (smooth_x @ contrast @ smooth_y.mT).sub_(contrast).square_()
    energy = boxes_at_anchors(texture, base, stride)
    sizes = torch.full(energy.shape, base, dtype=torch.long, device=energy.device)
    if inside.any():
        median = energy[inside].median()
        # Rounding leaves some 1e-33 in a constant image; a median of that kind says nothing about texture.
        if median > 1e-20:
            sizes[energy < FLAT * median] = min(2 * base, max(WINDOW_SIZES))
            sizes[energy >= BUSY * median] = max(base // 2, min(WINDOW_SIZES))
    return sizes


class OverlapAdd:
    """Weighted mean of overlapping windows, added up in a fixed order so that every run gives the same bits."""

    def __init__(self, padded: Tensor, stride: int) -> None:
        self.stride = stride
        tiles = (padded.shape[0], padded.shape[1] // stride, padded.shape[2] // stride, stride, stride)
        self.numerator = padded.new_zeros(tiles)
        self.weight = padded.new_zeros(tiles)

    def add(self, anchors: tuple[Tensor, Tensor, Tensor], windows: Tensor, taper: Tensor) -> None:
        """Add windows ``(n, W, W)`` that still lack the synthesis taper at distinct anchors ``(z, i, j)``."""
        size, stride = windows.shape[-1], self.stride
        first = (MARGIN - size // 2) // stride
        z, i, j = anchors
        # One stride-wide tile of every window at a time: within a pass no two windows touch the same tile.
        for a in range(size // stride):
            rows = slice(a * stride, (a + 1) * stride)
            for b in range(size // stride):
                columns = slice(b * stride, (b + 1) * stride)
                tile = (z, i + first + a, j + first + b)
                part = taper[rows, columns]
                self.numerator[tile] += part * windows[:, rows, columns]
                self.weight[tile] += part.square()

    def result(self, n_x: int, n_y: int) -> Tensor:
        """The mean, ``(Z, n_x, n_y)``; 0 where no window lies."""
        mean = self.numerator / self.weight.clamp(min=1e-9)
        n_z, t_x, t_y, stride, _ = mean.shape
        mean = mean.permute(0, 1, 3, 2, 4).reshape(n_z, t_x * stride, t_y * stride)
        return mean[:, MARGIN : MARGIN + n_x, MARGIN : MARGIN + n_y]
