"""From intensities to grey levels: fixed number of bins, or fixed width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_LEVELS = 1024
"""Co-occurrence needs memory in the square of the number of levels; texture is commonly read from 16 to 128."""


def discretise(values: NDArray[np.float64], bin_count: int = 32, bin_width: float | None = None) -> NDArray[np.intp]:
    """The grey level of each value, counted from 1.

    A fixed number of bins divides the range from least to greatest into equal parts; an edge belongs to the bin above
    it, and the greatest value to the last bin. It suits MR, whose intensities have no unit (IBSI reference manual 1.0,
    section 2.7). Bins of fixed width have their edges at multiples of the width, as in pyradiomics, so that level 1 is
    the bin of the least value. Values that are all equal get level 1.

    Args:
        values: ``(n,)``, finite, at least one.
        bin_count: number of bins; not looked at where ``bin_width`` is given.
        bin_width: width of a bin in the unit of the values; None: fixed number.

    Returns:
        ``(n,)`` from 1 to ``bin_count``, or to the number of bins that the range of the values needs.

    Raises:
        ValueError: if the width would give more than ``MOST_LEVELS`` levels.
    """
    low, high = values.min(), values.max()
    if low == high:
        return np.ones(values.shape, dtype=np.intp)
    if bin_width is None:
        edges = np.linspace(low, high, bin_count + 1)
        return np.searchsorted(edges[1:-1], values, side="right").astype(np.intp) + 1
    first = np.floor(low / bin_width)
    n_levels = np.floor(high / bin_width) - first + 1
    if not n_levels <= MOST_LEVELS:
        raise ValueError(
            f"bin_width {bin_width} gives {n_levels:.0f} grey levels, at most {MOST_LEVELS} are accepted; choose a "
            "wider bin, or a fixed bin_count"
        )
    return (np.floor(values / bin_width) - first).astype(np.intp) + 1
