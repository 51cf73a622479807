"""Products of matrices, one in each lane, in blocks of 4 by 4 whose sums stay in registers.

Sixteen sums for eight loaded values: every value that is loaded serves four products. ``n``, the matrix's columns, and
its rows are multiples of 4. Blocks work on half a row of lanes, so that the sums fit the registers.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mhsev_monai.dsd.engines.simd import FAINT, load, load_half, splat, store, store_half, where

Rows = NDArray[np.float32]


@njit(nogil=True)
def triangle(i: int) -> int:
    """Entries of a packed lower triangle before row ``i``."""
    return i * (i + 1) // 2


@njit(nogil=True)
def scaled_gram(x: Rows, n_rows: int, n: int, pitch: int, gram: Rows) -> None:
    """Lower triangle of ``x^T x`` over its trace, row after row."""
    for i in range(0, n, 4):
        for j in range(0, i + 1, 4):
            for half in range(2):
                _gram_block(x, n_rows, pitch, gram, i, j, half)
    trace = splat(0.0)
    for i in range(n):
        trace = trace + load(gram, triangle(i) + i)
    # Dust below this would have no finite reciprocal.
    scale = 1.0 / where(trace > FAINT, trace, 1.0)
    for i in range(triangle(n)):
        store(gram, i, load(gram, i) * scale)


@njit(nogil=True)
def _gram_block(x: Rows, n_rows: int, pitch: int, gram: Rows, i: int, j: int, half: int) -> None:
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = load_half(x, 0) * 0.0
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = s00
    for row in range(n_rows):
        left, right = 2 * (row * pitch + i) + half, 2 * (row * pitch + j) + half
        a0, a1, a2, a3 = load_half(x, left), load_half(x, left + 2), load_half(x, left + 4), load_half(x, left + 6)
        b0, b1, b2, b3 = load_half(x, right), load_half(x, right + 2), load_half(x, right + 4), load_half(x, right + 6)
        s00, s01, s02, s03 = s00 + a0 * b0, s01 + a0 * b1, s02 + a0 * b2, s03 + a0 * b3
        s10, s11, s12, s13 = s10 + a1 * b0, s11 + a1 * b1, s12 + a1 * b2, s13 + a1 * b3
        s20, s21, s22, s23 = s20 + a2 * b0, s21 + a2 * b1, s22 + a2 * b2, s23 + a2 * b3
        s30, s31, s32, s33 = s30 + a3 * b0, s31 + a3 * b1, s32 + a3 * b2, s33 + a3 * b3
    lower = i > j
    at = 2 * (triangle(i) + j) + half
    store_half(gram, at, s00)
    if lower:
        store_half(gram, at + 2, s01)
        store_half(gram, at + 4, s02)
        store_half(gram, at + 6, s03)
    at += 2 * (i + 1)
    store_half(gram, at, s10)
    store_half(gram, at + 2, s11)
    if lower:
        store_half(gram, at + 4, s12)
        store_half(gram, at + 6, s13)
    at += 2 * (i + 2)
    store_half(gram, at, s20)
    store_half(gram, at + 2, s21)
    store_half(gram, at + 4, s22)
    if lower:
        store_half(gram, at + 6, s23)
    at += 2 * (i + 3)
    store_half(gram, at, s30)
    store_half(gram, at + 2, s31)
    store_half(gram, at + 4, s32)
    store_half(gram, at + 6, s33)


@njit(nogil=True)
def onto_components(x: Rows, n_rows: int, n: int, pitch: int, z: Rows, width: int, parts: Rows) -> None:
    """``x`` becomes ``x z z^T``, four rows at a time."""
    for row in range(0, n_rows, 4):
        for half in range(2):
            for column in range(0, width, 4):
                _parts_block(x, row, n, pitch, z, column, half, parts)
            for column in range(0, n, 4):
                _rebuilt_block(x, row, n, pitch, z, width, column, half, parts)


@njit(nogil=True)
def _parts_block(x: Rows, row: int, n: int, pitch: int, z: Rows, column: int, half: int, parts: Rows) -> None:
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = load_half(x, 0) * 0.0
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = s00
    r0, step = 2 * row * pitch + half, 2 * pitch
    for i in range(n):
        at = 2 * (i * n + column) + half
        b0, b1, b2, b3 = load_half(z, at), load_half(z, at + 2), load_half(z, at + 4), load_half(z, at + 6)
        at = r0 + 2 * i
        a0, a1 = load_half(x, at), load_half(x, at + step)
        a2, a3 = load_half(x, at + 2 * step), load_half(x, at + 3 * step)
        s00, s01, s02, s03 = s00 + a0 * b0, s01 + a0 * b1, s02 + a0 * b2, s03 + a0 * b3
        s10, s11, s12, s13 = s10 + a1 * b0, s11 + a1 * b1, s12 + a1 * b2, s13 + a1 * b3
        s20, s21, s22, s23 = s20 + a2 * b0, s21 + a2 * b1, s22 + a2 * b2, s23 + a2 * b3
        s30, s31, s32, s33 = s30 + a3 * b0, s31 + a3 * b1, s32 + a3 * b2, s33 + a3 * b3
    at = 4 * column
    store_half(parts, at, s00)
    store_half(parts, at + 1, s10)
    store_half(parts, at + 2, s20)
    store_half(parts, at + 3, s30)
    store_half(parts, at + 4, s01)
    store_half(parts, at + 5, s11)
    store_half(parts, at + 6, s21)
    store_half(parts, at + 7, s31)
    store_half(parts, at + 8, s02)
    store_half(parts, at + 9, s12)
    store_half(parts, at + 10, s22)
    store_half(parts, at + 11, s32)
    store_half(parts, at + 12, s03)
    store_half(parts, at + 13, s13)
    store_half(parts, at + 14, s23)
    store_half(parts, at + 15, s33)


@njit(nogil=True)
def _rebuilt_block(
    x: Rows, row: int, n: int, pitch: int, z: Rows, width: int, column: int, half: int, parts: Rows
) -> None:
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = load_half(x, 0) * 0.0
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = s00
    for c in range(width):
        at = 2 * (column * n + c) + half
        b0, b1, b2, b3 = load_half(z, at), load_half(z, at + 2 * n), load_half(z, at + 4 * n), load_half(z, at + 6 * n)
        at = 4 * c
        a0, a1, a2, a3 = (
            load_half(parts, at),
            load_half(parts, at + 1),
            load_half(parts, at + 2),
            load_half(parts, at + 3),
        )
        s00, s01, s02, s03 = s00 + a0 * b0, s01 + a0 * b1, s02 + a0 * b2, s03 + a0 * b3
        s10, s11, s12, s13 = s10 + a1 * b0, s11 + a1 * b1, s12 + a1 * b2, s13 + a1 * b3
        s20, s21, s22, s23 = s20 + a2 * b0, s21 + a2 * b1, s22 + a2 * b2, s23 + a2 * b3
        s30, s31, s32, s33 = s30 + a3 * b0, s31 + a3 * b1, s32 + a3 * b2, s33 + a3 * b3
    at = 2 * (row * pitch + column) + half
    store_half(x, at, s00)
    store_half(x, at + 2, s01)
    store_half(x, at + 4, s02)
    store_half(x, at + 6, s03)
    at += 2 * pitch
    store_half(x, at, s10)
    store_half(x, at + 2, s11)
    store_half(x, at + 4, s12)
    store_half(x, at + 6, s13)
    at += 2 * pitch
    store_half(x, at, s20)
    store_half(x, at + 2, s21)
    store_half(x, at + 4, s22)
    store_half(x, at + 6, s23)
    at += 2 * pitch
    store_half(x, at, s30)
    store_half(x, at + 2, s31)
    store_half(x, at + 4, s32)
    store_half(x, at + 6, s33)
