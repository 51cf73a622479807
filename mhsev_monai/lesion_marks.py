"""Which candidates are bleeds, where a site has drawn its microbleeds: from a mask to one mark a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.cases import Case
from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bvals import image_stem

MASK_ENDING = "desc-microbleeds_mask.nii.gz"
"""``sub-1_dwi.nii.gz`` has its mask in ``sub-1_desc-microbleeds_mask.nii.gz``."""

_TOUCHING = np.ones((3, 3, 3))


def lesion_mask_path(case: Case, root: Path, folder: Path) -> Path | None:
    """The mask of a case in a derivative that mirrors the data root; None where it is not there.

    Args:
        case: of ``root``.
        root: of the site's data.
        folder: the derivative, such as ``derivatives/lesions`` under ``root``.
    """
    name = f"{(image_stem(case.image.name) or '').rpartition('_')[0]}_{MASK_ENDING}"
    path = folder / case.image.parent.relative_to(root) / name
    return path if path.is_file() else None


def read_lesion_mask(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbered microbleeds ``(X, Y, Z)``, 0 elsewhere, and the affine to RAS+ mm.

    A mask of zeros and ones is numbered by its connected parts.

    Raises:
        ScanError: if the file is no three-dimensional NIfTI of whole numbers from 0 on.
    """
    try:
        image = nib.load(path)
        values = np.asarray(image.dataobj)
    except Exception as error:
        raise ScanError(f"the lesion mask cannot be read ({type(error).__name__}); write a NIfTI file anew") from error
    labels = np.rint(np.nan_to_num(values, nan=-1.0)).astype(np.int64)
    if values.ndim != 3 or labels.min(initial=0) < 0 or np.abs(values - labels).max(initial=0) > 1e-3:
        raise ScanError("a lesion mask must be one volume of whole numbers from 0 on; write it anew")
    if labels.max(initial=0) == 1:
        labels = ndimage.label(labels, _TOUCHING)[0].astype(np.int64)
    return labels, np.asarray(image.affine, dtype=np.float64)


def mark_candidates(
    positions: NDArray[np.floating], labels: NDArray[np.int64], affine: NDArray[np.float64]
) -> NDArray[np.float32]:
    """1 for the first candidate in each microbleed, NaN for others in the same one, 0 elsewhere, ``(K,)``.

    A bleed reaches one voxel beyond what was drawn, since peaks lie on other voxels than pencils do.

    Args:
        positions: ``(K, 3)`` RAS+ mm, the likeliest first.
        labels: ``(X, Y, Z)`` numbered microbleeds.
        affine: of ``labels``, to RAS+ mm.
    """
    grown = ndimage.grey_dilation(labels, footprint=_TOUCHING)
    marks = np.zeros(len(positions), dtype=np.float32)
    seen: set[int] = set()
    for index, number in enumerate(_labels_at(positions, grown, affine)):
        if number in seen:
            marks[index] = np.nan
        elif number > 0:
            marks[index] = 1.0
            seen.add(number)
    return marks


def _labels_at(
    positions: NDArray[np.floating], labels: NDArray[np.int64], affine: NDArray[np.float64]
) -> Sequence[int]:
    to_voxel = np.linalg.inv(affine)
    voxels = np.rint(positions @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
    inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=1)
    found = np.zeros(len(voxels), dtype=np.int64)
    found[inside] = labels[tuple(voxels[inside].T)]
    numbers: list[int] = found.tolist()
    return numbers
