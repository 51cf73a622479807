"""A crisp head in air for the tests of this room, and small BIDS roots of such heads."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

SHAPE = (48, 56, 36)
SPACING = (4.5, 4.5, 4.5)
AFFINE = np.diag([-4.5, 4.5, 4.5, 1.0])


class Phantom(NamedTuple):
    """Noiseless contrasts with the brain's median near 100, and the brain."""

    b0: np.ndarray
    dwi: np.ndarray
    brain: np.ndarray


def phantom(shape: tuple[int, int, int] = SHAPE, seed: int = 0, size: float = 0.62) -> Phantom:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.sqrt((grid**2).sum(0)) / size
    folds = ndimage.gaussian_filter(rng.normal(size=shape), 2.2)
    folds /= folds.std()
    brain = radius < 1
    ventricle = ((grid / (size * np.array([0.18, 0.4, 0.25])[:, None, None, None])) ** 2).sum(0) < 1
    fluid = brain & ((radius + 0.04 * folds > 0.95) | ventricle)
    white = brain & ~fluid & (radius + 0.16 * folds < 0.8)
    grey = brain & ~fluid & ~white
    scalp = (radius > 1.1) & (radius < 1.2)
    b0 = 260.0 * fluid + 110.0 * grey + 90.0 * white + 40.0 * scalp
    dwi = 15.0 * fluid + 42.0 * grey + 45.0 * white + 4.0 * scalp
    return Phantom(b0, dwi, brain)


def rician(image: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """The magnitude of an image with complex noise."""
    noise = np.random.default_rng(seed).normal(0, sigma, (2, *image.shape))
    return np.hypot(image + noise[0], noise[1]).astype(np.float32)


def moved(image: np.ndarray, millimetres: tuple[float, ...], spacing: tuple[float, ...] = SPACING) -> np.ndarray:
    steps = [m / s for m, s in zip(millimetres, spacing, strict=True)]
    return ndimage.shift(image.astype(np.float64), steps, order=3, mode="nearest")


def add_subject(root: Path, name: str, seed: int, *, gain: float = 1.0, n_dwi: int = 3) -> Path:
    """``sub-<name>/dwi/sub-<name>_dwi.nii.gz`` of a head with two b0 volumes."""
    head = phantom(seed=seed)
    volumes = [head.b0, head.b0, *[head.dwi] * n_dwi]
    data = np.stack([rician(gain * v, 2.0 * gain, 100 * seed + i) for i, v in enumerate(volumes)], axis=-1)
    path = root / f"sub-{name}" / "dwi" / f"sub-{name}_dwi.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    path.with_name(f"sub-{name}_dwi.bval").write_text(" ".join(["0", "0", *["1000"] * n_dwi]) + "\n")
    return path
