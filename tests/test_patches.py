"""The lesion detector: pictures around candidates, and a network that learns from marks or from counts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mhsev_monai import inputs as inputs_module
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.dsd.peaks import MOST_PEAKS
from mhsev_monai.inputs import POSITION_SET, DSDCandidateInputs
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.lesion_marks import mark_candidates
from mhsev_monai.model_file import build, class_config
from mhsev_monai.patch_inputs import PATCH_SET, CandidatePatchInputs
from mhsev_monai.patch_network import CandidateCNN
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures, TrainingParameters, severity_loss, train_severity

sys.path.insert(0, str(Path(__file__).parent))
from spotted_heads import spotted_head

CHANNELS, SIDE = 2, 5


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Entries and what is kept of a head with three dark spots in its brain."""
    inputs = CandidatePatchInputs(side=5, step_mm=4.0)
    case = spotted_head(tmp_path_factory.mktemp("scan"))
    entries = inputs.process(case.image, case.bvals)
    return inputs, entries, inputs.describe(entries)


def make_network(**changes) -> CandidateCNN:
    arguments = {
        "in_features": CHANNELS * SIDE**2,
        "channels": CHANNELS,
        "side": SIDE,
        "hidden_features": [6, 8, 8],
        "members": 1,
        "num_classes": 4,
        "lower_bounds": [1, 6, 11],
        "dropout": 0.0,
        "noise": 0.0,
        "grade_weight": 1.0,
        "mark_weight": 1.0,
        "max_deviation": 6.0,
        "seed": 1,
    }
    return CandidateCNN(**{**arguments, **changes})


def make_cases(n: int, seed: int, marked: bool) -> LabelledFeatures:
    """Scans with 20 candidates; a bleed is dark in the middle of both channels, a mimic of one alone."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 14, size=n)
    pictures = rng.normal(0, 0.3, size=(n, 20, CHANNELS, SIDE, SIDE))
    marks = np.zeros((n, 20), dtype=np.float32)
    for case, count in enumerate(counts):
        marks[case, :count] = 1
        pictures[case, :count, :, 2, 2] -= 2
        pictures[case, count:, 0, 2, 2] -= 2
    features = torch.from_numpy(pictures.reshape(n, 20, -1).astype(np.float16))
    known = torch.from_numpy(marks) if marked else None
    return LabelledFeatures(features, torch.from_numpy(counts.astype(np.float32)), known)


def test_the_middle_of_a_picture_is_the_candidate(scan):
    inputs, entries, found = scan
    middle = [name.endswith("_2_2") and "slice_+0" in name for name in inputs.feature_names]
    seen = found.sets[PATCH_SET][:, middle].astype(np.float64)
    levels = [DESCRIPTORS.index(name) for name in ("b0_centre", "trace_centre")]
    np.testing.assert_allclose(seen, np.clip(entries[Keys.DESCRIPTORS][:, levels], 0, 2), atol=2e-3)


def test_a_pixel_of_one_voxel_is_the_neighbouring_voxel(scan):
    """With steps of the voxel's own size nothing is interpolated; the next slice is the next slice."""
    inputs, entries, found = scan
    names = list(inputs.feature_names)
    middle = names.index("b0_slice_+0_2_2")
    voxels = [tuple(voxel) for voxel in entries[Keys.CANDIDATE_VOXELS].tolist()]
    for (dx, dy, dz), name in (
        ((1, 0, 0), "b0_slice_+0_3_2"),
        ((0, -1, 0), "b0_slice_+0_2_1"),
        ((0, 0, 1), "b0_slice_+1_2_2"),
    ):
        b0 = np.asarray(entries[Keys.B0][0])
        for row, (x, y, z) in enumerate(voxels[:3]):
            ratio = b0[x + dx, y + dy, z + dz] / b0[x, y, z]
            seen = found.sets[PATCH_SET][row].astype(np.float64)
            # The local level of parenchyma is smooth, so the ratio of neighbours is nearly that of the image.
            assert seen[names.index(name)] / seen[middle] == pytest.approx(ratio, rel=0.1)


def test_candidates_and_positions_are_those_of_the_dsd_model(scan, tmp_path):
    inputs, entries, found = scan
    other = DSDCandidateInputs().describe(entries)
    np.testing.assert_array_equal(found.sets[POSITION_SET], other.sets[POSITION_SET])
    table = inputs.assemble(found)
    n = len(found.sets[PATCH_SET])
    assert table.shape == (MOST_PEAKS, len(inputs.feature_names))
    assert np.isfinite(table[:n]).all()
    assert np.isnan(table[n:]).all()
    labels = np.zeros(entries[Keys.B0].shape[1:], dtype=np.int32)
    labels[14, 20, 17] = 1
    assert mark_candidates(found.sets[POSITION_SET], labels, np.asarray(entries[Keys.B0].affine)).sum() == 1


@pytest.mark.parametrize("wrong", [{"side": 4}, {"side": -1}, {"step_mm": 0.0}])
def test_pictures_that_cannot_be_are_told(wrong):
    with pytest.raises(ValueError, match="side must be odd"):
        CandidatePatchInputs(**wrong)


def test_a_model_outlives_an_edit_of_the_code_and_kept_pictures_do_not(monkeypatch):
    before = CandidatePatchInputs()
    first = before.fingerprint(), before.computation()
    monkeypatch.setattr(inputs_module, "_code_digest", lambda: "another")
    after = CandidatePatchInputs()
    assert after.fingerprint() == first[0]
    assert after.computation() != first[1]


def test_every_parameter_changes_computation_and_fingerprint():
    for change in ({"side": 7}, {"step_mm": 1.0}):
        assert CandidatePatchInputs(**change).computation() != CandidatePatchInputs().computation()
        assert CandidatePatchInputs(**change).fingerprint() != CandidatePatchInputs().fingerprint()


@pytest.mark.parametrize("marked", [True, False], ids=["from marks", "from counts"])
def test_it_learns_to_tell_a_bleed_from_what_is_dark_on_one_contrast_alone(marked):
    network = make_network()
    parameters = TrainingParameters(40, 1e-2, 0.0, 8, 1.0)
    train_severity(network, make_cases(48, 1, marked), PAPER_SCALE, parameters, seed=1)
    test = make_cases(24, 2, True)
    assert test.marks is not None
    scores = network.candidate_probabilities(test.features)
    bleeds = scores[test.marks == 1]
    mimics = scores[test.marks == 0]
    order = (bleeds[:, None] > mimics[None]).float().mean()
    assert order > 0.95
    assert abs(scores.sum(dim=1) - test.counts).mean() < 1.5


def test_every_weight_has_a_gradient():
    network = make_network()
    network.train()
    severity_loss(network, make_cases(6, 3, True), PAPER_SCALE, 1.0).backward()
    filled = [(name, p.grad) for name, p in network.named_parameters() if p.numel()]
    assert [name for name, gradient in filled if gradient is None or not gradient.abs().max() > 0] == []


def test_a_configuration_makes_the_same_network_again():
    first = make_network(seed=3)
    second = build(class_config(first))
    for key, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [{"in_features": 7}, {"hidden_features": [6, 8]}, {"side": 3, "in_features": 18}])
def test_sizes_that_do_not_fit_are_told(wrong):
    with pytest.raises(ValueError, match=r"channels \* side"):
        make_network(**wrong)
