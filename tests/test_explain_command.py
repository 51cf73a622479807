"""``mhsev explain`` as a user meets it, for a candidate network and for a vector network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_command_line import head

from mhsev_flare.cli import main
from mhsev_flare.jobs import JOBS
from mhsev_monai.inputs import DSDInputs
from mhsev_monai.model_file import save_model
from mhsev_monai.networks import SeverityMLP


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    return head(tmp_path_factory.mktemp("scan") / "a.nii.gz")


@pytest.fixture
def candidate_model(tmp_path) -> Path:
    """The network of the job, untrained but for scores that are no longer all alike."""
    spec = JOBS["dsd_mlp"]
    network = spec.network.eval()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    for member in range(network.members):
        weights[f"scorers.{member}.0.weight"] *= 3
        weights[f"scorers.{member}.6.weight"] *= 8
    save_model(tmp_path / "model.pt", network, spec.inputs, "paper", weights, {})
    return tmp_path / "model.pt"


def explained(scan: Path, model: Path, capsys, *more: str) -> dict:
    assert main(["explain", str(scan), "--model", str(model), "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_contributions_and_spots_add_up(scan, candidate_model, capsys):
    found = explained(scan, candidate_model, capsys, "--spots", "3")
    total = found["usual_severity"] + sum(each["severity"] for each in found["contributions"])
    assert total == pytest.approx(found["expected_severity"], abs=1e-9)
    assert {"number of dark spots", "shape of the spots", "location", "protocol"} <= {
        each["name"] for each in found["contributions"]
    }
    sizes = [abs(each["severity"]) for each in found["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    for each in found["contributions"]:
        by_grade = each["probabilities"]
        assert sum(by_grade.values()) == pytest.approx(0, abs=1e-9)
        assert sum(grade * p for grade, p in enumerate(by_grade.values())) == pytest.approx(each["severity"], abs=1e-9)
    assert len(found["spots"]) == 4
    count = found["count_without_spots"] + sum(each["microbleeds"] for each in found["spots"])
    assert count == pytest.approx(found["expected_count"], abs=1e-9)
    assert [each["position_mm"] is None for each in found["spots"]] == [False, False, False, True]
    # The same again, since everything that is drawn has a seed.
    assert explained(scan, candidate_model, capsys, "--spots", "3") == found


def test_the_terminal_gets_one_fact_a_line_and_the_limits(scan, candidate_model, tmp_path, capsys):
    drawing = tmp_path / "scan.svg"
    assert main(["explain", str(scan), "--model", str(candidate_model), "--svg", str(drawing)]) == 0
    assert "number of dark spots" in drawing.read_text()
    printed = capsys.readouterr().out
    for fact in (
        "grade ",
        "expected severity ",
        "usual severity ",
        "expected count ",
        "mm (RAS+)",
        "Research use only",
    ):
        assert fact in printed


def test_a_vector_model_has_groups_of_features_and_no_spots(scan, tmp_path, capsys):
    inputs = DSDInputs()
    network = SeverityMLP(len(inputs.feature_names), [8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=1)
    save_model(tmp_path / "model.pt", network, inputs, "paper", network.state_dict(), {})
    found = explained(scan, tmp_path / "model.pt", capsys)
    assert {"band 1", "band 5", "window size", "location"} <= {each["name"] for each in found["contributions"]}
    assert (found["spots"], found["expected_count"]) == ([], None)
    total = found["usual_severity"] + sum(each["severity"] for each in found["contributions"])
    assert total == pytest.approx(found["expected_severity"], abs=1e-9)


def test_what_cannot_be_explained_is_said(scan, tmp_path, candidate_model, capsys):
    assert main(["explain", str(scan), "--model", str(tmp_path / "none.pt")]) == 2
    assert "no model there" in capsys.readouterr().err
    assert main(["explain", str(scan), str(scan), "--model", str(candidate_model), "--svg", str(tmp_path / "a")]) == 2
    assert "goes with one scan" in capsys.readouterr().err
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"nothing")
    assert main(["explain", str(bad), "--model", str(candidate_model), "--json"]) == 1
    printed = capsys.readouterr()
    assert "error" in json.loads(printed.out)
    assert printed.err.startswith("mhsev: ")
