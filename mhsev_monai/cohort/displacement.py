"""Signal moved along the phase encoding: where an echo-planar image puts what is off resonance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Displacement(NamedTuple):
    """Where each sample goes, and with which share to the nearer and the farther of two bins.

    Attributes:
        shape: X, Y and Z of the samples; Y is the phase encoding.
        target: flat index of the lower bin, of the shape ``shape``.
        to_upper: share that goes to the bin above it; the rest goes to the lower one.
        inside: 1 where both bins are in the box; what leaves the box is lost.
    """

    shape: tuple[int, int, int]
    target: NDArray[np.int32]
    to_upper: NDArray[np.float32]
    inside: NDArray[np.float32]


def displacement(shift: NDArray[np.float32]) -> Displacement:
    """The displacement of samples by ``shift``, ``(X, Y, Z)`` in bins along Y."""
    n_x, n_y, n_z = shift.shape
    position = shift + np.arange(n_y, dtype=np.float32)[None, :, None]
    low = np.floor(position)
    to_upper = position - low
    # A sample that ends exactly on the last bin has nothing to give beyond it.
    on_last = (low == n_y - 1) & (to_upper == 0)
    low[on_last] -= 1
    to_upper[on_last] = 1
    inside = ((low >= 0) & (low < n_y - 1)).astype(np.float32)
    row = np.clip(low, 0, max(n_y - 2, 0)).astype(np.int32) + n_y * np.arange(n_x, dtype=np.int32)[:, None, None]
    return Displacement((n_x, n_y, n_z), row * n_z + np.arange(n_z, dtype=np.int32), to_upper, inside)


def displaced(samples: NDArray[np.float32], by: Displacement) -> NDArray[np.float32]:
    """What lies in each bin after the displacement; signal piles up, thins out, and keeps its sum.

    Args:
        samples: ``(X, Y, Z)``.
        by: from :func:`displacement`.
    """
    weight = (samples * by.inside).ravel()
    upper = weight * by.to_upper.ravel()
    target = by.target.ravel()
    n, n_z = samples.size, by.shape[2]
    total = np.bincount(target, weight - upper, minlength=n)
    total += np.bincount(target + n_z, upper, minlength=n)[:n]
    moved: NDArray[np.float32] = total.reshape(by.shape).astype(np.float32)
    return moved
