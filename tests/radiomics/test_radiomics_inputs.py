"""What the radiomics baseline reads: names, selection, fingerprints, and the way of scans through it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mhsev_monai.cases import Case
from mhsev_monai.errors import ScanError
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.radiomics import SCHEMA_VERSION, RadiomicsParameters, radiomics_features
from mhsev_monai.radiomics.inputs import RadiomicsInputs

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_heads import AFFINE, SPACING, head

CHOSEN = ["trace_glcm_contrast", "b0_log_2mm_firstorder_kurtosis", "has_trace"]


def write(folder: Path, volumes: np.ndarray, bvals: str) -> Case:
    path = folder / "sub-1_dwi.nii.gz"
    nib.save(nib.Nifti1Image(volumes, AFFINE), path)
    (folder / "sub-1_dwi.bval").write_text(bvals)
    return Case("sub-1", path, folder / "sub-1_dwi.bval")


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[dict, CaseFeatures]:
    """A head with b0 and trace after all transforms, and its features."""
    case = write(tmp_path_factory.mktemp("both"), head(), "0 1000")
    inputs = RadiomicsInputs()
    return dict(inputs.process(case.image, case.bvals)), inputs(case)


def test_there_are_features_of_both_contrasts_at_all_scales_and_a_flag():
    names = RadiomicsInputs().feature_names
    assert len(set(names)) == len(names) == 2 * (93 + 2 * 18) + 1
    assert [name for name in names if not name.startswith(("b0_", "trace_"))] == ["has_trace"]
    assert len(RadiomicsInputs(log_sigmas_mm=[]).feature_names) == 2 * 93 + 1


def test_features_are_those_of_the_ratio_to_the_median_of_the_brain(both):
    entries, found = both
    for contrast in ("b0", "trace"):
        volume, mask = entries[contrast][0].numpy(), entries["brain_mask"][0].numpy() > 0
        ratio = np.clip(volume.astype(np.float64) / np.median(volume[mask].astype(np.float64)), 0, 3)
        expected = radiomics_features(ratio, mask, [SPACING] * 3, RadiomicsParameters(log_sigmas_mm=(2.0, 3.0)))
        assert {n: found.values[f"{contrast}_{n}"] for n in expected} == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.values["has_trace"] == 1.0
    assert found.quality["n_dwi"] == 1


def test_without_a_trace_its_features_are_zero_and_those_of_b0_stay(both, tmp_path):
    """Two volumes of b0 are averaged into the one that the head with a trace has."""
    case = write(tmp_path, head()[..., [0, 0]], "0 0")
    found = RadiomicsInputs()(case).values
    assert {value for name, value in found.items() if name.startswith("trace_")} == {0.0}
    assert found["has_trace"] == 0.0
    assert 0.5 < found["b0_firstorder_mean"] < 2.0
    assert np.isfinite(list(found.values())).all()


def test_a_selection_is_read_in_its_own_order(both):
    _, found = both
    inputs = RadiomicsInputs(features=CHOSEN)
    assert inputs.feature_names == tuple(CHOSEN)
    assert found.vector(inputs.feature_names).tolist() == [found.values[name] for name in CHOSEN]


@pytest.mark.parametrize("features", [["b0_shape_volume"], ["has_trace", "has_trace"], []])
def test_a_selection_that_is_none_is_refused(features):
    with pytest.raises(ValueError, match="different names of the radiomics features"):
        RadiomicsInputs(features=features)


def test_selections_share_the_computation_and_not_the_fingerprint():
    all_of_them, one = RadiomicsInputs(), RadiomicsInputs(features=CHOSEN)
    assert all_of_them.computation() == one.computation()
    assert all_of_them.fingerprint() != one.fingerprint()


@pytest.mark.parametrize("change", [{"bin_count": 64}, {"log_sigmas_mm": [2.0]}, {"log_sigmas_mm": [3.0, 2.0]}])
def test_every_parameter_changes_computation_and_fingerprint(change):
    assert RadiomicsInputs(**change).computation() != RadiomicsInputs().computation()
    assert RadiomicsInputs(**change).fingerprint() != RadiomicsInputs().fingerprint()


def test_arguments_pass_through_json_unchanged():
    """A FLARE job reads the arguments back from the attributes, and a model file writes them."""
    inputs = RadiomicsInputs(bin_count=16, log_sigmas_mm=(2, 4.5), features=CHOSEN[:1])
    arguments = json.loads(json.dumps({name: getattr(inputs, name) for name in inputs._always_serialize_args}))
    assert RadiomicsInputs(**arguments).fingerprint() == inputs.fingerprint()


def test_the_fingerprint_keeps_its_value():
    """Golden number of schema 1, printed by this test's own call: saved models of another fingerprint are refused.

    Whoever changes names, order or meaning of the features raises SCHEMA_VERSION, and so changes this number.
    """
    assert SCHEMA_VERSION == "1"
    assert RadiomicsInputs().fingerprint()[:16] == "4865a9c87d99eb6c"


def test_a_scan_that_cannot_be_used_is_a_scan_error(tmp_path):
    path = tmp_path / "sub-1_dwi.nii.gz"
    path.write_bytes(b"")
    with pytest.raises(ScanError, match="empty"):
        RadiomicsInputs()(Case("sub-1", path))


def test_a_real_partial_head_has_finite_features(shared_data: Path):
    path = shared_data / "nifti_dwi" / "uih_umr770_b0_b930.nii.gz"
    if not path.is_file():
        pytest.skip(f"needs the scan ../shared/data/nifti_dwi/{path.name} beside the checkout")
    inputs = RadiomicsInputs()
    found = inputs.describe(inputs.process(path))
    assert np.isfinite(found.vector(inputs.feature_names)).all()
    assert found.values["has_trace"] == 1.0
    assert found.values["b0_firstorder_median"] == pytest.approx(1.0)
