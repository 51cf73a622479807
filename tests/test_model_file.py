"""The model file: what is saved is what is loaded, and nothing else is."""

from __future__ import annotations

import pytest
import torch

from mhsev_monai.inputs import DSDInputs
from mhsev_monai.model_file import ModelFileError, class_config, load_model, save_model
from mhsev_monai.networks import SeverityMLP, predict_severity
from mhsev_monai.severity import PAPER_SCALE


def small_network(seed: int) -> SeverityMLP:
    n = len(DSDInputs().feature_names)
    return SeverityMLP(in_features=n, hidden_features=[6], num_classes=4, dropout=0.1, max_deviation=8.0, seed=seed)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.pt"
    network = small_network(5)
    network.feature_mean.fill_(3.0)
    save_model(path, small_network(1), DSDInputs(kappa=2.5), "paper", network.state_dict(), {"sites": 3})
    return path, network


def test_a_loaded_model_grades_as_the_saved_one(saved):
    path, network = saved
    model = load_model(path)
    features = torch.randn(20, network.in_features, generator=torch.Generator().manual_seed(0)) * 4
    ours, theirs = (predict_severity(n, features, PAPER_SCALE) for n in (network, model.network))
    assert torch.equal(ours.probabilities, theirs.probabilities)
    assert torch.equal(ours.counts, theirs.counts)
    assert model.inputs.kappa == 2.5
    assert model.scale is PAPER_SCALE
    assert model.provenance == {"sites": 3}


def test_arguments_are_read_back_from_the_object():
    assert class_config(small_network(7)) == {
        "path": "mhsev_monai.networks.SeverityMLP",
        "args": {
            "in_features": len(DSDInputs().feature_names),
            "hidden_features": [6],
            "num_classes": 4,
            "dropout": 0.1,
            "max_deviation": 8.0,
            "seed": 7,
        },
    }


def test_a_class_from_elsewhere_is_not_made(saved):
    path, _ = saved
    content = torch.load(path, weights_only=True)
    content["inputs"] = {"path": "subprocess.Popen", "args": {"args": "true"}}
    torch.save(content, path)
    with pytest.raises(ModelFileError, match="only classes of mhsev_monai"):
        load_model(path)


def test_features_that_would_differ_are_refused(saved, monkeypatch):
    path, _ = saved
    content = torch.load(path, weights_only=True)
    content["input_fingerprint"] = "0" * 64
    torch.save(content, path)
    with pytest.raises(ModelFileError, match="computes otherwise"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no model there"), (b"not torch", "torch cannot read it"), ("object", "mhsev-model/1")],
)
def test_what_is_no_model_says_so(tmp_path, content, words):
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ModelFileError, match=words) as caught:
        load_model(path)
    assert str(tmp_path) not in str(caught.value)
