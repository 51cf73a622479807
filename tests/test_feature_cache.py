"""The feature cache: found again by content, never stale, and honest about scans that fail."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mhsev_monai.cases import Case
from mhsev_monai.errors import ScanError
from mhsev_monai.feature_cache import CaseFeatures, cache_key, compute_features, load_or_compute


@dataclass
class ByteSums:
    """Inputs that any file serves: the number of bytes and their sum. Each computation leaves a line in ``trace``."""

    trace: Path
    factor: float = 1.0
    feature_names: tuple[str, ...] = ("n_bytes", "sum")

    def computation(self) -> str:
        return f"bytes-{self.factor}"

    def fingerprint(self) -> str:
        return f"{self.computation()} {self.feature_names}"

    def assemble(self, found: CaseFeatures) -> np.ndarray:
        return found.vector(self.feature_names)

    def __call__(self, case: Case) -> CaseFeatures:
        with self.trace.open("a") as stream:
            stream.write(f"{case.case_id}\n")
        data = case.image.read_bytes()
        if not data:
            raise ScanError("the file is empty; copy it again")
        values = {"n_bytes": len(data), "sum": sum(data) / 3 * self.factor}
        return CaseFeatures(values, {"brain_mask_ml": 1.5})


def make_case(folder: Path, name: str, content: bytes) -> Case:
    image = folder / f"{name}.nii.gz"
    image.write_bytes(content)
    return Case(case_id=name, image=image, count=1)


@pytest.fixture
def inputs(tmp_path: Path) -> ByteSums:
    return ByteSums(tmp_path / "trace.txt")


def computed(inputs: ByteSums) -> list[str]:
    return inputs.trace.read_text().split() if inputs.trace.exists() else []


def test_second_reading_gives_the_same_numbers_without_computing(tmp_path, inputs):
    case = make_case(tmp_path, "sub-1", b"abc")
    first = load_or_compute(case, inputs, tmp_path / "cache")
    second = load_or_compute(case, inputs, tmp_path / "cache")
    assert computed(inputs) == ["sub-1"]
    assert first.values == second.values
    assert second.quality == {"brain_mask_ml": 1.5}


def test_a_file_that_changes_under_its_name_is_computed_anew(tmp_path, inputs):
    load_or_compute(make_case(tmp_path, "sub-1", b"abc"), inputs, tmp_path / "cache")
    changed = load_or_compute(make_case(tmp_path, "sub-1", b"abd"), inputs, tmp_path / "cache")
    assert computed(inputs) == ["sub-1", "sub-1"]
    assert changed.values["sum"] == sum(b"abd") / 3


def test_b_values_are_part_of_the_content(tmp_path, inputs):
    bvals = tmp_path / "sub-1.bval"
    case = Case("sub-1", make_case(tmp_path, "sub-1", b"abc").image, bvals, 1)
    bvals.write_text("0 1000")
    first = cache_key(case, inputs)
    bvals.write_text("0 2000")
    assert cache_key(case, inputs) != first


def test_other_parameters_are_another_key(tmp_path, inputs):
    case = make_case(tmp_path, "sub-1", b"abc")
    load_or_compute(case, inputs, tmp_path / "cache")
    doubled = ByteSums(inputs.trace, factor=2.0)
    assert load_or_compute(case, doubled, tmp_path / "cache").values["sum"] == 2 * sum(b"abc") / 3


def test_a_damaged_entry_is_computed_again_and_said(tmp_path, inputs, caplog):
    case = make_case(tmp_path, "sub-1", b"abc")
    load_or_compute(case, inputs, tmp_path / "cache")
    entry = next((tmp_path / "cache").glob("*.json"))
    entry.write_text(entry.read_text()[:20])
    with caplog.at_level(logging.WARNING):
        again = load_or_compute(case, inputs, tmp_path / "cache")
    assert again.values["n_bytes"] == 3
    assert "damaged" in caplog.text
    assert json.loads(entry.read_text())["features"]["n_bytes"] == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_scan_does_not_stop_the_others(tmp_path, inputs, workers):
    cases = [make_case(tmp_path, f"sub-{i}", b"x" * i) for i in (3, 0, 2)]
    seen: list[tuple[int, int]] = []
    table = compute_features(cases, inputs, tmp_path / "cache", workers, lambda done, total: seen.append((done, total)))
    assert table.case_ids == ("sub-3", "sub-2")
    assert table.features[:, 0].tolist() == [3, 2]
    assert dict(table.failed) == {"sub-0": "the file is empty; copy it again"}
    assert seen == [(1, 3), (2, 3), (3, 3)]
    # A scan that failed is tried again: its file may have been mended, and nothing is stored for it.
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_missing_file_is_a_reason_and_not_a_crash(tmp_path, inputs):
    gone = Case("sub-9", tmp_path / "gone.nii.gz", count=1)
    table = compute_features([gone], inputs, tmp_path / "cache")
    assert "cannot be read" in table.failed["sub-9"]
    assert str(tmp_path) not in table.failed["sub-9"]
    assert table.features.shape == (0, 2)


def test_inputs_that_select_differently_share_what_was_computed(tmp_path, inputs):
    cases = [make_case(tmp_path, "sub-1", b"abc")]
    compute_features(cases, inputs, tmp_path / "cache")
    reversed_names = ByteSums(inputs.trace, feature_names=("sum", "n_bytes"))
    table = compute_features(cases, reversed_names, tmp_path / "cache")
    assert computed(inputs) == ["sub-1"]
    assert table.features[0].tolist() == pytest.approx([sum(b"abc") / 3, 3])
