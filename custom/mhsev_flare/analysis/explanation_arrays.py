"""Sums of attributions and second moments as the arrays of a message, and back. No FLARE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_flare.analysis.answer_bounds import LARGEST_VALUE, MOST_VECTORS, check_cases, check_sizes
from mhsev_flare.analysis.association_arrays import symmetric, upper_triangle
from mhsev_monai.shapley_background import SecondMoments
from mhsev_monai.shapley_tables import ShapleyTable

TABLE_ARRAYS = ("absolute_sum", "value_sum", "square_sum", "output_sum", "bin_counts", "bin_sums")
"""Of a ``ShapleyTable``; its names stay at both ends, which know them from the model."""


def table_to_arrays(table: ShapleyTable) -> dict[str, NDArray[Any]]:
    """What ``ShapleyTable.told`` lets leave, without the names."""
    return {"n": np.array([table.n], dtype=np.int64), **{name: getattr(table, name) for name in TABLE_ARRAYS}}


def table_from_arrays(
    arrays: Mapping[str, NDArray[Any]], names: tuple[Sequence[str], Sequence[str]], n_bins: int
) -> ShapleyTable:
    """The table of players and outputs with these names.

    Raises:
        KeyError: if an array is missing.
        ValueError: if one has another shape, or they contradict each other.
    """
    sums = {name: arrays[name] for name in TABLE_ARRAYS}
    check_cases(arrays["n"])
    for value in sums.values():
        check_sizes(value)
    if np.shape(arrays["n"]) != (1,) or np.shape(sums["bin_counts"]) != (len(names[0]), n_bins):
        raise ValueError(f"bin_counts must be ({len(names[0])}, {n_bins}) and n one number")
    return ShapleyTable(players=tuple(names[0]), outputs=tuple(names[1]), n=int(arrays["n"][0]), **sums)


def moments_to_arrays(moments: SecondMoments) -> dict[str, NDArray[Any]]:
    """Second moments, the scatter as its upper triangle."""
    scatter = upper_triangle(moments.scatter)
    return {"n": np.array([moments.n], dtype=np.int64), "mean": moments.mean, "scatter": scatter}


def moments_from_arrays(arrays: Mapping[str, NDArray[Any]], n_features: int) -> SecondMoments:
    """What :func:`moments_to_arrays` made; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    mean, n = np.asarray(arrays["mean"], dtype=np.float64), arrays["n"]
    check_cases(n, MOST_VECTORS)
    check_sizes(mean, LARGEST_VALUE)
    if mean.shape != (n_features,) or np.shape(n) != (1,) or int(n[0]) < 1:
        raise ValueError(f"second moments must be of {n_features} features and a vector at least")
    scatter = symmetric(arrays["scatter"], n_features)
    check_sizes(scatter, int(n[0]) * LARGEST_VALUE**2)
    # Rounding leaves eigenvalues a little below 0 where features depend on each other.
    values = np.linalg.eigvalsh(scatter)
    if values[0] < -1e-9 * (1.0 + abs(values[-1])):
        raise ValueError("scatter must have no eigenvalue below 0")
    return SecondMoments(int(n[0]), mean, scatter)
