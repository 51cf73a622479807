"""Matrices that are hard for an eigensolver, and what NumPy's double-precision SVD makes of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mhsev_monai.dsd.engines.mixing import MIXING


class Truncation(NamedTuple):
    projected: np.ndarray
    rank: np.ndarray
    clear: np.ndarray
    """Where K does not hang on the fifth digit."""
    gap: np.ndarray
    """Last kept less first dropped eigenvalue, over their sum; 1 where none is dropped."""


def wave(rng, m, n):
    size = max(m, n)
    u, v = rng.integers(0, size, 2)
    return np.cos(2 * np.pi * (u * np.arange(m)[:, None] + v * np.arange(n)) / size + rng.uniform(0, 6))


def blob(rng, m, n):
    x, y = np.meshgrid(np.arange(m), np.arange(n), indexing="ij")
    return np.exp(-((x - m / 2) ** 2 + (y - n / 2 + 0.3) ** 2) / rng.uniform(1, 9))


def halves(rng, m, n):
    matrix = np.zeros((m, n))
    matrix[: m // 2, : n // 2] = rng.standard_normal((m // 2, n // 2))
    matrix[m // 2 :, n // 2 :] = rng.standard_normal((m - m // 2, n - n // 2))
    return matrix


def orthogonal(rng, m, n):
    return np.linalg.qr(rng.standard_normal((max(m, n), min(m, n))))[0] if m >= n else orthogonal(rng, n, m).T


def with_zero_columns(rng, m, n):
    matrix = rng.standard_normal((m, n))
    matrix[:, rng.random(n) < 0.5] = 0
    return matrix


def along_the_mixing(rng, m, n):
    """What the kernels' own reflection turns into a graded diagonal: a sweep may end with the wrong value."""
    u = MIXING[:n].astype(np.float64)
    reflection = np.eye(n) - 2 * np.outer(u, u) / (u @ u)
    return (np.eye(m, n) * 10.0 ** -rng.uniform(0, 2, n)) @ reflection


FAMILIES = {
    "wave with nodes": lambda rng, m, n: np.outer(blob(rng, m, 1)[:, 0], np.sin(2 * np.pi * 4 * np.arange(n) / n)),
    "noise": lambda rng, m, n: rng.standard_normal((m, n)),
    "blob in noise": lambda rng, m, n: blob(rng, m, n) - 0.03 * rng.standard_normal((m, n)),
    "one component": lambda rng, m, n: np.outer(rng.standard_normal(m), rng.standard_normal(n)),
    "waves with ties": lambda rng, m, n: sum(rng.standard_normal() * wave(rng, m, n) for _ in range(3)),
    "two blocks": halves,
    "the same block twice": lambda rng, m, n: np.kron(np.eye(2), rng.standard_normal(((m + 1) // 2, (n + 1) // 2)))[
        :m, :n
    ],
    "all values equal": orthogonal,
    "zero columns": with_zero_columns,
    "zeros": lambda rng, m, n: np.zeros((m, n)),
    "one entry": lambda rng, m, n: np.eye(m, n, int(rng.integers(0, n))),
    "graded along the mixing direction": along_the_mixing,
    "graded": lambda rng, m, n: rng.standard_normal((m, n)) * 10.0 ** -np.linspace(0, 5, n),
}


def matrices(family, count, m, n, seed):
    rng = np.random.default_rng(seed)
    return np.stack([FAMILIES[family](rng, m, n) for _ in range(count)]).astype(np.float32)


def truncate(batch, energy, *, singular_reading=False, tie=1e-3):
    """The oracle: SVD in double precision, K by the criterion, moved to the end of a cluster."""
    left, singular, right = np.linalg.svd(np.asarray(batch, dtype=np.float64), full_matrices=False)
    values = singular if singular_reading else singular**2
    share = np.cumsum(values, 1) / np.maximum(values.sum(1, keepdims=True), 1e-300)
    n = singular.shape[1]
    first = np.minimum((share <= energy).sum(1), n - 1)
    last = np.take_along_axis(singular, first[:, None], 1)
    kept = singular >= (1 - tie) * last
    near_tie = np.abs(singular / np.maximum((1 - tie) * last, 1e-300) - 1).min(1)
    clear = (np.abs(share - energy).min(1) > 1e-5) & (near_tie > 1e-4)
    energies = singular**2 / np.maximum((singular**2).sum(1, keepdims=True), 1e-300)
    rank = np.where(singular[:, 0] > 0, kept.sum(1), 1)
    behind = np.pad(energies, ((0, 0), (0, 1)))
    gap = np.take_along_axis(behind, rank[:, None] - 1, 1) - np.take_along_axis(behind, rank[:, None], 1)
    gap = np.where(rank == n, 1.0, gap[:, 0])
    return Truncation((left * (singular * kept)[:, None]) @ right, rank, clear, gap)
