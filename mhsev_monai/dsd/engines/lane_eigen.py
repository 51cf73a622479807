"""Eigenvalues and leading eigenvectors of symmetric matrices, one in each lane, without a branch lanes disagree on.

Householder tridiagonalisation (LAPACK's ``sytd2``); eigenvalues by the root-free QL iteration of Pal, Walker and Kahan
(LAPACK's ``sterf``); one QL sweep for each wanted value with that value as the shift, which makes its off-diagonal
vanish at once (Parlett, The Symmetric Eigenvalue Problem, section 8.13: perfect shifts); the stored rotations and
reflectors applied to the wanted unit vectors only.

A matrix is a packed lower triangle of trace 1: row i begins at ``triangle(i)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mhsev_monai.dsd.engines.lane_products import Rows, triangle
from mhsev_monai.dsd.engines.mixing import MIXING
from mhsev_monai.dsd.engines.simd import FAINT, LANES, any_lane, higher_of, load, magnitude, root, splat, store, where

MAX_SWEEPS = 5
"""Sweeps for one kept value at most; two are the rule."""
_ALONE = 2e-7
"""Off-diagonal, over the trace, beside an eigenvalue that counts as standing alone."""
_VALUES_DONE = 1e-12
"""Squared off-diagonal, over the squared trace, that no longer changes an eigenvalue in float32."""
_VECTORS_DONE = 1e-8
"""Off-diagonal, over the trace, that no longer turns an eigenvector visibly."""


@njit(nogil=True)
def tridiagonalise(gram: Rows, n: int, diagonal: Rows, beside: Rows, tau: Rows, v: Rows, p: Rows) -> None:
    """``gram`` becomes its reflectors; its tridiagonal form goes to ``diagonal`` and ``beside``."""
    for k in range(n - 2):
        beta, factor = _reflector(gram, n, k, v, p)
        store(beside, k, beta)
        store(tau, k, factor)
        store(diagonal, k, load(gram, triangle(k) + k))
        _reflect(gram, n, k + 1, factor, v, p)
        at = triangle(k + 1) + k
        for i in range(k + 2, n):
            at += i
            store(gram, at, load(v, i))
    store(diagonal, n - 2, load(gram, triangle(n - 2) + n - 2))
    store(diagonal, n - 1, load(gram, triangle(n) - 1))
    store(beside, n - 2, load(gram, triangle(n) - 2))
    store(beside, n - 1, 0.0)


@njit(nogil=True)
def _reflect(gram: Rows, n: int, first: int, factor: Any, v: Rows, p: Rows) -> None:
    """``H gram H`` with ``H = 1 - factor v v^T`` on the rows and columns from ``first`` on; ``p`` holds zeros."""
    _multiply(gram, n, first, v, p)
    product = splat(0.0)
    for i in range(first, n):
        scaled = load(p, i) * factor
        store(p, i, scaled)
        product = product + scaled * load(v, i)
    share = factor * product * -0.5
    for i in range(first, n):
        store(p, i, load(p, i) + share * load(v, i))
    _subtract(gram, n, first, v, p)


@njit(nogil=True)
def _mixing_factor(n: int) -> Any:
    squares = np.float32(0.0)
    for i in range(n):
        squares += MIXING[i] * MIXING[i]
    return np.float32(2.0) / squares


@njit(nogil=True)
def mix(gram: Rows, n: int, v: Rows, p: Rows) -> None:
    """Reflect every matrix along one fixed direction, so that none is in blocks.

    The tridiagonal form of a matrix in blocks falls apart, and the eigenvalue that a sweep looks for may lie in another
    part than the sweep ends in.
    """
    for i in range(n):
        store(v, i, MIXING[i])
        store(p, i, 0.0)
    _reflect(gram, n, 0, splat(_mixing_factor(n)), v, p)


@njit(nogil=True)
def unmix(z: Rows, n: int, width: int) -> None:
    """Take :func:`mix` back on the columns of ``z``; four columns at a time."""
    factor = _mixing_factor(n)
    for column in range(0, width, 4):
        s0 = s1 = s2 = s3 = splat(0.0)
        for i in range(n):
            at, share = i * n + column, MIXING[i] * factor
            s0, s1 = s0 + load(z, at) * share, s1 + load(z, at + 1) * share
            s2, s3 = s2 + load(z, at + 2) * share, s3 + load(z, at + 3) * share
        for i in range(n):
            at, u = i * n + column, MIXING[i]
            store(z, at, load(z, at) - s0 * u)
            store(z, at + 1, load(z, at + 1) - s1 * u)
            store(z, at + 2, load(z, at + 2) - s2 * u)
            store(z, at + 3, load(z, at + 3) - s3 * u)


@njit(nogil=True)
def _reflector(gram: Rows, n: int, k: int, v: Rows, p: Rows) -> Any:
    """Reflection that clears column ``k`` below its first off-diagonal: ``v`` (1 in front), and its factor."""
    at = triangle(k + 1) + k
    first = load(gram, at)
    squares = splat(0.0)
    for i in range(k + 2, n):
        at += i
        value = load(gram, at)
        squares = squares + value * value
    nothing = squares <= FAINT
    length = root(first * first + squares)
    beta = where(first < 0.0, length, 0.0 - length)
    factor = where(nothing, 0.0, (beta - first) / where(nothing, 1.0, beta))
    scale = where(nothing, 0.0, 1.0 / where(nothing, 1.0, first - beta))
    store(v, k + 1, 1.0)
    store(p, k + 1, 0.0)
    at = triangle(k + 1) + k
    for i in range(k + 2, n):
        at += i
        store(v, i, load(gram, at) * scale)
        store(p, i, 0.0)
    return where(nothing, first, beta), factor


@njit(nogil=True)
def _multiply(gram: Rows, n: int, first: int, v: Rows, p: Rows) -> None:
    """``p += gram v`` over the rows and columns from ``first`` on; two columns at a time."""
    j = first
    while j + 1 < n:
        at = triangle(j) + j
        v0, v1 = load(v, j), load(v, j + 1)
        corner, last = load(gram, at + j + 1), load(gram, at + j + 2)
        sum0 = load(gram, at) * v0 + corner * v1
        sum1 = corner * v0 + last * v1
        at += j + 1
        for i in range(j + 2, n):
            at += i
            g0, g1, vi = load(gram, at), load(gram, at + 1), load(v, i)
            store(p, i, load(p, i) + g0 * v0 + g1 * v1)
            sum0 = sum0 + g0 * vi
            sum1 = sum1 + g1 * vi
        store(p, j, load(p, j) + sum0)
        store(p, j + 1, load(p, j + 1) + sum1)
        j += 2
    if j < n:
        store(p, j, load(p, j) + load(gram, triangle(j) + j) * load(v, j))


@njit(nogil=True)
def _subtract(gram: Rows, n: int, first: int, v: Rows, p: Rows) -> None:
    """``gram -= v p^T + p v^T`` over the rows and columns from ``first`` on; two columns at a time."""
    j = first
    while j + 1 < n:
        at = triangle(j) + j
        v0, v1, p0, p1 = load(v, j), load(v, j + 1), load(p, j), load(p, j + 1)
        store(gram, at, load(gram, at) - 2.0 * (v0 * p0))
        at += j + 1
        for i in range(j + 1, n):
            vi, pi = load(v, i), load(p, i)
            store(gram, at, load(gram, at) - vi * p0 - pi * v0)
            store(gram, at + 1, load(gram, at + 1) - vi * p1 - pi * v1)
            at += i + 1
        j += 2
    if j < n:
        at = triangle(j) + j
        store(gram, at, load(gram, at) - 2.0 * (load(v, j) * load(p, j)))


@njit(nogil=True)
def _shift_of(diagonal: Rows, first: int, square: Any) -> Any:
    """The eigenvalue of the 2 x 2 block at ``first`` that lies nearer to its first entry (Wilkinson's shift)."""
    value = load(diagonal, first)
    halved = (load(diagonal, first + 1) - value) * 0.5
    radius = root(halved * halved + square + FAINT)
    return value - square / (halved + where(halved < 0.0, 0.0 - radius, radius))


@njit(nogil=True)
def eigenvalues(diagonal: Rows, squares: Rows, n: int) -> None:
    """``diagonal`` becomes the eigenvalues, in no order; ``squares`` holds the squared off-diagonal, and is used up."""
    for first in range(n - 1):
        for _ in range(16):
            active = load(squares, first) > _VALUES_DONE
            if not any_lane(active):
                break
            shift = _shift_of(diagonal, first, load(squares, first))
            cosine, sine = splat(1.0), splat(0.0)
            gamma = load(diagonal, n - 1) - shift
            power = gamma * gamma
            for i in range(n - 2, first - 1, -1):
                square = load(squares, i)
                total = power + square
                # Their reciprocals do not wait for each other.
                inverse_total, inverse_power = 1.0 / higher_of(total, FAINT), 1.0 / higher_of(power, FAINT)
                if i < n - 2:
                    store(squares, i + 1, where(active, sine * total, load(squares, i + 1)))
                before, nothing = cosine, total <= FAINT
                cosine = where(nothing, 1.0, power * inverse_total)
                sine = where(nothing, 0.0, square * inverse_total)
                old, value = gamma, load(diagonal, i)
                gamma = cosine * (value - shift) - sine * old
                store(diagonal, i + 1, where(active, old + (value - gamma), load(diagonal, i + 1)))
                vanished = (power <= FAINT) & (square > FAINT)
                power = where(vanished, before * square, gamma * gamma * where(nothing, 1.0, total * inverse_power))
            store(squares, first, where(active, sine * power, load(squares, first)))
            store(diagonal, first, where(active, shift + gamma, load(diagonal, first)))


@njit(nogil=True)
def deflate(
    diagonal: Rows, beside: Rows, values: Rows, least: Any, n: int, kept: Rows, turns: Rows, starts: NDArray[np.int64]
) -> int:
    """Sweeps until every kept eigenvalue stands alone; returns their number, ``starts`` the places that they end in.

    Place after place takes the kept values in turn. A sweep can end with another eigenvalue than it was meant for where
    that one is cut off already; lanes in which a value is lacking go on with the places behind.
    """
    n_sweeps, count = 0, load(kept, 0)
    fewest = lowest_lane(kept)
    for place in range(n - 1):
        meant = count > np.float32(place)
        wanted = meant
        if place >= fewest:
            wanted = meant | (_settled(diagonal, beside, n, least) < count)
        if not any_lane(wanted):
            break
        for repeat in range(MAX_SWEEPS):
            active = wanted
            if repeat > 0:
                active = active & (magnitude(load(beside, place)) > _VECTORS_DONE)
                if not any_lane(active):
                    break
            side = load(beside, place)
            shift = _shift_of(diagonal, place, side * side)
            if repeat < 2:
                shift = where(meant, load(values, place), shift)
            _sweep(diagonal, beside, n, place, shift, active, turns, n_sweeps * 2 * n)
            starts[n_sweeps] = place
            n_sweeps += 1
    return n_sweeps


@njit(nogil=True)
def lowest_lane(row: Rows) -> int:
    """The lowest number of a row of whole numbers."""
    lowest = row[0]
    for lane in range(1, LANES):
        lowest = min(lowest, row[lane])
    return int(lowest)


@njit(nogil=True)
def _settled(diagonal: Rows, beside: Rows, n: int, least: Any) -> Any:
    """How many eigenvalues above ``least`` stand alone on the diagonal."""
    found, above = splat(0.0), splat(0.0)
    for i in range(n):
        below = magnitude(load(beside, i)) if i < n - 1 else splat(0.0)
        alone = (above <= _ALONE) & (below <= _ALONE) & (load(diagonal, i) > least)
        found = found + where(alone, 1.0, 0.0)
        above = below
    return found


@njit(nogil=True)
def _sweep(diagonal: Rows, beside: Rows, n: int, first: int, shift: Any, active: Any, turns: Rows, at: int) -> None:
    """One QL sweep with a given shift down to ``first``; its cosines and sines go to ``turns`` from row ``at`` on.

    The angles come from the shifted matrix (EISPACK's ``tql2``), which a matrix that falls apart does not confuse. The
    diagonal is turned without the shift (as in ``imtql2``): subtracting a large one and adding it again would cost its
    small entries the digits that tell two close eigenvalues apart.
    """
    cosine, sine, moved = splat(1.0), splat(0.0), splat(0.0)
    p = load(diagonal, n - 1) - shift
    for i in range(n - 2, first - 1, -1):
        side, value, below = load(beside, i), load(diagonal, i), load(diagonal, i + 1)
        b = cosine * side
        square = p * p + side * side
        nothing = square <= FAINT
        length = root(higher_of(square, FAINT))
        inverse = 1.0 / length
        if i < n - 2:
            store(beside, i + 1, where(active, sine * length, load(beside, i + 1)))
        sine = where(nothing, 0.0, side * inverse)
        cosine = where(nothing, 1.0, p * inverse)
        p = cosine * (value - shift) - sine * b
        old = below - moved
        moved = sine * ((value - old) * sine + 2.0 * (cosine * b))
        store(diagonal, i + 1, where(active, old + moved, below))
        store(turns, at + 2 * i, where(active, cosine, 1.0))
        store(turns, at + 2 * i + 1, where(active, sine, 0.0))
    store(diagonal, first, where(active, load(diagonal, first) - moved, load(diagonal, first)))
    store(beside, first, where(active, sine * p, load(beside, first)))


@njit(nogil=True)
def unit_vectors(diagonal: Rows, least: Any, n: int, kept: Rows, z: Rows) -> int:
    """Unit vectors of the places that hold kept eigenvalues, zeros for the others; returns the columns to go through.

    The places are the first ones as a rule. Where the matrix had fallen apart, an eigenvalue may stand behind them.
    """
    for i in range(n * n):
        store(z, i, 0.0)
    room, width = load(kept, 0), 0
    for column in range(n):
        chosen = (load(diagonal, column) > least) & (room > 0.0)
        room = where(chosen, room - 1.0, room)
        if any_lane(chosen):
            store(z, column * n + column, where(chosen, 1.0, 0.0))
            width = column + 1
    return min(n, (width + 3) & ~3)


@njit(nogil=True)
def turn_back(z: Rows, n: int, width: int, turns: Rows, starts: NDArray[np.int64], n_sweeps: int) -> None:
    """The sweeps' rotations, last sweep first, on the columns of ``z``; four columns at a time."""
    for sweep in range(n_sweeps - 1, -1, -1):
        first, angles = starts[sweep], sweep * 2 * n
        # A unit vector that stands before the sweep's first row is not touched by it.
        for column in range(first & ~3, width, 4):
            at = first * n + column
            h0, h1, h2, h3 = load(z, at), load(z, at + 1), load(z, at + 2), load(z, at + 3)
            for i in range(first, n - 1):
                c, s = load(turns, angles + 2 * i), load(turns, angles + 2 * i + 1)
                b0, b1, b2, b3 = load(z, at + n), load(z, at + n + 1), load(z, at + n + 2), load(z, at + n + 3)
                store(z, at, c * h0 + s * b0)
                store(z, at + 1, c * h1 + s * b1)
                store(z, at + 2, c * h2 + s * b2)
                store(z, at + 3, c * h3 + s * b3)
                h0, h1, h2, h3 = c * b0 - s * h0, c * b1 - s * h1, c * b2 - s * h2, c * b3 - s * h3
                at += n
            store(z, at, h0)
            store(z, at + 1, h1)
            store(z, at + 2, h2)
            store(z, at + 3, h3)


@njit(nogil=True)
def reflect_back(z: Rows, n: int, width: int, gram: Rows, tau: Rows) -> None:
    """The reflectors, last one first, on the columns of ``z``; four columns at a time."""
    for k in range(n - 3, -1, -1):
        factor = load(tau, k)
        for column in range(0, width, 4):
            start = (k + 1) * n + column
            s0, s1, s2, s3 = load(z, start), load(z, start + 1), load(z, start + 2), load(z, start + 3)
            at, place = triangle(k + 1) + k, start
            for i in range(k + 2, n):
                at += i
                place += n
                v = load(gram, at)
                s0, s1 = s0 + v * load(z, place), s1 + v * load(z, place + 1)
                s2, s3 = s2 + v * load(z, place + 2), s3 + v * load(z, place + 3)
            s0, s1, s2, s3 = s0 * factor, s1 * factor, s2 * factor, s3 * factor
            store(z, start, load(z, start) - s0)
            store(z, start + 1, load(z, start + 1) - s1)
            store(z, start + 2, load(z, start + 2) - s2)
            store(z, start + 3, load(z, start + 3) - s3)
            at, place = triangle(k + 1) + k, start
            for i in range(k + 2, n):
                at += i
                place += n
                v = load(gram, at)
                store(z, place, load(z, place) - v * s0)
                store(z, place + 1, load(z, place + 1) - v * s1)
                store(z, place + 2, load(z, place + 2) - v * s2)
                store(z, place + 3, load(z, place + 3) - v * s3)
