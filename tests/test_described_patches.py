"""Descriptors and patches of candidates as one row, and the network that reads both."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mhsev_monai import inputs as inputs_module
from mhsev_monai.described_patch_inputs import DescribedPatchInputs
from mhsev_monai.described_patch_network import DescribedPatchNetwork
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.dsd.peaks import MOST_PEAKS
from mhsev_monai.feature_cache import load_or_compute
from mhsev_monai.inputs import POSITION_SET, DSDCandidateInputs
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.model_file import build, class_config
from mhsev_monai.patch_inputs import PATCH_SET, CandidatePatchInputs
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures, TrainingParameters, severity_loss, train_severity

sys.path.insert(0, str(Path(__file__).parent))
from spotted_heads import spotted_head

DESCRIBED, SIDE = 4, 5


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A head with three dark spots in its brain."""
    return spotted_head(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def scan(case):
    """The inputs, the entries of the head, and what is kept of them."""
    inputs = DescribedPatchInputs(side=5, step_mm=4.0)
    entries = inputs.process(case.image, case.bvals)
    return inputs, entries, inputs.describe(entries)


def make_network(**changes) -> DescribedPatchNetwork:
    arguments = {
        "in_features": DESCRIBED + SIDE**2,
        "descriptors": DESCRIBED,
        "channels": 1,
        "side": SIDE,
        "convolutions": [6, 8],
        "embedding": 6,
        "hidden_features": [12],
        "members": 1,
        "num_classes": 4,
        "lower_bounds": [1, 6, 11],
        "dropout": 0.0,
        "noise": 0.0,
        "grade_weight": 1.0,
        "mark_weight": 1.0,
        "context_features": [3],
        "max_deviation": 8.0,
        "max_federation_deviation": 4.0,
        "max_pixel_deviation": 6.0,
        "seed": 1,
    }
    return DescribedPatchNetwork(**{**arguments, **changes})


def make_cases(n: int, seed: int, marked: bool) -> LabelledFeatures:
    """Scans of 20 candidates; a bleed is low in the first descriptor and dark in the middle, a mimic one of both."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 10, size=n)
    described = rng.normal(0, 0.3, size=(n, 20, DESCRIBED))
    described[..., 3] = rng.normal(0, 1, size=(n, 1))
    pixels = rng.normal(0, 0.3, size=(n, 20, SIDE, SIDE))
    marks = np.zeros((n, 20), dtype=np.float32)
    for index, count in enumerate(counts):
        marks[index, :count] = 1
        described[index, : count + 5, 0] -= 2
        pixels[index, :count, 2, 2] -= 2
        pixels[index, count + 5 : count + 10, 2, 2] -= 2
    rows = np.concatenate([described, pixels.reshape(n, 20, -1)], axis=-1)
    known = torch.from_numpy(marks) if marked else None
    return LabelledFeatures(
        torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(counts.astype(np.float32)), known
    )


def test_a_row_is_the_descriptors_of_the_dsd_model_and_the_picture_of_the_detector(scan):
    inputs, entries, found = scan
    table, n = inputs.assemble(found), len(entries[Keys.DESCRIPTORS])
    described = DSDCandidateInputs()
    pictures = CandidatePatchInputs(side=5, step_mm=4.0)
    assert inputs.feature_names[: len(DESCRIPTORS)] == described.feature_names == DESCRIPTORS
    assert inputs.feature_names[len(DESCRIPTORS) :][: len(pictures.feature_names)] == pictures.feature_names
    assert len(inputs.feature_names) == len(set(inputs.feature_names)) == len(DESCRIPTORS) + 9 * 25
    assert table.shape == (MOST_PEAKS, len(inputs.feature_names))
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table[:, : len(DESCRIPTORS)], described.assemble(described.describe(entries)))
    seen = pictures.assemble(pictures.describe(entries)).astype(np.float32)
    np.testing.assert_array_equal(table[:, len(DESCRIPTORS) :][:, : seen.shape[1]], seen)
    assert np.isfinite(table[:n]).all()
    assert np.isnan(table[n:]).all()


def test_the_middle_of_a_patch_of_the_map_is_the_map_at_the_candidate(scan):
    inputs, entries, found = scan
    column = list(inputs.pixel_names).index("dsd_slice_+0_2_2")
    places = tuple(np.asarray(entries[Keys.CANDIDATE_VOXELS]).T)
    expected = np.asarray(entries[Keys.DSD][0])[places]
    np.testing.assert_allclose(found.sets[PATCH_SET][:, column].astype(np.float64), expected, rtol=1e-3, atol=1e-4)
    assert len(found.sets[POSITION_SET]) == len(expected)


def test_what_is_kept_is_found_again(case, tmp_path):
    inputs = DescribedPatchInputs(side=5, step_mm=4.0)
    first = inputs.assemble(load_or_compute(case, inputs, tmp_path))
    (kept,) = tmp_path.iterdir()
    np.testing.assert_array_equal(inputs.assemble(load_or_compute(case, inputs, tmp_path)), first)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_model_outlives_an_edit_of_the_code_and_kept_rows_do_not(monkeypatch):
    before = DescribedPatchInputs()
    first = before.fingerprint(), before.computation()
    assert first[0] != CandidatePatchInputs().fingerprint()
    assert first[1] != CandidatePatchInputs().computation()
    monkeypatch.setattr(inputs_module, "_code_digest", lambda: "another")
    after = DescribedPatchInputs()
    assert after.fingerprint() == first[0]
    assert after.computation() != first[1]


@pytest.mark.parametrize("marked", [True, False], ids=["from marks", "from counts"])
def test_it_learns_a_bleed_that_neither_descriptors_nor_patches_tell_alone(marked):
    network = make_network()
    train_severity(network, make_cases(64, 1, marked), PAPER_SCALE, TrainingParameters(60, 1e-2, 0.0, 8, 1.0), seed=1)
    test = make_cases(24, 2, True)
    assert test.marks is not None
    scores = network.candidate_probabilities(test.features)
    # Half of what is low is no bleed, and half of what is dark: either alone orders no more than 0.9 of the pairs.
    order = (scores[test.marks == 1][:, None] > scores[test.marks == 0][None]).float().mean()
    assert order > 0.97
    assert abs(scores.sum(dim=1) - test.counts).mean() < 1.0


def test_the_order_of_candidates_and_what_fills_up_say_nothing():
    network, cases = make_network(), make_cases(6, 3, False)
    first = network.count_distribution(cases.features)
    torch.testing.assert_close(network.count_distribution(cases.features[:, torch.randperm(20)]), first)
    filled = torch.cat([cases.features, torch.full((6, 7, cases.features.shape[-1]), torch.nan)], dim=1)
    torch.testing.assert_close(network.count_distribution(filled), first)


def test_each_column_is_made_of_the_entry_that_it_names():
    network, features = make_network(), make_cases(3, 4, False).features
    before = network.standardised(features)
    assert before.shape[-1] == len(network.descriptor_read) == 2 * DESCRIBED + SIDE**2
    for entry in range(network.in_features):
        changed = features.clone()
        changed[..., entry] += torch.randn(features.shape[:2])
        moved = (network.standardised(changed) != before).any(dim=0).any(dim=0)
        assert [network.descriptor_read[column] for column in torch.nonzero(moved)[:, 0]] == [entry] * int(moved.sum())
        assert moved.any()


def test_descriptors_are_measured_by_both_yardsticks_and_context_by_the_federations():
    network, features = make_network(), make_cases(3, 5, False).features
    network.feature_mean[:] = 2.0
    network.feature_scale[:] = 0.5
    read = network.standardised(features)
    scan = features[1, :, 0].double().numpy()
    low, middle, high = np.quantile(scan, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(read[1, :, 0], np.clip((scan - middle) / ((high - low) / 1.349), -8, 8), rtol=1e-4)
    np.testing.assert_allclose(read[1, :, DESCRIBED], np.clip((scan - 2.0) / 0.5, -4, 4), rtol=1e-4)
    context = np.clip((features[1, :, 3].numpy() - 2.0) / 0.5, -2, 2)
    np.testing.assert_allclose(read[1, :, 3], context, rtol=1e-4)
    np.testing.assert_allclose(read[1, :, DESCRIBED + 3], context, rtol=1e-4)
    pixels = np.clip((features[1, :, DESCRIBED:].numpy() - 2.0) / 0.5, -6, 6)
    np.testing.assert_allclose(read[1, :, 2 * DESCRIBED :], pixels, rtol=1e-4)


def test_every_weight_has_a_gradient():
    network = make_network()
    network.train()
    severity_loss(network, make_cases(6, 3, True), PAPER_SCALE, 1.0).backward()
    filled = [(name, p.grad) for name, p in network.named_parameters() if p.numel()]
    assert [name for name, gradient in filled if gradient is None or not gradient.abs().max() > 0] == []


def test_a_configuration_makes_the_same_network_again():
    first = make_network(seed=3, members=2)
    second = build(class_config(first))
    for key, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"in_features": 7}, "descriptors \\+ channels \\* side"),
        ({"convolutions": [6]}, "convolutions two"),
        ({"side": 3, "in_features": DESCRIBED + 9}, "side at least 5"),
        ({"context_features": [DESCRIBED]}, "context_features must be descriptors"),
        ({"embedding": 0}, "must be positive"),
        ({"max_pixel_deviation": 0.0}, "must be positive"),
        ({"mark_weight": -1.0}, "not negative"),
    ],
)
def test_sizes_that_do_not_fit_are_told(wrong, told):
    with pytest.raises(ValueError, match=told):
        make_network(**wrong)
