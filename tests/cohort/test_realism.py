"""Simulated scans lie where real ones lie, by one and the same measurement.

The ranges hold for the diffusion scans of three vendors in ``../shared/data/nifti_dwi`` (b = 930 to 2500 s/mm^2) and
for the hospitals of the federation at every difficulty.
"""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from mhsev_monai.cohort import HOSPITALS, simulate_subject
from mhsev_monai.cohort.disease import DIFFICULTIES
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.preprocess.functional import (
    BrainMaskParameters,
    apparent_diffusion_coefficient,
    dwi_brain_mask,
    mean_b0,
    select_shells,
    trace_weighted,
)
from mhsev_monai.qc.measures import find_air, ghost_level

SEED = 21
CSF_OVER_BRAIN = (1.8, 3.4)
HIGH_PASS_SNR = (8.0, 23.0)
BRAIN_ADC = (0.65e-3, 1.05e-3)
GHOST = (-0.005, 0.03)
NORMAL_MAD = 1.4826

REAL_SCANS = (
    "uih_umr770_b0_b930",
    "philips_elition_mb3_b0_b1000",
    "siemens_prisma_xa30_PA_b0_b2500",
    "siemens_prisma_ve11_sag_b0_b2000",
    "philips_ingenia_mb2_b0_b1000",
    "philips_achieva_whole_b0_b1000",
)
QUICK_SCANS = REAL_SCANS[:2]
# Where time is short; the rest is slow.
QUICK_SIMULATIONS = (("site-2", "realistic"),)


class Look(NamedTuple):
    """What a scan looks like in numbers.

    Attributes:
        csf_over_brain: 98th percentile of b = 0 over the median, in the brain mask with its fluid.
        high_pass_snr: median of one b = 0 volume over the spread of its diagonal second differences in the plane, deep
            enough to leave out the surface; texture counts as noise.
        adc: median in the brain mask, mm^2/s.
        ghost: level of the N/2 ghost as a share of the brain; None where air is set to zero.
    """

    csf_over_brain: float
    high_pass_snr: float
    adc: float
    ghost: float | None


def look(volumes, b_values, spacing):
    """The look of a scan ``(X, Y, Z, N)``; the plane is that of the first two axes."""
    data, shells = torch.from_numpy(np.asarray(volumes, dtype=np.float32)), select_shells(list(b_values))
    b0, trace = mean_b0(data, shells), trace_weighted(data, shells)
    brain = dwi_brain_mask(b0, trace, spacing, BrainMaskParameters(min_volume_ml=150)).mask.numpy() > 0
    adc = apparent_diffusion_coefficient(b0, trace, shells.b_value - shells.b0_value).numpy()
    low, inside = b0.numpy(), b0.numpy()[brain]
    return Look(
        float(np.percentile(inside, 98) / np.median(inside)),
        high_pass_snr(data[..., shells.b0[0]].numpy().astype(np.float64), brain, spacing),
        float(np.median(adc[brain])),
        ghost_level(low, brain, find_air(low, brain, spacing)).value,
    )


def high_pass_snr(image, brain, spacing):
    difference = (image[:-1, :-1] - image[1:, :-1] - image[:-1, 1:] + image[1:, 1:]) / 2
    deep = ndimage.distance_transform_edt(brain, sampling=spacing) > 6.0
    inside = deep[:-1, :-1] & deep[1:, :-1] & deep[:-1, 1:] & deep[1:, 1:]
    values = difference[inside]
    return float(np.median(image[brain]) / (NORMAL_MAD * np.median(np.abs(values - np.median(values)))))


def assert_as_real_scans(found):
    assert CSF_OVER_BRAIN[0] <= found.csf_over_brain <= CSF_OVER_BRAIN[1]
    assert HIGH_PASS_SNR[0] <= found.high_pass_snr <= HIGH_PASS_SNR[1]
    assert BRAIN_ADC[0] <= found.adc <= BRAIN_ADC[1]
    assert found.ghost is None or GHOST[0] <= found.ghost <= GHOST[1]


def slow_unless(quick, cases):
    """The cases, all but the quick ones marked."""
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in cases]


def test_the_high_pass_finds_the_noise_of_a_flat_image():
    noisy = 100 + np.random.default_rng(0).normal(0, 5, (64, 64, 8))
    # 32 768 values: the spread is known to about 1 %.
    assert high_pass_snr(noisy, np.ones(noisy.shape, dtype=bool), (2.0, 2.0, 4.0)) == pytest.approx(20, rel=0.03)


@pytest.mark.parametrize("name", slow_unless([(n,) for n in QUICK_SCANS], [(n,) for n in REAL_SCANS]))
def test_real_scans_lie_in_the_ranges(shared_data, name):
    path = shared_data / "nifti_dwi" / f"{name}.nii.gz"
    if not path.exists():
        pytest.skip(f"needs the real scan {name}")
    scan = nib.load(path)
    b_values = np.loadtxt(path.with_name(f"{name}.bval")).ravel()
    spacing = tuple(float(s) for s in scan.header.get_zooms()[:3])
    # A directory of one scan may hold derived volumes after those that have a b-value.
    assert_as_real_scans(look(np.asarray(scan.dataobj)[..., : len(b_values)], b_values, spacing))


@pytest.mark.parametrize(
    ("site", "difficulty"),
    slow_unless(QUICK_SIMULATIONS, [(h.name, difficulty) for h in HOSPITALS for difficulty in DIFFICULTIES]),
)
def test_simulated_scans_lie_in_the_ranges_of_real_ones(site, difficulty):
    hospital = next(hospital for hospital in HOSPITALS if hospital.name == site)
    subject = simulate_subject(hospital, SEED, 1, settings=CohortSettings(difficulty=difficulty))
    assert_as_real_scans(look(subject.images, subject.b_values, hospital.spacing))
