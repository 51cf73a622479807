"""Motion between volumes: turns and shifts that can be done by hand, and how far heads move."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.motion import Pose, draw_poses, moved
from mhsev_monai.cohort.smooth_fields import VoxelGrid

GRID = VoxelGrid((15, 15, 9), (2.0, 2.0, 3.0))
STILL = np.zeros(3)


def blob():
    signal = np.zeros(GRID.shape, dtype=np.float32)
    signal[9:12, 6:8, 3:5] = 1.0
    return signal


def test_a_head_at_rest_is_not_interpolated():
    signal = blob()
    assert moved(signal, Pose(STILL, STILL), GRID) is signal


def test_a_shift_by_voxels_is_a_roll():
    result = moved(blob(), Pose(STILL, np.array([-4.0, 2.0, 3.0])), GRID)
    np.testing.assert_allclose(result, np.roll(blob(), (-2, 1, 1), axis=(0, 1, 2)), atol=1e-5)


def test_a_quarter_turn_about_z_takes_x_to_y():
    result = moved(blob(), Pose(np.array([0.0, 0.0, 90.0]), STILL), GRID)
    expected = np.rot90(blob(), k=1, axes=(0, 1))
    np.testing.assert_allclose(result, expected, atol=1e-4)
    # By hand: what lies to the right of the middle comes to lie in front of it.
    assert np.argwhere(result > 0.5)[:, 1].min() > 7


def test_a_turn_respects_the_size_of_voxels():
    signal = np.zeros(GRID.shape, dtype=np.float32)
    signal[7, 7 + 3, 4] = 1.0  # 6 mm in front of the middle
    result = moved(signal, Pose(np.array([90.0, 0.0, 0.0]), STILL), GRID)
    assert np.unravel_index(result.argmax(), result.shape) == (7, 7, 4 + 2)  # 6 mm above it


def test_eddy_currents_stretch_the_phase_encoding_only():
    y = np.arange(15, dtype=np.float32)
    ramp = np.broadcast_to(y[None, :, None] + 20, GRID.shape).astype(np.float32)
    result = moved(ramp, Pose(STILL, STILL, stretch=0.25), GRID)
    # A stretched ramp is flatter by 1.25 about its middle.
    np.testing.assert_allclose(result[7, 4:11, 4], 27 + (y[4:11] - 7) / 1.25, atol=0.05)


@pytest.mark.parametrize("b_values", [(0.0, 1000.0, 1000.0, 1000.0), (0.0,)])
def test_the_first_volume_is_at_rest_and_later_ones_move_by_about_a_voxel_at_most(b_values):
    poses = [draw_poses(np.random.default_rng(seed), b_values) for seed in range(200)]
    assert all(not p[0].shift_mm.any() and not p[0].rotation_degrees.any() and p[0].stretch == 0 for p in poses)
    for volume in range(1, len(b_values)):
        shift = np.array([p[volume].shift_mm for p in poses])
        # A random walk with steps of 0.25 mm; 600 values know their spread to 3 %.
        assert shift.std() == pytest.approx(0.25 * np.sqrt(volume), rel=0.15)
        assert np.abs(shift).max() <= 1.8
