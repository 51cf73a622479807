"""Falx and tentorium: sheets of dura between the hemispheres and above the cerebellum, without signal.

Collagen has a T2 of a few ms, so that dura is dark on every volume, and a thin dark line runs through the CSF of
the interhemispheric fissure. The falx hangs from the vault, its free edge a finger's breadth above the corpus callosum,
and meets the tentorium along the straight sinus (Standring, Gray's Anatomy, 41st ed. 2016). Shapes are simple on
purpose. Only CSF gives way to dura: where a bent head has tissue, there is none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.regions import tentorium_height

# Share of dura in voxels of 1 mm at this distance from the middle of the sheet, mm: it is about 1 mm thick.
_DISTANCE, _SHARE = (0.0, 0.5, 1.0), (0.75, 0.5, 0.0)
# The free edge of the falx, MNI mm along Y and Z: an ellipse around the corpus callosum.
_FREE_EDGE_CENTRE, _FREE_EDGE_AXES = (2.0, 2.0), (44.0, 40.0)
# The falx ends below at the crista galli in front, at its free edge in the middle, at the straight sinus behind.
_FRONT, _LOWEST_IN_FRONT, _LOWEST_IN_MIDDLE = 30.0, -20.0, 5.0
_BEHIND, _STRAIGHT_SINUS_HEIGHT, _STRAIGHT_SINUS_SLOPE = -42.0, 8.0, 0.55
# The tentorium's notch leaves room for the brainstem, MNI mm.
_NOTCH_HALF_WIDTH, _NOTCH_BACK, _TENTORIUM_FRONT = 18.0, -50.0, -28.0


def dura_map(shape: tuple[int, int, int], origin: tuple[float, float, float]) -> NDArray[np.float32]:
    """Share of falx and tentorium, ``shape`` float32 in 0 to 1.

    Args:
        shape: X, Y and Z of a grid of 1 mm along the axes of MNI space.
        origin: MNI position of its first voxel, mm.
    """
    x, y, z = (np.arange(n, dtype=np.float32) + np.float32(first) for n, first in zip(shape, origin, strict=True))
    side = np.abs(x)[:, None, None]
    falx = _share(side) * _has_falx(y[:, None], z[None, :])[None]
    height = tentorium_height(np.abs(x)[:, None], y[None, :])
    spread = (np.abs(x)[:, None] > _NOTCH_HALF_WIDTH) | (y[None, :] < _NOTCH_BACK)
    spread &= y[None, :] < _TENTORIUM_FRONT
    tentorium = _share(np.abs(z - height[..., None])) * spread[..., None]
    return np.maximum(falx, tentorium).astype(np.float32)


def _share(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    share: NDArray[np.float32] = np.interp(distance, _DISTANCE, _SHARE).astype(np.float32)
    return share


def _has_falx(y: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which places of the midline have a falx, in the common shape of ``y`` and ``z``."""
    (middle_y, middle_z), (along_y, along_z) = _FREE_EDGE_CENTRE, _FREE_EDGE_AXES
    beyond_edge = ((y - middle_y) / along_y) ** 2 + ((z - middle_z) / along_z) ** 2 > 1
    behind = _STRAIGHT_SINUS_HEIGHT + _STRAIGHT_SINUS_SLOPE * (y - _BEHIND)
    lowest = np.where(y < _BEHIND, behind, np.where(y > _FRONT, _LOWEST_IN_FRONT, _LOWEST_IN_MIDDLE))
    falx: NDArray[np.bool_] = beyond_edge & (z > lowest)
    return falx
