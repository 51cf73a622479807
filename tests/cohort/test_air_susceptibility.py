"""Air near the brain: the shim, the distortion and the drop-out by hand and by conservation."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.air_susceptibility import air_field, epi_distorted, through_slice_factor
from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.smooth_fields import VoxelGrid

GRID = VoxelGrid((60, 72, 48), (3.0, 3.0, 3.0), (0.0, -16.0, 4.0))


@pytest.fixture(scope="module")
def field():
    """Of a brain that is an ellipsoid, in the template's own position."""
    position = np.stack(np.meshgrid(*(GRID.axis(axis) for axis in range(3)), indexing="ij"), axis=-1)
    radius = np.sqrt((((position - [0, -17, 8]) / [66, 84, 68]) ** 2).sum(axis=-1))
    depth = (66 * (1 - radius)).astype(np.float32)
    return air_field(Anatomy(np.zeros(0), position.astype(np.float32), depth), GRID, 3.0), position, depth > 0


def test_the_shim_leaves_no_linear_part_in_the_brain(field):
    hertz, position, brain = field
    design = np.column_stack([np.ones(brain.sum()), position[brain]])
    fitted = design @ np.linalg.lstsq(design, hertz[brain], rcond=None)[0]
    # The shim is fitted to every fourth voxel.
    assert np.abs(fitted).max() < 2.0
    assert np.abs(hertz[brain]).max() > 40.0


def test_the_field_is_strong_near_the_sinuses_and_weak_in_the_parietal_lobes(field):
    hertz, position, brain = field
    orbitofrontal = brain & (np.linalg.norm(position - [0, 50, -22], axis=-1) < 12)
    parietal = brain & (position[..., 2] > 40)
    assert np.abs(hertz[orbitofrontal]).max() > 40.0
    assert np.abs(hertz[parietal]).mean() < 8.0


def test_a_constant_field_moves_the_image_by_whole_voxels():
    image = np.random.default_rng(0).random((4, 20, 3), dtype=np.float32)
    (moved,) = epi_distorted([image], np.full(image.shape, 50.0, dtype=np.float32), 25.0)
    np.testing.assert_allclose(moved[:, 2:], image[:, :-2], atol=1e-6)


def test_distortion_piles_up_and_thins_out_but_keeps_the_signal():
    image = np.zeros((3, 40, 2), dtype=np.float32)
    image[:, 8:32] = 1.0
    y = np.arange(40, dtype=np.float32)
    hertz = np.broadcast_to((30 * np.exp(-(((y - 20) / 4) ** 2)))[None, :, None], image.shape).astype(np.float32)
    (moved,) = epi_distorted([image], hertz, 20.0)
    assert moved.sum() == pytest.approx(image.sum(), rel=1e-5)
    assert moved[:, 10:30].max() > 1.2
    assert moved[:, 10:30].min() < 0.85
    # Where the field does not change nothing does.
    np.testing.assert_allclose(moved[:, :10], image[:, :10], atol=0.01)


def test_one_turn_of_phase_across_the_slice_leaves_nothing():
    z = np.arange(6, dtype=np.float32)
    hertz = np.broadcast_to(50 * z, (2, 2, 6)).astype(np.float32)
    np.testing.assert_allclose(through_slice_factor(hertz, 20.0), 0.0, atol=1e-6)
    # Half a turn: 2 / pi.
    np.testing.assert_allclose(through_slice_factor(hertz, 10.0), 2 / np.pi, rtol=1e-6)
    assert (through_slice_factor(hertz, 0.0) == 1).all()
