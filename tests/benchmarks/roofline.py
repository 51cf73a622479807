"""How fast this processor multiplies and adds, by the very instructions that the kernels use."""

from __future__ import annotations

import time

from numba import njit

from mhsev_monai.dsd.engines.simd import LANES, aligned_zeros, load, store


@njit(nogil=True)
def _multiply_and_add(numbers, turns):
    # Eight independent chains of two registers each hide the latency of a fused multiply-add.
    a0, a1, a2, a3 = load(numbers, 0), load(numbers, 1), load(numbers, 2), load(numbers, 3)
    a4, a5, a6, a7 = load(numbers, 4), load(numbers, 5), load(numbers, 6), load(numbers, 7)
    factor, step = load(numbers, 8), load(numbers, 9)
    for _ in range(turns):
        a0, a1, a2, a3 = a0 * factor + step, a1 * factor + step, a2 * factor + step, a3 * factor + step
        a4, a5, a6, a7 = a4 * factor + step, a5 * factor + step, a6 * factor + step, a7 * factor + step
    store(numbers, 0, a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7)


def peak_gflops() -> float:
    """Best of ten: 10^9 multiplications and additions a second on one core, float32."""
    numbers = aligned_zeros(10 * LANES)
    numbers[:] = 0.5
    _multiply_and_add(numbers, 10)
    best, turns = 0.0, 200_000
    for _ in range(10):
        start = time.thread_time()
        _multiply_and_add(numbers, turns)
        best = max(best, turns * 8 * LANES * 2 / (time.thread_time() - start) / 1e9)
    return best
