"""A coarser scan shows the same head in the same place, by hand-computed numbers and laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mhsev_monai.coarser_voxels import CoarserVoxelsd, coarser_in_plane, thicker_slices

AFFINE = np.array([[-1.5, 0.0, 0.0, 90.0], [0.0, 1.4, -0.7, -60.0], [0.0, 0.35, 2.8, -40.0], [0, 0, 0, 1]])
"""Oblique, and stored from right to left."""


def meta(volume: torch.Tensor) -> MetaTensor:
    return MetaTensor(volume[None], affine=torch.from_numpy(AFFINE))


def blob(shape: tuple[int, int, int], sigma_mm: float) -> torch.Tensor:
    """A Gaussian of the world, around the middle of the grid."""
    voxels = np.stack(np.indices(shape), -1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    middle = (np.array(shape) - 1) / 2 @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    return torch.from_numpy(np.exp(-(((voxels - middle) / sigma_mm) ** 2).sum(-1) / 2)).float()


def centre_of_mass(image: MetaTensor) -> np.ndarray:
    weights = image.as_tensor()[0].numpy().astype(np.float64)
    middle = [(index * weights).sum() / weights.sum() for index in np.indices(weights.shape)]
    affine = image.affine.numpy()
    return affine[:3, :3] @ middle + affine[:3, 3]


def test_a_wave_that_fewer_samples_can_show_is_the_same_wave_at_their_places():
    """2 periods in 24 samples of 2 mm, brought to 16 samples of 3 mm."""
    x = torch.arange(24, dtype=torch.float64)
    wave = 2 + torch.cos(2 * math.pi * 2 * x / 24)
    found, sides = coarser_in_plane(wave[:, None, None].expand(24, 24, 3), (2.0, 2.0), (3.0, 3.0))
    assert found.shape == (16, 16, 3)
    assert sides == [3.0, 3.0]
    expected = 2 + torch.cos(2 * math.pi * 2 * torch.arange(16, dtype=torch.float64) / 16)
    torch.testing.assert_close(found, expected[:, None, None].expand(16, 16, 3), rtol=0, atol=1e-12)


def test_a_wave_that_fewer_samples_cannot_show_is_gone():
    x = torch.arange(24, dtype=torch.float64)
    wave = 2 + torch.cos(2 * math.pi * 10 * x / 24)
    found, _ = coarser_in_plane(wave[:, None, None].expand(24, 24, 1), (2.0, 2.0), (3.0, 3.0))
    torch.testing.assert_close(found, torch.full_like(found, 2.0), rtol=0, atol=1e-12)


def test_thicker_slices_are_means_over_their_thickness():
    """2 mm to 3 mm: the first takes slice 0 and half of slice 1; the rest beyond the last whole one is left out."""
    values = torch.tensor([1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 100.0])
    found = thicker_slices(values.expand(2, 2, 7), 2.0, 3.0)
    assert found[0, 0].tolist() == pytest.approx([(1 + 2) / 1.5, (2 + 7) / 1.5, (10 + 6.5) / 1.5, (6.5 + 16) / 1.5])


@pytest.mark.parametrize("target", [(1.5, 1.4, 2.8), (1.0, 1.0, 1.0)], ids=["the same", "finer"])
def test_nothing_becomes_finer(target):
    volume = torch.rand(93, 12, 8)  # an odd number, since even ones are made
    found = CoarserVoxelsd("b0", target)({"b0": meta(volume)})["b0"]
    torch.testing.assert_close(found.as_tensor()[0], volume)
    np.testing.assert_array_equal(found.affine.numpy(), AFFINE)


@pytest.mark.parametrize("target", [(3.0, 3.0, 2.0), (1.0, 1.0, 4.5), (2.6, 2.9, 4.0)], ids=["plane", "slices", "both"])
def test_a_blob_keeps_its_place_in_the_world_and_its_volume(target):
    """A blob much wider than a voxel: its moments do not depend on the samples."""
    shape = (64, 60, 40)
    volume = blob(shape, 9.0)
    found = CoarserVoxelsd("b0", target)({"b0": meta(volume)})["b0"]
    assert found.numel() < volume.numel()
    np.testing.assert_allclose(centre_of_mass(found), centre_of_mass(meta(volume)), atol=0.01)
    before, after = (float(np.abs(np.linalg.det(i.affine.numpy()[:3, :3])) * i.sum()) for i in (meta(volume), found))
    assert after == pytest.approx(before, rel=1e-3)


def test_an_image_that_is_not_there_is_left_out_and_the_given_one_stays():
    entries = {"b0": meta(torch.rand(16, 16, 6))}
    kept = entries["b0"].clone()
    found = CoarserVoxelsd(["b0", "trace"], (4.0, 4.0, 4.0), allow_missing_keys=True)(entries)
    assert set(found) == {"b0"}
    assert found["b0"].shape < kept.shape
    torch.testing.assert_close(entries["b0"].as_tensor(), kept.as_tensor())


@pytest.mark.parametrize("spacing", [(2.0, 2.0), (2.0, 0.0, 2.0), (2.0, 2.0, -1.0)])
def test_spacing_must_be_three_positive_numbers(spacing):
    with pytest.raises(ValueError, match="three positive numbers in mm"):
        CoarserVoxelsd("b0", spacing)
