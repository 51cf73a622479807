"""Noise of an image as a share of the parenchyma's signal, measured where the tissue is even.

A spot is seen as far as it stands out of the noise of its contrast (Rose 1948), so a grader needs that noise. Measured
over a whole brain it follows cortex and fluid as well, and over a fused and cut contrast it follows the cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.dsd.descriptors import high_pass_noise

LEAST_NOISE = 1e-3
"""Also of an image without noise, so that nothing is divided by 0."""

_SIDE = 5
"""Voxels in the plane over which tissue must be even."""
_MEAN_RANGE = (0.8, 1.2)
_BRIGHTEST = 1.6
"""Of one voxel; where fluid begins."""
_LEAST_VOXELS = 200
"""Of even tissue; with fewer the whole brain is taken: a median of so few is off by some 10 %."""


def even_parenchyma(b0: NDArray[np.floating], brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of the brain, two or more from its edge in the plane, around which b0 is near the parenchyma's level.

    Args:
        b0: ``(X, Y, Z)``, 1 at the level of the parenchyma around; may be cut above 1.6.
        brain: mask of the same shape.

    Returns:
        Mask of the same shape; it can be empty.
    """
    within = (_SIDE, _SIDE, 1)
    inside = ndimage.binary_erosion(brain, np.ones(within))
    mean, most = ndimage.uniform_filter(b0, within), ndimage.maximum_filter(b0, within)
    even: NDArray[np.bool_] = inside & (mean > _MEAN_RANGE[0]) & (mean < _MEAN_RANGE[1]) & (most < _BRIGHTEST)
    return even


def noise_in(image: NDArray[np.floating], even: NDArray[np.bool_], brain: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise of ``image``, at least ``LEAST_NOISE``.

    It is ``high_pass_noise`` over ``even``, or over ``brain`` where that is small. Interpolation between voxels makes
    it too low.

    Args:
        image: ``(X, Y, Z)``, in shares of the parenchyma's signal.
        even: where to measure, see :func:`even_parenchyma`.
        brain: mask of the same shape.
    """
    return max(high_pass_noise(image, even if even.sum() >= _LEAST_VOXELS else brain), LEAST_NOISE)
