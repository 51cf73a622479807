from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from mhsev_monai.dsd import spectrum
from mhsev_monai.dsd.functional import dynamic_spectral_decomposition


def spectra(n, size, seed=0):
    windows = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, size, size)))
    return windows, torch.fft.rfft2(windows, norm="ortho")


@pytest.mark.parametrize("size", [8, 16, 32])
def test_half_plane_power_holds_the_energy_of_the_window(size):
    windows, half = spectra(5, size)
    energy = spectrum.paired_power(half) @ spectrum.pair_weights(size)
    torch.testing.assert_close(energy, windows.square().sum((1, 2)))


@pytest.mark.parametrize("size", [8, 16])
def test_full_plane_is_the_power_of_the_complex_fft(size):
    windows, half = spectra(5, size)
    full = spectrum.full_plane(spectrum.paired_power(half), size)
    torch.testing.assert_close(full, torch.fft.fft2(windows, norm="ortho").abs().square())
    mirrored = full.flip((1, 2)).roll((1, 1), (1, 2))
    assert torch.equal(full, mirrored), "members of a pair must carry the same bits"


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("support", [0.5, 0.25, 0.125])
def test_noise_bins_hold_each_pair_of_high_acquired_frequencies_once(size, support):
    expected = set()
    for u in range(size):
        for v in range(size):
            partner = ((-u) % size, (-v) % size)
            f_u, f_v = min(u, size - u) / size, min(v, size - v) / size
            if partner != (u, v) and np.hypot(f_u, f_v) >= 0.6 * support and max(f_u, f_v) <= support:
                expected.add(frozenset({(u, v), partner}))
    bins = [divmod(index, size // 2 + 1) for index in spectrum.noise_bins(size, (support, support)).tolist()]
    found = [frozenset({(u, v), ((-u) % size, (-v) % size)}) for u, v in bins]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert expected


def test_noise_power_of_white_noise_is_its_variance():
    _, half = spectra(4000, 16)
    power = spectrum.noise_power(spectrum.paired_power(half), spectrum.noise_bins(16, (0.5, 0.5)))
    # The lower median of some 70 bins is biased by about 1 %; the mean over 4000 windows has a spread of 0.3 %.
    assert power.mean().item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(
    ("gain", "expected"), [("none", [0, 1, 1]), ("hard", [0, 0, 1]), ("wiener", [0, 0, 0.75]), ("soft", [0, 0, 0.5])]
)
def test_gain_of_bins_below_and_four_times_above_the_threshold(gain, expected):
    power = torch.tensor([[9.0, 1.0, 8.0]])
    assert spectrum.threshold_gain(power, torch.tensor([2.0]), gain)[0].tolist() == expected


def test_bands_take_a_wave_by_its_wavelength_in_mm():
    n = np.arange(32)
    # 4 periods over 32 voxels of 1.5 mm: 12 mm, or 0.083 cycles/mm, the second band.
    windows = torch.from_numpy(np.cos(2 * np.pi * 4 * n / 32)[:, None] * np.ones(32))[None]
    power = spectrum.paired_power(torch.fft.rfft2(windows, norm="ortho"))
    bands = (power @ spectrum.band_indicator(32, (1.5, 1.5)))[0]
    assert bands[-1].item() == pytest.approx(512)
    assert bands[1].item() == pytest.approx(512)
    assert bands[[0, 2, 3, 4]].abs().max().item() < 1e-20


@pytest.mark.parametrize("axis", [0, 1])
def test_zero_filled_axis_is_found_to_be_half_empty(axis):
    rng = np.random.default_rng(0)
    shape = [64, 64, 4]
    shape[axis] //= 2
    coarse = np.fft.fft(100 + 10 * rng.standard_normal(shape), axis=axis)
    middle = shape[axis] // 2
    parts = np.split(coarse, [middle], axis=axis)
    empty = np.zeros([64 - shape[axis] if a == axis else n for a, n in enumerate(shape)])
    image = 2 * np.fft.ifft(np.concatenate([parts[0], empty, parts[1]], axis=axis), axis=axis).real
    found = dynamic_spectral_decomposition(image, (1.0, 1.0, 3.0)).acquired
    # The taper spreads a band's edge over the next bin of 1/16.
    assert 0.25 <= found[axis] <= 0.3125
    assert found[1 - axis] == 0.5


@pytest.mark.parametrize(
    "name",
    [
        "philips_achieva_whole_b0_b1000",
        "philips_elition_mb3_b0_b1000",
        "philips_ingenia_mb2_b0_b1000",
        "ge_signauhp_seepi_b0like",
    ],
)
def test_estimate_agrees_with_the_acquisition_matrix_of_real_scans(shared_data, name):
    """The scanner's own record: lines acquired over lines of the image, 56 % to 98 % in these four."""
    folder = shared_data / "nifti_dwi"
    scan = nib.load(folder / f"{name}.nii.gz")
    header = json.loads((folder / f"{name}.json").read_text())
    volume = np.asarray(scan.dataobj[..., 0], dtype=np.float32)
    middle = np.s_[:, :, volume.shape[2] // 3 : -volume.shape[2] // 3]
    brain = volume[middle] > np.percentile(volume[middle], 60)
    found = dynamic_spectral_decomposition(volume[middle], scan.header.get_zooms()[:3], brain).acquired
    # The GE record names no axis; both of its axes came out alike.
    axis = "ij".index(header.get("PhaseEncodingAxis", "j"))
    acquired = 0.5 * header["AcquisitionMatrixPE"] / header["ReconMatrixPE"]
    # Windows of 8 voxels tell frequencies apart in steps of 1/8.
    assert abs(found[axis] - acquired) < 1 / 8
    assert (found[axis] == 0.5) == (acquired > 0.45)
