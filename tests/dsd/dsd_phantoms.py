"""Hand-made heads for the tests of the decomposition."""

from __future__ import annotations

import numpy as np


def wavy_head(shape, seed=0, noise=0.03):
    """An ellipse around 100 with waves, an oblique edge and noise, and its mask."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    radius = np.hypot((x - shape[0] / 2) / (0.45 * shape[0]), (y - shape[1] / 2) / (0.42 * shape[1]))
    image = 100 * (1 + 0.1 * np.sin(x / 2.3 + y / 5) * np.cos(z) + 0.1 * (x > y) + noise * rng.standard_normal(shape))
    return np.where(radius < 1, image, 10.0), radius < 1


def spotted_head(spacing, n_spots, *, side_mm=140.0, height_mm=30.0, depth=0.6, noise=0.01, seed=0, sigma_mm=1.7):
    """A flat ellipse with Gaussian dark spots 20 mm apart and noise, and its mask; the same head at any spacing."""
    rng = np.random.default_rng(seed)
    axes = [
        (np.arange(round(length / step)) + 0.5) * step
        for length, step in zip((side_mm, side_mm, height_mm), spacing, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    middle = side_mm / 2
    image = 1 + noise * rng.standard_normal(x.shape)
    places = [(middle + 20 * i + 0.7, middle + 20 * j - 0.4) for i in (-1, 0, 1, 2) for j in (-1, 0, 1, -2)]
    for u, v in places[:n_spots]:
        distance = (x - u) ** 2 + (y - v) ** 2 + (z - height_mm / 2) ** 2
        image -= depth * np.exp(-distance / (2 * sigma_mm**2))
    return 250 * image, np.hypot(x - middle, y - middle) < 0.46 * side_mm
