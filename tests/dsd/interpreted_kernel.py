"""Run by a test in a process of its own: Triton reads ``TRITON_INTERPRET`` when the kernel is imported.

``python interpreted_kernel.py matrices SIZE COUNT ROWS``, ``... blocks SIZE COUNT ROWS``, ``... overlap SIZE STRIDE``
and ``... volume`` print nothing where all holds, and fail with what does not.
"""

from __future__ import annotations

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
from dsd_phantoms import wavy_head
from matrix_families import FAMILIES, matrices, truncate

from mhsev_monai.dsd import DSDParameters, dynamic_spectral_decomposition, rank_k_project
from mhsev_monai.dsd.engines import gpu, gpu_overlap
from mhsev_monai.dsd.engines.gpu_overlap import GatheringOverlapAdd
from mhsev_monai.dsd.windows import OverlapAdd, continue_by_reflection, sine_taper, windows_at_anchors


def check_matrices(size, count, rows):
    batch = np.concatenate([matrices(family, count, rows, size, seed=1) for family in FAMILIES])
    for energy in (0.95, 0.5) if size < 32 else (0.95,):
        found = rank_k_project(torch.from_numpy(batch), energy, engine="triton")
        expected = truncate(batch, energy)
        clear = expected.clear
        assert (found.rank.numpy() == expected.rank)[clear].all()
        error = np.abs(found.projected.numpy() - expected.projected).max((1, 2))
        length = np.linalg.norm(batch, axis=(1, 2))
        bound = 5e-7 * (1 + 1 / np.maximum(expected.gap, 1e-12)) * length + 1e-30
        assert (error <= bound)[clear].all(), (error / bound)[clear].max()


def check_overlap(size, stride):
    """Two batches of windows at some of the anchors, the second without any in the first slice; many programs."""
    gpu_overlap.INTERPRETED_BLOCK = 1024
    torch.manual_seed(size)
    padded = continue_by_reflection(torch.rand(3, 37, 29), stride)
    view = windows_at_anchors(padded, size, stride)
    taper = sine_taper(size, padded)
    chosen = torch.rand(view.shape[:3])
    found, expected = GatheringOverlapAdd(padded, stride), OverlapAdd(padded, stride)
    for anchors in ((chosen < 0.3).nonzero(), ((chosen > 0.6) & (torch.arange(3)[:, None, None] > 0)).nonzero()):
        for total in (found, expected):
            total.add(tuple(anchors.T), view[tuple(anchors.T)], taper)
    torch.testing.assert_close(found.weight, expected.weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.result(37, 29), expected.result(37, 29), rtol=0, atol=1e-6)
    assert (found.weight == 0).any()
    assert found.result(37, 29).any()


def check_volume():
    image, mask = wavy_head((30, 26, 2))
    ours = dynamic_spectral_decomposition(image, (2.0, 2.0, 4.0), mask, DSDParameters(dynamic=False), "triton")
    theirs = dynamic_spectral_decomposition(
        image, (2.0, 2.0, 4.0), mask, DSDParameters(dynamic=False, dtype="float64"), "torch"
    )
    assert torch.equal(ours.rank, theirs.rank)
    assert torch.equal(ours.window_size, theirs.window_size)
    assert (ours.map - theirs.map).abs().max() <= 5e-6 * theirs.map.abs().max()


if __name__ == "__main__":
    if sys.argv[1] == "volume":
        check_volume()
    elif sys.argv[1] == "blocks":
        # As on a device: two programs, each with a scratch of its own that it uses again for every block.
        gpu._launch = lambda count, columns, device: (32, 2)
        check_matrices(*map(int, sys.argv[2:]))
    elif sys.argv[1] == "overlap":
        check_overlap(*map(int, sys.argv[2:]))
    else:
        check_matrices(*map(int, sys.argv[2:]))
