"""Fields of bleeds and what they do to images: against the dipole by hand, Monte Carlo sums, and conservation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from mhsev_monai.cohort.displacement import displaced, displacement
from mhsev_monai.cohort.lesions import Ellipsoid, filled_share
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.susceptibility import (
    EpiReadout,
    gradient_echo_factor,
    sphere_frequency,
    spin_echo_epi_factor,
)

GRID = VoxelGrid((24, 26, 16), (1.8, 1.8, 3.0))
EPI = EpiReadout(bandwidth_hz=20.0)
HZ_PER_PPM = 42.577 * 3.0 / 3


class Sphere(NamedTuple):
    body: Ellipsoid
    loss: float
    susceptibility_ppm: float


def sphere(radius, ppm, loss=0.9, centre=(0.3, -0.5, 0.8)):
    return Sphere(Ellipsoid(np.array(centre), np.full(3, radius)), loss, ppm)


def random_points(bleed, reach, n, seed):
    """Evenly spread positions in a cube around a bleed, their frequency shift in Hz and their signal."""
    offsets = np.random.default_rng(seed).uniform(-reach, reach, (n, 3))
    r = np.linalg.norm(offsets, axis=1)
    radius = bleed.body.half_axes[0]
    cosine = offsets[:, 2] / r
    outside = HZ_PER_PPM * bleed.susceptibility_ppm * (radius / r) ** 3 * (3 * cosine**2 - 1)
    return offsets + bleed.body.centre, np.where(r < radius, 0, outside), np.where(r < radius, 1 - bleed.loss, 1.0)


def voxel_sums(points, weights):
    edges = [np.append(GRID.axis(a) - GRID.spacing[a] / 2, GRID.axis(a)[-1] + GRID.spacing[a] / 2) for a in range(3)]
    return np.histogramdd(points, edges, weights=weights)[0]


@pytest.mark.parametrize(
    ("offset", "hertz"),
    [
        ((0.0, 0.0, 2.0), 127.731 / 3 * 2 / 8),  # over the pole at twice the radius
        ((2.0, 0.0, 0.0), -127.731 / 3 / 8),  # at the equator half of it, downwards
        ((np.sqrt(2.0), 0.0, 1.0), 0.0),  # at the magic angle
        ((0.3, 0.2, 0.5), 0.0),  # inside, by Lorentz's sphere
    ],
)
def test_the_field_of_a_sphere_is_the_dipoles(offset, hertz):
    x, y, z = (np.array([part], dtype=np.float32) for part in offset)
    assert sphere_frequency((x, y, z), 1.0, HZ_PER_PPM).item() == pytest.approx(hertz, abs=1e-4)


def test_signal_moves_and_splits_between_bins():
    samples = np.zeros((1, 6, 1), dtype=np.float32)
    samples[0, 2] = 8.0
    shifts = {0.0: [0, 0, 8, 0, 0, 0], 2.0: [0, 0, 0, 0, 8, 0], -0.25: [0, 2, 6, 0, 0, 0], 3.0: [0, 0, 0, 0, 0, 8]}
    for shift, expected in shifts.items():
        by = displacement(np.full((1, 6, 1), shift, dtype=np.float32))
        assert displaced(samples, by).ravel().tolist() == expected
    away = displacement(np.full((1, 6, 1), 4.5, dtype=np.float32))
    assert displaced(samples, away).sum() == 0


def test_without_a_field_only_the_core_is_dark():
    bleed = sphere(2.0, 0.0, loss=0.8)
    expected = np.ones(GRID.shape)
    filled = filled_share(bleed.body, GRID, 10)
    expected[filled.box] -= 0.8 * filled.share
    # Both count points in voxels, about 50 of them in the coarser case.
    np.testing.assert_allclose(spin_echo_epi_factor([bleed], GRID, EPI), expected, atol=0.06)
    np.testing.assert_allclose(gradient_echo_factor([bleed], GRID, 20.0, 3.0), expected, atol=0.03)


@pytest.mark.parametrize(("radius", "ppm"), [(1.2, 0.5), (2.1, 1.2), (1.5, -1.0)])
def test_the_spin_echo_keeps_all_signal_but_the_cores(radius, ppm):
    bleed = sphere(radius, ppm)
    missing = (1 - spin_echo_epi_factor([bleed], GRID, EPI).astype(np.float64)).sum() * np.prod(GRID.spacing)
    # The volume of the core is counted on points a few per radius apart.
    assert missing == pytest.approx(0.9 * 4 / 3 * np.pi * radius**3, rel=0.06)


@pytest.mark.parametrize("ppm", [0.7, -0.7])
def test_the_spin_echo_puts_signal_where_a_monte_carlo_sum_puts_it(ppm):
    bleed = sphere(1.6, ppm)
    points, hertz, signal = random_points(bleed, 11.0, 900_000, seed=1)
    moved = points + np.stack([np.zeros_like(hertz), hertz / 20.0 * 1.8, np.zeros_like(hertz)], axis=1)
    inside = (np.abs(points - bleed.body.centre) < 9.0).all(axis=1)
    undisturbed = voxel_sums(points, np.ones(len(points)))
    near = voxel_sums(points, inside) == undisturbed
    near &= undisturbed > 0
    expected = voxel_sums(moved, signal)[near] / undisturbed[near]
    got = spin_echo_epi_factor([bleed], GRID, EPI)[near]
    # About 800 points a voxel; the weak field far out fades a little early in the code.
    assert np.abs(got - expected).max() < 0.15
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.03
    assert expected.min() < 0.5
    assert expected.max() > 1.15


@pytest.mark.parametrize("te_ms", [10.0, 20.0, 30.0])
def test_the_gradient_echo_is_the_complex_mean_of_its_spins(te_ms):
    bleed = sphere(1.6, 0.8)
    points, hertz, signal = random_points(bleed, 9.0, 500_000, seed=2)
    n = voxel_sums(points, np.ones(len(points)))
    phase = 2 * np.pi * hertz * te_ms / 1000
    mean = (voxel_sums(points, signal * np.cos(phase)) + 1j * voxel_sums(points, signal * np.sin(phase))) / np.maximum(
        n, 1
    )
    near = voxel_sums(points, (np.abs(points - bleed.body.centre) < 7.0).all(axis=1)) == n
    near &= n > 0
    got = gradient_echo_factor([bleed], GRID, te_ms, 3.0)[near]
    # About 830 points a voxel give a standard error of 0.035 at most.
    assert np.abs(got - np.abs(mean)[near]).max() < 0.12
    assert np.sqrt(np.mean((got - np.abs(mean)[near]) ** 2)) < 0.02


def test_blooming_grows_with_the_echo_time_beyond_the_core():
    bleed = sphere(1.5, 1.0, loss=1.0)
    dark = [1 - gradient_echo_factor([bleed], GRID, te, 3.0).astype(float) for te in (0.0, 10.0, 20.0, 40.0)]
    volumes = [part.sum() * np.prod(GRID.spacing) for part in dark]
    assert volumes[0] == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.05)
    assert volumes[1] > 2 * volumes[0]
    assert volumes[3] > 1.3 * volumes[2] > 1.3 * 1.3 * volumes[1]


def test_the_gradient_echo_loses_more_than_the_spin_echo():
    bleed = sphere(1.4, 0.8)
    spin, gradient = spin_echo_epi_factor([bleed], GRID, EPI), gradient_echo_factor([bleed], GRID, 20.0, 3.0)
    assert (1 - gradient).sum() > 3 * (1 - spin).sum()


def test_far_away_nothing_changes():
    bleed = sphere(1.2, 0.4)
    far = np.sqrt(sum((GRID.axis(a).reshape([-1 if a == b else 1 for b in range(3)])) ** 2 for a in range(3))) > 16
    assert far.sum() > 500
    assert (spin_echo_epi_factor([bleed], GRID, EPI)[far] == 1).all()
    np.testing.assert_allclose(gradient_echo_factor([bleed], GRID, 20.0, 3.0)[far], 1, atol=1e-5)


def test_the_field_turns_with_the_scanner():
    cube = VoxelGrid((21, 21, 21), (2.0, 2.0, 2.0))
    bleed = sphere(1.5, 1.0, centre=(0.0, 0.0, 0.0))
    along_z = gradient_echo_factor([bleed], cube, 20.0, 3.0)
    along_x = gradient_echo_factor([bleed], cube, 20.0, 3.0, (1.0, 0.0, 0.0))
    np.testing.assert_allclose(along_x, along_z.transpose(2, 1, 0), atol=1e-4)
    assert np.abs(along_x - along_z).max() > 0.05


def test_effects_of_several_bleeds_multiply_and_the_border_cuts_them():
    first, second = sphere(1.5, 1.0), sphere(1.5, 1.0, centre=(4.0, 22.0, 22.0))
    together = spin_echo_epi_factor([first, second], GRID, EPI)
    np.testing.assert_allclose(
        together, spin_echo_epi_factor([first], GRID, EPI) * spin_echo_epi_factor([second], GRID, EPI), rtol=1e-6
    )
    assert (spin_echo_epi_factor([sphere(1.5, 1.0, centre=(200.0, 0.0, 0.0))], GRID, EPI) == 1).all()
