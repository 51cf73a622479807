"""The volumes of the page: b0, darkness of the map, outline of the brain mask, as NIfTI in memory without any names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.keys import SeverityKeys as Keys

GREY_QUANTILES = (0.01, 0.995)
"""Of b0 within the brain's box: what is shown black, and white."""
DARK_QUANTILE = 0.998
"""Of the map's size in the brain: what is shown at full strength, as in the pictures of the report."""
LEAST_SHARE = 0.4
"""Darkness below this share of full strength is not shown, so that the image below it stays visible."""


class Layer(NamedTuple):
    """One volume on the page.

    Attributes:
        key: name in addresses and in the page's script.
        label: what the reader sees.
        volume: ``(X, Y, Z)``.
        colormap: one of NiiVue's.
        shown: values that are shown at no and at full strength.
        opacity: in [0, 1].
    """

    key: str
    label: str
    volume: NDArray[Any]
    colormap: str
    shown: tuple[float, float]
    opacity: float


def scan_layers(entries: Mapping[str, Any]) -> list[Layer]:
    """The layers of a processed scan, lowest first; without the map where the model computes none.

    Args:
        entries: from ``prediction.grade_scan``.
    """
    image = np.asarray(entries[Keys.B0][0], dtype=np.float32)
    brain = np.asarray(entries[Keys.BRAIN_MASK][0]) > 0
    black, white = (float(level) for level in np.quantile(image, GREY_QUANTILES))
    layers = [Layer("b0", "b = 0 image", image, "gray", (black, white), 1.0)]
    if Keys.DSD in entries:
        dark = np.clip(-np.asarray(entries[Keys.DSD][0], dtype=np.float32), 0, None)
        full = float(np.quantile(dark[brain], DARK_QUANTILE)) if brain.any() else 0.0
        full = full if full > 0 else 1.0
        layers.append(
            Layer("dsd", "DSD map: darker than around, red to yellow", dark, "redyell", (LEAST_SHARE * full, full), 0.6)
        )
    outline = (brain & ~ndimage.binary_erosion(brain)).astype(np.uint8)
    return [*layers, Layer("brain", "Outline of the brain mask, green", outline, "green", (0.0, 1.0), 0.4)]


def nifti_bytes(volume: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    """A NIfTI-1 file; its header holds the grid alone.

    Args:
        volume: ``(X, Y, Z)``.
        affine: ``(4, 4)``, voxel indices to RAS+ mm.
    """
    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return bytes(image.to_bytes())
