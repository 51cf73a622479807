"""What the network reads: names, selection, fingerprints, and the way of real scans through it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mhsev_monai.cases import Case
from mhsev_monai.dsd.features import FEATURE_NAMES, SCHEMA_VERSION
from mhsev_monai.dsd.peaks import MOST_PEAKS
from mhsev_monai.errors import ScanError
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.inputs import DSDCandidateInputs, DSDInputs
from mhsev_monai.quality import WHOLE_BRAIN_ML

sys.path.insert(0, str(Path(__file__).parent / "preprocess"))
from head_phantoms import crisp_head

WHOLE_HEADS = (
    "philips_achieva_whole_b0_b1000",
    "philips_ingenia_mb2_b0_b1000",
    "siemens_prisma_ve11_sag_b0_b2000",
    "siemens_prisma_xa30_PA_b0_b2500",
)
PARTIAL_HEADS = ("philips_elition_mb3_b0_b1000", "uih_umr770_b0_b930")
WITHOUT_DIFFUSION = ("ge_signauhp_seepi_b0like", "ge_signauhp_seepi_b0like_otherPE")


def test_a_selection_is_read_in_its_own_order():
    chosen = ["depth_30", "count_12"]
    inputs = DSDInputs(features=chosen)
    assert inputs.feature_names == ("depth_30", "count_12")
    assert DSDInputs().feature_names == FEATURE_NAMES


@pytest.mark.parametrize("features", [["count_99"], ["depth_30", "depth_30"], []])
def test_a_selection_that_is_none_is_refused(features):
    with pytest.raises(ValueError, match="different names of the feature table"):
        DSDInputs(features=features)


def test_selections_share_the_computation_and_not_the_fingerprint():
    all_of_them, one = DSDInputs(), DSDInputs(features=["depth_30"])
    assert all_of_them.computation() == one.computation()
    assert all_of_them.fingerprint() != one.fingerprint()


@pytest.mark.parametrize(
    "change", [{"energy": 0.9}, {"kappa": 2.0}, {"gain": "hard"}, {"dynamic": False}, {"least_brain": 0.5}]
)
def test_every_parameter_changes_computation_and_fingerprint(change):
    assert DSDInputs(**change).computation() != DSDInputs().computation()
    assert DSDInputs(**change).fingerprint() != DSDInputs().fingerprint()


def test_descriptors_are_selected_by_name_and_tables_filled_with_nan():
    chosen = ["noise", "dsd_depth"]
    every, few = DSDCandidateInputs(), DSDCandidateInputs(features=chosen)
    table = np.arange(2 * len(every.feature_names), dtype=np.float32).reshape(2, -1)
    filled = few.assemble(CaseFeatures({}, {}, {"candidates": table}))
    assert filled.shape == (MOST_PEAKS, 2)
    assert filled[:2].tolist() == table[:, [every.feature_names.index(name) for name in chosen]].tolist()
    assert np.isnan(filled[2:]).all()
    assert every.computation() == few.computation() != DSDInputs().computation()
    assert every.fingerprint() != few.fingerprint()
    with pytest.raises(ValueError, match="different names of descriptors"):
        DSDCandidateInputs(features=["darkness"])


def test_the_paper_reads_b0_alone_and_other_sources_are_refused():
    assert DSDInputs(source="b0").computation() != DSDInputs().computation()
    with pytest.raises(ValueError, match="source must be one of fused, b0"):
        DSDInputs(source="b1000")


def test_hashes_do_not_depend_on_the_process():
    script = "from mhsev_monai.inputs import DSDInputs as D; print(D().computation(), D().fingerprint())"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [DSDInputs().computation(), DSDInputs().fingerprint()]


def test_features_of_a_fixed_scan_keep_their_values(tmp_path):
    """Golden numbers of schema 3: whoever changes them raises SCHEMA_VERSION, since saved models then read nonsense.

    Printed by this test's own steps; a crisp head of two contrasts with one planted spot, 2.8 mm. Tolerance 1e-3: other
    processors and libraries add in another order.
    """
    b0, trace = (crisp_head(levels=levels).image.copy() for levels in ((1.0, 0.5, 0.4), (0.1, 0.5, 0.45)))
    for image in (b0, trace):
        image[38:41, 24:27, 28] *= 0.15
    path = tmp_path / "sub-1_dwi.nii.gz"
    nib.save(nib.Nifti1Image(1000 * np.stack([b0, trace], -1), np.diag([2.8, 2.8, 2.8, 1.0])), path)
    (tmp_path / "sub-1_dwi.bval").write_text("0 1000")
    found = DSDInputs(kappa=1.0, least_brain=0.25)(Case("sub-1", path, tmp_path / "sub-1_dwi.bval")).values
    assert SCHEMA_VERSION == "3"
    assert {name: found[name] for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-3)


GOLDEN = {
    "count_12": 0.6931472,
    "count_30": 0.6931472,
    "focal_count_20": 0.6931472,
    "focal_count_30": 0.6931472,
    "depth_30": 0.6365499,
    "log_count_30": 0.6931472,
    "band_2_mean": -0.9335038,
    "rank_mean": 0.363187,
    "map_p99_depth": 0.03313608,
    "brain_volume": 1952.389,
    "snr": 2.114357,
}


def test_a_scan_that_cannot_be_used_is_a_scan_error_through_the_whole_chain(tmp_path):
    path = tmp_path / "sub-1_dwi.nii.gz"
    path.write_bytes(b"")
    with pytest.raises(ScanError, match="empty"):
        DSDInputs()(Case("sub-1", path))


@pytest.mark.parametrize("name", [*WHOLE_HEADS, *PARTIAL_HEADS, *WITHOUT_DIFFUSION])
def test_real_heads_pass(shared_data: Path, name):
    """Four vendors, one stored sagittally, one partial slab, one without diffusion weighting."""
    image = shared_data / "nifti_dwi" / f"{name}.nii.gz"
    inputs = DSDCandidateInputs()
    entries = inputs.process(image, b0_only=name in WITHOUT_DIFFUSION)
    found = inputs.describe(entries)
    table = inputs.assemble(found)
    assert table.shape == (MOST_PEAKS, len(inputs.feature_names))
    assert np.isfinite(table[: len(found.sets["candidates"])]).all()
    assert entries["dsd"].shape == entries["b0"].shape
    volume = entries["quality"]["brain_mask_ml"]
    if name in PARTIAL_HEADS:
        assert 900 < volume < 1300
    else:
        assert WHOLE_BRAIN_ML[0] < volume < WHOLE_BRAIN_ML[1]
