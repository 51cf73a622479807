"""From the signal of the head to the image that a scanner reconstructs: slices, k-space, ghost and noise.

Slices overlap a little with their neighbours, since a slice profile has no sharp edges. In the plane a finite part of
k-space is read, so that edges ring; what is stored on more voxels is interpolated by zeros around it. A filter like
those of vendors damps the ringing partly. In an echo-planar readout every other line runs backwards; a difference of
phase between both kinds makes a ghost that is displaced by half the field of view (Bruder et al., Magn Reson Med
1992;23:311-323). Noise is white in the k-space that is read, so it is smooth where the image is interpolated, and
Rician in the magnitude.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage


class Sampling(NamedTuple):
    """How a slice is read.

    Attributes:
        acquired: points of k-space along X and Y.
        filtered: 0 for none; 1 for a Hann filter, which reaches zero at the border of k-space.
        ghost: amplitude of the N/2 ghost along Y as a share of the signal, 0 to below 1.
        overlap: share of a slice's signal that comes from each of its neighbours, 0 to 0.5.
    """

    acquired: tuple[int, int]
    filtered: float = 0.3
    ghost: float = 0.0
    overlap: float = 0.04


def acquired_image(
    signal: NDArray[np.float32], sampling: Sampling, sigma: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Magnitude image, ``(X, Y, Z)``, of slices that are read in k-space.

    Args:
        signal: ``(X, Y, Z)``, of the head, without noise.
        sampling: how slices are read.
        sigma: standard deviation of the noise in the real and in the imaginary part of the image.
        rng: where the noise comes from; the number of draws depends on the shapes alone.
    """
    n_x, n_y, n_z = signal.shape
    k_space = fft.fft2(overlapping_slices(signal, sampling.overlap), axes=(0, 1), norm="ortho")
    rows, columns = (_kept_frequencies(n, kept) for n, kept in zip((n_x, n_y), sampling.acquired, strict=True))
    read = k_space[rows[:, None], columns[None, :]]
    # sin and cos of the phase error: the energy is shared between image and ghost.
    main, ghost = np.sqrt(1 - sampling.ghost**2), sampling.ghost
    sign = np.where(_frequencies(n_y)[columns] % 2 == 0, 1.0, -1.0)
    read *= (main + 1j * ghost * sign).astype(np.complex64)[None, :, None]
    window = _filter(n_x, rows, sampling)[:, None] * _filter(n_y, columns, sampling)[None, :]
    noise = rng.standard_normal((*read.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    read += np.float32(sigma * np.sqrt(n_x * n_y / (window**2).sum())) * noise
    filled = np.zeros((n_x, n_y, n_z), dtype=np.complex64)
    filled[rows[:, None], columns[None, :]] = read * window[..., None].astype(np.float32)
    image: NDArray[np.float32] = np.abs(fft.ifft2(filled, axes=(0, 1), norm="ortho"))
    return image


def overlapping_slices(signal: NDArray[np.float32], overlap: float) -> NDArray[np.float32]:
    """Each slice with a share of its two neighbours; beyond the first and last the same slice goes on.

    Args:
        signal: ``(X, Y, Z)``.
        overlap: share from each neighbour.
    """
    below = np.concatenate([signal[..., :1], signal[..., :-1]], axis=-1)
    above = np.concatenate([signal[..., 1:], signal[..., -1:]], axis=-1)
    return np.float32(1 - 2 * overlap) * signal + np.float32(overlap) * (below + above)


class PointSpread(NamedTuple):
    """What a scan makes of a dot, without ghost and noise.

    Attributes:
        x: ``(2 r + 1,)`` weights along X, the dot's own voxel in the middle.
        y: the same along Y.
        overlap: share of a slice's signal that comes from each of its neighbours.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    overlap: float

    def spread(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """A signal ``(X, Y, Z)`` as the scan shows it; it is 0 beyond the box."""
        for axis, weights in enumerate((self.x, self.y)):
            signal = ndimage.convolve1d(signal, weights, axis=axis, mode="constant")
        return overlapping_slices(signal, self.overlap)


def point_spread(shape: tuple[int, int, int], sampling: Sampling, reach: int = 6) -> PointSpread:
    """The point spread of :func:`acquired_image`, which is the same at every voxel.

    Args:
        shape: voxels of the stored image.
        sampling: how slices are read.
        reach: farthest voxel that is looked at.
    """
    weights = []
    for n, kept in zip(shape, sampling.acquired, strict=False):
        rows, window = _kept_frequencies(n, kept), np.zeros(n)
        window[rows] = _filter(n, rows, sampling)
        weights.append(fft.ifft(window).real[np.arange(-reach, reach + 1)].astype(np.float32))
    return PointSpread(weights[0], weights[1], sampling.overlap)


def _frequencies(n: int) -> NDArray[np.int64]:
    """Integer frequencies in the order of the discrete Fourier transform."""
    return np.rint(fft.fftfreq(n, 1 / n)).astype(np.int64)


def _kept_frequencies(n: int, kept: int) -> NDArray[np.intp]:
    """Indices of the ``kept`` lowest of ``n`` frequencies, as many below zero as above, and one more below if even."""
    frequencies = _frequencies(n)
    return np.flatnonzero((frequencies >= -(kept // 2)) & (frequencies < kept - kept // 2))


def _filter(n: int, indices: NDArray[np.intp], sampling: Sampling) -> NDArray[np.float64]:
    relative = _frequencies(n)[indices] / max(len(indices) / 2, 1)
    hann: NDArray[np.float64] = 0.5 + 0.5 * np.cos(np.pi * relative)
    return 1 - sampling.filtered + sampling.filtered * hann
