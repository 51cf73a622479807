"""Two-dimensional Fourier transforms of lanes: a row holds real parts in its first half, imaginary parts in its second.

Radix 4, then 2 where the length asks for it, in place. The forward transform decimates in frequency and leaves the
frequencies in digit-reversed order (:func:`frequency_order`); the inverse decimates in time and takes them in that very
order, so that nothing is ever reordered. Neither divides by anything.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mhsev_monai.dsd.engines.simd import load_half, store_half

Numbers = NDArray[np.float32]


def frequency_order(size: int) -> NDArray[np.int64]:
    """The frequency that the forward transform of ``size`` (a power of 2) leaves at each position."""
    if size <= 2:
        return np.arange(size)
    inner = frequency_order(size // 4)
    return np.concatenate([4 * inner + digit for digit in range(4)])


def twiddles(size: int) -> tuple[Numbers, Numbers]:
    """Cosine and sine of ``-2 pi k / size`` for each k."""
    angle = -2 * np.pi * np.arange(size) / size
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


@njit(nogil=True)
def _forward_line(x: Numbers, base: int, step: int, size: int, cosines: Numbers, sines: Numbers) -> None:
    length, turn, step = size, 1, 2 * step
    while length >= 4:
        quarter = (length // 4) * step
        for k in range(length // 4):
            c1, s1 = cosines[k * turn], sines[k * turn]
            c2, s2 = cosines[2 * k * turn], sines[2 * k * turn]
            c3, s3 = cosines[3 * k * turn], sines[3 * k * turn]
            for block in range(k, size, length):
                at = 2 * base + block * step
                ar, ai = load_half(x, at), load_half(x, at + 1)
                br, bi = load_half(x, at + quarter), load_half(x, at + quarter + 1)
                cr, ci = load_half(x, at + 2 * quarter), load_half(x, at + 2 * quarter + 1)
                dr, di = load_half(x, at + 3 * quarter), load_half(x, at + 3 * quarter + 1)
                pr, pi, mr, mi = ar + cr, ai + ci, ar - cr, ai - ci
                qr, qi, nr, ni = br + dr, bi + di, bi - di, dr - br
                store_half(x, at, pr + qr)
                store_half(x, at + 1, pi + qi)
                r, i = mr + nr, mi + ni
                store_half(x, at + quarter, r * c1 - i * s1)
                store_half(x, at + quarter + 1, r * s1 + i * c1)
                r, i = pr - qr, pi - qi
                store_half(x, at + 2 * quarter, r * c2 - i * s2)
                store_half(x, at + 2 * quarter + 1, r * s2 + i * c2)
                r, i = mr - nr, mi - ni
                store_half(x, at + 3 * quarter, r * c3 - i * s3)
                store_half(x, at + 3 * quarter + 1, r * s3 + i * c3)
        length //= 4
        turn *= 4
    if length == 2:
        _pairs(x, base, step, size)


@njit(nogil=True)
def _pairs(x: Numbers, base: int, step: int, size: int) -> None:
    for block in range(0, size, 2):
        at = 2 * base + block * step
        ar, ai, br, bi = load_half(x, at), load_half(x, at + 1), load_half(x, at + step), load_half(x, at + step + 1)
        store_half(x, at, ar + br)
        store_half(x, at + 1, ai + bi)
        store_half(x, at + step, ar - br)
        store_half(x, at + step + 1, ai - bi)


@njit(nogil=True)
def _inverse_line(x: Numbers, base: int, step: int, size: int, cosines: Numbers, sines: Numbers) -> None:
    length, step = 1, 2 * step
    if size % 3 == 2:
        # 8 and 32 are 2 times a power of 4, and leave 2 when divided by 3.
        _pairs(x, base, step, size)
        length = 2
    while length < size:
        quarter, turn = length * step, size // (4 * length)
        for k in range(length):
            c1, s1 = cosines[k * turn], sines[k * turn]
            c2, s2 = cosines[2 * k * turn], sines[2 * k * turn]
            c3, s3 = cosines[3 * k * turn], sines[3 * k * turn]
            for block in range(k, size, 4 * length):
                at = 2 * base + block * step
                ar, ai = load_half(x, at), load_half(x, at + 1)
                r, i = load_half(x, at + quarter), load_half(x, at + quarter + 1)
                br, bi = r * c1 + i * s1, i * c1 - r * s1
                r, i = load_half(x, at + 2 * quarter), load_half(x, at + 2 * quarter + 1)
                cr, ci = r * c2 + i * s2, i * c2 - r * s2
                r, i = load_half(x, at + 3 * quarter), load_half(x, at + 3 * quarter + 1)
                dr, di = r * c3 + i * s3, i * c3 - r * s3
                pr, pi, mr, mi = ar + cr, ai + ci, ar - cr, ai - ci
                qr, qi, nr, ni = br + dr, bi + di, di - bi, br - dr
                store_half(x, at, pr + qr)
                store_half(x, at + 1, pi + qi)
                store_half(x, at + quarter, mr + nr)
                store_half(x, at + quarter + 1, mi + ni)
                store_half(x, at + 2 * quarter, pr - qr)
                store_half(x, at + 2 * quarter + 1, pi - qi)
                store_half(x, at + 3 * quarter, mr - nr)
                store_half(x, at + 3 * quarter + 1, mi - ni)
        length *= 4


@njit(nogil=True)
def forward(x: Numbers, size: int, pitch: int, cosines: Numbers, sines: Numbers) -> None:
    """Transform ``size`` by ``size`` rows ``r * pitch + c`` in place; frequencies in digit-reversed order."""
    for line in range(size):
        _forward_line(x, line * pitch, 1, size, cosines, sines)
    for line in range(size):
        _forward_line(x, line, pitch, size, cosines, sines)


@njit(nogil=True)
def inverse(x: Numbers, size: int, pitch: int, cosines: Numbers, sines: Numbers) -> None:
    """Take back :func:`forward`, but for a factor of ``size ** 2``."""
    for line in range(size):
        _inverse_line(x, line, pitch, size, cosines, sines)
    for line in range(size):
        _inverse_line(x, line * pitch, 1, size, cosines, sines)
