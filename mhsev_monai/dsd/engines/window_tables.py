"""What the lane kernel looks up for one window size: taper, pairs of frequencies, and how the median is found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mhsev_monai.dsd.engines.lane_fft import frequency_order, twiddles
from mhsev_monai.dsd.spectrum import band_indicator, noise_bins
from mhsev_monai.dsd.windows import sine_taper


class WindowTables(NamedTuple):
    """Tables of one window size; pairs of frequencies are in the order of their bands, those of no band last."""

    size: int
    """W."""
    pitch: int
    """Rows from one line of the window to the next: odd, so that columns do not fall on one cache set."""
    taper: NDArray[np.float32]
    """``(W * W,)``."""
    squared: NDArray[np.float32]
    """Its square, what a window adds to the weight."""
    cosines: NDArray[np.float32]
    sines: NDArray[np.float32]
    first: NDArray[np.int64]
    """Row of one member of each pair, after the forward transform."""
    second: NDArray[np.int64]
    """Row of the other; the same for the frequencies that are their own partner."""
    multiplicity: NDArray[np.float32]
    """2, or 1 for those."""
    passes: NDArray[np.float32]
    """1, or 0 for the zero frequency."""
    band_starts: NDArray[np.int64]
    """Where each band's pairs begin, then where those of no band begin, then their end."""
    noise: NDArray[np.int64]
    """Pairs that measure the noise."""
    exchanges: NDArray[np.int64]
    """``(n, 2)``: comparisons that bring the median of the noise pairs to its place."""
    median: int
    """That place: the lower median."""


@lru_cache(maxsize=64)
def window_tables(size: int, support: tuple[float, float], spacing: tuple[float, float]) -> WindowTables:
    """Tables for windows of one size.

    Args:
        size: W; 8, 16 or 32.
        support: acquired half-width along X and Y, cycles per pixel.
        spacing: in-plane spacing, mm.
    """
    half, pitch = size // 2, size + 1
    pairs = [(u, v) for u in range(size) for v in range(half + 1) if v not in (0, half) or u <= half]
    flat = np.array([u * (half + 1) + v for u, v in pairs])
    indicator = band_indicator(size, spacing).numpy()[flat, :-1] > 0
    band = np.where(indicator.any(1), indicator.argmax(1), indicator.shape[1])
    order = np.argsort(band, kind="stable")
    pairs, flat, band = [pairs[i] for i in order], flat[order], band[order]
    place = np.argsort(frequency_order(size))
    first = np.array([place[u] * pitch + place[v] for u, v in pairs])
    second = np.array([place[-u % size] * pitch + place[-v % size] for u, v in pairs])
    chosen = np.flatnonzero(np.isin(flat, noise_bins(size, support).numpy()))
    middle = (len(chosen) - 1) // 2
    cosines, sines = twiddles(size)
    taper = sine_taper(size, torch.zeros(0, dtype=torch.float32, device="cpu")).numpy().ravel()
    return WindowTables(
        size=size,
        pitch=pitch,
        taper=taper,
        squared=taper**2,
        cosines=cosines,
        sines=sines,
        first=first,
        second=second,
        multiplicity=np.where(first == second, 1, 2).astype(np.float32),
        passes=(flat != 0).astype(np.float32),
        band_starts=np.searchsorted(band, np.arange(indicator.shape[1] + 2)),
        noise=chosen,
        exchanges=selection_network(len(chosen), middle),
        median=middle,
    )


def selection_network(n: int, wanted: int) -> NDArray[np.int64]:
    """Comparisons (i, j), i < j, after which place ``wanted`` of ``n`` holds what it would hold in rising order.

    Batcher's odd-even merge sort (Knuth, The Art of Computer Programming 3, section 5.3.4, algorithm M), without the
    comparisons that place does not depend on.
    """
    network = _sorting_network(n)
    needed, kept = {wanted}, []
    for i, j in reversed(network):
        if i in needed or j in needed:
            needed |= {i, j}
            kept.append((i, j))
    return np.array(kept[::-1], dtype=np.int64).reshape(-1, 2)


def _sorting_network(n: int) -> Sequence[tuple[int, int]]:
    network = []
    merged = 1
    while merged < n:
        distance = merged
        while distance >= 1:
            for start in range(distance % merged, n - distance, 2 * distance):
                for i in range(start, min(start + distance, n - distance)):
                    # A run of 2 * merged places is sorted by itself.
                    if i // (2 * merged) == (i + distance) // (2 * merged):
                        network.append((i, i + distance))
            distance //= 2
        merged *= 2
    return network
