"""Who computes: one answer from three engines, each chosen by where the image lies, or by name.

==========  ================================================  ====================================================
engine      runs                                              for
==========  ================================================  ====================================================
``numba``   float32 on the processor, one thread a slice      every processor: no compiler is needed on site
``triton``  float32 on CUDA (or in Triton's interpreter)      rank-K step and overlap-add in kernels, torch the rest
``torch``   any device with float64; both readings of         everything else; the slowest, and the plainest to read
            "eigenvalues", ``literal=True``
==========  ================================================  ====================================================

Within the rounding of float32 they agree: the same windows and ranks, maps to 5e-6 of the greatest value. Ranks may
differ where a cumulative energy lies within 1e-5 of the criterion, and maps by more where the last kept and the first
dropped eigenvalue of a window differ by less than 0.1 % of their sum: rounding turns its components by that inverse.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mhsev_monai.dsd.engines import portable
from mhsev_monai.dsd.lattice import Decomposition, Lattice
from mhsev_monai.dsd.parameters import DSDParameters
from mhsev_monai.dsd.rank import RankProjection, project_by_torch

ENGINES = ("numba", "triton", "torch")
MAX_SIDE = 32
"""Largest smaller side of a matrix that ``numba`` and ``triton`` take."""
MAX_ROWS = 1024
"""Largest side of a matrix that ``numba`` takes."""
CUDA_CHUNK_VALUES = 2**25
"""Values of one batch of windows on CUDA: 128 MiB for each copy of them."""

# Small singular values would come from squares that are lost among the rounding of the large ones.
_SINGULAR = "the singular reading"

Decompose = Callable[[Lattice, DSDParameters], Decomposition]
Project = Callable[[Tensor, float, str, float], RankProjection]


def decomposing_engine(name: str | None, device: torch.device, parameters: DSDParameters) -> Decompose:
    """The engine for a volume on ``device``.

    Args:
        name: one of ``ENGINES``, or None for the fastest that can.
        device: of the volume.
        parameters: settings; ``literal`` and float64 are left to ``torch``.

    Raises:
        ValueError: if the name is not known, or that engine cannot run, with the reason.
    """
    special = None
    if parameters.literal:
        special = "literal=True"
    elif parameters.dtype == "float64":
        special = "float64"
    elif parameters.eigenvalues == "singular":
        special = _SINGULAR
    chosen = _choose(name, device, special)
    if chosen == "numba":
        from mhsev_monai.dsd.engines import cpu

        return cpu.decompose
    if chosen == "triton":
        from mhsev_monai.dsd.engines import gpu
        from mhsev_monai.dsd.engines.gpu_overlap import GatheringOverlapAdd

        return partial(
            portable.decompose,
            project=gpu.project,
            chunk_values=CUDA_CHUNK_VALUES,
            overlap_add=GatheringOverlapAdd,
        )
    return partial(portable.decompose, chunk_values=CUDA_CHUNK_VALUES if device.type == "cuda" else None)


def projecting_engine(name: str | None, matrices: Tensor, eigenvalues: str) -> Project:
    """The engine for matrices ``(n, r, c)``; see :func:`decomposing_engine`."""
    special = _SINGULAR if eigenvalues == "singular" else None
    if matrices.dtype != torch.float32:
        special = str(matrices.dtype).removeprefix("torch.")
    elif min(matrices.shape[1:]) > MAX_SIDE:
        special = f"matrices of more than {MAX_SIDE} by {MAX_SIDE}"
    elif matrices.device.type == "cpu" and max(matrices.shape[1:]) > MAX_ROWS:
        # A group of lanes holds 32 whole matrices.
        special = f"matrices of more than {MAX_ROWS} rows"
    chosen = _choose(name, matrices.device, special)
    if chosen == "numba":
        from mhsev_monai.dsd.engines import cpu

        return cpu.project
    if chosen == "triton":
        from mhsev_monai.dsd.engines import gpu

        return gpu.project
    return project_by_torch


def check_engine_name(name: str | None) -> None:
    """Raise ``ValueError`` unless ``name`` is None or one of ``ENGINES``."""
    if name is not None and name not in ENGINES:
        raise ValueError(f"engine must be None or one of {', '.join(ENGINES)}, got {name!r}")


def _choose(name: str | None, device: torch.device, special: str | None) -> str:
    check_engine_name(name)
    if name is None:
        preferred = {"cpu": "numba", "cuda": "triton"}.get(device.type, "torch")
        return preferred if reason_against(preferred, device, special) is None else "torch"
    reason = reason_against(name, device, special)
    if reason is not None:
        raise ValueError(f"engine {name!r} cannot run: {reason}; pass engine=None for one that can")
    return name


def _has_c_compiler() -> bool:
    return bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))


def reason_against(name: str, device: torch.device, special: str | None = None) -> str | None:
    """Why an engine cannot run on a device, or None if it can.

    Args:
        name: one of ``ENGINES``.
        device: of the image.
        special: what is asked for that only ``torch`` computes, in words; None: nothing of the kind.
    """
    if name == "torch":
        return None
    if special is not None:
        return f"it takes float32, squared eigenvalues and at most {MAX_SIDE} columns, and {special} is asked for"
    if importlib.util.find_spec(name) is None:
        return f"the package {name} is not installed" + (" (pip install 'mhsev[gpu]')" if name == "triton" else "")
    if name == "numba" and os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "NUMBA_DISABLE_JIT is set, and its kernels exist only compiled"
    if name == "numba" and device.type != "cpu":
        return f"it runs on the processor, and the image is on {device}"
    # Triton's interpreter runs the kernel on the processor, slowly, for tests.
    if name == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"it runs on CUDA, and the image is on {device}"
    if name == "triton" and device.type == "cuda" and not _has_c_compiler():
        return "Triton builds its launcher with a C compiler, and neither CC, gcc nor clang is there"
    return None
