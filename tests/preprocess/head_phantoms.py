"""Crisp synthetic heads for the tests of the bias field and the brain mask: every voxel is one tissue."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]


class Head(NamedTuple):
    """Linear intensities of a head, its brain, and where white and grey matter lie."""

    image: Array
    brain: NDArray[np.bool_]
    white: NDArray[np.bool_]
    grey: NDArray[np.bool_]


def crisp_head(
    shape: tuple[int, int, int] = (64, 72, 56), levels: tuple[float, float, float] = (1.0, 0.5, 0.4), seed: int = 0
) -> Head:
    """An ellipsoidal brain with folded cortex and ventricles, levels of (fluid, grey, white), 1.5 % Rician noise."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.sqrt((grid**2).sum(0)) / 0.85
    brain = radius < 1
    folds = ndimage.gaussian_filter(rng.normal(size=shape), 2.2)
    folds /= folds.std()
    fluid = brain & (
        (radius + 0.04 * folds > 0.96) | (((grid / np.array([0.16, 0.35, 0.2])[:, None, None, None]) ** 2).sum(0) < 1)
    )
    white = brain & ~fluid & (radius + 0.16 * folds < 0.80) & (folds < 1.6)
    grey = brain & ~fluid & ~white
    image = levels[0] * fluid + levels[1] * grey + levels[2] * white
    noise = rng.normal(0, 0.015, (2, *shape))
    return Head(np.hypot(image + noise[0], noise[1]).astype(np.float32), brain, white, grey)


def coil_log_bias(shape: tuple[int, int, int], brain: NDArray[np.bool_], amplitude: float = 0.4) -> Array:
    """Logarithm of the sensitivity of four coils, mean 0 in the brain and at most ``amplitude`` away from it."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    coils = [(1, 1, 0.3), (-1, 0.8, 0.2), (0, -1.1, 0.4), (0.2, 0.1, 1.2)]
    field = np.log(sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 1.2) for a, b, c in coils))
    field -= field[brain].mean()
    return (field * amplitude / np.abs(field[brain]).max()).astype(np.float32)


def head_with_skull(
    shape: tuple[int, int, int] = (64, 72, 56), levels: tuple[float, float, float] = (1.0, 0.5, 0.4), seed: int = 0
) -> Head:
    """``crisp_head`` in a dark skull under a dim, fat-suppressed scalp, with two bright eyes in front."""
    head = crisp_head(shape, levels, seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    scalp = (radius > 0.93) & (radius < 0.99)
    eyes = sum(((grid - np.array([x, 0.97, -0.3])[:, None, None, None]) ** 2).sum(0) < 0.1**2 for x in (-0.3, 0.3)) > 0
    image = head.image + (0.18 * scalp + levels[0] * eyes).astype(np.float32) * ~head.brain
    return head._replace(image=image.astype(np.float32))
