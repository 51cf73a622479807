"""``mhsev compare`` on two simulated dates of one head, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from two_dates import draw_patient, write_scan

from mhsev_flare.cli import main
from mhsev_flare.compare_commands import describe
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.cohort.motion import Pose
from mhsev_monai.inputs import DSDCandidateInputs, DSDInputs
from mhsev_monai.lesion_matching import TOLERANCE_MM, Change
from mhsev_monai.longitudinal import Comparison, compare_scans
from mhsev_monai.model_file import load_model, save_model
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.severity import ARIA_H_COUNTS

pytest.importorskip("SimpleITK", reason="needs SimpleITK of the extra regions")
pytest.importorskip("nilearn", reason="needs nilearn of the extra regions")

SEED, BEFORE, AFTER = 5, 2, 6
POSE = Pose(np.array([4.0, -3.0, 5.0]), np.array([3.0, -4.0, 2.0]))
"""Degrees and mm that the head lies differently on the second date."""
STEEP, HALF_DEPTH = 15.0, 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model by hand: a candidate is a bleed with probability a half where a round dip has half of the depth."""
    inputs = DSDCandidateInputs(features=["spot_depth"])
    network = CandidateMLP(1, [1], 1, 4, [1, 6, 11], 0.0, 0.0, 1.0, 0.0, "federation", [], 100.0, 1)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    weights["scorers.0.0.weight"][:], weights["scorers.0.0.bias"][:] = STEEP, 0.0
    last = [name for name in weights if name.startswith("scorers.0.") and name.endswith("weight")][-1]
    # The SiLU of a large number is the number.
    weights[last][:], weights[last.replace("weight", "bias")][:] = 1.0, -STEEP * HALF_DEPTH
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, network, inputs, "paper", weights, {})
    return path


@pytest.fixture(scope="module")
def dates(tmp_path_factory) -> tuple[Path, Path, np.ndarray]:
    """Two scans, and where the second one's bleeds lie."""
    folder, patient = tmp_path_factory.mktemp("dates"), draw_patient(SEED, AFTER)
    still = Pose(np.zeros(3), np.zeros(3))
    before, after = folder / "before.nii.gz", folder / "after.nii.gz"
    counted = [number for number, bleed in enumerate(patient.bleeds, start=1) if bleed.counted]
    write_scan(before, SEED, patient, counted[BEFORE - 1], still, 1)
    return before, after, write_scan(after, SEED, patient, counted[AFTER - 1], POSE, 2)


@pytest.fixture(scope="module")
def there(model, dates) -> Comparison:
    return compare_scans(dates[0], dates[1], load_model(model))


@pytest.fixture(scope="module")
def back(model, dates) -> Comparison:
    return compare_scans(dates[1], dates[0], load_model(model))


def test_the_head_is_found_where_it_was_put(there, dates):
    affine = np.linalg.inv(there.alignment.matrix)
    turn = np.degrees(np.arccos((np.trace(affine[:3, :3]) - 1) / 2))
    # sqrt(4^2 + 3^2 + 5^2) for small angles.
    assert turn == pytest.approx(7.07, abs=1.0)
    assert there.alignment.disagreement_mm < 1.0
    assert there.alignment.overlap > 0.93
    assert np.linalg.det(there.alignment.matrix[:3, :3]) == pytest.approx(1.0, abs=1e-6)


def test_bleeds_that_came_are_new_and_those_before_are_stable(there, dates):
    places = dates[2]
    for kind, truth in ((Change.NEW, places[BEFORE:]), (Change.STABLE, places[:BEFORE])):
        found = np.array([each.followup.position_mm for each in there.lesions if each.change is kind])
        near = np.linalg.norm(truth[:, None] - found[None], axis=-1).min(axis=1)
        assert np.mean(near < TOLERANCE_MM) >= 0.5, (kind, near)


def test_swapping_the_dates_swaps_new_and_gone(there, back):
    def key(lesion, change):
        spots = {lesion.baseline and lesion.baseline.position_mm, lesion.followup and lesion.followup.position_mm}
        return str(change), sorted(map(str, spots))

    assert sorted(key(each, each.change.reversed) for each in there.lesions) == sorted(
        key(each, each.change) for each in back.lesions
    )
    np.testing.assert_allclose(there.alignment.matrix @ back.alignment.matrix, np.eye(4), atol=1e-9)


def test_the_same_scan_twice_has_nothing_new_and_nothing_gone(dates, model, capsys):
    scan = str(dates[1])
    assert main(["compare", scan, scan, "--model", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {
        **dict.fromkeys(map(str, Change), 0),
        "stable": len(found["followup"]["findings"]),
    }
    assert len(found["followup"]["findings"]) >= BEFORE
    assert max(lesion["distance_mm"] for lesion in found["lesions"]) == 0.0
    assert found["aria_h_of_new"] == "none"


def test_the_terminal_gets_one_fact_a_line_and_the_limits(dates, there):
    lines = describe(*dates[:2], there).splitlines()
    n_new = there.counts[Change.NEW]
    grade = ARIA_H_COUNTS.grade(n_new).label
    assert f"  new            {n_new}   (aria-h, of new findings only: {grade})" in lines
    assert f"  stable         {there.counts[Change.STABLE]}" in lines
    assert sum(line.startswith("  lesion ") for line in lines) == len(there.lesions)
    assert "superficial siderosis is not assessed" in lines[-2]
    assert lines[-1].strip().startswith("Research use only")


def test_what_cannot_be_compared_is_said(dates, model, tmp_path, capsys):
    before, after, _ = dates
    assert main(["compare", str(before), str(after), "--model", str(tmp_path / "none.pt")]) == 2
    assert "no model there" in capsys.readouterr().err
    inputs = DSDInputs()
    network = SeverityMLP(len(inputs.feature_names), [8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=1)
    save_model(tmp_path / "whole.pt", network, inputs, "paper", network.state_dict(), {})
    assert main(["compare", str(before), str(after), "--model", str(tmp_path / "whole.pt")]) == 1
    assert "points at no lesion to compare" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["compare", str(before), str(after), "--model", str(model), "--tolerance", "0"])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
