"""What a scan's grade comes with: probabilities at the temperature, a set of grades, and when a model abstains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mhsev_flare.cli import describe_grade
from mhsev_monai.conformal import ConformalThresholds
from mhsev_monai.grade_calibration import GradeCalibration
from mhsev_monai.inputs import DSDInputs
from mhsev_monai.model_file import ModelFileError, load_model, save_model
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.prediction import ScanGrade
from mhsev_monai.severity import Severity
from mhsev_monai.trust import ABSTENTIONS, set_text, trust

RAW = (0.05, 0.8, 0.14, 0.01)


def known(last_bin: int, temperature: float = 2.0) -> GradeCalibration:
    return GradeCalibration(temperature, ConformalThresholds((last_bin,) * 4, 50, 0.9), 1.5)


@pytest.mark.parametrize(
    ("last_bin", "far", "grades", "abstains"),
    [
        (38, [1.0, 1.0], ("mild", "moderate"), None),
        (30, [1.0, 1.0], ("mild",), None),
        (49, [1.0, 1.0], ("none", "mild", "moderate", "severe"), "whole_set"),
        (2, [1.0, 1.0], (), "empty_set"),
        (38, [1.0, 2.0], ("mild", "moderate"), "odd_scan"),  # root of 2.5 is above 1.5
    ],
)
def test_the_set_and_the_reason_to_abstain(last_bin, far, grades, abstains):
    found = trust(known(last_bin), RAW, far)
    assert found.prediction_set == grades
    assert found.abstains == abstains
    assert abstains is None or abstains in ABSTENTIONS
    # Square roots of RAW, made to sum to 1.
    roots = [p**0.5 for p in RAW]
    assert list(found.probabilities.values()) == pytest.approx([root / sum(roots) for root in roots], abs=1e-9)


def test_without_a_calibration_probabilities_are_the_networks_own():
    found = trust(None, RAW, [1.0, 4.0])
    assert tuple(found.probabilities.values()) == RAW
    assert (found.calibrated, found.prediction_set, found.set_coverage, found.abstains) == (False, None, None, None)
    assert trust(None, RAW, [1.0, 5.1]).abstains == "odd_scan"  # one feature beyond five standard deviations


def test_probabilities_are_called_calibrated_only_at_a_temperature_that_was_fitted():
    assert trust(known(38, 2.0), RAW, [1.0]).calibrated is True
    found = trust(known(38, 1.0), RAW, [1.0])
    assert found.calibrated is False
    assert tuple(found.probabilities.values()) == RAW
    assert found.prediction_set is not None


@pytest.mark.parametrize(
    ("grades", "text"),
    [
        (("mild",), "mild"),
        (("mild", "moderate"), "mild or moderate"),
        (("none", "mild", "moderate"), "none, mild or moderate"),
        ((), "no grade"),
    ],
)
def test_sets_in_words(grades, text):
    assert set_text(grades) == text


def graded(last_bin: int, far: float) -> ScanGrade:
    found = trust(known(last_bin), RAW, [far, far])
    return ScanGrade(
        grade=Severity.MILD,
        count=3,
        count_interval=(1, 6),
        judges_spots=True,
        n_candidates=120,
        findings=(),
        possible=(),
        quality={"brain_mask_ml": 1400.0},
        flags=(),
        **found._asdict(),
    )


def test_the_terminal_tells_the_set_and_why_the_model_abstains():
    lines = describe_grade(Path("scan.nii.gz"), graded(38, 1.0)).splitlines()
    assert "  grade set      mild or moderate   (made to hold the grade of 90% of cases)" in lines
    assert not any("abstains" in line for line in lines)
    lines = describe_grade(Path("scan.nii.gz"), graded(38, 2.0)).splitlines()
    assert "  abstains       odd_scan: the scan is unlike those that the model was trained with" in lines


def test_the_json_has_every_key_and_keeps_the_grade():
    told = graded(49, 1.0).to_json()
    assert told["grade"] == "mild"
    assert told["calibrated"] is True
    assert told["prediction_set"] == ["none", "mild", "moderate", "severe"]
    assert told["prediction_set_text"] == "none, mild, moderate or severe"
    assert told["set_coverage"] == 0.9
    assert told["oddness"] == {"score": 1.0, "limit": 1.5, "is_odd": False}
    assert told["abstains"] == "whole_set"
    assert told["familiarity"] is None


def small() -> SeverityMLP:
    n = len(DSDInputs().feature_names)
    return SeverityMLP(in_features=n, hidden_features=[6], num_classes=4, dropout=0.1, max_deviation=8.0, seed=1)


def save(path, calibration):
    network = small()
    save_model(path, network, DSDInputs(), "paper", network.state_dict(), {}, calibration)


def test_a_model_file_keeps_its_calibration_and_older_ones_have_none(tmp_path):
    save(tmp_path / "new.pt", known(38))
    assert load_model(tmp_path / "new.pt").calibration == known(38)
    save(tmp_path / "old.pt", None)
    assert "calibration" not in torch.load(tmp_path / "old.pt", weights_only=True)
    assert load_model(tmp_path / "old.pt").calibration is None


def test_a_calibration_that_is_none_makes_the_file_damaged(tmp_path):
    save(tmp_path / "model.pt", known(38))
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    content["calibration"]["temperature"] = -1.0
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(tmp_path / "model.pt")
