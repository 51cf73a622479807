"""Peaks and curvature: analytic spots, separation, order."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.dsd.peaks import MOST_PEAKS, SEPARATION_MM, find_peaks, in_plane_curvature, spot_maps

SPACING = (1.0, 1.25, 3.0)


def gaussian_spots(shape, places, sigma_mm, depth):
    """1 less Gaussian dips at voxel places, each in its own slice."""
    x, y = (np.arange(n) * s for n, s in zip(shape[:2], SPACING, strict=False))
    image = np.ones(shape, dtype=np.float32)
    for i, j, k in places:
        squared = (x[:, None] - i * SPACING[0]) ** 2 + (y[None, :] - j * SPACING[1]) ** 2
        image[:, :, k] -= (depth * np.exp(-squared / (2 * sigma_mm**2))).astype(np.float32)
    return image


@pytest.mark.parametrize("sigma", [2.0, 3.0])
def test_a_gaussian_spot_of_the_scale_shows_its_own_depth(sigma):
    """By hand: smoothed with s, a spot of sigma s has depth d/2 and variance 2 s^2, so s^2 f'' = d/4 on each axis."""
    image = gaussian_spots((41, 33, 3), [(20, 16, 1)], sigma, 0.4)
    curvature = in_plane_curvature(image, SPACING, sigma)
    at = (20, 16, 1)
    # Sampled Gaussians differ from true ones by about 2 per cent at two voxels.
    assert curvature.large[at] == pytest.approx(0.1, rel=0.03)
    assert curvature.small[at] == pytest.approx(0.1, rel=0.03)
    assert curvature.laplacian_depth[at] == pytest.approx(0.4, rel=0.03)
    assert curvature.spot_depth[at] == pytest.approx(0.4, rel=0.03)


def test_a_line_has_laplacian_depth_and_no_spot_depth():
    image = np.ones((40, 40, 1), dtype=np.float32)
    image[19:21] = 0.5
    curvature = in_plane_curvature(image, SPACING, 2.0)
    assert curvature.laplacian_depth[20, 20, 0] > 0.15
    # The sampled second derivative of a constant is not quite 0.
    assert abs(curvature.spot_depth[20, 20, 0]) < 0.005


def test_curvature_turns_with_the_image():
    rng = np.random.default_rng(0)
    image = rng.random((24, 24, 2)).astype(np.float32)
    straight = in_plane_curvature(image, (1.5, 1.5, 3.0), 1.5)
    turned = in_plane_curvature(np.rot90(image).copy(), (1.5, 1.5, 3.0), 1.5)
    np.testing.assert_allclose(turned.small, np.rot90(straight.small), atol=1e-5)


def test_every_planted_spot_is_a_peak_deepest_first():
    places = [(10, 10, 0), (30, 12, 2), (20, 25, 4)]
    image = np.minimum.reduce(
        [gaussian_spots((41, 33, 5), [place], 1.6, depth) for place, depth in zip(places, (0.2, 0.5, 0.3), strict=True)]
    )
    inside = np.ones(image.shape, dtype=bool)
    peaks = find_peaks(spot_maps(image - 1, image, image, inside, SPACING), inside, SPACING)
    assert [tuple(voxel) for voxel in peaks.voxel[:3]] == [places[1], places[2], places[0]]
    assert (np.diff(peaks.depth) <= 0).all()


def test_peaks_lie_apart_inside_the_mask_and_are_not_too_many():
    rng = np.random.default_rng(4)
    depth = rng.random((80, 80, 10)).astype(np.float32)
    inside = np.zeros(depth.shape, dtype=bool)
    inside[5:75, 5:75, 1:9] = True
    peaks = find_peaks([depth], inside, SPACING)
    assert len(peaks.depth) == MOST_PEAKS
    assert inside[tuple(peaks.voxel.T)].all()
    places = peaks.voxel * np.array(SPACING)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(len(places))
    assert distance.min() > SEPARATION_MM


def test_an_even_image_has_no_peak():
    image = np.ones((16, 16, 3), dtype=np.float32)
    inside = np.ones(image.shape, dtype=bool)
    peaks = find_peaks(spot_maps(image - 1, image, image, inside, SPACING), inside, SPACING)
    assert peaks.voxel.shape == (0, 3)


def test_a_spot_that_clearing_lifted_is_found_deep_inside_and_not_at_the_edge():
    image = np.minimum(
        gaussian_spots((41, 33, 5), [(20, 16, 2)], 1.6, 0.5), gaussian_spots((41, 33, 5), [(2, 16, 2)], 1.6, 0.5)
    )
    even, inside = np.ones_like(image), np.ones(image.shape, dtype=bool)
    peaks = find_peaks(spot_maps(even - 1, even, image, inside, SPACING), inside, SPACING)
    assert tuple(peaks.voxel[0]) == (20, 16, 2)
    assert (2, 16, 2) not in {tuple(voxel) for voxel in peaks.voxel}
