"""The compiled loops over windows and over matrices: one call works through one slice, or one batch, in one thread.

A group of ``LANES`` windows goes through every step before the next group is touched, so that memory does not grow
with the number of windows. The halves of a lane row are the real and the imaginary parts of one complex transform that
serves two windows.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mhsev_monai.dsd.engines import lane_fft, lane_rank
from mhsev_monai.dsd.engines.lane_products import Rows
from mhsev_monai.dsd.engines.lane_rank import project
from mhsev_monai.dsd.engines.simd import (
    HALF,
    LANES,
    add_eight,
    copy_eight,
    higher_of,
    lanes_to_lines,
    lines_to_lanes,
    load,
    load_half,
    lower_of,
    root,
    splat,
    store,
    store_half,
    where,
)
from mhsev_monai.dsd.engines.window_tables import WindowTables

logger = logging.getLogger(__name__)

WIENER, HARD, SOFT, NONE = range(4)
_LOG_2 = float(np.log(2))


@njit(nogil=True)
def _gather(image: Rows, width: int, corners: NDArray[np.int64], size: int, pitch: int, x: Rows, lines: Rows) -> None:
    for half in range(2):
        for line in range(size):
            for lane in range(HALF):
                source = corners[half * HALF + lane] + line * width
                for place in range(0, size, 8):
                    copy_eight(lines, place * HALF + lane * 8, image, source + place)
            for place in range(0, size, 8):
                at = 2 * (line * pitch + place) + half
                lines_to_lanes(x, at, lines[place * HALF : (place + 8) * HALF])


@njit(nogil=True)
def _to_contrast(x: Rows, tables: WindowTables, least_mean: float, seen: Rows) -> None:
    """Windows, less 1, become tapered departures from their weighted mean, over it; ``seen``: 1 where it suffices."""
    size, pitch, taper = tables.size, tables.pitch, tables.taper
    total, weight = splat(0.0), np.float32(0.0)
    for line in range(size):
        part = splat(0.0)
        for place in range(size):
            part = part + load(x, line * pitch + place) * taper[line * size + place]
            weight += taper[line * size + place]
        total = total + part
    above = total * (np.float32(1.0) / weight)
    mean = above + 1.0
    enough = mean > np.float32(least_mean)
    store(seen, 0, where(enough, 1.0, 0.0))
    # The transform back and forth wants a division by W * W, half of it here: the spectrum is then orthonormal.
    scale = (np.float32(1.0) / np.float32(size)) / higher_of(mean, np.float32(least_mean))
    for line in range(size):
        for place in range(size):
            at = line * pitch + place
            # A window that does not count is emptied: its partner in the complex transform would take in its rounding.
            contrast = (load(x, at) - above) * (scale * taper[line * size + place])
            store(x, at, where(enough, contrast, 0.0))


@njit(nogil=True)
def _noise_power(x: Rows, tables: WindowTables, ordered: Rows) -> Any:
    """Noise power of each window from the lower median over the noise pairs."""
    for i in range(len(tables.noise)):
        pair = tables.noise[i]
        first, second = 2 * tables.first[pair], 2 * tables.second[pair]
        zr, zi, wr, wi = load_half(x, first), load_half(x, first + 1), load_half(x, second), load_half(x, second + 1)
        ar, ai, br, bi = zr + wr, zi - wi, zi + wi, wr - zr
        store_half(ordered, 2 * i, ar * ar + ai * ai)
        store_half(ordered, 2 * i + 1, br * br + bi * bi)
    for i in range(len(tables.exchanges)):
        one, other = tables.exchanges[i, 0], tables.exchanges[i, 1]
        a, b = load(ordered, one), load(ordered, other)
        store(ordered, one, lower_of(a, b))
        store(ordered, other, higher_of(a, b))
    # Sums and differences of a pair are twice the two spectra.
    return load(ordered, tables.median) * np.float32(0.25 / _LOG_2)


@njit(nogil=True)
def _gain_of(power: Any, threshold: Any, gain: int) -> Any:
    if gain == HARD:
        return where(power > threshold, 1.0, 0.0)
    ratio = threshold / higher_of(power, np.float32(1e-30))
    return higher_of(1.0 - (root(ratio) if gain == SOFT else ratio), 0.0)


@njit(nogil=True)
def _apply_threshold(
    x: Rows, tables: WindowTables, thresholds: Rows, gain: int, bands: Rows, before: Rows, after: Rows
) -> None:
    """Spectra times their gains, with the energies before, after, and after in each band."""
    zero = load_half(x, 0) * 0.0
    limit_a, limit_b = load_half(thresholds, 0), load_half(thresholds, 1)
    before_a, before_b, after_a, after_b = zero, zero, zero, zero
    for band in range(len(tables.band_starts) - 1):
        band_a, band_b = zero, zero
        for pair in range(tables.band_starts[band], tables.band_starts[band + 1]):
            first, second = 2 * tables.first[pair], 2 * tables.second[pair]
            zr, zi = load_half(x, first), load_half(x, first + 1)
            wr, wi = load_half(x, second), load_half(x, second + 1)
            ar, ai, br, bi = (zr + wr) * 0.5, (zi - wi) * 0.5, (zi + wi) * 0.5, (wr - zr) * 0.5
            power_a, power_b = ar * ar + ai * ai, br * br + bi * bi
            count = tables.multiplicity[pair]
            before_a, before_b = before_a + power_a * count, before_b + power_b * count
            gain_a = gain_b = zero + tables.passes[pair]
            if gain != NONE:
                gain_a, gain_b = gain_a * _gain_of(power_a, limit_a, gain), gain_b * _gain_of(power_b, limit_b, gain)
            ar, ai, br, bi = ar * gain_a, ai * gain_a, br * gain_b, bi * gain_b
            band_a, band_b = band_a + (ar * ar + ai * ai) * count, band_b + (br * br + bi * bi) * count
            store_half(x, first, ar - bi)
            store_half(x, first + 1, ai + br)
            store_half(x, second, ar + bi)
            store_half(x, second + 1, br - ai)
        store_half(bands, 2 * band, band_a)
        store_half(bands, 2 * band + 1, band_b)
        after_a, after_b = after_a + band_a, after_b + band_b
    store_half(before, 0, before_a)
    store_half(before, 1, before_b)
    store_half(after, 0, after_a)
    store_half(after, 1, after_b)


@njit(nogil=True)
def _scatter(
    x: Rows,
    tables: WindowTables,
    corners: NDArray[np.int64],
    n: int,
    total: Rows,
    weight: Rows,
    width: int,
    seen: Rows,
    lines: Rows,
) -> None:
    size, pitch, taper = tables.size, tables.pitch, tables.taper
    for line in range(size):
        for place in range(size):
            at = line * pitch + place
            store(x, at, load(x, at) * taper[line * size + place])
    for half in range(2):
        for line in range(size):
            for place in range(0, size, 8):
                block = (line * size + place) * HALF
                lanes_to_lines(x, 2 * (line * pitch + place) + half, lines[block : block + 8 * HALF])
        # One window after the other: neighbours overlap, and to read what was only just written costs a wait.
        for lane in range(min(HALF, n - half * HALF)):
            for line in range(size):
                target = corners[half * HALF + lane] + line * width
                for place in range(0, size, 8):
                    add_eight(total, target + place, lines, (line * size + place) * HALF + lane * 8)
    for lane in range(n):
        if seen[lane] > 0:
            for line in range(size):
                target = corners[lane] + line * width
                for place in range(0, size, 8):
                    add_eight(weight, target + place, tables.squared, line * size + place)


@njit(nogil=True)
def _scale(x: Rows, size: int, pitch: int, factor: float) -> None:
    for line in range(size):
        for place in range(size):
            store(x, line * pitch + place, load(x, line * pitch + place) * np.float32(factor))


def window_scratch_rows(tables: WindowTables) -> int:
    """Rows of scratch that :data:`decompose_slice` needs."""
    rank_rows = lane_rank.scratch_rows(tables.size)
    return tables.size * tables.pitch + max(len(tables.noise), rank_rows) + len(tables.band_starts) + 5


def _slice_kernel(digest: str) -> Callable[..., None]:
    def decompose_slice(
        image: Rows,
        width: int,
        corners: NDArray[np.int64],
        tables: WindowTables,
        kappa: float,
        gain: int,
        energy: float,
        tie: float,
        least_mean: float,
        constant: float,
        nothing_left: float,
        scratch: Rows,
        starts: NDArray[np.int64],
        total: Rows,
        weight: Rows,
        fields: NDArray[np.float32],
    ) -> None:
        """Add the windows at ``corners`` of a flat slice to ``total`` and ``weight``; ``fields`` gets a line for each.

        A line of ``fields`` is: seen, rank, noise scale, retained energy, then that energy in each band.
        """
        digest  # noqa: B018  part of the compiled code's key, see `compiled`
        size, pitch = tables.size, tables.pitch
        n_bands = len(tables.band_starts) - 2
        end = size * pitch
        x = scratch[: end * LANES]
        small = scratch[end * LANES : (end + 5 + n_bands + 1) * LANES]
        seen, kept, thresholds = small[:LANES], small[LANES : 2 * LANES], small[2 * LANES : 3 * LANES]
        before, after, bands = small[3 * LANES : 4 * LANES], small[4 * LANES : 5 * LANES], small[5 * LANES :]
        rest = scratch[(end + 5 + n_bands + 1) * LANES :]
        here = np.empty(LANES, dtype=np.int64)
        for begin in range(0, len(corners), LANES):
            n = min(LANES, len(corners) - begin)
            for lane in range(LANES):
                # The last group is filled up with the last window.
                here[lane] = corners[min(begin + lane, len(corners) - 1)]
            _gather(image, width, here, size, pitch, x, rest)
            _to_contrast(x, tables, least_mean, seen)
            lane_fft.forward(x, size, pitch, tables.cosines, tables.sines)
            noise = _noise_power(x, tables, rest)
            store(thresholds, 0, noise * np.float32(kappa))
            _apply_threshold(x, tables, thresholds, gain, bands, before, after)
            lane_fft.inverse(x, size, pitch, tables.cosines, tables.sines)
            _scale(x, size, pitch, 1.0 / size)
            all_energy, left = load(before, 0), load(after, 0)
            empty = (all_energy <= np.float32(constant * size * size)) | (left <= all_energy * np.float32(nothing_left))
            empty = empty | (load(seen, 0) < 0.5)
            store(kept, 0, where(empty, -1.0, 0.0))
            project(x, size, size, pitch, energy, tie, kept, rest, starts)
            _scatter(x, tables, here, n, total, weight, width, seen, rest)
            inverse = 1.0 / higher_of(all_energy, np.float32(1e-30))
            store(thresholds, 0, noise)
            store(after, 0, left * inverse)
            for band in range(n_bands):
                store(bands, band, load(bands, band) * inverse)
            for lane in range(n):
                if seen[lane] == 0:
                    continue
                line = fields[begin + lane]
                line[0], line[1], line[2], line[3] = 1, kept[lane], thresholds[lane], after[lane]
                for band in range(n_bands):
                    line[4 + band] = bands[band * LANES + lane]

    return decompose_slice


def _batch_kernel(digest: str) -> Callable[..., None]:
    def project_batch(
        matrices: NDArray[np.float32],
        energy: float,
        tie: float,
        scratch: Rows,
        starts: NDArray[np.int64],
        ranks: NDArray[np.int64],
    ) -> None:
        """Replace ``(count, m, n)`` matrices, m and n multiples of 4, by their projections; ``ranks`` gets K."""
        digest  # noqa: B018  part of the compiled code's key, see `compiled`
        count, n_rows, n = matrices.shape
        pitch = n + 1
        kept, x = scratch[:LANES], scratch[LANES : (1 + n_rows * pitch) * LANES]
        rest = scratch[(1 + n_rows * pitch) * LANES :]
        here = np.empty(LANES, dtype=np.int64)
        for begin in range(0, count, LANES):
            n_here = min(LANES, count - begin)
            for lane in range(LANES):
                here[lane] = min(begin + lane, count - 1)
            for row in range(n_rows):
                for column in range(n):
                    at = (row * pitch + column) * LANES
                    for lane in range(LANES):
                        x[at + lane] = matrices[here[lane], row, column]
            store(kept, 0, 0.0)
            project(x, n_rows, n, pitch, energy, tie, kept, rest, starts)
            for row in range(n_rows):
                for column in range(n):
                    at = (row * pitch + column) * LANES
                    for lane in range(n_here):
                        matrices[begin + lane, row, column] = x[at + lane]
            for lane in range(n_here):
                ranks[begin + lane] = int(kept[lane])

    return project_batch


def compiled(kernel: Callable[[str], Callable[..., None]]) -> Any:
    """A kernel compiled at its first call and kept on disk for the next process.

    numba looks only at the file of the kernel itself to tell whether what it kept is stale, although the code of the
    files beside it is compiled in. Their digest, held in the closure, makes it part of the key.
    """
    folder = Path(__file__).parent
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(folder.glob("*.py")))).hexdigest()
    function = kernel(digest)
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:
        logger.warning(
            "no folder for compiled code can be written; set NUMBA_CACHE_DIR to spare some 10 s at each start"
        )
        return njit(nogil=True)(function)


decompose_slice = compiled(_slice_kernel)
project_batch = compiled(_batch_kernel)
