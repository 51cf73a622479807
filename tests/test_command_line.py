"""The command line as a user meets it: what is printed where, and the exit status."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from mhsev_flare.cli import main
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.dsd.features import FEATURE_NAMES
from mhsev_monai.inputs import DSDInputs
from mhsev_monai.model_file import save_model
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.noise_inputs import NOISE_DESCRIPTORS, ContrastNoiseInputs
from mhsev_monai.severity import severity_from_count

sys.path.insert(0, str(Path(__file__).parent / "preprocess"))
from head_phantoms import crisp_head


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An untrained model: these tests are about the command, not about its grades."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    inputs = DSDInputs()
    network = SeverityMLP(len(inputs.feature_names), [8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=1)
    save_model(path, network, inputs, "paper", network.state_dict(), {})
    return path


def head(path: Path) -> Path:
    """A head that the brain mask accepts: b0 and one weighted volume of the same anatomy, 2.8 mm."""
    b0, trace = (crisp_head(levels=levels).image for levels in ((1.0, 0.5, 0.4), (0.1, 0.5, 0.45)))
    affine = np.diag([2.8, 2.8, 2.8, 1.0])
    nib.save(nib.Nifti1Image(1000 * np.stack([b0, trace], -1), affine), path)
    path.with_name(path.name.removesuffix(".nii.gz") + ".bval").write_text("0 1000")
    return path


def test_predict_prints_the_grade_and_the_limits(model, tmp_path, capsys):
    assert main(["predict", str(head(tmp_path / "a.nii.gz")), "--model", str(model)]) == 0
    printed = capsys.readouterr()
    facts = {line.split()[0] for line in printed.out.splitlines() if line.startswith("  ")}
    assert {"grade", "microbleeds", "probabilities", "brain", "Research"} <= facts
    assert printed.err == ""


def test_json_is_one_object_a_scan_and_the_grade_fits_the_count(model, tmp_path, capsys):
    scans = [str(head(tmp_path / name)) for name in ("a.nii.gz", "b.nii.gz")]
    assert main(["predict", *scans, "--model", str(model), "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [o["scan"] for o in objects] == scans
    for graded in objects:
        assert sum(graded["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert severity_from_count(graded["count"]).label == graded["grade"]
        assert 900 < graded["quality"]["brain_mask_ml"] < 2200
    # Equal bytes, equal answer.
    assert {k: v for k, v in objects[0].items() if k != "scan"} == {k: v for k, v in objects[1].items() if k != "scan"}


BAD_FILES = {
    "truncated gzip": (lambda p: p.write_bytes(head(p).read_bytes()[:4000]), "cut off"),
    "NaN": (lambda p: save(p, np.full((16, 16, 8, 2), np.nan, np.float32)), "NaN"),
    "all zero": (lambda p: save(p, np.zeros((16, 16, 8, 2), np.float32)), "zero"),
    "2-D": (lambda p: save(p, np.ones((16, 16), np.float32)), "2-D"),
    "5-D": (lambda p: save(p, np.ones((16, 16, 8, 2, 3), np.float32)), "5-D"),
    "no .bval": (lambda p: (head(p), p.with_name("bad.bval").unlink()), ".bval"),
    "mismatched .bval": (lambda p: (head(p), p.with_name("bad.bval").write_text("0 1000 1000")), ".bval file: 3;"),
    "zero affine": (lambda p: save_with_zero_affine(p), "affine"),
    "RGB": (lambda p: save(p, np.zeros((16, 16, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])), "colours"),
}


def save(path: Path, data: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2.0, 3.0, 1.0])), path)
    path.with_name("bad.bval").write_text("0 1000")


def save_with_zero_affine(path: Path) -> None:
    image = nib.Nifti1Image(np.random.default_rng(0).random((16, 16, 8, 2), np.float32), None)
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    for row in ("srow_x", "srow_y", "srow_z"):
        image.header[row] = 0
    # Bytes by hand: nibabel would put a usable affine in their place.
    path.write_bytes(gzip.compress(image.header.binaryblock + b"\0" * 4 + np.asarray(image.dataobj).tobytes("F")))
    path.with_name("bad.bval").write_text("0 1000")


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_sentence_that_names_it_and_the_others_go_on(kind, model, tmp_path, capsys):
    make, words = BAD_FILES[kind]
    bad, good = tmp_path / "bad.nii.gz", head(tmp_path / "good.nii.gz")
    make(bad)
    assert main(["predict", str(bad), str(good), "--model", str(model)]) == 1
    printed = capsys.readouterr()
    complaint, summary = printed.err.splitlines()
    assert complaint.startswith(f"mhsev: {bad}: ")
    assert words in complaint
    assert summary == "mhsev: 1 of 2 scans could not be graded"
    assert str(good) in printed.out
    assert str(bad) not in printed.out


def test_a_missing_model_says_what_to_run(tmp_path, capsys):
    assert main(["predict", "scan.nii.gz", "--model", str(tmp_path / "none.pt")]) == 2
    assert "run `make demo` or a federated job first" in capsys.readouterr().err


def test_a_report_of_nothing_says_what_to_run(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 1
    assert "run the job first" in capsys.readouterr().err


def test_features_lists_what_it_left_out(tmp_path, capsys):
    root = tmp_path / "site"
    for subject in ("sub-1", "sub-2"):
        (root / subject / "dwi").mkdir(parents=True)
        head(root / subject / "dwi" / f"{subject}_dwi.nii.gz")
    broken = root / "sub-2" / "dwi" / "sub-2_dwi.nii.gz"
    broken.write_bytes(broken.read_bytes()[:5000])
    (root / "participants.tsv").write_text("participant_id\tmicrobleed_count\nsub-1\t3\nsub-2\t0\n")
    assert main(["features", str(root), "--workers", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{root}: features of 1 scans, 1 excluded\n"
    assert "site sub-2: " in printed.err
    kept = root / "derivatives" / "mhsev" / "features"
    assert len(list(kept.glob("*.json"))) == 2  # the scan and its protocol twin
    assert main(["features", str(root), "--workers", "1", "--no-twins", "--cache", str(tmp_path / "own")]) == 1
    assert len(list((tmp_path / "own").glob("*.json"))) == 1


def test_every_feature_is_listed_with_unit_and_definition(capsys):
    assert main(["features", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    descriptors = [line.split()[1] for line in lines if line.startswith("candidate ")]
    assert descriptors[:73] == list(ContrastNoiseInputs.NAMES)
    assert set(descriptors) == {*DESCRIPTORS, *NOISE_DESCRIPTORS}
    vector = lines[len(descriptors) :]
    assert [line.split()[0] for line in vector] == list(FEATURE_NAMES)
    assert all(len(line.split()) > 3 for line in vector)


def test_features_of_nothing_is_a_wrong_call(capsys):
    assert main(["features"]) == 2
    assert "at least one BIDS root" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["in the workspace", "beside other files"])
def test_a_workspace_that_flare_would_empty_is_refused(where, tmp_path, capsys):
    """The simulator deletes its workspace; nobody's hospitals may lie in it."""
    workspace, cohort = tmp_path / "ws", tmp_path / "cohort"
    if where == "in the workspace":
        cohort = workspace / "cohort"
    cohort.mkdir(parents=True)
    workspace.mkdir(exist_ok=True)
    (workspace / "thesis.txt").write_text("years of work")
    assert main(["simulator", "prepare", str(workspace), "--cohort", str(cohort)]) == 2
    assert "empt" in capsys.readouterr().err
    assert not (workspace / "local").exists()


def test_a_workspace_can_be_prepared_again(tmp_path):
    (tmp_path / "cohort").mkdir()
    for _ in range(2):
        assert main(["simulator", "prepare", str(tmp_path / "ws"), "--cohort", str(tmp_path / "cohort")]) == 0
    stored = json.loads((tmp_path / "ws" / "local" / "mhsev_site.json").read_text())
    # Checkpoints lie beside the workspace, which FLARE empties.
    assert stored.pop("checkpoint_root") == str(tmp_path / "ws-checkpoints")
    assert stored == {"cohort_root": str(tmp_path / "cohort")}


def test_a_damaged_model_is_one_sentence(model, tmp_path, capsys):
    content = torch.load(model, weights_only=True)
    damaged = tmp_path / "damaged.pt"
    for change in ({"inputs": None}, {"scale": "stars"}, {"weights": {}}):
        torch.save({**content, **change}, damaged)
        assert main(["predict", "scan.nii.gz", "--model", str(damaged)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "damaged or from another version" in line


def test_unknown_jobs_are_named_with_those_that_exist(tmp_path, capsys):
    assert main(["jobs", "export", str(tmp_path), "--only", "dream"]) == 2
    assert "there is no job called dream; there are dsd_mlp" in capsys.readouterr().err


def test_exported_jobs_are_those_in_the_repository_and_hold_no_code(tmp_path):
    committed = Path(__file__).resolve().parents[1] / "jobs"
    if not committed.is_dir():
        pytest.skip("needs the checkout's jobs folder")
    assert main(["jobs", "export", str(tmp_path)]) == 0
    exported = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert exported == {path: (committed / path).read_bytes() for path in exported}
    assert not [path for path in exported if path.suffix == ".py"]
    assert sum(map(len, exported.values())) < 50_000
