"""Signal: worked out by hand, and the statistics of what the scanner adds."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.signal import (
    TISSUE_TABLE,
    Contrast,
    coil_shading,
    rician,
    stored_integers,
    tissue_signal,
    volume_signal,
)
from mhsev_monai.cohort.smooth_fields import VoxelGrid


def test_white_matter_is_as_worked_out_by_hand():
    # TR = 5 T1 and TE = T2: 0.70 * (1 - e^-5) * e^-1; at b = 1000 times e^-0.75.
    assert tissue_signal(TISSUE_TABLE["white"], Contrast(75.0, 4150.0, 0.0)) == pytest.approx(0.255780, abs=1e-6)
    assert tissue_signal(TISSUE_TABLE["white"], Contrast(75.0, 4150.0, 1000.0)) == pytest.approx(0.120822, abs=1e-6)


def test_a_mixed_voxel_has_the_mean_of_its_tissues_before_the_magnitude_is_taken():
    fractions = np.zeros((6, 1, 1, 1), dtype=np.float32)
    fractions[0], fractions[2] = 0.25, 0.75
    contrast = Contrast(70.0, 6000.0, 1000.0)
    expected = 0.25 * tissue_signal(TISSUE_TABLE["csf"], contrast) + 0.75 * tissue_signal(
        TISSUE_TABLE["white"], contrast
    )
    assert volume_signal(fractions, contrast).item() == pytest.approx(expected, rel=1e-6)


def test_noise_is_rayleigh_in_air_and_unbiased_where_the_signal_is_strong():
    rng = np.random.default_rng(0)
    air = rician(np.zeros(200_000, dtype=np.float32), 2.0, rng)
    tissue = rician(np.full(200_000, 100.0, dtype=np.float32), 2.0, rng)
    # Rayleigh: mean sigma sqrt(pi / 2); Rice at 50 sigma: mean + sigma^2 / 2S. Standard errors are below 0.005.
    assert air.mean() == pytest.approx(2.0 * np.sqrt(np.pi / 2), abs=0.02)
    assert tissue.mean() == pytest.approx(100.02, abs=0.02)
    assert tissue.std() == pytest.approx(2.0, abs=0.02)


def test_shading_is_smooth_and_brighter_at_the_rim():
    grid = VoxelGrid((60, 60, 30), (3.0, 3.0, 4.0))
    shading = coil_shading(np.random.default_rng(3), grid, 0.4)
    assert shading[[0, -1], 30, 15].mean() > shading[30, 30, 15]
    assert np.abs(np.diff(np.log(shading), axis=0)).max() < 0.05


def test_stored_values_are_the_rounded_product_with_the_gain():
    stored = stored_integers(np.array([0.0, 0.1004, 99.0], dtype=np.float32), 1000.0)
    assert stored.dtype == np.int16
    assert stored.tolist() == [0, 100, 32767]
