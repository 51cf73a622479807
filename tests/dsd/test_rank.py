from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mhsev_monai.dsd.functional import rank_k_project
from mhsev_monai.dsd.rank import TIE, extend_ties, select_rank


def tapered_noise(n, size, seed=0):
    side = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    return np.random.default_rng(seed).standard_normal((n, size, size)) * np.outer(side, side)


def wave(size, u, v, phase=0.3):
    n = np.arange(size)
    return np.cos(2 * math.pi * (u * n[:, None] + v * n[None]) / size + phase)


@pytest.mark.parametrize(
    ("eigenvalues", "rank"),
    [
        ([1.0, 0.0, 0.0], 1),
        ([0.5, 0.5, 0.0], 2),
        ([0.95, 0.05, 0.0], 2),  # exactly 0.95 is not more than 0.95
        ([0.0, 0.0, 0.0], 1),  # a flat window still has one component
        ([1.0, 1.0, 1.0], 3),
    ],
)
def test_rank_is_the_fewest_that_exceed_the_energy(eigenvalues, rank):
    assert select_rank(torch.tensor(eigenvalues, dtype=torch.float64), energy=0.95) == rank


def test_rank_of_a_batch_is_the_rank_of_each():
    eigenvalues = torch.rand(3, 4, 8, dtype=torch.float64).sort(-1, descending=True).values
    expected = [[int(select_rank(row, 0.8)) for row in rows] for rows in eigenvalues]
    assert select_rank(eigenvalues, 0.8).tolist() == expected


@pytest.mark.parametrize("energy", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_energy_outside_its_range_is_refused(energy):
    with pytest.raises(ValueError, match="energy must be between 0 and 1"):
        select_rank(torch.ones(3), energy)


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("reading", ["squared", "singular"])
def test_truncating_the_real_window_is_truncating_its_spectrum(size, reading):
    """The identity that saves the complex SVD, against NumPy's complex FFT and SVD."""
    windows = tapered_noise(60, size)
    projected, rank = rank_k_project(torch.from_numpy(windows), 0.95, eigenvalues=reading)
    n_compared = 0
    for window, ours, k in zip(windows, projected.numpy(), rank.tolist(), strict=True):
        left, singular, right = np.linalg.svd(np.fft.fft2(window, norm="ortho"))
        values = singular**2 if reading == "squared" else singular
        assert k == 1 + np.argmax(np.cumsum(values) > 0.95 * values.sum())
        if k == size or singular[k - 1] - singular[k] < 1e-6 * singular[0]:
            continue
        n_compared += 1
        theirs = np.fft.ifft2((left[:, :k] * singular[:k]) @ right[:k], norm="ortho")
        assert np.abs(ours - theirs).max() <= 1e-12 * np.linalg.norm(window)
    assert n_compared > 40


def test_projection_keeps_more_than_the_energy_and_no_component_too_many():
    windows = torch.from_numpy(tapered_noise(50, 16, seed=1))
    projected, rank = rank_k_project(windows, 0.9)
    kept = projected.square().sum((1, 2)) / windows.square().sum((1, 2))
    assert (kept > 0.9).all()
    fewer = torch.linalg.svdvals(windows).square()
    fewer = torch.stack([row[: k - 1].sum() / row.sum() for row, k in zip(fewer, rank.tolist(), strict=True)])
    assert (fewer <= 0.9).all()


@pytest.mark.parametrize(("u", "v", "rank"), [(3, 5, 2), (1, 2, 2), (3, 0, 1), (0, 5, 1), (8, 3, 1)])
def test_both_terms_of_an_oblique_wave_are_kept(u, v, rank):
    """cos(a + b) = cos a cos b - sin a sin b: two equal singular values, one along an axis."""
    window = torch.from_numpy(wave(16, u, v))
    # At 0.4 the criterion is met by the first of the two equal values.
    projected, kept = rank_k_project(window, 0.4)
    assert kept == rank
    torch.testing.assert_close(projected, window, atol=1e-13, rtol=0)


def test_values_within_a_thousandth_count_as_one():
    assert extend_ties(torch.tensor([1.0, 1 - TIE / 2, 0.5]), torch.tensor(1)) == 2
    assert extend_ties(torch.tensor([1.0, 1 - 2 * TIE, 0.5]), torch.tensor(1)) == 1
    assert extend_ties(torch.tensor([1.0, 1.0, 0.5]), torch.tensor(1), tie=0.0) == 1


def test_without_the_tie_rule_half_of_two_equal_waves_is_lost():
    # Two axis-parallel waves across each other: exactly equal values, and an energy of one half each.
    window = torch.from_numpy(wave(16, 3, 0, 0.0) + wave(16, 0, 3, 0.0))
    whole, cut = (rank_k_project(window, 0.4, tie=tie) for tie in (TIE, 0.0))
    assert (whole.rank, cut.rank) == (2, 1)
    torch.testing.assert_close(whole.projected, window, atol=1e-13, rtol=0)
    assert (cut.projected.norm() / window.norm()).item() == pytest.approx(0.5**0.5, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-15])
def test_faint_single_waves_do_not_defeat_the_eigensolver(dtype, scale):
    """LAPACK's float32 solver gave NaN for such matrices at 1e-4: their eigenvalues' squares underflow."""
    generator = np.random.default_rng(0)
    waves = np.stack([wave(16, u, v, generator.uniform(0, 6)) for u in range(9) for v in (0, 3, 8) for _ in range(40)])
    windows = torch.from_numpy(scale * waves).to(dtype)
    projected, rank = rank_k_project(windows, 0.95)
    assert int(rank.max()) <= 2
    torch.testing.assert_close(projected, windows, atol=2e-6 * scale, rtol=0)


def test_leading_axes_of_any_shape_and_other_than_square_matrices():
    matrices = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    projected, rank = rank_k_project(matrices, 0.99)
    assert projected.shape == matrices.shape
    assert rank.shape == (2, 3)
    one = rank_k_project(matrices[1, 2], 0.99)
    torch.testing.assert_close(projected[1, 2], one.projected, atol=1e-14, rtol=0)
    assert rank_k_project(matrices[:0], 0.99).projected.shape == (0, 3, 5, 4)


def test_complex_matrices_are_refused():
    with pytest.raises(ValueError, match="matrices must be real floating-point numbers"):
        rank_k_project(torch.zeros(4, 4, dtype=torch.complex64), 0.95)


@pytest.mark.parametrize(("degrees", "rank"), [(0, 1), (90, 1), (10, 2), (45, 4)])
def test_rank_of_an_edge_depends_on_its_direction(degrees, rank):
    """A limit of any truncated SVD of an image: rows and columns are special to it."""
    position, side = np.arange(16) - 7.5, np.sin(np.pi * (np.arange(16) + 0.5) / 16)
    angle, taper = np.radians(degrees), np.outer(side, side)
    edge = np.tanh(np.cos(angle) * position[:, None] + np.sin(angle) * position)
    window = taper * (edge - (taper * edge).sum() / taper.sum())
    assert rank_k_project(torch.from_numpy(window), 0.95).rank == rank
