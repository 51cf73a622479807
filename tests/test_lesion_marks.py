"""Marks of candidates from a site's masks: geometry, numbering, and masks that cannot be used."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from mhsev_monai.cases import Case
from mhsev_monai.errors import ScanError
from mhsev_monai.lesion_marks import lesion_mask_path, mark_candidates, read_lesion_mask

AFFINE = np.array([[-2.0, 0, 0, 40.0], [0, 2.0, 0, -30.0], [0, 0, 3.0, -10.0], [0, 0, 0, 1.0]])


def world(*voxel):
    return AFFINE[:3, :3] @ np.array(voxel) + AFFINE[:3, 3]


def two_bleeds():
    labels = np.zeros((20, 20, 10), dtype=np.int64)
    labels[4, 4, 4], labels[12:14, 12, 5] = 1, 2
    return labels


@pytest.mark.parametrize(
    ("voxels", "marks"),
    [
        ([(4, 4, 4), (12, 12, 5), (18, 18, 8)], [1, 1, 0]),
        ([(5, 5, 5)], [1]),  # the next voxel over a corner still belongs to it
        ([(6, 4, 4)], [0]),  # two voxels off
        ([(12, 12, 5), (13, 12, 5), (14, 12, 5)], [1, np.nan, np.nan]),  # one bleed, found three times
        ([(-3, 4, 4), (25, 4, 4)], [0, 0]),  # outside the mask's volume
    ],
)
def test_the_first_candidate_in_a_bleed_is_marked(voxels, marks):
    found = mark_candidates(np.array([world(*voxel) for voxel in voxels]), two_bleeds(), AFFINE)
    np.testing.assert_array_equal(found, np.array(marks, dtype=np.float32))


def test_no_candidate_has_no_mark():
    assert mark_candidates(np.zeros((0, 3)), two_bleeds(), AFFINE).shape == (0,)


def test_a_mask_of_zeros_and_ones_is_numbered_by_its_parts(tmp_path):
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image((two_bleeds() > 0).astype(np.uint8), AFFINE), path)
    labels, affine = read_lesion_mask(path)
    assert sorted(np.unique(labels)) == [0, 1, 2]
    np.testing.assert_allclose(affine, AFFINE)


@pytest.mark.parametrize("values", [np.full((4, 4, 4), 0.5), np.full((4, 4, 4), -1.0), np.zeros((4, 4, 4, 2))])
def test_a_mask_of_other_numbers_is_refused(tmp_path, values):
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(np.float32), AFFINE), path)
    with pytest.raises(ScanError, match="one volume of whole numbers from 0 on"):
        read_lesion_mask(path)


def test_a_file_that_is_no_image_is_refused_without_its_name(tmp_path):
    path = tmp_path / "mask_of_somebody.nii.gz"
    path.write_bytes(b"nothing")
    with pytest.raises(ScanError, match="the lesion mask cannot be read") as caught:
        read_lesion_mask(path)
    assert "somebody" not in str(caught.value)


def test_masks_lie_where_the_scans_do(tmp_path):
    image = tmp_path / "sub-1" / "ses-2" / "dwi" / "sub-1_ses-2_dwi.nii.gz"
    mask = tmp_path / "derivatives/lesions/sub-1/ses-2/dwi/sub-1_ses-2_desc-microbleeds_mask.nii.gz"
    case = Case("sub-1_ses-2", image)
    assert lesion_mask_path(case, tmp_path, tmp_path / "derivatives/lesions") is None
    mask.parent.mkdir(parents=True)
    mask.touch()
    assert lesion_mask_path(case, tmp_path, tmp_path / "derivatives/lesions") == mask
