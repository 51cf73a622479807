"""The image that the decomposition is timed on, and a table of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter


def slice_of(side: int, n_slices: int = 1, seed: int = 0) -> np.ndarray:
    """Smooth structure of 8 % around 100, and noise of 3 %: most windows keep 2 to 5 of 16 components."""
    rng = np.random.default_rng(seed)
    structure = gaussian_filter(rng.standard_normal((side, side)), 3)
    plane = 100 * (1 + 0.08 * structure / structure.std())
    return plane[..., None] + 3 * rng.standard_normal((side, side, n_slices))


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table of Markdown."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---"] * len(header), *rows)]
    return [*lines, ""]
