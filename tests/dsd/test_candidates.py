from __future__ import annotations

import math

import numpy as np
import pytest
from dsd_phantoms import spotted_head, wavy_head
from scipy.ndimage import distance_transform_edt

from mhsev_monai.dsd.candidates import find_candidates, laplacian_of_gaussian, radial_symmetry
from mhsev_monai.dsd.functional import dynamic_spectral_decomposition


def dark_boxes(*boxes, shape=(30, 30, 8), depth=0.4):
    dsd_map = np.zeros(shape)
    for box in boxes:
        dsd_map[box] = -depth
    return dsd_map


def test_box_has_the_volume_centre_and_distance_of_a_box():
    dsd_map = dark_boxes(np.s_[10:12, 14:17, 3:5])
    (found,) = find_candidates(dsd_map, (1.5, 1.5, 3.0))
    assert found.centre_voxel == pytest.approx((10.5, 15.0, 3.5))
    assert found.volume_mm3 == pytest.approx(12 * 1.5 * 1.5 * 3)
    assert found.diameter_mm == pytest.approx((6 * 81 / math.pi) ** (1 / 3))
    assert found.n_slices == 2
    assert (found.depth, found.mean_depth) == pytest.approx((0.4, 0.4))
    # In-plane variances of 2 by 3 voxels: (2^2 and 3^2) * 1.5^2 / 12.
    assert found.elongation == pytest.approx(9 / 4)


def test_depths_weigh_the_centre_and_name_the_peak():
    dsd_map = dark_boxes(np.s_[10:12, 10, 3], depth=0.2)
    dsd_map[12, 10, 3] = -0.6
    (found,) = find_candidates(dsd_map, (2.0, 2.0, 2.0))
    assert found.peak_voxel == (12, 10, 3)
    assert found.centre_voxel == pytest.approx(((10 + 11 + 3 * 12) / 5, 10, 3))
    assert (found.depth, found.mean_depth) == pytest.approx((0.6, 1 / 3))


@pytest.mark.parametrize(
    ("second", "n_found"),
    [
        (np.s_[11, 10, 3], 1),  # face
        (np.s_[11, 11, 3], 1),  # edge
        (np.s_[10, 11, 4], 1),  # edge across slices
        (np.s_[11, 11, 4], 2),  # corner
        (np.s_[12, 10, 3], 2),
    ],
)
def test_voxels_that_share_a_face_or_an_edge_are_one_candidate(second, n_found):
    assert len(find_candidates(dark_boxes(np.s_[10, 10, 3], second), (2.0, 2.0, 3.0))) == n_found


@pytest.mark.parametrize(("side", "n_found"), [(1, 0), (2, 1), (8, 1), (9, 0)])
def test_only_diameters_of_2_to_10_mm_count(side, n_found):
    # A cube of side a has the volume of a sphere of diameter 1.24 a.
    cube = dark_boxes(np.s_[5 : 5 + side, 5 : 5 + side, 5 : 5 + side], shape=(24, 24, 24))
    assert len(find_candidates(cube, (1.0, 1.0, 1.0))) == n_found


def test_threshold_mask_and_sign_select():
    dsd_map = dark_boxes(np.s_[5:7, 5:7, 2], np.s_[20:22, 20:22, 5])
    dsd_map[20:22, 20:22, 5] = -0.1
    dsd_map[12:14, 12:14, 4] = 0.5
    mask = np.ones(dsd_map.shape)
    assert [c.peak_voxel[2] for c in find_candidates(dsd_map, (2, 2, 2), mask, threshold=0.05)] == [2, 5]
    assert [c.peak_voxel[2] for c in find_candidates(dsd_map, (2, 2, 2), mask, threshold=0.12)] == [2]
    mask[5:7] = 0
    assert find_candidates(dsd_map, (2, 2, 2), mask, threshold=0.12) == ()
    assert find_candidates(np.zeros((5, 5)), (2, 2)) == ()


def test_distance_to_the_surface_is_in_mm_and_ends_at_the_image():
    mask = wavy_head((40, 40, 9))[1]
    dsd_map = dark_boxes(np.s_[20:22, 20:22, 4], shape=(40, 40, 9))
    (found,) = find_candidates(dsd_map, (2.0, 2.0, 5.0), mask)
    expected = distance_transform_edt(np.pad(mask, 1), sampling=(2.0, 2.0, 5.0))[21, 21, 5]
    assert found.distance_to_surface_mm == pytest.approx(expected)
    (thin,) = find_candidates(dsd_map[:, :, 4], (2.0, 2.0), mask[:, :, 4])
    assert thin.distance_to_surface_mm == 1.0, "one slice: the next voxel across it lies outside"


def test_round_spots_are_symmetric_and_lines_are_long():
    x, y = np.meshgrid(np.arange(40.0), np.arange(40.0), indexing="ij")
    round_spot = -0.5 * np.exp(-((x - 20) ** 2 + (y - 20) ** 2) / 8)
    line = -0.5 * np.exp(-((x - 20) ** 2) / 50 - (y - 20) ** 2 / 2)
    spot, streak = (find_candidates(m, (1.0, 1.0), diameter_range_mm=(2, 20))[0] for m in (round_spot, line))
    assert spot.symmetry > 0.95
    assert spot.elongation == pytest.approx(1, abs=0.01)
    assert streak.symmetry < 0.6
    assert streak.elongation > 10


def test_symmetry_of_a_plane_that_falls_to_one_side_is_low_and_of_a_constant_one_is_1():
    x, _ = np.meshgrid(np.arange(21.0), np.arange(21.0), indexing="ij")
    assert radial_symmetry(x, np.array([10.0, 10.0]), 6, (1, 1)) < 0.01
    assert radial_symmetry(np.ones((9, 9)), np.array([4.0, 4.0]), 3, (1, 1)) == 1


def test_candidates_come_deepest_first_and_the_same_each_time():
    image, mask = wavy_head((60, 60, 4), noise=0.1)
    dsd_map = dynamic_spectral_decomposition(image, (2.0, 2.0, 4.0), mask).map
    found = find_candidates(dsd_map, (2.0, 2.0, 4.0), mask, threshold=0.05)
    depths = [candidate.depth for candidate in found]
    assert len(found) > 5
    assert depths == sorted(depths, reverse=True)
    assert found == find_candidates(dsd_map, (2.0, 2.0, 4.0), mask, threshold=0.05)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (2.0, 2.0, 4.0), (1.0, 1.5, 3.0)])
def test_each_planted_spot_is_found_where_it_was_planted(spacing):
    image, mask = spotted_head(spacing, 9)
    dsd_map = dynamic_spectral_decomposition(image, spacing, mask).map
    found = find_candidates(dsd_map, spacing, mask)
    places = sorted(
        tuple(round((c + 0.5) * s - 70, 0) // 10 for c, s in zip(f.centre_voxel[:2], spacing, strict=False))
        for f in found
    )
    assert len(found) == 9
    assert len(set(places)) == 9
    assert all(abs((f.centre_voxel[2] + 0.5) * spacing[2] - 15) < spacing[2] for f in found)


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 3.0), (0.5, 1.0, 3.0)])
def test_laplacian_gives_a_matched_spot_its_own_depth(spacing):
    x, y = np.meshgrid((np.arange(120) - 60) * spacing[0], (np.arange(120) - 60) * spacing[1], indexing="ij")
    image = 80 * (1 - 0.4 * np.exp(-(x**2 + y**2) / (2 * 2.0**2)))[..., None]
    response = laplacian_of_gaussian(image, spacing, sigma_mm=2.0)
    assert response.min() == pytest.approx(-0.4, abs=0.005)
    assert np.unravel_index(response.argmin(), response.shape) == (60, 60, 0)
    np.testing.assert_allclose(laplacian_of_gaussian(7.3 * image, spacing), response, atol=1e-12)


def test_laplacian_is_zero_outside_the_mask_and_keeps_the_shape():
    image, mask = wavy_head((30, 30, 1))
    response = laplacian_of_gaussian(image[..., 0], (2.0, 2.0), mask[..., 0])
    assert response.shape == (30, 30)
    assert (response[~mask[..., 0]] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold must be positive, got 0.0"),
        ({"diameter_range_mm": (5, 2)}, "diameter_range_mm must be two rising numbers"),
    ],
)
def test_impossible_searches_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        find_candidates(np.zeros((5, 5, 5)), (1, 1, 1), **options)


def test_impossible_scale_is_refused():
    with pytest.raises(ValueError, match="sigma_mm must be positive"):
        laplacian_of_gaussian(np.ones((5, 5, 5)), (1, 1, 1), sigma_mm=0)
