"""The rank-K step of the Triton engine, float32 on CUDA: matrices laid out for the kernel, and how it is launched."""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch.nn import functional as nnf

from mhsev_monai.dsd.engines.gpu_kernel import SWEEPS, rank_k_kernel, scratch_rows
from mhsev_monai.dsd.engines.mixing import MIXING
from mhsev_monai.dsd.rank import RankProjection

LANES = 32
"""Matrices of one program: one warp, one matrix a thread.

With more, threads would read what others wrote where a matrix's numbers are loaded four at once and stored one by one;
on an NVIDIA H200 that was up to a fifth faster (docs/benchmarks/cuda.md), and would need a barrier to be sure of.
"""
PROGRAMS_A_PROCESSOR = 16
"""Programs for each multiprocessor; on the H200 with 16 columns 8 took half as long again, and 32 as long."""
MAX_SCRATCH = 2**28
"""Numbers of scratch of all programs together, 1 GiB: fewer programs run where it would take more."""
MAX_VALUES = 2**28
"""Numbers of one launch: the kernel counts them in 32 bits."""
COLUMNS = (8, 16, 32)
"""Columns for which the kernel is compiled; other matrices are filled up with zeros."""


def project(matrices: Tensor, energy: float, eigenvalues: str, tie: float) -> RankProjection:
    """Float32 matrices ``(count, m, n)``, n at most 32, rebuilt from their leading components; squared reading."""
    del eigenvalues  # the caller sees to it
    n = matrices.shape[2]
    columns = min(size for size in COLUMNS if size >= n)
    most = max(1, MAX_VALUES // (matrices.shape[1] * columns))
    parts = [_project(chunk, columns, energy, tie) for chunk in matrices.split(most)]
    return RankProjection(torch.cat([part.projected for part in parts]), torch.cat([part.rank for part in parts]))


def _project(matrices: Tensor, columns: int, energy: float, tie: float) -> RankProjection:
    count, m, n = matrices.shape
    # Columns of zeros add components of no energy.
    rows = nnf.pad(matrices, (0, columns - n)).reshape(count, m * columns).T.contiguous()
    rebuilt = torch.zeros_like(rows)
    ranks = torch.zeros(count, dtype=torch.int32, device=rows.device)
    lanes, programs = _launch(count, columns, rows.device)
    # Triton launches on the current device, which need not be that of the image.
    with torch.cuda.device_of(rows):
        rank_k_kernel[(programs,)](
            rows,
            rebuilt,
            ranks,
            torch.from_numpy(MIXING).to(rows.device),
            torch.empty(programs * scratch_rows(columns) * lanes, device=rows.device),
            count,
            m,
            energy,
            (1 - tie) ** 2 if tie > 0 else float("inf"),
            N=columns,
            NB=lanes,
            SWEEPS=SWEEPS,
            num_warps=1,
        )
    projected = rebuilt.T.reshape(count, m, columns)[:, :, :n]
    return RankProjection(projected, ranks.clamp(max=n).long())


def _launch(count: int, columns: int, device: torch.device) -> tuple[int, int]:
    """Lanes and programs for ``count`` matrices."""
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") == "1":
        # The interpreter's time goes with the programs, not with their lanes.
        lanes = 1 << max(5, (count - 1).bit_length())
        return lanes, 1
    programs = PROGRAMS_A_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
    return LANES, min(-(-count // LANES), programs, MAX_SCRATCH // (scratch_rows(columns) * LANES))
