"""Whether a place in the template is lobar, deep or infratentorial, by surfaces drawn in MNI space.

The surfaces are simple on purpose; ``tests/cohort/test_regions.py`` compares them with the MARS atlas. ``region_of`` is
where simulated bleeds are put: its deep region is the grey nuclei and the capsules between them. MARS counts deep
white matter and corpus callosum as deep too, see ``mars_regions.py``, which judges findings.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Region(IntEnum):
    """The three groups of the Microbleed Anatomical Rating Scale (Gregoire et al., Neurology 2009;73:1759-1766)."""

    UNCERTAIN = 0
    LOBAR = 1
    DEEP = 2
    INFRATENTORIAL = 3

    @property
    def label(self) -> str:
        """The region in lower case, as written in tables and reports."""
        return self.name.lower()


# Within this distance, mm, of the tentorium a place is on neither side of it.
_TENTORIUM_MARGIN = 5.0


def tentorium_height(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where the tentorium lies, MNI mm along Z: it falls to the sides and, from its highest place, to front and back.

    Args:
        x: mm from the midline, not negative.
        y: MNI mm, in a shape that goes with that of ``x``.
    """
    height: NDArray[np.float32] = 2.0 - 0.62 * x - 0.55 * np.maximum(-58.0 - y, 0.0) - 0.4 * np.maximum(y + 48.0, 0.0)
    return height


def region_of(position: NDArray[np.float32]) -> NDArray[np.int8]:
    """The region of each MNI position, as values of :class:`Region`.

    Args:
        position: ``(..., 3)`` mm.

    Returns:
        ``(...)``; positions outside the brain receive a region too.
    """
    x, y, z = np.abs(position[..., 0]), position[..., 1], position[..., 2]
    tentorium = tentorium_height(x, y)
    cerebellum = (z < tentorium - _TENTORIUM_MARGIN) & (y < -34.0)
    brainstem = (x < 13.0) & (y > -44.0) & (y < -12.0) & (z < -14.0)
    near = (np.abs(z - tentorium) <= _TENTORIUM_MARGIN) & (y < -30.0)
    beside_brainstem = (z < -12.0) & (y < -12.0) & (y > -44.0) & (x < 26.0)
    deep = ((x - 15.0) / 20.0) ** 2 + ((y + 5.0) / 28.0) ** 2 + ((z - 8.0) / 19.0) ** 2 < 1
    region = np.full(x.shape, Region.LOBAR, dtype=np.int8)
    region[deep] = Region.DEEP
    region[near | beside_brainstem] = Region.UNCERTAIN
    region[cerebellum | brainstem] = Region.INFRATENTORIAL
    return region
