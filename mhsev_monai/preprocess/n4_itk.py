"""What ITK's N4 does otherwise than its own mathematics, so that the same settings stop where it stops.

Source: itkN4BiasFieldCorrectionImageFilter.hxx. Two places matter, and both depend on the order of the voxels, in which
the first axis runs fastest:

* ``CalculateConvergenceMeasurement`` keeps a running mean and sum of squares in single precision. The factors by which
  a field changes lie within some thousandths of 1, where single precision resolves 6e-8 to 1.2e-7; after some ten
  thousand voxels ``(factor - mean) / n`` is lost, the mean stays where the first slices put it, and the measure comes
  out too large: by up to a half on scans of 50 000 to 260 000 voxels, so that levels run for longer.
* ``SharpenImage`` looks for the lowest value among those that are not higher than all before them. Where the first
  voxel of the mask is the darkest, it is overlooked, and taken for the brightest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def lowest_value(values: Tensor) -> Tensor:
    """The lowest of the values that are not higher than all before them; the lowest of all if there are none such."""
    low = values.min()
    # The lowest of all is higher than all before it only where it is the first.
    if values[0] > low:
        return low
    seen = values[1:][values[1:] <= values.cummax(0).values[:-1]]
    return seen.min() if len(seen) else low


def variation(factors: Tensor) -> float:
    """Coefficient of variation of ``(n,)`` float32 factors, computed on the host and rounded as in ITK."""
    return float(_compiled_loop()(factors.cpu().numpy()))


@cache
def _compiled_loop() -> Callable[[NDArray[np.float32]], float]:
    # numba takes half a second to import, and most runs of N4 do without.
    from numba import njit

    return njit(nogil=True)(_running_variation)


def _running_variation(factors: NDArray[np.float32]) -> float:
    if factors.size < 2:
        return 0.0
    mean = np.float32(0.0)
    squares = np.float32(0.0)
    # C++ takes 1.0 for a double: quotients and products by it are double, what is stored is single precision.
    for i in range(factors.size):
        n = np.float64(i + 1)
        difference = np.float32(factors[i] - mean)
        squares = np.float32(squares + np.float64(np.float32(difference * difference)) * (n - 1.0) / n)
        mean = np.float32(mean * (1.0 - 1.0 / n) + np.float64(np.float32(factors[i] / np.float32(n))))
    return float(np.float32(np.sqrt(np.float64(squares) / (np.float64(factors.size) - 1.0))) / mean)
