"""Random fields: their moments, and that a grid only samples them."""

from __future__ import annotations

import numpy as np

from mhsev_monai.cohort.smooth_fields import VoxelGrid, random_field


def axes_of(grid):
    return tuple(grid.axis(axis) for axis in range(3))


def test_a_field_has_the_mean_and_the_spread_that_were_asked_for():
    grid = VoxelGrid((120, 120, 120), (2.0, 2.0, 2.0))
    values = random_field(np.random.default_rng(0), grid, 8.0, 3.0).on_axes(axes_of(grid))
    # About 30^3 independent values: the mean is known to 3 / 164, the spread to about 1 %.
    assert abs(values.mean()) < 0.1
    assert 2.9 < values.std() < 3.1


def test_a_coarse_grid_reads_the_values_of_the_fine_one():
    fine = VoxelGrid((41, 41, 21), (1.0, 1.0, 2.0), (5.0, 0.0, -3.0))
    field = random_field(np.random.default_rng(1), fine, 12.0, 1.0)
    on_fine = field.on_axes(axes_of(fine))
    coarse = tuple(axis[::2] for axis in axes_of(fine))
    np.testing.assert_array_equal(field.on_axes(coarse), on_fine[::2, ::2, ::2])


def test_voxels_lie_evenly_around_the_centre():
    grid = VoxelGrid((4, 3, 1), (2.0, 1.5, 4.0), (10.0, 0.0, -1.0))
    assert grid.axis(0).tolist() == [7.0, 9.0, 11.0, 13.0]
    assert grid.axis(1).tolist() == [-1.5, 0.0, 1.5]
    assert grid.axis(2).tolist() == [-1.0]
