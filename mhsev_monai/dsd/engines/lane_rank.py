"""Real matrices rebuilt from their leading components, one matrix in each lane.

The projection ``x V V^T`` needs the K leading eigenvectors of the Gram matrix ``x^T x`` alone. Everything lies in flat
arrays of rows (see :mod:`mhsev_monai.dsd.engines.simd`). Squares of eigenvalues stay well inside float32 because the
Gram matrix is divided by its trace.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mhsev_monai.dsd.engines.lane_eigen import (
    MAX_SWEEPS,
    deflate,
    eigenvalues,
    mix,
    reflect_back,
    tridiagonalise,
    turn_back,
    unit_vectors,
    unmix,
)
from mhsev_monai.dsd.engines.lane_products import Rows, onto_components, scaled_gram, triangle
from mhsev_monai.dsd.engines.simd import LANES, higher_of, load, lower_of, splat, store, where


def scratch_rows(n: int) -> int:
    """Rows of the scratch that :func:`project` needs for matrices of ``n`` columns."""
    return n * (n + 1) // 2 + n * n + 4 * n + 7 * n + 1 + MAX_SWEEPS * n * 2 * n


@njit(nogil=True)
def _sort_falling(values: Rows, n: int) -> None:
    for turn in range(n):
        for i in range(turn & 1, n - 1, 2):
            a, b = load(values, i), load(values, i + 1)
            store(values, i, higher_of(a, b))
            store(values, i + 1, lower_of(a, b))


@njit(nogil=True)
def _count_kept(values: Rows, n: int, energy: float, tie: float, kept: Rows) -> Any:
    """Components of each lane to ``kept``, whose lanes with a negative number keep none.

    Returns a number between the last kept and the first dropped eigenvalue of each lane.
    """
    total = splat(0.0)
    for i in range(n):
        total = total + higher_of(load(values, i), 0.0)
    limit = total * np.float32(energy)
    # Infinity: no value is near enough to be kept with the last one.
    near = np.float32((1 - tie) * (1 - tie) if tie > 0 else np.inf)
    wanted = load(kept, 0) >= 0.0
    count, cumulative, last = splat(0.0), splat(0.0), splat(0.0)
    for i in range(n):
        value = higher_of(load(values, i), 0.0)
        open_still = cumulative <= limit
        last = where(open_still, value, last)
        inside = wanted & (open_still | (value >= last * near))
        count = where(inside & (count >= np.float32(i)), count + 1.0, count)
        cumulative = cumulative + value
    store(kept, 0, count)
    lowest_kept, highest_dropped = splat(2.0), splat(-1.0)
    for i in range(n):
        inside, value = count > np.float32(i), load(values, i)
        lowest_kept = where(inside, value, lowest_kept)
        highest_dropped = where(inside, highest_dropped, higher_of(highest_dropped, value))
    return (lowest_kept + highest_dropped) * 0.5


@njit(nogil=True)
def project(
    x: Rows,
    n_rows: int,
    n: int,
    pitch: int,
    energy: float,
    tie: float,
    kept: Rows,
    scratch: Rows,
    starts: NDArray[np.int64],
) -> None:
    """Replace each lane's matrix by its projection on its leading components.

    Args:
        x: rows ``r * pitch + c`` hold entry (r, c) of ``n_rows`` by ``n``; both multiples of 4.
        n_rows: of the matrices.
        n: columns.
        pitch: rows of ``x`` from one matrix row to the next, at least ``n``; odd numbers spare the cache.
        energy: see :func:`mhsev_monai.dsd.rank.select_rank`.
        tie: see :func:`mhsev_monai.dsd.rank.extend_ties`.
        kept: one row; a negative number in a lane asks for no component there. Becomes the numbers of components.
        scratch: ``scratch_rows(n)`` rows.
        starts: ``MAX_SWEEPS * n`` integers of scratch.
    """
    end = triangle(n)
    gram = scratch[: end * LANES]
    z = scratch[end * LANES : (end + n * n) * LANES]
    end += n * n
    parts = scratch[end * LANES : (end + 4 * n) * LANES]
    end += 4 * n
    diagonal = scratch[end * LANES : (end + n) * LANES]
    beside = scratch[(end + n) * LANES : (end + 2 * n) * LANES]
    values = scratch[(end + 2 * n) * LANES : (end + 3 * n) * LANES]
    squares = scratch[(end + 3 * n) * LANES : (end + 4 * n) * LANES]
    tau = scratch[(end + 4 * n) * LANES : (end + 5 * n) * LANES]
    v = scratch[(end + 5 * n) * LANES : (end + 6 * n) * LANES]
    p = scratch[(end + 6 * n) * LANES : (end + 7 * n) * LANES]
    turns = scratch[(end + 7 * n) * LANES :]

    scaled_gram(x, n_rows, n, pitch, gram)
    mix(gram, n, v, p)
    tridiagonalise(gram, n, diagonal, beside, tau, v, p)
    for i in range(n):
        side = load(beside, i)
        store(values, i, load(diagonal, i))
        store(squares, i, side * side)
    eigenvalues(values, squares, n)
    _sort_falling(values, n)
    least = _count_kept(values, n, energy, tie, kept)
    n_sweeps = deflate(diagonal, beside, values, least, n, kept, turns, starts)
    width = unit_vectors(diagonal, least, n, kept, z)
    turn_back(z, n, width, turns, starts, n_sweeps)
    reflect_back(z, n, width, gram, tau)
    unmix(z, n, width)
    onto_components(x, n_rows, n, pitch, z, width, parts)
