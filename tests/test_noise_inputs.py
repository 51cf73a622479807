"""The noise of each contrast, and candidates whose depths are told over it."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.subject import random_streams, simulate_subject, subject_protocol
from mhsev_monai.contrast_noise import LEAST_NOISE, even_parenchyma, noise_in
from mhsev_monai.dsd.descriptors import DESCRIPTORS, high_pass_noise
from mhsev_monai.dsd.peaks import MOST_PEAKS
from mhsev_monai.feature_cache import load_or_compute
from mhsev_monai.inputs import DSDCandidateInputs
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.model_file import build, class_config
from mhsev_monai.noise_inputs import NOISE_DESCRIPTORS, REPLACED, ContrastNoiseInputs
from mhsev_monai.twin_inputs import TwinInputs

sys.path.insert(0, str(Path(__file__).parent))
from spotted_heads import spotted_head

SHAPE = (80, 80, 20)
ALL = np.ones(SHAPE, dtype=bool)


def noisy(level, sigma: float, seed: int = 0) -> np.ndarray:
    return np.asarray(level + np.random.default_rng(seed).normal(0, sigma, size=SHAPE), dtype=np.float32)


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Of a head with three dark spots in its brain."""
    case = spotted_head(tmp_path_factory.mktemp("scan"))
    return ContrastNoiseInputs().process(case.image, case.bvals)


@pytest.mark.parametrize("sigma", [0.02, 0.06])
def test_noise_of_even_tissue_is_found(sigma):
    image = noisy(1.0, sigma)
    even = even_parenchyma(image, ALL)
    assert even.mean() > 0.8
    assert noise_in(image, even, ALL) == pytest.approx(sigma, rel=0.02)


def test_folds_with_fluid_between_do_not_count_as_noise():
    """Two thirds of the image are tissue in folds with fluid of three times its signal between them."""
    rough = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=SHAPE), (1.2, 1.2, 0))
    folds = np.where(rough > 0, 3.0, 1.0)
    folds[: SHAPE[0] // 3] = 1.0
    image = noisy(folds, 0.04)
    assert noise_in(image, even_parenchyma(image, ALL), ALL) == pytest.approx(0.04, rel=0.05)
    assert high_pass_noise(image, ALL) > 1.15 * 0.04


def test_it_scales_with_the_noise_and_not_with_a_slope():
    image = noisy(1.0, 0.03)
    even = even_parenchyma(image, ALL)
    slope = np.linspace(0, 0.1, SHAPE[0], dtype=np.float32)[:, None, None]
    assert noise_in(2 * image, even, ALL) == pytest.approx(2 * noise_in(image, even, ALL), rel=1e-6)
    assert noise_in(image + slope, even, ALL) == pytest.approx(noise_in(image, even, ALL), rel=1e-3)


def test_without_even_tissue_the_whole_brain_counts_and_without_a_brain_the_least():
    image = noisy(2.0, 0.05)
    even = even_parenchyma(image, ALL)
    assert not even.any()
    assert noise_in(image, even, ALL) == pytest.approx(0.05, rel=0.02)
    assert noise_in(image, ~ALL, ~ALL) == LEAST_NOISE
    assert noise_in(np.ones(SHAPE), ALL, ALL) == LEAST_NOISE


def test_even_tissue_keeps_two_voxels_from_the_edge():
    brain = np.zeros(SHAPE, dtype=bool)
    brain[10:20, 10:20, 3] = True
    even = even_parenchyma(np.ones(SHAPE, np.float32), brain)
    assert np.argwhere(even).min(axis=0).tolist() == [12, 12, 3]
    assert np.argwhere(even).max(axis=0).tolist() == [17, 17, 3]


def test_descriptors_are_those_of_the_dsd_model_and_depths_over_each_noise(entries):
    inputs, before = ContrastNoiseInputs(), DSDCandidateInputs()
    found = inputs.describe(entries)
    table, old = inputs.assemble(found), before.assemble(before.describe(entries))
    n = len(entries[Keys.DESCRIPTORS])
    assert n >= 3
    assert table.shape == (MOST_PEAKS, len(inputs.feature_names))
    assert np.isnan(table[n:]).all()
    kept = [name for name in DESCRIPTORS if name not in REPLACED]
    assert inputs.feature_names == (*kept, *NOISE_DESCRIPTORS)
    np.testing.assert_array_equal(table[:, : len(kept)], old[:, [DESCRIPTORS.index(name) for name in kept]])
    of = {name: table[:n, i].astype(float) for i, name in enumerate(inputs.feature_names)}
    assert len(set(of["b0_noise"])) == len(set(of["trace_noise"])) == 1
    b0, trace = np.exp(of["b0_noise"]), np.exp(of["trace_noise"])
    np.testing.assert_allclose(of["b0_least_over_noise"], (1 - of["b0_least"]) / b0, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of["b0_centre_over_noise"], (1 - of["b0_centre"]) / b0, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of["trace_least_over_noise"], (1 - of["trace_least"]) / trace, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of["dsd_depth_over_b0_noise"], of["dsd_depth"] / b0, rtol=1e-4, atol=1e-4)
    depth = np.maximum(of["spot_depth"], 0)
    np.testing.assert_allclose(of["depth_over_b0_noise"], np.log1p(depth / b0), rtol=1e-4, atol=1e-4)


def test_of_a_scan_of_b0_alone_b0_stands_for_the_trace(tmp_path):
    case = spotted_head(tmp_path)
    series = nib.load(case.image)
    nib.save(nib.Nifti1Image(np.asarray(series.dataobj)[..., 0], series.affine), tmp_path / "b0.nii.gz")
    inputs = ContrastNoiseInputs(features=["b0_noise", "trace_noise"])
    entries = inputs.process(tmp_path / "b0.nii.gz", b0_only=True)
    table = inputs.assemble(inputs.describe(entries))[: len(entries[Keys.DESCRIPTORS])]
    assert len(table) >= 3
    np.testing.assert_array_equal(table[:, 0], table[:, 1])


def test_a_protocol_twin_has_its_own_noise(tmp_path):
    """Of the same inputs, from the twin's images: coarser voxels or no trace."""
    case = spotted_head(tmp_path)
    inputs, twins = ContrastNoiseInputs(), TwinInputs(ContrastNoiseInputs())
    own, twin = inputs(case), twins(case)
    assert twins.feature_names == inputs.feature_names
    assert twin.sets["noise"].shape == (len(twin.sets["candidates"]), len(NOISE_DESCRIPTORS))
    assert np.isfinite(twin.sets["noise"]).all()
    assert twin.sets["noise"][0, :2].tolist() != own.sets["noise"][0, :2].tolist()


def test_a_scan_without_candidates_has_an_empty_table(entries):
    none = {**entries, Keys.DESCRIPTORS: np.zeros((0, len(DESCRIPTORS)), np.float32)}
    none[Keys.CANDIDATE_VOXELS] = np.zeros((0, 3), int)
    inputs = ContrastNoiseInputs()
    found = inputs.describe(none)
    assert found.sets["noise"].shape == (0, len(NOISE_DESCRIPTORS))
    assert np.isnan(inputs.assemble(found)).all()


def test_they_are_kept_and_found_again(tmp_path):
    case = spotted_head(tmp_path)
    first = load_or_compute(case, ContrastNoiseInputs(), tmp_path / "kept")
    again = load_or_compute(case, ContrastNoiseInputs(features=["b0_noise"]), tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1
    np.testing.assert_array_equal(first.sets["noise"], again.sets["noise"])


def test_half_the_signal_to_noise_ratio_of_a_scan_is_twice_its_noise(tmp_path):
    """The simulated scanner is the oracle: it knows what noise it adds; a head's structure adds to the measured one."""
    found = []
    for difficulty_factor in (1.0, 0.5):
        hospital = HOSPITALS[0].with_noise(difficulty_factor)
        subject = simulate_subject(hospital, 5, 1, settings=CohortSettings(difficulty="easy"), count=0)
        image, bvals = tmp_path / f"{difficulty_factor}.nii.gz", tmp_path / f"{difficulty_factor}.bval"
        nib.save(nib.Nifti1Image(subject.images, subject.affine), image)
        bvals.write_text(" ".join(str(value) for value in subject.b_values))
        inputs = ContrastNoiseInputs(features=["b0_noise"])
        measured = np.exp(np.nanmax(inputs.assemble(inputs.describe(inputs.process(image, bvals)))))
        settings = CohortSettings(difficulty="easy")
        protocol = subject_protocol(hospital, settings, random_streams(5, hospital.name, 1)["protocol"])
        found.append((measured, 1 / protocol.snr))
    (low, true_low), (high, true_high) = found
    assert true_high == pytest.approx(2 * true_low)
    assert high / low == pytest.approx(2, rel=0.15)
    assert low == pytest.approx(true_low, rel=0.3)


def test_models_are_tied_to_them_and_name_them():
    inputs = ContrastNoiseInputs()
    assert inputs.fingerprint() != DSDCandidateInputs().fingerprint()
    assert inputs.computation() != DSDCandidateInputs().computation()
    assert build(class_config(inputs)).fingerprint() == inputs.fingerprint()
    with pytest.raises(ValueError, match="not known: \\['noise'\\]"):
        ContrastNoiseInputs(features=["noise"])
    with pytest.raises(ValueError, match="not known: \\['b0_noise'\\]"):
        DSDCandidateInputs(features=["b0_noise"])
