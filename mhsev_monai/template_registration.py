"""Where a place of a scan lies in the ICBM152 template, and whether that can be believed.

The template is the symmetric ICBM 2009a average (Fonov et al., NeuroImage 2011;54:313-327) that nilearn ships in its
wheel; nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mhsev_monai.errors import ScanError
from mhsev_monai.registration import Brain, Matrix, affine, overlap, peakedness

LEAST_OVERLAP = 0.88
"""Dice of the scan's brain mask with the template's; below, the map is not believed."""
LEAST_PEAKEDNESS = 1.95
"""Of ``registration.peakedness``; docs/regions.md has its values for heads that fit and for turned ones."""
SCALES = (0.85, 1.40)
"""Singular values of a map that is believed: adult heads are somewhat smaller than ICBM152."""
MOST_UNEVEN = 1.35
"""Largest over smallest singular value of a map that is believed."""
_RESOLUTION_MM = 2


class TemplateMap(NamedTuple):
    """A scan laid on the template.

    Attributes:
        matrix: ``(4, 4)``, RAS+ mm of the scan to MNI mm.
        overlap: Dice of the masks, on the voxels of the scan.
        peakedness: see ``registration.peakedness``.
        scales: singular values, falling: how much larger the template is.
        doubt: why the map is not believed, the end of a sentence; None where it is.
    """

    matrix: Matrix
    overlap: float
    peakedness: float
    scales: tuple[float, float, float]
    doubt: str | None


def map_to_template(scan: Brain) -> TemplateMap:
    """Lay a scan on the template.

    Args:
        scan: a b = 0 image or the like, its bias corrected.

    Raises:
        ScanError: if SimpleITK or nilearn is not installed, or the brains have no overlap.
    """
    template = load_template()
    matrix = affine(scan, template)
    largest, middle, smallest = (float(value) for value in np.linalg.svd(matrix[:3, :3], compute_uv=False))
    agreement = overlap(scan, template, matrix), peakedness(scan, template, matrix)
    found = TemplateMap(matrix, *agreement, (largest, middle, smallest), None)
    return found._replace(doubt=_doubt(found))


def _doubt(found: TemplateMap) -> str | None:
    low, high = SCALES
    largest, _, smallest = found.scales
    if not found.overlap >= LEAST_OVERLAP:
        return f"its brain mask and the template's overlap by {found.overlap:.2f} only (Dice)"
    if not found.peakedness >= LEAST_PEAKEDNESS:
        return f"tissue does not lie on tissue (mutual information {found.peakedness:.1f} times that 10 mm beside it)"
    if np.linalg.det(found.matrix[:3, :3]) <= 0 or not (low <= smallest and largest <= high):
        return f"it would have to be stretched by {smallest:.2f} to {largest:.2f}"
    if largest > MOST_UNEVEN * smallest:
        return f"it would have to be stretched {largest / smallest:.2f} times more along one axis than along another"
    return None


@lru_cache(maxsize=1)
def load_template() -> Brain:
    """The average T1-weighted brain and its mask on voxels of 2 mm.

    Raises:
        ScanError: if nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError:
        raise ScanError(
            "regions need the template of nilearn, which is not installed; install mhsev with its extra regions"
        ) from None
    image = datasets.load_mni152_template(resolution=_RESOLUTION_MM)
    mask = datasets.load_mni152_brain_mask(resolution=_RESOLUTION_MM)
    return Brain(
        np.asarray(image.dataobj, dtype=np.float32),
        np.asarray(mask.dataobj) > 0,
        np.asarray(image.affine, dtype=np.float64),
    )
