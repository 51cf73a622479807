"""Differences between two acquisitions that are told, and those that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mhsev_monai.protocol_change import protocol_changes, yardstick_changes

QUALITY = {"spacing_mm": [1.8, 1.8, 5.0], "n_dwi": 3, "b_value": 1000.0, "brain_mask_ml": 1400.0}


def flags(**changed: object) -> tuple[str, ...]:
    return protocol_changes((Path("a.nii.gz"), QUALITY), (Path("b.nii.gz"), {**QUALITY, **changed}))


def test_equal_and_nearly_equal_protocols_are_alike():
    assert flags() == ()
    assert flags(spacing_mm=[1.8, 1.8, 5.2], b_value=930.0, brain_mask_ml=1300.0) == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"spacing_mm": [1.8, 1.8, 3.0]}, "1.8 x 1.8 x 5.0 and 1.8 x 1.8 x 3.0 mm"),
        ({"b_value": 1500.0}, "1000 and 1500 s/mm^2"),
        ({"n_dwi": 0, "b_value": 0.0}, "the other has none that is used"),
        ({"brain_mask_ml": 1000.0}, "hold 1400 and 1000 ml"),
    ],
)
def test_each_difference_is_one_sentence_with_its_numbers(changed, words):
    (flag,) = flags(**changed)
    assert words in flag


@pytest.mark.parametrize(("before", "after"), [(None, None), (1.0, 1.0), (0.7, 0.3), (None, 0.0)])
def test_scans_judged_alike_raise_no_flag(before, after):
    assert yardstick_changes(before, after) == ()


@pytest.mark.parametrize(("before", "after", "told"), [(1.0, 0.0, "1.00 and 0.00"), (0.25, 0.75, "0.25 and 0.75")])
def test_scans_judged_by_different_yardsticks_raise_one(before, after, told):
    (flag,) = yardstick_changes(before, after)
    assert f"familiarity {told}" in flag
    assert "lesions may seem to come or go" in flag


def test_sidecars_are_read_where_they_are_there_and_no_free_text_is_told(tmp_path):
    one, other = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    first = {"EchoTime": 0.07, "MagneticFieldStrength": 1.5, "Manufacturer": "One Name", "RepetitionTime": 5}
    (tmp_path / "a.json").write_text(json.dumps(first))
    assert protocol_changes((one, QUALITY), (other, QUALITY)) == ()
    second = {"EchoTime": 0.09, "MagneticFieldStrength": 3, "Manufacturer": "Other Name", "RepetitionTime": "long"}
    (tmp_path / "b.json").write_text(json.dumps(second))
    told = " ".join(protocol_changes((one, QUALITY), (other, QUALITY)))
    for words in ("echo time differs (70 and 90 ms)", "field strength differs (1.5 and 3 T)", "different vendors"):
        assert words in told
    assert "Name" not in told
    assert "repetition" not in told
    (tmp_path / "b.json").write_text("{broken")
    assert protocol_changes((one, QUALITY), (other, QUALITY)) == ()
