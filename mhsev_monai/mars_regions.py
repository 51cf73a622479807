"""The region of a place that is known to a few mm only: how much of its neighbourhood is lobar, deep, infratentorial.

Groups are those of the Microbleed Anatomical Rating Scale (Gregoire et al., Neurology 2009;73:1759-1766): deep holds
basal ganglia, thalamus, capsules, corpus callosum, and deep and periventricular white matter. The surface between deep
and lobar is a polynomial that ``tests/benchmarks/fit_mars_deep.py`` fitted to a MARS atlas in MNI space
(github.com/v-sundaresan/microbleed-size-counting, MIT; the atlas itself is not shipped); infratentorial and what is
beside the tentorium follow ``regions.py``. ``docs/regions.md`` has the agreement with the atlas.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from mhsev_monai.regions import Region, region_of

PLACE_SD_MM = 3.0
"""Standard deviation along each axis of where a finding lies in the template, mm: what an affine map leaves of the
shapes of heads (measured in docs/regions.md), and somewhat more, since real heads differ more than simulated ones."""
LEAST_SHARE = 0.7
"""A place has a region when this share of its neighbourhood lies in it, and is uncertain otherwise."""

DEGREE = 4
_CENTRE, _SCALE = np.array((30.0, -20.0, 20.0)), np.array((30.0, 45.0, 35.0))
# Of the monomials in the order of ``monomials``.
# fmt: off
_DEEP = np.array((
    2.36, 0.16, 0.96, -0.46, -4.30, -0.14, 2.88, 0.18, -5.16, -0.90, -2.34, -4.37, 0.38, -0.93, -0.43, -2.79, 4.84,
    -1.20, -14.25, -3.59, 2.78, -9.28, -2.06, -6.55, 0.70, -2.67, -3.51, -10.05, 4.85, -4.65, -6.63, 0.47, 2.83, 6.24,
    -1.60,
))
# fmt: on
_POWERS = np.array([p for p in product(range(DEGREE + 1), repeat=3) if sum(p) <= DEGREE])
_GRID_STEP = 2.5
_LOW, _HIGH = np.array((-80.0, -112.0, -74.0)), np.array((80.0, 80.0, 90.0))
_REGIONS = (Region.LOBAR, Region.DEEP, Region.INFRATENTORIAL)


def monomials(position: NDArray[np.floating]) -> NDArray[np.float64]:
    """All products, up to ``DEGREE`` factors, of the scaled distance from the midline, Y and Z.

    Args:
        position: ``(..., 3)`` MNI mm.

    Returns:
        ``(..., 35)``.
    """
    scaled = _scaled(position)
    return np.stack([np.prod(scaled**power, axis=-1) for power in _POWERS], axis=-1)


def _scaled(position: NDArray[np.floating]) -> NDArray[np.float64]:
    folded = np.stack([np.abs(position[..., 0]), position[..., 1], position[..., 2]], axis=-1).astype(np.float64)
    return (folded - _CENTRE) / _SCALE


def mars_shares(position: NDArray[np.floating]) -> NDArray[np.float64]:
    """How much each place is lobar, deep and infratentorial, ``(..., 3)``; less than 1 in all beside the tentorium.

    Args:
        position: ``(..., 3)`` MNI mm, taken as exact.
    """
    drawn = region_of(position.astype(np.float32))
    supratentorial = (drawn == Region.LOBAR) | (drawn == Region.DEEP)
    coefficients = np.zeros((DEGREE + 1,) * 3)
    coefficients[tuple(_POWERS.T)] = _DEEP
    scaled = _scaled(position)
    deep = expit(polynomial.polyval3d(scaled[..., 0], scaled[..., 1], scaled[..., 2], coefficients))
    return np.stack(
        [supratentorial * (1 - deep), supratentorial * deep, (drawn == Region.INFRATENTORIAL).astype(np.float64)],
        axis=-1,
    )


def mars_region(position: NDArray[np.floating], least_share: float = LEAST_SHARE) -> NDArray[np.int8]:
    """The region of places that are known as well as registration tells them, as values of ``Region``.

    Args:
        position: ``(n, 3)`` MNI mm; places outside the template's box take that of its border.
        least_share: see ``LEAST_SHARE``; a half or more.
    """
    grid = _neighbourhood_shares()
    index = (np.clip(position, _LOW, _HIGH) - _LOW) / _GRID_STEP
    shares = np.stack([ndimage.map_coordinates(part, index.T, order=1, mode="nearest") for part in grid], axis=-1)
    best = shares.argmax(axis=-1)
    decided = shares.max(axis=-1, initial=0.0) >= least_share
    chosen = np.where(decided, np.array(_REGIONS)[best], Region.UNCERTAIN)
    return chosen.astype(np.int8)


@lru_cache(maxsize=1)
def _neighbourhood_shares() -> NDArray[np.float32]:
    """``(3, X, Y, Z)``: the shares of ``mars_shares``, averaged over where a place may truly lie."""
    axes = [np.arange(low, high + _GRID_STEP, _GRID_STEP) for low, high in zip(_LOW, _HIGH, strict=True)]
    position = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    shares = np.moveaxis(mars_shares(position), -1, 0).astype(np.float32)
    width = PLACE_SD_MM / _GRID_STEP
    return np.stack([ndimage.gaussian_filter(part, width, mode="nearest") for part in shares])
