"""Overlap-add as a Triton kernel: every voxel gathers what the windows over it hold, in one fixed order.

torch alone takes one pass for each tile of a window, thousands of small launches for a volume, and those took longer
than all arithmetic. No two programs write to the same voxel, so nothing is atomic and every run gives the same bits.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201  Triton's own types do not exist for type checkers.

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton import language as tl

from mhsev_monai.dsd.windows import MARGIN, OverlapAdd

BLOCK = 256
"""Voxels of one program."""
INTERPRETED_BLOCK = 2**16
"""Voxels of one program where Triton's interpreter runs it: its time goes with the programs."""


class GatheringOverlapAdd(OverlapAdd):
    """What :class:`~mhsev_monai.dsd.windows.OverlapAdd` computes, in one launch for each batch of windows."""

    def add(self, anchors: tuple[Tensor, Tensor, Tensor], windows: Tensor, taper: Tensor) -> None:
        """Add windows ``(n, W, W)`` that still lack the synthesis taper at distinct anchors ``(z, i, j)``, z rising."""
        size, stride = windows.shape[-1], self.stride
        first = (MARGIN - size // 2) // stride
        n_z, tiles_x, tiles_y = self.numerator.shape[:3]
        # The window at each anchor, or -1: a voxel asks all anchors around it.
        index = torch.full((n_z, tiles_x, tiles_y), -1, dtype=torch.int32, device=windows.device)
        index[anchors] = torch.arange(len(windows), dtype=torch.int32, device=windows.device)
        low, high = int(anchors[0][0]), int(anchors[0][-1]) + 1
        voxels = tiles_x * tiles_y * stride * stride
        block = BLOCK if windows.is_cuda else INTERPRETED_BLOCK
        # Triton launches on the current device, which need not be that of the image.
        with torch.cuda.device_of(windows):
            overlap_kernel[(triton.cdiv(voxels, block), high - low)](
                windows.contiguous(),
                taper,
                index[low:high],
                self.numerator[low:high],
                self.weight[low:high],
                voxels,
                tiles_x,
                tiles_y,
                first,
                SIZE=size,
                STRIDE=stride,
                BLOCK=block,
            )


@triton.jit
def overlap_kernel(
    windows,
    taper,
    index,
    numerator,
    weight,
    voxels,
    tiles_x,
    tiles_y,
    first,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add to ``numerator`` and ``weight``, ``(slices, tiles_x, tiles_y, STRIDE, STRIDE)``, what the windows hold.

    Args:
        windows: ``(n, SIZE, SIZE)`` float32.
        taper: ``(SIZE, SIZE)`` float32.
        index: ``(slices, tiles_x, tiles_y)`` int32, the window at each anchor or -1.
        numerator: float32.
        weight: float32.
        voxels: of one slice.
        tiles_x: tiles along X.
        tiles_y: tiles along Y.
        first: the tile at which the window of anchor 0 begins.
        SIZE: side of a window.
        STRIDE: voxels between anchors.
        BLOCK: voxels of one program.
    """
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = place < voxels
    slice_first = tl.program_id(1).to(tl.int64)
    numerator += slice_first * voxels
    weight += slice_first * voxels
    index += slice_first * tiles_x * tiles_y
    tile = place // (STRIDE * STRIDE)
    tile_x = tile // tiles_y - first
    tile_y = tile % tiles_y - first
    row = (place // STRIDE) % STRIDE
    column = place % STRIDE
    total = tl.load(numerator + place, mask=live, other=0.0)
    weights = tl.load(weight + place, mask=live, other=0.0)
    for a in range(SIZE // STRIDE):
        i = tile_x - a
        for b in range(SIZE // STRIDE):
            j = tile_y - b
            inside = live & (i >= 0) & (j >= 0)
            window = tl.load(index + i * tiles_y + j, mask=inside, other=-1)
            there = window >= 0
            at = (a * STRIDE + row) * SIZE + b * STRIDE + column
            share = tl.load(taper + at, mask=there, other=0.0)
            total += share * tl.load(windows + window.to(tl.int64) * (SIZE * SIZE) + at, mask=there, other=0.0)
            weights += share * share
    tl.store(numerator + place, total, mask=live)
    tl.store(weight + place, weights, mask=live)
