"""Regions against the MARS atlas, which is not shipped."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from mhsev_monai.regions import Region, region_of

BRAINSTEM, CEREBELLUM, LAST_DEEP = 1, 2, 8


@pytest.fixture(scope="module")
def atlas(shared_data):
    """MARS labels and MNI positions of every seventh voxel of the brain."""
    image = nib.load(shared_data / "mars_atlas" / "mars13_mni152_1mm.nii.gz")
    labels = np.asarray(image.dataobj)
    voxels = np.argwhere(labels > 0)[::7]
    position = voxels @ image.affine[:3, :3].T + image.affine[:3, 3]
    return labels[tuple(voxels.T)], position.astype(np.float32)


def test_what_is_called_deep_or_infratentorial_is_so_in_the_atlas(atlas):
    labels, position = atlas
    region = region_of(position)
    infratentorial = labels[region == Region.INFRATENTORIAL]
    deep = labels[region == Region.DEEP]
    assert np.mean(infratentorial <= CEREBELLUM) > 0.99
    assert np.mean((deep > CEREBELLUM) & (deep <= LAST_DEEP)) > 0.98


def test_what_is_called_lobar_is_no_cerebellum_or_brainstem(atlas):
    labels, position = atlas
    lobar = labels[region_of(position) == Region.LOBAR]
    assert np.mean(lobar <= CEREBELLUM) < 0.01


def test_most_of_cerebellum_and_brainstem_is_found(atlas):
    labels, position = atlas
    region = region_of(position)
    for label in (BRAINSTEM, CEREBELLUM):
        assert np.mean(region[labels == label] == Region.INFRATENTORIAL) > 0.8
