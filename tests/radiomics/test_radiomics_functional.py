"""Laws of the features, and their values where they can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mhsev_monai.radiomics import (
    FEATURE_NAMES,
    FEATURES,
    RadiomicsParameters,
    feature_names,
    laplacian_of_gaussian_3d,
    radiomics_features,
)
from mhsev_monai.radiomics.glcm import GLCM_NAMES

SPACING = (2.0, 1.0, 3.0)
# What follows the unit of the intensities; all else depends on their order and place alone.
OF_DEGREE = {"intensity": 1, "intensity^2": 2, "intensity^2 mm^3": 2}


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray]:
    """A smooth random image and a ragged region."""
    rng = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (9, 11, 8)], indexing="ij"))
    image = 100 + 30 * np.sin(3 * grid[0] + grid[1]) + rng.normal(0, 5, grid.shape[1:])
    return image, ((grid**2).sum(0) < 1.1) & (rng.random(image.shape) < 0.9)


def test_the_table_holds_the_families_in_full():
    families = [spec.family for spec in FEATURES]
    numbers = {family: families.count(family) for family in dict.fromkeys(families)}
    assert numbers == {"firstorder": 18, "glcm": 24, "glrlm": 16, "glszm": 16, "gldm": 14, "ngtdm": 5}
    assert len(set(FEATURE_NAMES)) == 93
    assert tuple(spec.short_name for spec in FEATURES if spec.family == "glcm") == GLCM_NAMES


def test_each_definition_of_ibsi_is_named_once():
    codes = [spec.source for spec in FEATURES if spec.source.startswith("IBSI")]
    assert len(set(codes)) == len(codes) == 91


def test_features_come_in_the_order_of_their_names(head):
    parameters = RadiomicsParameters(log_sigmas_mm=(2.0, 3.5))
    found = radiomics_features(*head, SPACING, parameters)
    assert tuple(found) == feature_names(parameters)
    assert feature_names(parameters)[93] == "log_2mm_firstorder_energy"
    assert feature_names(parameters)[111] == "log_3p5mm_firstorder_energy"


@pytest.mark.parametrize("merged", [False, True])
def test_mirrored_and_turned_images_have_the_same_features(head, merged):
    """The 13 directions map onto themselves; only the order of summation differs."""
    image, mask = head
    parameters = RadiomicsParameters(bin_count=8, merged=merged, log_sigmas_mm=(2.0,))
    turned = [np.ascontiguousarray(each[::-1, :, ::-1].transpose(2, 0, 1)) for each in (image, mask)]
    sides = (SPACING[2], SPACING[0], SPACING[1])
    expected = radiomics_features(image, mask, SPACING, parameters)
    assert radiomics_features(*turned, sides, parameters) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_what_lies_outside_the_region_does_not_matter(head):
    image, mask = head
    wider = np.pad(np.where(mask, image, 1e9), ((4, 1), (0, 2), (3, 3)))
    expected = radiomics_features(image, mask, SPACING)
    assert radiomics_features(wider, np.pad(mask, ((4, 1), (0, 2), (3, 3))), SPACING) == expected


def test_with_a_fixed_number_of_bins_only_intensities_follow_their_unit(head):
    image, mask = head
    # A power of two, so that no edge of a bin moves by rounding.
    plain, scaled = (radiomics_features(image * factor, mask, SPACING) for factor in (1.0, 4.0))
    expected = {spec.name: plain[spec.name] * 4.0 ** OF_DEGREE.get(spec.unit, 0) for spec in FEATURES}
    assert scaled == pytest.approx(expected, rel=1e-12)


def test_over_the_median_no_feature_knows_the_unit(head):
    image, mask = head
    parameters = RadiomicsParameters(over_median=True, log_sigmas_mm=(2.0,))
    plain, scaled = (radiomics_features(image * factor, mask, SPACING, parameters) for factor in (1.0, 4.0))
    assert plain["firstorder_median"] == 1.0
    assert scaled == pytest.approx(plain, rel=1e-12)


def test_intensities_beyond_the_limits_are_set_to_them(head):
    image, mask = head
    parameters = RadiomicsParameters(limits=(80.0, 110.0))
    expected = radiomics_features(np.clip(image, 80, 110), mask, SPACING)
    assert expected["firstorder_range"] == 30.0
    assert radiomics_features(image, mask, SPACING, parameters) == expected


def test_a_checkerboard_of_two_levels_has_its_values():
    """4 x 4 x 4 voxels: along an axis neighbours differ, across two axes they are equal, across three they differ.

    So 3 + 4 of the 13 directions have pairs of differing levels alone, and 6 pairs of equal ones alone.
    """
    board = np.indices((4, 4, 4)).sum(0) % 2
    found = radiomics_features(board, np.ones_like(board), (1.0, 1.0, 1.0), RadiomicsParameters(bin_count=2))
    assert found["glcm_contrast"] == pytest.approx(7 / 13)
    assert found["glcm_correlation"] == pytest.approx((6 - 7) / 13)
    assert found["glcm_joint_entropy"] == pytest.approx(1.0)
    assert found["glcm_mcc"] == pytest.approx(1.0)
    assert found["glszm_large_area_emphasis"] == 32**2  # each colour hangs together over its diagonals
    assert found["glszm_zone_percentage"] == 2 / 64
    # Across one or three axes all runs are single voxels. In each of 6 planes' diagonals, 4 layers of 7 lines: 28 runs.
    assert found["glrlm_run_percentage"] == pytest.approx((7 * 64 + 6 * 28) / 13 / 64)
    assert found["firstorder_uniformity"] == 0.5


FLAT = {
    "firstorder_entropy": 0.0,
    "firstorder_kurtosis": 0.0,
    "glcm_correlation": 1.0,
    "glcm_mcc": 1.0,
    "glcm_imc1": 0.0,
    "glcm_joint_energy": 1.0,
    "glszm_zone_variance": 0.0,
    "glszm_large_area_emphasis": 60.0**2,
    "ngtdm_coarseness": 1e6,
    "ngtdm_strength": 0.0,
}


def test_a_flat_region_has_the_values_of_one_level():
    found = radiomics_features(np.full((3, 4, 5), 0.1), np.ones((3, 4, 5)), SPACING)
    assert {name: found[name] for name in FLAT} == pytest.approx(FLAT, abs=1e-12)


@pytest.mark.parametrize(
    "mask",
    [
        np.eye(5)[:, :, None] * np.eye(5)[None] * (np.arange(5) == 2),  # one voxel
        np.indices((5, 5, 5)).max(0) * (np.indices((5, 5, 5)) % 2 == 0).all(0) > 0,  # none touches another
        np.indices((5, 5, 5))[0] == 4,  # a slice at the border
        np.ones((5, 5, 5)),
    ],
    ids=["one voxel", "lonely voxels", "a slice", "the whole volume"],
)
@pytest.mark.parametrize("image", ["flat", "zero", "ramp", "one bright"])
def test_degenerate_regions_have_finite_features(mask, image):
    images = {
        "flat": np.full((5, 5, 5), 1e-3),
        "zero": np.zeros((5, 5, 5)),
        "ramp": np.indices((5, 5, 5)).sum(0) - 6.0,
        "one bright": np.where(np.indices((5, 5, 5)).sum(0) == 12, 1e12, 1e-9),
    }
    for parameters in (RadiomicsParameters(), RadiomicsParameters(merged=True, over_median=True, log_sigmas_mm=(2.0,))):
        found = radiomics_features(images[image], mask, SPACING, parameters)
        assert [name for name, value in found.items() if not math.isfinite(value)] == []


def test_the_laplacian_of_a_gaussian_spot_is_the_known_function():
    """A spot of width s smoothed by sigma is a Gaussian of variance v = s^2 + sigma^2 and height (s^2 / v)^1.5."""
    spacing, width, sigma = (1.0, 1.5, 2.0), 4.0, 2.0
    axes = [side * (np.arange(n) - n // 2) for side, n in zip(spacing, (41, 31, 25), strict=True)]
    squared = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    v = width**2 + sigma**2
    expected = sigma**2 * (squared / v**2 - 3 / v) * (width**2 / v) ** 1.5 * np.exp(-squared / (2 * v))
    found = laplacian_of_gaussian_3d(np.exp(-squared / (2 * width**2)), spacing, sigma)
    # A thousandth of the peak: the second difference is right to fourth order in the voxel.
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("sides", [(2.0, 2.0, 2.0), (1.0, 1.0, 6.0)])
def test_the_laplacian_of_an_even_image_is_nothing_even_where_slices_are_thick(sides):
    np.testing.assert_allclose(laplacian_of_gaussian_3d(np.full((9, 9, 9), 7.0), sides, 2.0), 0.0, atol=1e-12)


def test_tensors_are_read_as_arrays_are(head):
    image, mask = head
    found = radiomics_features(torch.from_numpy(image), torch.from_numpy(mask), SPACING)
    assert found == radiomics_features(image, mask, SPACING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((4, 4, 4))}, "at least one voxel"),
        ({"mask": np.ones((4, 4, 3))}, "of one shape"),
        ({"image": np.full((4, 4, 4), np.nan)}, "finite wherever"),
        ({"image": np.zeros((4, 4)), "mask": np.ones((4, 4))}, r"\(X, Y, Z\)"),
        ({"spacing": (1.0, 0.0, 1.0)}, "3 positive numbers"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(change, message):
    usable = {"image": np.zeros((4, 4, 4)), "mask": np.ones((4, 4, 4)), "spacing": SPACING}
    with pytest.raises(ValueError, match=message):
        radiomics_features(**{**usable, **change})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"bin_count": 1}, "2 to 1024, got 1"),
        ({"bin_width": 0.0}, "bin_width must be positive"),
        ({"limits": [2.0, 1.0]}, "two rising finite numbers"),
        ({"log_sigmas_mm": [2.0, 2.0]}, "different positive numbers"),
        ({"intensity_shift": math.inf}, "must be finite"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        RadiomicsParameters(**setting)
