"""The engine of plain torch: any device, both precisions, and the paper's own steps; the others are held against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mhsev_monai.dsd.lattice import CONSTANT, NOTHING_LEFT, Decomposition, Lattice, fractional_contrast
from mhsev_monai.dsd.parameters import DSDParameters
from mhsev_monai.dsd.rank import MAX_BATCH, TIE, RankProjection, project_by_torch, select_rank
from mhsev_monai.dsd.spectrum import (
    BAND_EDGES_PER_MM,
    band_indicator,
    full_plane,
    noise_bins,
    noise_power,
    paired_power,
    threshold_gain,
)
from mhsev_monai.dsd.windows import OverlapAdd, sine_taper, windows_at_anchors

CHUNK_VALUES = 2**20
"""Values of one batch of windows: small enough for a processor's cache, large enough to hide the calls."""

Projection = Callable[[Tensor, float, str, float], RankProjection]
"""Matrices ``(n, W, W)``, energy, reading of the eigenvalues, tie: the matrices from their leading components."""


class Windows(NamedTuple):
    """What a batch of n windows gives, each field ``(n, ...)``; see ``DSDResult``."""

    rebuilt: Tensor
    """``(n, W, W)``, without the synthesis taper."""
    rank: Tensor
    noise_scale: Tensor
    retained_energy: Tensor
    band_energy: Tensor


def decompose(
    lattice: Lattice,
    parameters: DSDParameters,
    project: Projection = project_by_torch,
    chunk_values: int | None = None,
    overlap_add: type[OverlapAdd] = OverlapAdd,
) -> Decomposition:
    """All windows of a lattice in batches, each of one size.

    Args:
        lattice: of any device.
        parameters: settings.
        project: how windows are rebuilt from their leading components, unless ``parameters.literal``.
        chunk_values: values of one batch; None: ``CHUNK_VALUES``.
        overlap_add: how windows are put together again.
    """
    padded, grid = lattice.padded, lattice.sizes.shape
    result = Decomposition(
        map=padded[:0],
        window_size=torch.zeros(grid, dtype=torch.int32, device=padded.device),
        rank=torch.zeros(grid, dtype=torch.int32, device=padded.device),
        noise_scale=padded.new_zeros(grid),
        retained_energy=padded.new_zeros(grid),
        band_energy=padded.new_zeros(*grid, len(BAND_EDGES_PER_MM) - 1),
    )
    total = overlap_add(padded, lattice.stride)
    for size in lattice.sizes[lattice.sizes > 0].unique().tolist():
        taper = sine_taper(size, padded)
        patches = windows_at_anchors(padded, size, lattice.stride)
        decomposer = _WindowDecomposer(size, lattice, parameters, project)
        most = max(1, (chunk_values or CHUNK_VALUES) // size**2)
        for anchors in (lattice.sizes == size).nonzero().split(most):
            contrast, seen = fractional_contrast(patches[tuple(anchors.T)], taper)
            if not seen.any():
                continue
            z, i, j = anchors[seen].T
            windows = decomposer(contrast[seen])
            total.add((z, i, j), windows.rebuilt, taper)
            result.window_size[z, i, j] = size
            for name in ("rank", "noise_scale", "retained_energy", "band_energy"):
                field = getattr(result, name)
                field[z, i, j] = getattr(windows, name).to(field.dtype)
    return result._replace(map=total.result(*lattice.shape))


class _WindowDecomposer:
    """Steps 2 to 5 of the paper for batches of windows of one size."""

    def __init__(self, size: int, lattice: Lattice, parameters: DSDParameters, project: Projection) -> None:
        self.size = size
        self.parameters = parameters
        self.project = project
        self.noise_bins = noise_bins(size, lattice.support).to(lattice.padded.device)
        self.bands = band_indicator(size, lattice.spacing).to(lattice.padded)

    def __call__(self, windows: Tensor) -> Windows:
        """Decompose tapered windows ``(n, W, W)``."""
        spectrum = torch.fft.rfft2(windows, norm="ortho")
        power = paired_power(spectrum)
        noise = noise_power(power, self.noise_bins)
        gain = threshold_gain(power, self.parameters.kappa * noise, self.parameters.gain)
        before = (power @ self.bands)[:, -1]
        after = (gain.square() * power) @ self.bands
        empty = (before <= CONSTANT * self.size**2) | (after[:, -1] <= NOTHING_LEFT * before)
        fraction = after / before.clamp(min=1e-30)[:, None]
        if self.parameters.literal:
            rebuilt, rank = self._complex_truncation(torch.fft.fft2(windows, norm="ortho"), gain)
        else:
            spectrum = spectrum * gain.reshape(spectrum.shape)
            kept = torch.fft.irfft2(spectrum, s=(self.size, self.size), norm="ortho")
            rebuilt, rank = self.project(kept, self.parameters.energy, self.parameters.eigenvalues, TIE)
        rebuilt = torch.where(empty[:, None, None], 0.0, rebuilt)
        return Windows(rebuilt, rank.masked_fill(empty, 0), noise, fraction[:, -1], fraction[:, :-1])

    def _complex_truncation(self, spectrum: Tensor, gain: Tensor) -> RankProjection:
        full = spectrum * full_plane(gain, self.size)
        parts = []
        for chunk in full.split(MAX_BATCH):
            left, singular, right = torch.linalg.svd(chunk)
            values = singular.square() if self.parameters.eigenvalues == "squared" else singular
            rank = select_rank(values, self.parameters.energy)
            kept = singular * (torch.arange(self.size, device=rank.device) < rank[:, None])
            truncated = (left * kept[:, None, :]) @ right
            parts.append(RankProjection(torch.fft.ifft2(truncated, norm="ortho").real, rank))
        return RankProjection(torch.cat([p.projected for p in parts]), torch.cat([p.rank for p in parts]))
