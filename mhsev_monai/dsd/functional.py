"""Dynamic spectral decomposition of a brain volume, on plain tensors of any device.

The paper (section 2.1) slides a window over the image, transforms it, thresholds the spectrum, keeps the leading
components of its SVD, transforms back, and takes the result for all windows as the dynamic feature map. Its letters:
``W = window_size, F = spectrum, T = threshold, K = rank``.

What the paper leaves open is settled so:

* A window is the fractional departure from its own weighted mean, ``(p - mu) / mu``: neither the scanner's gain nor a
  smooth shading of the coil changes the map. The mean goes before the taper, or it leaks into the lowest waves.
* ``T = kappa`` times the noise power of the window, from its high frequencies inside the acquired k-space. A threshold
  from each ring's own median would delete bleeds: a round spot has the same power all around a ring.
* K follows :mod:`mhsev_monai.dsd.rank`: truncating the SVD of ``F`` and transforming back is truncating the real
  window itself.
* W follows the local texture, see :func:`mhsev_monai.dsd.windows.choose_window_sizes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mhsev_monai.dsd.contrast import Array, check_volume, contrast_image
from mhsev_monai.dsd.parameters import DTYPES, DSDParameters
from mhsev_monai.dsd.rank import MAX_BATCH, RankProjection, rank_k_project, select_rank
from mhsev_monai.dsd.spectrum import (
    BAND_EDGES_PER_MM,
    band_indicator,
    estimate_support,
    full_plane,
    noise_bins,
    noise_power,
    paired_power,
    threshold_gain,
)
from mhsev_monai.dsd.windows import (
    OverlapAdd,
    base_window_size,
    boxes_at_anchors,
    choose_window_sizes,
    continue_by_reflection,
    sine_taper,
    windows_at_anchors,
)

__all__ = [
    "BAND_EDGES_PER_MM",
    "DSDParameters",
    "DSDResult",
    "RankProjection",
    "contrast_image",
    "dynamic_spectral_decomposition",
    "rank_k_project",
    "select_rank",
]

LEAST_BRAIN = 0.25
"""Anchors whose base window holds less brain than this fraction have no window."""
LEAST_MEAN = 0.1
"""Windows whose mean is not above this fraction of the brain's median have no contrast to speak of."""
NOTHING_LEFT = 1e-6
"""Energy after the threshold, over that before it, at which a window counts as empty."""
CONSTANT = 1e-12
"""Mean square of the fractional contrast at which a window counts as constant: rounding of float32 lies below."""
SUPPORT_WINDOWS = 4096
"""Windows that the estimate of the acquired k-space reads at most."""
CHUNK_VALUES = 2**20
"""Values of one batch of windows: small enough for a processor's cache, large enough to hide the calls."""


class DSDResult(NamedTuple):
    """A decomposed volume.

    The fields on the anchor grid have shape ``(a_x, a_y, Z)``. Anchor (i, j) is the middle of a window that covers the
    voxels ``i * stride - W/2 .. i * stride + W/2 - 1`` along X, and likewise along Y with j; ``a_x = ceil(X / stride)
    + 1``. They are 0 where ``window_size`` is 0, that is where no window lies.
    """

    map: Tensor
    """Fractional signal change, shape of the image; negative where darker than the surroundings, 0 outside the mask."""
    window_size: Tensor
    """W in voxels, integers; 0: no window, for lack of brain or signal."""
    rank: Tensor
    """K, integers from 0 to W; 0 also where the threshold left nothing."""
    noise_scale: Tensor
    """Noise power of the window's spectrum, fractional contrast squared; noise of sd s has ``s**2 / 4``."""
    retained_energy: Tensor
    """Energy after the threshold over that before it, 0 to 1."""
    band_energy: Tensor
    """``(a_x, a_y, Z, n_bands)``: the part of ``retained_energy`` in each band of ``BAND_EDGES_PER_MM``."""
    stride: int
    """Voxels between anchors."""
    base_window_size: int
    """W where the texture is neither flat nor busy."""
    acquired: tuple[float, float]
    """Half-width of the acquired k-space along X and Y, cycles per pixel, given or estimated."""


class _Windows(NamedTuple):
    """What a batch of n windows gives, each field ``(n, ...)``."""

    rebuilt: Tensor
    rank: Tensor
    noise_scale: Tensor
    retained_energy: Tensor
    band_energy: Tensor


class _Lattice(NamedTuple):
    """A continued volume, slice first, and the window that each of its anchors takes."""

    padded: Tensor
    sizes: Tensor
    stride: int
    spacing: tuple[float, float]
    support: tuple[float, float]


@torch.no_grad()
def dynamic_spectral_decomposition(
    image: Array, spacing: Sequence[float], mask: Array | None = None, parameters: DSDParameters | None = None
) -> DSDResult:
    """The dynamic feature map of a volume, slice by slice, with each window's rank, size and energies.

    Args:
        image: ``(X, Y, Z)`` or ``(X, Y)``, a positive intensity such as b0 in any unit; slices along Z.
        spacing: voxel size in mm, one number for each axis of ``image``.
        mask: same shape, nonzero in the brain; None takes every voxel. Voxels outside have no influence.
        parameters: settings; None: the defaults.

    Returns:
        The result on the image's device. Parts of the mask too thin to fill a quarter of any window stay 0.

    Raises:
        ValueError: if the image is complex, not finite, neither 2-D nor 3-D, or its median in the mask is not
            positive; if the mask is empty or of another shape; if a spacing is not positive.
    """
    parameters = parameters or DSDParameters()
    planar = len(image.shape) == 2
    volume, inside, spacing = check_volume(image, spacing, mask)
    contrast, level = contrast_image(volume, inside, parameters.clip)
    lattice = _lay_windows(volume / level, contrast, inside, spacing, parameters)
    dsd_map, fields = _decompose(lattice, contrast.shape[1:], parameters)
    dsd_map = (dsd_map * inside).permute(1, 2, 0)
    return DSDResult(
        map=dsd_map[..., 0] if planar else dsd_map,
        **{name: field.movedim(0, 2) for name, field in fields.items()},
        stride=lattice.stride,
        base_window_size=lattice.stride * parameters.stride_fraction,
        acquired=lattice.support,
    )


def _lay_windows(
    volume: Tensor, contrast: Tensor, inside: Tensor, spacing: Sequence[float], parameters: DSDParameters
) -> _Lattice:
    base = parameters.window_size or base_window_size(spacing)
    stride = base // parameters.stride_fraction
    brain = boxes_at_anchors(continue_by_reflection(inside.double(), stride), base, stride)
    has_brain = brain >= LEAST_BRAIN - 1e-9
    sizes = base * has_brain
    if parameters.dynamic:
        sizes = choose_window_sizes(contrast, has_brain, spacing, base, stride)
    if parameters.acquired is None:
        support = _acquired_support(continue_by_reflection(volume, stride), brain > 1 - 1e-9, base, stride)
    else:
        support = (parameters.acquired, parameters.acquired)
    padded = continue_by_reflection(contrast, stride).to(DTYPES[parameters.dtype])
    return _Lattice(padded, sizes, stride, (spacing[0], spacing[1]), support)


def _acquired_support(padded: Tensor, full: Tensor, size: int, stride: int) -> tuple[float, float]:
    # Unclipped: clipping is not linear and would fill the frequencies that interpolation left empty.
    anchors = full.nonzero()
    anchors = anchors[:: max(1, -(-len(anchors) // SUPPORT_WINDOWS))]
    patches = windows_at_anchors(padded, size, stride)[tuple(anchors.T)]
    taper = sine_taper(size, padded)
    contrast, seen = _fractional_contrast(patches, taper)
    if not seen.any():
        return 0.5, 0.5
    return estimate_support(paired_power(torch.fft.rfft2(contrast[seen], norm="ortho")), size)


def _fractional_contrast(patches: Tensor, taper: Tensor) -> tuple[Tensor, Tensor]:
    """Tapered departures from the weighted mean, over that mean, and which windows have a mean to divide by."""
    mean = (patches * taper).sum((1, 2), keepdim=True) / taper.sum()
    seen = mean[:, 0, 0] > LEAST_MEAN
    return taper * (patches - mean) / mean.clamp(min=LEAST_MEAN), seen


def _decompose(lattice: _Lattice, shape: Sequence[int], parameters: DSDParameters) -> tuple[Tensor, dict[str, Tensor]]:
    """Map ``(Z, X, Y)`` and the anchor fields ``(Z, a_x, a_y, ...)`` of ``DSDResult`` by name."""
    padded, grid = lattice.padded, lattice.sizes.shape
    fields = {
        "window_size": torch.zeros(grid, dtype=torch.int32, device=padded.device),
        "rank": torch.zeros(grid, dtype=torch.int32, device=padded.device),
        "noise_scale": padded.new_zeros(grid),
        "retained_energy": padded.new_zeros(grid),
        "band_energy": padded.new_zeros(*grid, len(BAND_EDGES_PER_MM) - 1),
    }
    total = OverlapAdd(padded, lattice.stride)
    for size in lattice.sizes[lattice.sizes > 0].unique().tolist():
        taper = sine_taper(size, padded)
        patches = windows_at_anchors(padded, size, lattice.stride)
        decomposer = _WindowDecomposer(size, lattice, parameters)
        for anchors in (lattice.sizes == size).nonzero().split(min(MAX_BATCH, CHUNK_VALUES // size**2)):
            contrast, seen = _fractional_contrast(patches[tuple(anchors.T)], taper)
            if not seen.any():
                continue
            z, i, j = anchors[seen].T
            windows = decomposer(contrast[seen])
            total.add((z, i, j), windows.rebuilt, taper)
            fields["window_size"][z, i, j] = size
            for name in ("rank", "noise_scale", "retained_energy", "band_energy"):
                fields[name][z, i, j] = getattr(windows, name).to(fields[name].dtype)
    return total.result(shape[0], shape[1]), fields


class _WindowDecomposer:
    """Steps 2 to 5 of the paper for batches of windows of one size."""

    def __init__(self, size: int, lattice: _Lattice, parameters: DSDParameters) -> None:
        device = lattice.padded.device
        self.size = size
        self.parameters = parameters
        self.noise_bins = noise_bins(size, lattice.support).to(device)
        self.bands = band_indicator(size, lattice.spacing).to(lattice.padded)

    def __call__(self, windows: Tensor) -> _Windows:
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
            rebuilt, rank = rank_k_project(kept, self.parameters.energy, eigenvalues=self.parameters.eigenvalues)
        rebuilt = torch.where(empty[:, None, None], 0.0, rebuilt)
        return _Windows(rebuilt, rank.masked_fill(empty, 0), noise, fraction[:, -1], fraction[:, :-1])

    def _complex_truncation(self, spectrum: Tensor, gain: Tensor) -> RankProjection:
        left, singular, right = torch.linalg.svd(spectrum * full_plane(gain, self.size))
        values = singular.square() if self.parameters.eigenvalues == "squared" else singular
        rank = select_rank(values, self.parameters.energy)
        kept = singular * (torch.arange(self.size, device=rank.device) < rank[:, None])
        truncated = (left * kept[:, None, :]) @ right
        return RankProjection(torch.fft.ifft2(truncated, norm="ortho").real, rank)
