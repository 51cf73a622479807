"""A small simulated head that the brain mask accepts, for tests of whole pipelines."""

from __future__ import annotations

import numpy as np

SPACING = 4.0
SHAPE = (40, 46, 34)
AFFINE = np.diag([SPACING, SPACING, SPACING, 1.0])


def head(seed: int = 4) -> np.ndarray:
    """``(40, 46, 34, 2)`` float32, b0 and b1000 of an ellipsoidal brain under a dim scalp, shaded along x."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    brain, scalp = radius < 0.8, (radius > 0.92) & (radius < 0.98)
    noise = rng.normal(0, 0.01, (2, *SHAPE))
    b0, trace = 0.5 * brain + 0.15 * scalp, 0.3 * brain + 0.05 * scalp
    shading = np.exp(0.3 * grid[0])
    volumes = [1000 * np.abs(image * shading + each) for image, each in zip((b0, trace), noise, strict=True)]
    return np.stack(volumes, axis=-1).astype(np.float32)
