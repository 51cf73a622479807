"""Signal: worked out by hand, and the statistics of what the scanner adds."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.signal import (
    SCANNED_TISSUES,
    TISSUE_TABLE,
    Contrast,
    coil_shading,
    draw_tensor,
    stored_integers,
    tissue_signal,
    volume_signal,
)
from mhsev_monai.cohort.smooth_fields import VoxelGrid


def test_white_matter_is_as_worked_out_by_hand():
    # TR = 5 T1 and TE = T2: 0.68 * (1 - e^-5) * e^-1; at b = 1000 times e^-0.7.
    assert tissue_signal(TISSUE_TABLE["white"], Contrast(71.0, 4150.0, 0.0)) == pytest.approx(0.248472, abs=1e-6)
    assert tissue_signal(TISSUE_TABLE["white"], Contrast(71.0, 4150.0, 1000.0)) == pytest.approx(0.123388, abs=1e-6)


def test_a_mixed_voxel_has_the_mean_of_its_tissues_before_the_magnitude_is_taken():
    fractions = np.zeros((6, 1, 1, 1), dtype=np.float32)
    fractions[0], fractions[2] = 0.25, 0.75
    contrast = Contrast(70.0, 6000.0, 1000.0)
    expected = 0.25 * tissue_signal(TISSUE_TABLE["csf"], contrast) + 0.75 * tissue_signal(
        TISSUE_TABLE["white"], contrast
    )
    assert volume_signal(fractions, contrast).item() == pytest.approx(expected, rel=1e-6)


def test_a_gradient_echo_is_as_worked_out_by_hand():
    # 90 degrees: sin a = 1 and cos a = 0, so PD (1 - e^-1) e^-2 with TR = T1 and TE = 2 T2*.
    white = tissue_signal(TISSUE_TABLE["white"], Contrast(94.0, 830.0, 0.0, 90.0))
    assert white == pytest.approx(0.058173, abs=1e-6)
    # 60 degrees with TR = T1: 0.68 * 0.866025 * 0.632121 / (1 - 0.367879 / 2) without decay.
    white = tissue_signal(TISSUE_TABLE["white"], Contrast(0.0, 830.0, 0.0, 60.0))
    assert white == pytest.approx(0.456168, abs=1e-5)


def test_the_gradient_echo_is_brightest_at_ernsts_angle():
    ernst = np.degrees(np.arccos(np.exp(-28.0 / 830.0)))
    signals = [tissue_signal(TISSUE_TABLE["white"], Contrast(20.0, 28.0, 0.0, ernst + off)) for off in (-2, 0, 2)]
    assert signals[1] > max(signals[0], signals[2])


def test_acute_infarct_is_bright_under_diffusion_weighting_and_old_lesions_are_bright_on_b0():
    b0 = {name: tissue_signal(TISSUE_TABLE[name], Contrast(70.0, 6000.0, 0.0)) for name in SCANNED_TISSUES}
    dwi = {name: tissue_signal(TISSUE_TABLE[name], Contrast(70.0, 6000.0, 1000.0)) for name in SCANNED_TISSUES}
    assert dwi["infarct"] > 1.6 * max(dwi["grey"], dwi["white"])
    assert b0["csf"] > b0["hyperintensity"] > 1.2 * b0["white"]
    assert dwi["csf"] < 0.5 * dwi["white"]


def test_anisotropy_is_seen_in_single_directions_and_not_in_their_mean():
    grid = VoxelGrid((30, 30, 20), (3.0, 3.0, 3.0))
    tensor = draw_tensor(np.random.default_rng(4), grid)
    fractions = np.zeros((8, *grid.shape), dtype=np.float32)
    fractions[2] = 1.0
    contrast = Contrast(70.0, 6000.0, 1000.0)
    volumes = [
        volume_signal(fractions, contrast, tensor.deviation(direction, grid))
        for direction in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    ]
    trace = np.exp(np.log(volumes).mean(axis=0))
    isotropic = tissue_signal(TISSUE_TABLE["white"], contrast)
    # But for the few places where a deviation of one half is the limit.
    assert np.mean(np.abs(trace / isotropic - 1) < 1e-4) > 0.9
    assert 0.05 < np.std(volumes[0]) / isotropic < 0.3


def test_shading_is_smooth_and_brighter_at_the_rim():
    grid = VoxelGrid((60, 60, 30), (3.0, 3.0, 4.0))
    shading = coil_shading(np.random.default_rng(3), grid, 0.4)
    assert shading[[0, -1], 30, 15].mean() > shading[30, 30, 15]
    assert np.abs(np.diff(np.log(shading), axis=0)).max() < 0.05


def test_stored_values_are_the_rounded_product_with_the_gain():
    stored = stored_integers(np.array([0.0, 0.1004, 99.0], dtype=np.float32), 1000.0)
    assert stored.dtype == np.int16
    assert stored.tolist() == [0, 100, 32767]
