"""A model as a MONAI bundle: MONAI's own tools accept it and run it, and it grades as ``mhsev predict`` does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_command_line import head

from mhsev_flare.cli import main
from mhsev_flare.jobs import JOBS
from mhsev_monai.inputs import DSDInputs
from mhsev_monai.model_file import save_model
from mhsev_monai.networks import SeverityMLP

TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        **{name: {"type": "string"} for name in ("type", "format", "dtype")},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
}
TENSORS = {"type": "object", "additionalProperties": TENSOR}
STRINGS = (
    *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors"),
    *("copyright", "data_source", "data_type", "image_classes", "pred_classes", "intended_use"),
)
METADATA_RULES = {
    "type": "object",
    "required": [*STRINGS[:9], "required_packages_version", "network_data_format"],
    "properties": {
        **{name: {"type": "string"} for name in STRINGS},
        **{name: {"type": "object"} for name in ("changelog", "required_packages_version")},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {"inputs": TENSORS, "outputs": TENSORS},
        },
    },
}
"""What MONAI's metadata schema of 2024-07-25 asks for, restated: the schema itself is on another computer."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The network of the job, untrained but for scores that are no longer all alike."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    spec = JOBS["dsd_mlp"]
    network = spec.network.eval()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    for member in range(network.members):
        weights[f"scorers.{member}.0.weight"] *= 3
        weights[f"scorers.{member}.6.weight"] *= 8
    save_model(path, network, spec.inputs, "paper", weights, {"sites": 3, "versions": {"mhsev": "0.1.0"}})
    return path


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "grader"
    assert main(["bundle", "export", "--model", str(model), str(folder), "--authors", "The study group"]) == 0
    return folder


def metadata_of(folder: Path) -> dict:
    return json.loads((folder / "configs" / "metadata.json").read_text())


def test_a_bundle_has_the_files_of_the_specification_and_no_code(bundle, model):
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    expected = {"configs/metadata.json", "configs/inference.json", "docs/README.md", "LICENSE", "models/model.pt"}
    assert files == expected
    assert (bundle / "models" / "model.pt").read_bytes() == model.read_bytes()
    assert "Apache License" in (bundle / "LICENSE").read_text()
    assert [path.name for path in bundle.parent.iterdir()] == ["grader"]


def test_monai_verifies_the_metadata(bundle, tmp_path):
    """With the rules in the place where MONAI would put the schema after its download, which it then leaves out."""
    pytest.importorskip("jsonschema")
    from monai.bundle import verify_metadata

    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps(METADATA_RULES))
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(rules))
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps({**metadata_of(bundle), "numpy_version": 2}))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(broken), filepath=str(rules))


def verify_network(folder: Path) -> None:
    from monai.bundle import verify_net_in_out

    verify_net_in_out(
        net_id="network_def",
        meta_file=str(folder / "configs" / "metadata.json"),
        config_file=str(folder / "configs" / "inference.json"),
        device="cpu",
        bundle_root=str(folder),
    )


def test_monai_verifies_shape_and_type_of_the_network(bundle):
    verify_network(bundle)


def test_a_vector_network_can_be_exported_too(tmp_path):
    inputs = DSDInputs()
    network = SeverityMLP(len(inputs.feature_names), [8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=1)
    save_model(tmp_path / "model.pt", network, inputs, "aria-h", network.state_dict(), {})
    assert main(["bundle", "export", "--model", str(tmp_path / "model.pt"), str(tmp_path / "b")]) == 0
    verify_network(tmp_path / "b")
    image = metadata_of(tmp_path / "b")["network_data_format"]["inputs"]["image"]
    assert list(image["channel_def"].values()) == list(inputs.feature_names)


def test_monai_finds_every_part_that_an_inference_bundle_must_have(bundle):
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(bundle),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_card_holds_the_facts_the_limits_and_no_path(bundle, model):
    card = (bundle / "docs" / "README.md").read_text()
    assert "Research use only" in card
    assert metadata_of(bundle)["mhsev_model"]["sha256"] in card
    assert "The study group" in card
    assert "at least 1, 6, 11 microbleeds" in card
    assert card.count("To be filled in") == 4
    for text in (card, json.dumps(metadata_of(bundle)), (bundle / "configs" / "inference.json").read_text()):
        assert str(model.parent) not in text
        assert str(bundle.parent) not in text


def test_what_cannot_be_exported_is_said_and_leaves_nothing(model, tmp_path, capsys):
    volume = tmp_path / "volume.pt"
    pictures = JOBS["detector_count"]
    save_model(volume, pictures.network, pictures.inputs, "paper", pictures.network.state_dict(), {})
    cases = [
        (["--model", str(tmp_path / "none.pt"), str(tmp_path / "b")], "no model there"),
        (["--model", str(model), str(tmp_path)], "something already"),
        (["--model", str(volume), str(tmp_path / "b")], "CandidateMLP and SeverityMLP"),
        (["--model", str(model), str(tmp_path / "b"), "--license", str(tmp_path / "none.txt")], "FileNotFoundError"),
    ]
    for arguments, words in cases:
        assert main(["bundle", "export", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert [path.name for path in tmp_path.iterdir()] == ["volume.pt"]


@pytest.mark.slow
def test_the_bundle_grades_as_predict_does(bundle, model, tmp_path, capsys):
    pytest.importorskip("fire")
    scan = head(tmp_path / "a.nii.gz")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    done = subprocess.run(
        [*command, "--image", str(scan)], cwd=bundle, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    by_bundle = json.loads(done.stdout.splitlines()[-1])
    capsys.readouterr()
    assert main(["predict", str(scan), "--model", str(model), "--json"]) == 0
    predicted = json.loads(capsys.readouterr().out)
    assert predicted.pop("scan") == str(scan)
    assert by_bundle["probabilities"] == pytest.approx(predicted["probabilities"], abs=1e-6)
    for entry in ("grade", "count", "count_interval", "candidates", "flags"):
        assert by_bundle[entry] == predicted[entry]
    assert len(by_bundle["findings"]) == len(predicted["findings"])
    assert str(tmp_path) not in json.dumps(by_bundle)


@pytest.mark.slow
def test_a_bundle_without_a_scan_says_what_to_add(bundle):
    pytest.importorskip("fire")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0
    assert "add --image and the path of a NIfTI" in done.stderr
