"""Half-plane spectra of real windows: which bins exist, which hold noise, how much of each the threshold leaves.

A real window's spectrum holds each wave twice, at (u, v) and (-u, -v). Everything here works on the half that ``rfft2``
returns, flattened to ``W * (W/2 + 1)`` bins, with one gain for each pair: two members that differ in their last bit
could otherwise fall on both sides of a hard threshold and make the result complex.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mhsev_monai.dsd.parameters import LOWEST_SUPPORT

BAND_EDGES_PER_MM = (0.03, 0.06, 0.10, 1 / 6, 0.25, 0.5)
"""Edges, cycles per mm, of the bands whose retained energy is reported: structures of 8-17, 5-8, 3-5, 2-3, 1-2 mm."""

NOISE_START = 0.6
"""The noise set begins at this fraction of the acquired support; below it lies anatomy."""
SUPPORT_FLOOR = 0.01
"""Mean power, over that of the middle band, under which a frequency counts as never acquired."""
MIDDLE_BAND = (0.1, 0.26)
"""Cycles per pixel."""


def bin_frequencies(size: int) -> tuple[Tensor, Tensor]:
    """Absolute frequencies of the half-plane bins along X and Y, cycles per pixel, each ``(size, size/2 + 1)``."""
    count = torch.arange(size)
    f_x = torch.minimum(count, size - count).double() / size
    f_y = torch.arange(size // 2 + 1).double() / size
    return f_x[:, None].expand(-1, size // 2 + 1), f_y[None].expand(size, -1)


def pair_weights(size: int) -> Tensor:
    """How often each half-plane bin stands in the full plane, flattened: 1 in the first and last column, else 2."""
    weight = torch.full((size, size // 2 + 1), 2.0, dtype=torch.float64)
    weight[:, 0] = weight[:, -1] = 1.0
    return weight.flatten()


def noise_bins(size: int, support: Sequence[float]) -> Tensor:
    """Flat indices of the bins that measure noise: high frequencies inside the acquired k-space, each pair once.

    Outside the acquired k-space an interpolated image has no noise at all, and a threshold from there would pass
    everything. The four bins that are their own partner follow another law and are left out.

    Args:
        size: window side.
        support: acquired half-width along X and Y, cycles per pixel.
    """
    f_x, f_y = bin_frequencies(size)
    radius = torch.hypot(f_x / support[0], f_y / support[1])
    within = (radius >= NOISE_START - 1e-9) & (f_x <= support[0] + 1e-9) & (f_y <= support[1] + 1e-9)
    once = torch.ones_like(within)
    once[size // 2 + 1 :, 0] = once[size // 2 + 1 :, -1] = False
    once[0, 0] = once[0, -1] = once[size // 2, 0] = once[size // 2, -1] = False
    return (within & once).flatten().nonzero()[:, 0]


def band_indicator(size: int, spacing: Sequence[float]) -> Tensor:
    """Pair weights sorted into bands, ``(W * (W/2 + 1), n_bands + 1)``; the last column takes every bin."""
    f_x, f_y = bin_frequencies(size)
    radius = torch.hypot(f_x / spacing[0], f_y / spacing[1]).flatten()
    columns = [(radius >= low) & (radius < high) for low, high in itertools.pairwise(BAND_EDGES_PER_MM)]
    columns.append(torch.ones_like(columns[0]))
    return torch.stack(columns, dim=1) * pair_weights(size)[:, None]


def paired_power(spectrum: Tensor) -> Tensor:
    """Power ``(n, W * (W/2 + 1))`` of half-plane spectra, with the same bits for both members of every pair."""
    power = spectrum.real.square() + spectrum.imag.square()
    half = spectrum.shape[-2] // 2
    for column in (0, -1):
        power[:, half + 1 :, column] = power[:, 1:half, column].flip(1)
    return power.flatten(1)


def noise_power(power: Tensor, bins: Tensor) -> Tensor:
    """Mean noise power of each window, ``(n,)``.

    The power of complex Gaussian noise is exponential, so its median is ln 2 of its mean; the (lower) median lets the
    few bins that hold structure pass.
    """
    return power[:, bins].median(dim=1).values / math.log(2)


def threshold_gain(power: Tensor, threshold: Tensor, gain: str) -> Tensor:
    """Gain of each bin, 0 to 1, and 0 at the zero frequency.

    Args:
        power: ``(n, bins)``.
        threshold: ``(n,)``, power.
        gain: ``wiener``, ``hard``, ``soft`` or ``none``.
    """
    if gain == "hard":
        result = (power > threshold[:, None]).to(power)
    elif gain == "none":
        result = torch.ones_like(power)
    else:
        ratio = threshold[:, None] / power.clamp(min=1e-30)
        result = (1 - (ratio if gain == "wiener" else ratio.sqrt())).clamp(min=0)
    result[:, 0] = 0
    return result


def full_plane(half: Tensor, size: int) -> Tensor:
    """Even function of the frequency ``(n, W * (W/2 + 1))`` spread over the full plane ``(n, W, W)``."""
    half = half.reshape(-1, size, size // 2 + 1)
    u, v = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    mirrored = v > size // 2
    return half[:, torch.where(mirrored, (-u) % size, u), torch.where(mirrored, size - v, v)]


def estimate_support(power: Tensor, size: int) -> tuple[float, float]:
    """Half-width of the acquired k-space along X and Y, cycles per pixel, from 0.125 to 0.5.

    It is the last frequency whose mean power is at least 1 % of the middle band's; a scanner that interpolates by
    zero filling leaves nothing beyond it. 0.5 where there is no power to judge by.

    Args:
        power: ``(n, W * (W/2 + 1))`` of one or more unclipped windows that lie inside the brain.
        size: W.
    """
    mean = (power.double().mean(0).cpu() * pair_weights(size)).reshape(size, size // 2 + 1)
    along_x = mean.sum(1)[: size // 2 + 1].clone()
    along_x[1:-1] += mean.sum(1)[size // 2 + 1 :].flip(0)
    f_x, f_y = _last_frequency(along_x, size), _last_frequency(mean.sum(0), size)
    return f_x, f_y


def _last_frequency(profile: Tensor, size: int) -> float:
    frequency = torch.arange(size // 2 + 1) / size
    profile = profile.clone()
    # The Nyquist bin is its own partner along this axis, the others came in twice.
    profile[1:-1] /= 2
    middle = profile[(frequency >= MIDDLE_BAND[0]) & (frequency <= MIDDLE_BAND[1])].mean()
    if middle <= 0:
        return 0.5
    last = int((profile >= SUPPORT_FLOOR * middle).nonzero().max())
    return max(last / size, LOWEST_SUPPORT)
