"""Morphology in mm, against scipy.ndimage and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from mhsev_monai.preprocess import morphology

GRIDS = [((3.0, 3.0, 3.0), 6.0), ((1.75, 1.75, 5.0), 6.0), ((0.9, 2.0, 4.0), 3.0), ((3.0, 3.1, 3.2), 15.0)]


@pytest.fixture
def blobs() -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(ndimage.gaussian_filter(rng.normal(size=(26, 24, 15)), 1.5) > 0.06)


def test_ball_holds_the_voxels_within_its_radius():
    element = morphology.ball(4.0, (2.0, 2.0, 5.0))
    assert element.shape == (5, 5, 1)  # 5 mm to the next slice is out of reach
    assert element[:, :, 0].int().tolist() == [
        [0, 0, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 0, 0],
    ]


@pytest.mark.parametrize(("spacing", "radius"), GRIDS)
def test_dilation_and_erosion_equal_those_with_a_ball_of_voxels(blobs, spacing, radius):
    element = morphology.ball(radius, spacing).numpy()
    dilated = ndimage.binary_dilation(blobs.numpy(), element)
    eroded = ndimage.binary_erosion(blobs.numpy(), element, border_value=1)
    np.testing.assert_array_equal(morphology.dilate(blobs, radius, spacing).numpy(), dilated)
    np.testing.assert_array_equal(morphology.erode(blobs, radius, spacing).numpy(), eroded)


@pytest.mark.parametrize(("spacing", "radius"), GRIDS)
def test_closing_equals_that_of_the_mask_in_open_space(blobs, spacing, radius):
    element = morphology.ball(radius, spacing).numpy()
    width = 20
    open_space = np.pad(blobs.numpy(), width)
    closed = ndimage.binary_closing(open_space, element)[width:-width, width:-width, width:-width]
    np.testing.assert_array_equal(morphology.close(blobs, radius, spacing).numpy(), closed)


def test_radius_zero_and_empty_masks_change_nothing(blobs):
    empty = torch.zeros_like(blobs)
    for operation in (morphology.dilate, morphology.erode, morphology.close):
        assert torch.equal(operation(blobs, 0.0, (1.0, 1.0, 1.0)), blobs)
        assert not operation(empty, 6.0, (2.0, 2.0, 2.0)).any()


def test_largest_component_and_sizes():
    mask = torch.zeros(9, 9, 9, dtype=torch.bool)
    mask[0:2, 0:2, 0] = True
    mask[4:8, 4:8, 4:8] = True
    mask[2, 2, 0] = True  # touches the first by an edge only, so it is a component of its own
    labels, sizes = morphology.label_components(mask)
    assert sizes == [4, 1, 64]
    assert torch.equal(morphology.largest_component(mask), labels == 3)
    assert not morphology.largest_component(torch.zeros(3, 3, 3)).any()


def test_holes_are_filled_in_space_and_in_the_slices_of_the_last_axis():
    shell = torch.ones(7, 7, 7, dtype=torch.bool)
    shell[2:5, 2:5, 2:5] = False
    assert morphology.fill_holes(shell).all()
    tube = shell.clone()
    tube[2:5, 2:5, :] = False  # open at both ends along z: enclosed in each slice, not in space
    assert torch.equal(morphology.fill_holes(tube), tube)
    assert morphology.fill_holes_by_slice(tube).all()
    across = shell.clone()
    across[:, 2:5, 2:5] = False  # open along x: no slice encloses it
    assert not morphology.fill_holes_by_slice(across).all()


def test_spreading_follows_paths_over_faces_only():
    seed, through = torch.zeros(2, 5, 5, dtype=torch.bool)[..., None]
    seed[0, 0] = True
    through[0, 1:4] = through[1, 3] = True
    through[2, 4] = True  # touches (1, 3) by an edge
    reached = morphology.spread(seed, through)
    assert reached[..., 0].nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 3]]
    assert torch.equal(morphology.spread(seed, torch.zeros_like(seed)), seed)


@pytest.mark.parametrize("radius", [(1, 1, 1), (2, 1, 0), (0, 0, 0)])
def test_median_equals_scipy_also_in_slabs(radius):
    image = torch.from_numpy(np.random.default_rng(1).normal(size=(11, 8, 6)).astype(np.float32))
    expected = ndimage.median_filter(image.numpy(), size=[2 * r + 1 for r in radius], mode="reflect")
    assert np.array_equal(morphology.median_filter(image, radius).numpy(), expected)
    assert np.array_equal(morphology.median_filter(image, radius, max_elements=1).numpy(), expected)


def test_median_survives_an_axis_shorter_than_its_radius():
    image = torch.arange(12.0).reshape(4, 3, 1)
    assert morphology.median_filter(image, (1, 1, 3)).shape == (4, 3, 1)


def test_otsu_equals_itk_within_a_bin():
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(1, 0.3, 4000), rng.normal(4, 0.6, 2500)]).astype(np.float32)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(256)
    otsu.Execute(sitk.GetImageFromArray(values[None]))
    bin_width = float(values.max() - values.min()) / 256
    threshold = morphology.otsu_threshold(torch.from_numpy(values))
    assert threshold == pytest.approx(otsu.GetThreshold(), abs=1.01 * bin_width)


def test_otsu_parts_two_values_and_returns_the_only_one():
    threshold = morphology.otsu_threshold(torch.tensor([1.0, 1.0, 5.0]))
    assert 1.0 < threshold < 5.0
    assert morphology.otsu_threshold(torch.full((4,), 2.5)) == 2.5
    with pytest.raises(ValueError, match="at least one value"):
        morphology.otsu_threshold(torch.zeros(0))


def test_touched_faces_are_named_along_the_storage_axes():
    mask = torch.zeros(4, 5, 6, dtype=torch.bool)
    mask[1, 2, 0] = mask[3, 2, 3] = True
    assert morphology.touched_faces(mask) == ("last x", "first z")
    assert morphology.touched_faces(torch.zeros(2, 2, 2)) == ()
