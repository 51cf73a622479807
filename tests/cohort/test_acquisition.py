"""The scanner's k-space: ringing, interpolation, ghost and noise against what theory says of them."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.acquisition import Sampling, acquired_image, overlapping_slices, point_spread


def rng():
    return np.random.default_rng(0)


def half_bright(n_x):
    signal = np.zeros((n_x, 8, 1), dtype=np.float32)
    signal[: n_x // 2] = 1.0
    return signal


def test_all_of_k_space_without_noise_gives_the_signal_back():
    signal = rng().random((24, 20, 5), dtype=np.float32)
    image = acquired_image(signal, Sampling((24, 20), filtered=0.0, overlap=0.0), 0.0, rng())
    np.testing.assert_allclose(image, signal, atol=1e-5)


def test_an_edge_rings_by_the_constant_of_wilbraham_and_gibbs():
    image = acquired_image(half_bright(1024), Sampling((64, 8), filtered=0.0), 0.0, rng())
    # The overshoot is 8.949 % of the jump for a long series; 64 terms are near it.
    assert image.max() == pytest.approx(1.0895, abs=0.003)


def test_a_filter_damps_the_ringing():
    overshoot = [
        acquired_image(half_bright(256), Sampling((64, 8), filtered=share), 0.0, rng()).max() - 1
        for share in (0.0, 0.3, 1.0)
    ]
    assert overshoot[0] > 1.3 * overshoot[1]
    assert overshoot[2] < 0.01


def test_what_is_not_read_is_interpolated():
    x = np.arange(48)
    wave = 2 + np.cos(2 * np.pi * 5 * x / 48)
    signal = np.broadcast_to(wave[:, None, None], (48, 12, 2)).astype(np.float32)
    kept = acquired_image(signal, Sampling((12, 12), filtered=0.0), 0.0, rng())
    lost = acquired_image(signal, Sampling((10, 12), filtered=0.0), 0.0, rng())
    np.testing.assert_allclose(kept, signal, atol=1e-4)
    # Frequency 5 of 10 points is read on its negative side alone: a wave of half the amplitude, of complex phase.
    np.testing.assert_allclose(lost.mean(), np.abs(2 + 0.5 * np.exp(2j * np.pi * 5 * x / 48)).mean(), atol=1e-4)


def test_the_ghost_lies_half_the_field_of_view_away():
    signal = np.zeros((16, 64, 1), dtype=np.float32)
    signal[4:12, 24:40] = 1.0
    image = acquired_image(signal, Sampling((16, 64), filtered=0.0, ghost=0.05), 0.0, rng())
    ghost = np.roll(signal, 32, axis=1)
    np.testing.assert_allclose(image[ghost > 0], 0.05, atol=1e-5)
    np.testing.assert_allclose(image[signal > 0], np.sqrt(1 - 0.05**2), atol=1e-5)
    # Energy is shared, not added.
    assert (image**2).sum() == pytest.approx((signal**2).sum(), rel=1e-5)


@pytest.mark.parametrize("acquired", [(64, 64), (48, 40)])
def test_noise_is_rayleigh_in_air_and_unbiased_in_strong_signal(acquired):
    sampling = Sampling(acquired, overlap=0.0)
    air = acquired_image(np.zeros((64, 64, 60), dtype=np.float32), sampling, 2.0, rng())
    tissue = acquired_image(np.full((64, 64, 60), 100.0, dtype=np.float32), sampling, 2.0, rng())
    # Rayleigh: mean sigma sqrt(pi / 2); Rice at 50 sigma: mean + sigma^2 / 2S. At least 60000 independent values.
    assert air.mean() == pytest.approx(2.0 * np.sqrt(np.pi / 2), abs=0.03)
    assert tissue.mean() == pytest.approx(100.02, abs=0.04)
    assert tissue.std() == pytest.approx(2.0, abs=0.03)


def test_noise_is_smooth_only_where_the_image_is_interpolated():
    correlations = []
    for acquired in ((64, 64), (48, 48)):
        sampling = Sampling(acquired, filtered=0.0)
        image = acquired_image(np.full((64, 64, 20), 100.0, dtype=np.float32), sampling, 2.0, rng())
        correlations.append(np.corrcoef(image[:-1].ravel(), image[1:].ravel())[0, 1])
    assert abs(correlations[0]) < 0.02
    # Three quarters of the band: sinc(3/4) = 0.300.
    assert correlations[1] == pytest.approx(0.300, abs=0.02)


def test_neighbouring_slices_leak_into_each_other():
    signal = np.array([1.0, 0.0, 10.0, 0.0], dtype=np.float32).reshape(1, 1, 4)
    np.testing.assert_allclose(overlapping_slices(signal, 0.1).ravel(), [0.9, 1.1, 8.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("acquired", [(24, 20), (20, 17)])
def test_the_point_spread_is_what_the_scan_makes_of_a_dot(acquired):
    """The same scan of a bright box with and without a dot; their difference is the dot's image."""
    sampling, flat = Sampling(acquired, filtered=0.3, overlap=0.04), np.full((24, 20, 9), 10.0, dtype=np.float32)
    dot = np.zeros_like(flat)
    dot[11, 9, 4] = 1.0
    shown = acquired_image(flat + dot, sampling, 0.0, rng()) - acquired_image(flat, sampling, 0.0, rng())
    np.testing.assert_allclose(point_spread(flat.shape, sampling).spread(dot)[6:17, 4:15], shown[6:17, 4:15], atol=4e-3)


def test_a_scan_without_filter_and_overlap_spreads_nothing():
    spread = point_spread((24, 20, 9), Sampling((24, 20), filtered=0.0, overlap=0.0))
    signal = rng().random((12, 12, 5), dtype=np.float32)
    np.testing.assert_allclose(spread.spread(signal), signal, atol=1e-6)
