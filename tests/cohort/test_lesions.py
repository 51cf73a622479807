"""Partial volume of bodies against geometry."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.lesions import Ellipsoid, Tube, filled_share
from mhsev_monai.cohort.smooth_fields import VoxelGrid


def test_the_shares_of_a_sphere_add_up_to_its_volume():
    grid = VoxelGrid((20, 20, 12), (1.8, 1.8, 3.0))
    filled = filled_share(Ellipsoid(np.array((0.3, -0.7, 1.1)), np.full(3, 2.5)), grid, 8)
    # 65.4 mm^3 are sampled by about 3400 points.
    assert filled.share.sum() * 1.8 * 1.8 * 3.0 == pytest.approx(4 / 3 * np.pi * 2.5**3, rel=0.02)


@pytest.mark.parametrize(
    ("diameter", "spacing"), [(2.7, (1.75, 1.75, 2.5)), (2.7, (1.9, 1.9, 5.0)), (4.0, (1.9, 1.9, 5.0))]
)
def test_shares_of_a_sphere_equal_those_of_points_thrown_into_it(diameter, spacing):
    """Oracle: uniform points in the ball, counted by voxel; no grid of samples takes part."""
    rng = np.random.default_rng(0)
    grid = VoxelGrid((9, 9, 9), spacing)
    corner = np.array([grid.axis(axis)[0] for axis in range(3)]) - np.array(spacing) / 2
    for _ in range(20):
        centre = rng.uniform(-0.5, 0.5, 3) * spacing
        directions = rng.normal(size=(40_000, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        points = centre + directions * (diameter / 2 * np.cbrt(rng.random((40_000, 1))))
        voxels = np.floor((points - corner) / spacing).astype(int)
        counted = np.zeros(grid.shape)
        np.add.at(counted, tuple(voxels.T), np.pi / 6 * diameter**3 / np.prod(spacing) / 40_000)
        filled = filled_share(Ellipsoid(centre, np.full(3, diameter / 2)), grid, 6)
        share = np.zeros(grid.shape)
        share[filled.box] = filled.share
        # 216 samples a voxel know a share near one half to about 0.02.
        np.testing.assert_allclose(share, counted, atol=0.05)


def test_a_straight_tube_has_the_volume_of_a_capsule():
    curve = np.stack([np.zeros(81), np.zeros(81), np.linspace(-8, 8, 81)], axis=1)
    filled = filled_share(Tube(curve, 1.5), VoxelGrid((10, 10, 16), (1.5, 1.5, 2.0)), 6)
    capsule = np.pi * 1.5**2 * 16 + 4 / 3 * np.pi * 1.5**3
    assert filled.share.sum() * 1.5 * 1.5 * 2.0 == pytest.approx(capsule, rel=0.03)


def test_what_lies_outside_the_scan_is_cut_off():
    grid = VoxelGrid((4, 4, 4), (2.0, 2.0, 2.0))
    half = filled_share(Ellipsoid(np.array((4.0, 0.0, 0.0)), np.full(3, 2.0)), grid, 10)
    assert half.share.sum() * 8 == pytest.approx(0.5 * 4 / 3 * np.pi * 8, rel=0.03)
    assert filled_share(Ellipsoid(np.array((40.0, 0.0, 0.0)), np.full(3, 2.0)), grid, 4).share.size == 0
