"""The approximate anatomy of real heads, against heads and mixtures that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mhsev_monai.cohort.background_geometry import (
    brain_depth,
    cortex_share,
    fluid_share,
    match_to_template,
    noise_sd,
    signal_voids,
    tissue_fractions,
)
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.template import load_head_template

SPACING = (3.0, 3.0, 3.0)


def template_brain_at(positions):
    """Whether ``(..., 3)`` MNI positions lie in the template's brain."""
    template = load_head_template()
    index = np.rint(positions - np.array(template.origin)).astype(int)
    inside = ((index >= 0) & (index < np.array(template.shape))).all(axis=-1)
    x, y, z = np.moveaxis(np.clip(index, 0, np.array(template.shape) - 1), -1, 0)
    return inside & (template.channels[:, 2].reshape(template.shape)[x, y, z] < 0)


@pytest.mark.parametrize("lowest", [-90.0, 0.0], ids=["whole head", "slab"])
def test_a_head_that_was_moved_turned_and_scaled_is_found_again(lowest):
    top = 99.0
    n_z = round((top - lowest) / 3)
    grid = VoxelGrid((66, 76, n_z), SPACING, (5.0, -10.0, (lowest + top) / 2))
    world = np.stack(np.meshgrid(*(grid.axis(axis) for axis in range(3)), indexing="ij"), axis=-1)
    rotation = Rotation.from_euler("xyz", (-14, 3, 6), degrees=True).as_matrix()
    truth = (world - (4, -8, 12)) @ (np.diag((1.08, 1.04, 1.12)) @ rotation).T
    brain = template_brain_at(truth)
    found = match_to_template(brain, grid).positions(grid)
    error = np.linalg.norm(found - truth, axis=-1)[brain]
    # On voxels of 3 mm; a slab leaves scale and pitch a little open. The tentorium has a margin of 5 mm.
    assert np.median(error) < 3.0
    assert error.max() < 8.0


@pytest.mark.parametrize("b", [930.0, 1000.0, 2500.0])
def test_the_share_of_fluid_in_a_mixture_is_found_whatever_the_shading(b):
    rng = np.random.default_rng(0)
    truth = np.zeros((12, 12, 12))
    truth[:4] = rng.uniform(0, 1, (4, 12, 12))
    shading = np.linspace(0.5, 2, 12)[:, None, None]
    # Fluid is 2.5 times as bright as tissue without weighting, and diffuses freely.
    b0 = shading * (1 - truth + 2.5 * truth)
    trace = shading * ((1 - truth) * np.exp(-b * 0.8e-3) + 2.5 * truth * np.exp(-b * 3e-3))
    share = fluid_share(b0.astype(np.float32), trace.astype(np.float32), np.ones(truth.shape, dtype=bool), b)
    assert np.allclose(share, truth, atol=0.01)


def test_depth_is_the_distance_to_the_surface_of_a_ball():
    x, y, z = np.meshgrid(*(np.arange(-20, 21) * 2.0,) * 3, indexing="ij")
    radius = np.sqrt(x * x + y * y + z * z)
    depth = brain_depth(radius < 30, (2.0, 2.0, 2.0))
    near = radius < 36
    # A surface of voxels is rough by up to a voxel.
    assert np.abs(depth - (30 - radius))[near].max() < 2.0
    assert np.abs(np.mean((depth - (30 - radius))[near])) < 0.5


def test_cortex_is_the_rim_and_what_lines_sulci_and_not_what_lines_ventricles():
    depth = np.broadcast_to(np.arange(60.0), (4, 4, 60)).astype(np.float32)
    fluid = np.zeros(depth.shape, dtype=np.float32)
    fluid[..., 15] = fluid[..., 45] = 1.0
    cortex = cortex_share(fluid, depth, (1.0, 1.0, 1.0))[0, 0]
    assert cortex[1] > 0.9
    assert cortex[13] > 0.9
    assert cortex[8] < 0.1
    assert cortex[43] < 0.1


def test_noise_is_told_from_an_image_with_edges_and_slopes():
    rng = np.random.default_rng(3)
    image = np.add.outer(np.linspace(100, 300, 60), np.where(np.arange(60) < 30, 0, 500))[..., None]
    noisy = image + rng.normal(0, 7, (60, 60, 10))
    # 36 000 voxels: the median deviation is known to 1 %.
    assert noise_sd(noisy.astype(np.float32), np.ones(noisy.shape, dtype=bool)) == pytest.approx(7, rel=0.03)


def test_voids_are_what_is_half_as_bright_as_the_tissue_around_and_not_what_is_shaded():
    brain = np.ones((40, 40, 20), dtype=bool)
    b0 = np.broadcast_to(np.linspace(400, 1600, 40)[:, None, None], brain.shape).copy()
    void = np.zeros(brain.shape, dtype=bool)
    void[20:22, 20:22, 10] = True
    b0[void] *= 0.3
    fluid = np.zeros(brain.shape, dtype=np.float32)
    assert np.array_equal(signal_voids(b0.astype(np.float32), fluid, brain, (2.0, 2.0, 2.0)), void)


def test_fractions_sum_to_one_in_tissue_and_to_the_fluid_elsewhere():
    rng = np.random.default_rng(1)
    fluid, cortex = rng.uniform(0, 1, (2, 5, 5, 5)).astype(np.float32)
    tissue = rng.random((5, 5, 5)) < 0.5
    total = tissue_fractions(fluid, cortex, tissue).sum(axis=0)
    assert np.allclose(total, np.where(tissue, 1, fluid), atol=1e-6)
