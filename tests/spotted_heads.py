"""A small head with three dark spots in its brain, as a case."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
from small_heads import AFFINE, head

from mhsev_monai.cases import Case


def spotted_head(folder: Path) -> Case:
    """Written into ``folder`` with b = 0 and 1000."""
    volumes = head()
    for place in ((14, 20, 17), (24, 28, 15), (20, 16, 20)):
        volumes[place] *= 0.4
    nib.save(nib.Nifti1Image(volumes, AFFINE), folder / "sub-1_dwi.nii.gz")
    (folder / "sub-1_dwi.bval").write_text("0 1000")
    return Case("sub-1", folder / "sub-1_dwi.nii.gz", folder / "sub-1_dwi.bval")
