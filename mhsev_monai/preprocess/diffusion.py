"""Mean b0, trace-weighted image and apparent diffusion coefficient (ADC) from the volumes of a diffusion series.

Scanners write b-values as they were played out (1.25, 929.75), so volumes are grouped by gaps between the sorted
b-values, and nothing is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

SHELL_GAP = 100.0
"""Two sorted b-values further apart than this, s/mm^2, belong to two shells."""

USUAL_B = (600.0, 1600.0)
"""b-values, s/mm^2, of clinical protocols. An ADC from outside is another quantity: below, perfusion adds to it, above,
kurtosis and the noise floor lower it."""

_TARGET_B = 1000.0
# Members of one shell scatter with the gradient direction: by up to a tenth on multi-shell research protocols.
_SHELL_SCATTER = 0.1
_ADC_RANGE = (0.0, 4e-3)


class Shells(NamedTuple):
    """Which volumes of a series are used.

    Attributes:
        b0: indices of the volumes without diffusion weighting.
        dwi: indices of the volumes of the diffusion-weighted shell; empty if there is none.
        b0_value: mean b-value of the ``b0`` volumes, s/mm^2.
        b_value: mean b-value of the ``dwi`` volumes, s/mm^2; 0 if there are none.
        flags: what is unusual about the choice, one phrase each.
    """

    b0: tuple[int, ...]
    dwi: tuple[int, ...]
    b0_value: float
    b_value: float
    flags: tuple[str, ...]


def select_shells(bvals: Tensor | Sequence[float], b0_max: float = 50.0) -> Shells:
    """The b0 volumes and the shell nearest to b = 1000 s/mm^2.

    The b0 volumes are those of the lowest shell with b <= ``b0_max``. Of the others, the shell whose mean is nearest
    to 1000 within 600 to 1600 is taken, the lower one of two equally near; if none lies there, the nearest of all,
    with a flag.

    Args:
        bvals: ``(N,)`` b-values, s/mm^2.
        b0_max: largest b-value of a b0 volume, s/mm^2.

    Raises:
        ValueError: if a b-value is negative or not finite, or none is ``b0_max`` or less.
    """
    values = [float(value) for value in bvals]
    if not values or not all(math.isfinite(value) and value >= 0 for value in values):
        raise ValueError(f"bvals must be one or more finite numbers from 0 s/mm^2 up, got {values}")
    if min(values) > b0_max:
        raise ValueError(f"bvals must hold a value up to b0_max = {b0_max:g} s/mm^2, the lowest is {min(values):g}")
    order = sorted(range(len(values)), key=values.__getitem__)
    b0 = sorted(index for index in _shells(values, order)[0] if values[index] <= b0_max)
    weighted = [index for index in order if values[index] > b0_max or index not in b0]
    if not weighted:
        return Shells(tuple(b0), (), _mean(values, b0), 0.0, ())
    dwi, flags = _diffusion_shell(values, weighted)
    return Shells(tuple(b0), tuple(dwi), _mean(values, b0), _mean(values, dwi), flags)


def _shells(values: Sequence[float], order: Sequence[int]) -> list[list[int]]:
    """Indices in rising order of b-value, cut where the next value is more than the gap away."""
    shells = [[order[0]]]
    for before, index in pairwise(order):
        if values[index] - values[before] > SHELL_GAP:
            shells.append([])
        shells[-1].append(index)
    return shells


def _diffusion_shell(values: Sequence[float], weighted: Sequence[int]) -> tuple[list[int], tuple[str, ...]]:
    """The indices of the shell to use among the diffusion-weighted volumes, and flags about it."""
    low, high = USUAL_B
    shells = _shells(values, weighted)
    usual = [shell for shell in shells if low <= _mean(values, shell) <= high]
    shell = min(usual or shells, key=lambda members: abs(_mean(values, members) - _TARGET_B))
    flags = []
    # Without gaps (0, 100, 200, ...) the whole range is one cluster: keep what lies around its member nearest to 1000.
    centre = min((values[index] for index in shell), key=lambda value: abs(value - _TARGET_B))
    near = [i for i in shell if abs(values[i] - centre) <= max(SHELL_GAP / 2, _SHELL_SCATTER * centre)]
    if len(near) < len(shell):
        flags.append(f"b-values run on without a gap of {SHELL_GAP:g}; those near {centre:g} are used")
    mean = _mean(values, near)
    if not low <= mean <= high:
        flags.append(f"shell b={mean:g} outside {low:g}-{high:g}: no trace or ADC is made of it, b0 alone is used")
    return sorted(near), tuple(flags)


def _mean(values: Sequence[float], indices: Sequence[int]) -> float:
    return math.fsum(values[index] for index in indices) / len(indices)


def mean_b0(data: Tensor, shells: Shells) -> Tensor:
    """The mean of the b0 volumes, ``(X, Y, Z)``.

    Args:
        data: ``(X, Y, Z, N)``; integers are taken as float32.
        shells: which volumes to use.

    Returns:
        The mean over the finite values of each voxel; 0 where there is none.
    """
    _check_volumes(data, shells.b0)
    volumes = [_finite(data[..., index]) for index in shells.b0]
    total = torch.zeros_like(volumes[0][0])
    n_finite = torch.zeros_like(total)
    for volume, finite in volumes:
        total += volume
        n_finite += finite
    return total / n_finite.clamp_min(1)


def trace_weighted(data: Tensor, shells: Shells, floor: float = 1e-3) -> Tensor:
    """The trace-weighted image, ``(X, Y, Z)``: the geometric mean of the diffusion-weighted volumes.

    Args:
        data: ``(X, Y, Z, N)``; integers are taken as float32.
        shells: which volumes to use.
        floor: smallest signal that counts, as a fraction of the mean positive signal of the shell: one direction
            that noise took to zero would otherwise take the whole voxel there.

    Returns:
        The geometric mean over the finite values of each voxel; 0 where no direction holds a positive value.

    Raises:
        ValueError: if the series has no diffusion-weighted volume or ``floor`` is not in (0, 1).
    """
    if not shells.dwi:
        raise ValueError("the series has no diffusion-weighted volume, so no trace; use its mean b0 alone")
    if not 0 < floor < 1:
        raise ValueError(f"floor must be a fraction between 0 and 1, got {floor}")
    _check_volumes(data, shells.dwi)
    volumes = [_finite(data[..., index]) for index in shells.dwi]
    positive = [volume[volume > 0] for volume, _ in volumes]
    n_positive = sum(part.numel() for part in positive)
    if n_positive == 0:
        return torch.zeros_like(volumes[0][0])
    lowest = floor * sum(float(part.sum(dtype=torch.float64)) for part in positive) / n_positive
    log_sum = torch.zeros_like(volumes[0][0])
    n_finite = torch.zeros_like(log_sum)
    signal = torch.zeros_like(log_sum, dtype=torch.bool)
    for volume, finite in volumes:
        log_sum += torch.where(finite, volume.clamp_min(lowest).log(), 0.0)
        n_finite += finite
        signal |= volume > 0
    return torch.where(signal, (log_sum / n_finite.clamp_min(1)).exp(), 0.0)


def apparent_diffusion_coefficient(b0: Tensor, trace: Tensor, b: float) -> Tensor:
    """The ADC, mm^2/s: ``ln(S0 / Sb) / b``, clipped to 0 to 4e-3 (free water at 37 degrees C: 3e-3).

    Args:
        b0: signal without diffusion weighting, any shape.
        trace: trace-weighted signal, same shape.
        b: difference of the two b-values, s/mm^2.

    Returns:
        The ADC; 0 where ``b0`` is not positive or either signal is not finite, and the upper limit where diffusion
        left no signal.

    Raises:
        ValueError: if ``b`` is not positive or the shapes differ.
    """
    if not (math.isfinite(b) and b > 0):
        raise ValueError(f"b must be a positive number of s/mm^2, got {b}")
    if b0.shape != trace.shape:
        raise ValueError(f"b0 and trace must have the same shape, got {tuple(b0.shape)} and {tuple(trace.shape)}")
    s0, s0_finite = _finite(b0)
    sb, sb_finite = _finite(trace)
    tiny = torch.finfo(s0.dtype).tiny
    adc = ((s0.clamp_min(tiny).log() - sb.clamp_min(tiny).log()) / b).clamp(*_ADC_RANGE)
    return torch.where((s0 > 0) & s0_finite & sb_finite, adc, 0.0)


def _finite(volume: Tensor) -> tuple[Tensor, Tensor]:
    """A volume as floating point with 0 for what is not finite, and where it was finite."""
    values = volume if volume.is_floating_point() else volume.to(torch.float32)
    finite = torch.isfinite(values)
    return torch.where(finite, values, 0.0), finite


def _check_volumes(data: Tensor, indices: Sequence[int]) -> None:
    if data.ndim != 4 or max(indices) >= data.shape[-1]:
        raise ValueError(f"data must be (X, Y, Z, N) with N > {max(indices)}, got shape {tuple(data.shape)}")
