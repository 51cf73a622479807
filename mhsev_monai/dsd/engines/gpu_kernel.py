"""The rank-K projection as a Triton kernel: one matrix in each lane, step by step as ``lane_rank`` does it.

Matrices come transposed, ``(rows * columns, count)``, so that neighbouring lanes read neighbouring addresses. All else
lies in a scratch of rows of ``NB`` numbers that belongs to one program, which goes through many blocks of matrices. A
lane reads only what it wrote itself, hence no barrier is needed, as long as a program has no more lanes than a warp.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN202  Triton's own types do not exist for type checkers.

from __future__ import annotations

import triton
from triton import language as tl

SWEEPS = 5
"""Sweeps for one kept value at most."""


def scratch_rows(n: int) -> int:
    """Rows of ``NB`` float32 that one program needs for matrices of ``n`` columns."""
    return n * (n + 1) // 2 + 9 * n + SWEEPS * n * (n - 1)


@triton.jit
def _triangle(i):
    return i * (i + 1) // 2


@triton.jit
def _angles(turns, first, sweep, N: tl.constexpr, NB: tl.constexpr, SWEEPS: tl.constexpr):
    """Where the cosine of place 0 of a sweep would lie; one down to ``first`` keeps those from there on."""
    before = SWEEPS * (first * (2 * N - 1 - first))
    return turns + (before + sweep * 2 * (N - 1 - first) - 2 * first) * NB


@triton.jit
def _gram(x, gram, live, count, m, N: tl.constexpr, NB: tl.constexpr):
    """Lower triangle of ``x^T x`` over its trace; returns the trace."""
    trace = tl.zeros((NB,), tl.float32)
    for i in range(N):
        for j in range(i + 1):
            total = tl.zeros((NB,), tl.float32)
            for row in range(m):
                left = tl.load(x + (row * N + i) * count, mask=live, other=0.0)
                total += left * tl.load(x + (row * N + j) * count, mask=live, other=0.0)
            tl.store(gram + (_triangle(i) + j) * NB, total)
            if i == j:
                trace += total
    # Dust below this would have no finite reciprocal.
    scale = 1.0 / tl.where(trace > 1e-30, trace, 1.0)
    for i in range(N * (N + 1) // 2):
        tl.store(gram + i * NB, tl.load(gram + i * NB) * scale)
    return trace


@triton.jit
def _reflect(gram, first, factor, v, p, N: tl.constexpr, NB: tl.constexpr):
    """``H gram H`` with ``H = 1 - factor v v^T`` on the rows and columns from ``first`` on; ``p`` holds zeros."""
    for j in range(first, N):
        vj = tl.load(v + j * NB)
        total = tl.load(gram + (_triangle(j) + j) * NB) * vj
        for i in range(j + 1, N):
            g = tl.load(gram + (_triangle(i) + j) * NB)
            tl.store(p + i * NB, tl.load(p + i * NB) + g * vj)
            total += g * tl.load(v + i * NB)
        tl.store(p + j * NB, tl.load(p + j * NB) + total)
    product = tl.zeros((NB,), tl.float32)
    for i in range(first, N):
        scaled = tl.load(p + i * NB) * factor
        tl.store(p + i * NB, scaled)
        product += scaled * tl.load(v + i * NB)
    share = -0.5 * factor * product
    for i in range(first, N):
        tl.store(p + i * NB, tl.load(p + i * NB) + share * tl.load(v + i * NB))
    for j in range(first, N):
        vj = tl.load(v + j * NB)
        pj = tl.load(p + j * NB)
        for i in range(j, N):
            at = gram + (_triangle(i) + j) * NB
            tl.store(at, tl.load(at) - tl.load(v + i * NB) * pj - tl.load(p + i * NB) * vj)


@triton.jit
def _mix(gram, mixing, v, p, N: tl.constexpr, NB: tl.constexpr):
    """Reflect every matrix along one fixed direction, so that none is in blocks; returns the reflector's factor."""
    squares = tl.zeros((NB,), tl.float32)
    for i in range(N):
        u = tl.zeros((NB,), tl.float32) + tl.load(mixing + i)
        tl.store(v + i * NB, u)
        tl.store(p + i * NB, tl.zeros((NB,), tl.float32))
        squares += u * u
    _reflect(gram, 0, 2.0 / squares, v, p, N, NB)
    return 2.0 / squares


@triton.jit
def _tridiagonalise(gram, diagonal, beside, tau, v, p, N: tl.constexpr, NB: tl.constexpr):
    """Householder: ``gram`` becomes its reflectors."""
    for k in range(N - 2):
        first = tl.load(gram + (_triangle(k + 1) + k) * NB)
        squares = tl.zeros((NB,), tl.float32)
        for i in range(k + 2, N):
            value = tl.load(gram + (_triangle(i) + k) * NB)
            squares += value * value
        nothing = squares <= 1e-30
        length = tl.sqrt(first * first + squares)
        beta = tl.where(first < 0, length, -length)
        factor = tl.where(nothing, 0.0, (beta - first) / tl.where(nothing, 1.0, beta))
        scale = tl.where(nothing, 0.0, 1.0 / tl.where(nothing, 1.0, first - beta))
        tl.store(diagonal + k * NB, tl.load(gram + (_triangle(k) + k) * NB))
        tl.store(beside + k * NB, tl.where(nothing, first, beta))
        tl.store(tau + k * NB, factor)
        tl.store(v + (k + 1) * NB, tl.full((NB,), 1.0, tl.float32))
        tl.store(p + (k + 1) * NB, tl.zeros((NB,), tl.float32))
        for i in range(k + 2, N):
            tl.store(v + i * NB, tl.load(gram + (_triangle(i) + k) * NB) * scale)
            tl.store(p + i * NB, tl.zeros((NB,), tl.float32))
        _reflect(gram, k + 1, factor, v, p, N, NB)
        for i in range(k + 2, N):
            tl.store(gram + (_triangle(i) + k) * NB, tl.load(v + i * NB))
    tl.store(diagonal + (N - 2) * NB, tl.load(gram + (N * (N - 1) // 2 - 1) * NB))
    tl.store(diagonal + (N - 1) * NB, tl.load(gram + (N * (N + 1) // 2 - 1) * NB))
    tl.store(beside + (N - 2) * NB, tl.load(gram + (N * (N + 1) // 2 - 2) * NB))
    tl.store(beside + (N - 1) * NB, tl.zeros((NB,), tl.float32))


@triton.jit
def _eigenvalues(values, squares, N: tl.constexpr, NB: tl.constexpr):
    """Root-free QL (Pal, Walker, Kahan): ``values`` becomes the eigenvalues, in no order."""
    for first in range(N - 1):
        active = tl.load(squares + first * NB) > 1e-12
        turn = 0
        while (tl.max(active.to(tl.int32), axis=0) > 0) & (turn < 16):
            value = tl.load(values + first * NB)
            square = tl.load(squares + first * NB)
            halved = (tl.load(values + (first + 1) * NB) - value) * 0.5
            radius = tl.sqrt(halved * halved + square + 1e-30)
            shift = value - square / (halved + tl.where(halved < 0, -radius, radius))
            cosine = tl.full((NB,), 1.0, tl.float32)
            sine = tl.zeros((NB,), tl.float32)
            gamma = tl.load(values + (N - 1) * NB) - shift
            power = gamma * gamma
            for i in range(N - 2, first - 1, -1):
                square = tl.load(squares + i * NB)
                total = power + square
                kept = tl.load(squares + (i + 1) * NB)
                tl.store(squares + (i + 1) * NB, tl.where(active & (i < N - 2), sine * total, kept))
                before = cosine
                nothing = total <= 1e-30
                cosine = tl.where(nothing, 1.0, power / tl.maximum(total, 1e-30))
                sine = tl.where(nothing, 0.0, square / tl.maximum(total, 1e-30))
                old = gamma
                value = tl.load(values + i * NB)
                gamma = cosine * (value - shift) - sine * old
                kept = tl.load(values + (i + 1) * NB)
                tl.store(values + (i + 1) * NB, tl.where(active, old + (value - gamma), kept))
                vanished = (power <= 1e-30) & (square > 1e-30)
                ratio = tl.where(nothing, 1.0, total / tl.maximum(power, 1e-30))
                power = tl.where(vanished, before * square, gamma * gamma * ratio)
            kept = tl.load(squares + first * NB)
            tl.store(squares + first * NB, tl.where(active, sine * power, kept))
            kept = tl.load(values + first * NB)
            tl.store(values + first * NB, tl.where(active, shift + gamma, kept))
            active = tl.load(squares + first * NB) > 1e-12
            turn += 1


@triton.jit
def _select(values, energy, near, N: tl.constexpr, NB: tl.constexpr):
    """Sorts ``values``; returns K, and a number between the last kept and the first dropped one."""
    for turn in range(N):
        for pair in range(N // 2):
            i = 2 * pair + (turn & 1)
            if i + 1 < N:
                a = tl.load(values + i * NB)
                b = tl.load(values + (i + 1) * NB)
                tl.store(values + i * NB, tl.maximum(a, b))
                tl.store(values + (i + 1) * NB, tl.minimum(a, b))
    total = tl.zeros((NB,), tl.float32)
    for i in range(N):
        total += tl.maximum(tl.load(values + i * NB), 0.0)
    rank = tl.zeros((NB,), tl.int32)
    cumulative = tl.zeros((NB,), tl.float32)
    last = tl.zeros((NB,), tl.float32)
    for i in range(N):
        value = tl.maximum(tl.load(values + i * NB), 0.0)
        open_still = cumulative <= total * energy
        last = tl.where(open_still, value, last)
        rank += ((open_still | (value >= last * near)) & (rank == i)).to(tl.int32)
        cumulative += value
    lowest = tl.full((NB,), 2.0, tl.float32)
    highest = tl.full((NB,), -1.0, tl.float32)
    for i in range(N):
        value = tl.load(values + i * NB)
        lowest = tl.where(rank > i, value, lowest)
        highest = tl.where(rank > i, highest, tl.maximum(highest, value))
    return rank, (lowest + highest) * 0.5


@triton.jit
def _sweep(diagonal, beside, turns, shift, active, first, N: tl.constexpr, NB: tl.constexpr):
    """One QL sweep down to ``first``: angles from the shifted matrix, the diagonal turned without the shift."""
    cosine = tl.full((NB,), 1.0, tl.float32)
    sine = tl.zeros((NB,), tl.float32)
    moved = tl.zeros((NB,), tl.float32)
    p = tl.load(diagonal + (N - 1) * NB) - shift
    for i in range(N - 2, first - 1, -1):
        side = tl.load(beside + i * NB)
        value = tl.load(diagonal + i * NB)
        below = tl.load(diagonal + (i + 1) * NB)
        b = cosine * side
        square = p * p + side * side
        nothing = square <= 1e-30
        length = tl.sqrt(tl.maximum(square, 1e-30))
        kept = tl.load(beside + (i + 1) * NB)
        tl.store(beside + (i + 1) * NB, tl.where(active & (i < N - 2), sine * length, kept))
        sine = tl.where(nothing, 0.0, side / length)
        cosine = tl.where(nothing, 1.0, p / length)
        p = cosine * (value - shift) - sine * b
        old = below - moved
        moved = sine * ((value - old) * sine + 2.0 * (cosine * b))
        tl.store(diagonal + (i + 1) * NB, tl.where(active, old + moved, below))
        tl.store(turns + 2 * i * NB, tl.where(active, cosine, 1.0))
        tl.store(turns + (2 * i + 1) * NB, tl.where(active, sine, 0.0))
    kept = tl.load(diagonal + first * NB)
    tl.store(diagonal + first * NB, tl.where(active, kept - moved, kept))
    kept = tl.load(beside + first * NB)
    tl.store(beside + first * NB, tl.where(active, sine * p, kept))


@triton.jit
def _lacking(diagonal, beside, least, rank, N: tl.constexpr, NB: tl.constexpr):
    """Lanes where fewer than ``rank`` eigenvalues above ``least`` stand alone on the diagonal."""
    found = tl.zeros((NB,), tl.int32)
    above = tl.zeros((NB,), tl.float32)
    for i in range(N):
        below = tl.abs(tl.load(beside + i * NB))
        alone = (above <= 2e-7) & ((below <= 2e-7) | (i == N - 1)) & (tl.load(diagonal + i * NB) > least)
        found += alone.to(tl.int32)
        above = below
    return found < rank


@triton.jit
def _deflate(
    diagonal, beside, values, turns, done, least, rank, N: tl.constexpr, NB: tl.constexpr, SWEEPS: tl.constexpr
):
    """Sweeps until the kept eigenvalues stand alone; ``done`` gets the number of sweeps for each place."""
    fewest = tl.min(rank, axis=0)
    for first in range(N - 1):
        n_sweeps = 0
        meant = rank > first
        wanted = meant
        if first >= fewest:
            # A sweep can end with another eigenvalue than it was meant for: go on where one is lacking.
            wanted = meant | _lacking(diagonal, beside, least, rank, N, NB)
        active = wanted
        while (tl.max(active.to(tl.int32), axis=0) > 0) & (n_sweeps < SWEEPS):
            # Wilkinson's shift: the eigenvalue of the 2 x 2 block that lies nearer to its first entry.
            value = tl.load(diagonal + first * NB)
            side = tl.load(beside + first * NB)
            halved = (tl.load(diagonal + (first + 1) * NB) - value) * 0.5
            radius = tl.sqrt(halved * halved + side * side + 1e-30)
            shift = value - side * side / (halved + tl.where(halved < 0, -radius, radius))
            shift = tl.where(meant & (n_sweeps < 2), tl.load(values + first * NB), shift)
            _sweep(diagonal, beside, _angles(turns, first, n_sweeps, N, NB, SWEEPS), shift, active, first, N, NB)
            n_sweeps += 1
            active = wanted & (tl.abs(tl.load(beside + first * NB)) > 1e-8)
        tl.store(done + first * NB, tl.full((NB,), 0.0, tl.float32) + n_sweeps)


@triton.jit
def _eigenvector(
    z, gram, tau, turns, done, mixing, factor, chosen, column, N: tl.constexpr, NB: tl.constexpr, SWEEPS: tl.constexpr
):
    """``z`` becomes the eigenvector of place ``column``, zero in the lanes that are not ``chosen``."""
    for i in range(N):
        tl.store(z + i * NB, tl.where(chosen & (i == column), 1.0, 0.0))
    for first in range(N - 2, -1, -1):
        if first <= column:
            n_sweeps = tl.max(tl.load(done + first * NB), axis=0).to(tl.int32)
            for sweep in range(n_sweeps - 1, -1, -1):
                angles = _angles(turns, first, sweep, N, NB, SWEEPS)
                carried = tl.load(z + first * NB)
                for i in range(first, N - 1):
                    cosine = tl.load(angles + 2 * i * NB)
                    sine = tl.load(angles + (2 * i + 1) * NB)
                    below = tl.load(z + (i + 1) * NB)
                    tl.store(z + i * NB, cosine * carried + sine * below)
                    carried = cosine * below - sine * carried
                tl.store(z + (N - 1) * NB, carried)
    for k in range(N - 3, -1, -1):
        total = tl.load(z + (k + 1) * NB)
        for i in range(k + 2, N):
            total += tl.load(gram + (_triangle(i) + k) * NB) * tl.load(z + i * NB)
        total *= tl.load(tau + k * NB)
        tl.store(z + (k + 1) * NB, tl.load(z + (k + 1) * NB) - total)
        for i in range(k + 2, N):
            tl.store(z + i * NB, tl.load(z + i * NB) - total * tl.load(gram + (_triangle(i) + k) * NB))
    total = tl.zeros((NB,), tl.float32)
    for i in range(N):
        total += tl.load(mixing + i) * tl.load(z + i * NB)
    for i in range(N):
        tl.store(z + i * NB, tl.load(z + i * NB) - factor * total * tl.load(mixing + i))


@triton.jit
def rank_k_kernel(
    x,
    y,
    ranks,
    mixing,
    scratch,
    count,
    m,
    energy,
    near,
    N: tl.constexpr,
    NB: tl.constexpr,
    SWEEPS: tl.constexpr,
):
    """Add each matrix's projection on its leading components to ``y``, which holds zeros.

    Args:
        x: ``(m * N, count)`` float32.
        y: the same shape, zeros.
        ranks: ``(count,)`` int32; becomes K.
        mixing: at least N numbers, none near 0; see :func:`_mix`.
        scratch: ``(programs, scratch_rows(N), NB)`` float32.
        count: matrices.
        m: rows of a matrix.
        energy: fraction that K exceeds.
        near: ``(1 - tie) ** 2``.
        N: columns of a matrix.
        NB: lanes of a program.
        SWEEPS: see the module's constant.
    """
    lane = tl.arange(0, NB)
    gram = scratch + tl.program_id(0).to(tl.int64) * (N * (N + 1) // 2 + 9 * N + SWEEPS * N * (N - 1)) * NB + lane
    diagonal = gram + N * (N + 1) // 2 * NB
    beside = diagonal + N * NB
    values = beside + N * NB
    squares = values + N * NB
    tau = squares + N * NB
    v = tau + N * NB
    p = v + N * NB
    z = p + N * NB
    done = z + N * NB
    turns = done + N * NB
    for block in range(tl.program_id(0), tl.cdiv(count, NB), tl.num_programs(0)):
        place = block * NB + lane
        live = place < count
        _gram(x + place, gram, live, count, m, N, NB)
        factor = _mix(gram, mixing, v, p, N, NB)
        _tridiagonalise(gram, diagonal, beside, tau, v, p, N, NB)
        for i in range(N):
            side = tl.load(beside + i * NB)
            tl.store(values + i * NB, tl.load(diagonal + i * NB))
            tl.store(squares + i * NB, side * side)
        _eigenvalues(values, squares, N, NB)
        rank, least = _select(values, energy, near, N, NB)
        tl.store(ranks + place, rank, mask=live)
        _deflate(diagonal, beside, values, turns, done, least, tl.where(live, rank, 0), N, NB, SWEEPS)
        room = tl.where(live, rank, 0)
        for column in range(N):
            chosen = (tl.load(diagonal + column * NB) > least) & (room > 0)
            room -= chosen.to(tl.int32)
            if tl.max(chosen.to(tl.int32), axis=0) > 0:
                _eigenvector(z, gram, tau, turns, done, mixing, factor, chosen, column, N, NB, SWEEPS)
                for row in range(m):
                    part = tl.zeros((NB,), tl.float32)
                    for i in range(N):
                        part += tl.load(x + (row * N + i) * count + place, mask=live, other=0.0) * tl.load(z + i * NB)
                    for i in range(N):
                        at = y + (row * N + i) * count + place
                        tl.store(at, tl.load(at, mask=live, other=0.0) + part * tl.load(z + i * NB), mask=live)
