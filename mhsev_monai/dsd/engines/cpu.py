"""The engine of numba: float32 on the processor, one thread for each slice, no memory that grows with the windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhsev_monai.dsd.engines.cpu_kernel import (
    HARD,
    NONE,
    SOFT,
    WIENER,
    decompose_slice,
    project_batch,
    window_scratch_rows,
)
from mhsev_monai.dsd.engines.lane_eigen import MAX_SWEEPS
from mhsev_monai.dsd.engines.lane_rank import scratch_rows
from mhsev_monai.dsd.engines.simd import LANES, aligned_zeros
from mhsev_monai.dsd.engines.window_tables import WindowTables, window_tables
from mhsev_monai.dsd.lattice import CONSTANT, LEAST_MEAN, NOTHING_LEFT, Decomposition, Lattice
from mhsev_monai.dsd.parameters import DSDParameters
from mhsev_monai.dsd.rank import TIE, RankProjection
from mhsev_monai.dsd.spectrum import BAND_EDGES_PER_MM
from mhsev_monai.dsd.windows import MARGIN

GAINS = {"wiener": WIENER, "hard": HARD, "soft": SOFT, "none": NONE}
MATRICES_A_TASK = 1024
"""Matrices that one thread takes at a time."""


def decompose(lattice: Lattice, parameters: DSDParameters) -> Decomposition:
    """All windows of a float32 lattice on the processor, with as many threads as torch uses."""
    padded, sizes = lattice.padded.contiguous().numpy(), lattice.sizes.numpy()
    tables = {
        size: window_tables(size, lattice.support, lattice.spacing) for size in np.unique(sizes[sizes > 0]).tolist()
    }
    fields = np.zeros((*sizes.shape, 4 + len(BAND_EDGES_PER_MM) - 1), dtype=np.float32)
    n_x, n_y = lattice.shape
    dsd_map = np.zeros((len(padded), n_x, n_y), dtype=np.float32)

    def work(z: int) -> None:
        total = np.zeros_like(padded[z])
        weight = np.zeros_like(padded[z])
        for size, table in tables.items():
            anchors = np.argwhere(sizes[z] == size)
            if len(anchors):
                lines = _decompose_anchors(padded[z], anchors, lattice.stride, table, parameters, total, weight)
                fields[z, anchors[:, 0], anchors[:, 1]] = lines
        inner = np.s_[MARGIN : MARGIN + n_x, MARGIN : MARGIN + n_y]
        np.divide(total[inner], np.maximum(weight[inner], 1e-9), out=dsd_map[z])

    _in_threads(work, range(len(padded)))
    seen = torch.from_numpy(fields[..., 0] > 0)
    return Decomposition(
        map=torch.from_numpy(dsd_map),
        window_size=(lattice.sizes * seen).int(),
        rank=torch.from_numpy(fields[..., 1].astype(np.int32)),
        noise_scale=torch.from_numpy(fields[..., 2].copy()),
        retained_energy=torch.from_numpy(fields[..., 3].copy()),
        band_energy=torch.from_numpy(fields[..., 4:].copy()),
    )


def _decompose_anchors(
    image: NDArray[np.float32],
    anchors: NDArray[np.int64],
    stride: int,
    tables: WindowTables,
    parameters: DSDParameters,
    total: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    width, first = image.shape[1], MARGIN - tables.size // 2
    corners = (anchors[:, 0] * stride + first) * width + anchors[:, 1] * stride + first
    lines = np.zeros((len(anchors), 4 + len(BAND_EDGES_PER_MM) - 1), dtype=np.float32)
    decompose_slice(
        image.ravel(),
        width,
        corners,
        tables,
        parameters.kappa,
        GAINS[parameters.gain],
        parameters.energy,
        TIE,
        LEAST_MEAN,
        CONSTANT,
        NOTHING_LEFT,
        aligned_zeros(window_scratch_rows(tables) * LANES),
        np.zeros(MAX_SWEEPS * tables.size, dtype=np.int64),
        total.ravel(),
        weight.ravel(),
        lines,
    )
    return lines


def project(matrices: Tensor, energy: float, eigenvalues: str, tie: float) -> RankProjection:
    """Float32 matrices ``(count, m, n)``, n at most 32, rebuilt from their leading components; squared reading."""
    del eigenvalues  # the caller sees to it
    count, m, n = matrices.shape
    rows, columns = -(-m // 4) * 4, -(-n // 4) * 4
    # Rows and columns of zeros add components of no energy.
    padded = np.zeros((count, rows, columns), dtype=np.float32)
    padded[:, :m, :n] = matrices.numpy()
    ranks = np.zeros(count, dtype=np.int64)

    def work(begin: int) -> None:
        part = slice(begin, begin + MATRICES_A_TASK)
        scratch = aligned_zeros((1 + rows * (columns + 1) + scratch_rows(columns)) * LANES)
        starts = np.zeros(MAX_SWEEPS * columns, dtype=np.int64)
        project_batch(padded[part], energy, tie, scratch, starts, ranks[part])

    _in_threads(work, range(0, count, MATRICES_A_TASK))
    return RankProjection(torch.from_numpy(padded[:, :m, :n]), torch.from_numpy(np.minimum(ranks, n)))


def _in_threads(work: Callable[[int], None], tasks: Iterable[int]) -> None:
    """Every task in one of as many threads as torch would use; the kernels hold no lock while they run."""
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        for task in tasks:
            work(task)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, tasks))
