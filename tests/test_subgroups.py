"""Subgroups: who belongs where, and that no table of few cases follows from those that are told."""

from __future__ import annotations

import json
from itertools import product

import pytest

from mhsev_monai.cases import Case
from mhsev_monai.subgroups import (
    DIMENSIONS,
    age_band,
    case_subgroups,
    scanner_label,
    subgroup_labels,
    subgroup_rows,
    tellable,
)


def case(folder, sidecar=None, **clinical):
    image = folder / "sub-1_dwi.nii.gz"
    if sidecar is not None:
        (folder / "sub-1_dwi.json").write_text(sidecar if isinstance(sidecar, str) else json.dumps(sidecar))
    return Case("sub-1", image, clinical=clinical)


@pytest.mark.parametrize(
    ("age", "band"),
    [
        *((64.9, "<65"), (65.0, "65-74"), (74.9, "65-74"), (75.0, ">=75"), (0.0, "<65"), (101, ">=75")),
        *((None, "unknown"), (-1.0, "unknown"), (400.0, "unknown"), ("n/a", "unknown"), ("old", "unknown")),
        # The groups that ingest writes; two of them lie in two bands.
        *(("50-59", "<65"), ("80-89", ">=75"), ("90+", ">=75"), ("60-69", "unknown"), ("70-79", "unknown")),
    ],
)
def test_an_age_has_the_band_that_it_lies_in_or_none(age, band):
    assert age_band(age) == band


@pytest.mark.parametrize(
    ("sidecar", "clinical", "label"),
    [
        ({"Manufacturer": "SIEMENS Healthineers", "MagneticFieldStrength": 2.89}, {}, "Siemens 3 T"),
        ({"Manufacturer": "GE", "MagneticFieldStrength": 1.5}, {"manufacturer": "Philips"}, "GE 1.5 T"),
        ({"MagneticFieldStrength": 3}, {}, "3 T"),
        ({}, {"manufacturer": "Philips Medical Systems", "magnetic_field_strength": 3.0}, "Philips 3 T"),
        ({"Manufacturer": "Dr Jane Doe", "MagneticFieldStrength": 2.2}, {}, "unknown"),
        ("not json", {}, "unknown"),
        ("[1]", {}, "unknown"),
        (None, {}, "unknown"),
    ],
)
def test_a_scanner_is_named_by_words_of_ours_alone(tmp_path, sidecar, clinical, label):
    assert scanner_label(case(tmp_path, sidecar, **clinical)) == label
    assert label in subgroup_labels()["scanner"]


def test_a_case_has_a_label_in_each_dimension(tmp_path):
    assert case_subgroups(case(tmp_path, None, sex="F", age=70.0)) == {
        "sex": "female",
        "age": "65-74",
        "scanner": "unknown",
    }
    assert case_subgroups(case(tmp_path, None, sex="Jane"))["sex"] == "unknown"


def test_rows_find_each_case_once_a_dimension(tmp_path):
    labels = [case_subgroups(case(tmp_path, None, sex=sex)) for sex in ("F", "M", "F", None)]
    rows = subgroup_rows(labels)
    assert {label: found.tolist() for label, found in rows["sex"].items()} == {
        "female": [0, 2],
        "male": [1],
        "unknown": [3],
    }
    assert all(sorted(i for found in rows[d].values() for i in found) == [0, 1, 2, 3] for d in DIMENSIONS)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"female": 20, "male": 12}, {"female": 20, "male": 12}),
        ({"female": 20, "male": 4}, {"female": "hidden", "male": "hidden"}),  # all less 20 would be the four men
        ({"female": 3, "male": 4}, {"female": "<5", "male": "<5"}),  # the rest is seven cases, and both words are true
        ({"a": 20, "b": 6, "c": 2}, {"a": 20, "b": "hidden", "c": "hidden"}),
        ({"a": 1, "b": 5, "c": 9}, {"a": "hidden", "b": "hidden", "c": 9}),  # six cases: 1 and 5, or 5 and 1
        ({"a": 4, "b": 4, "c": 9}, {"a": "hidden", "b": "hidden", "c": "hidden"}),  # eight small ones are 4 and 4
        ({"a": 1, "b": 6, "c": 6}, {"a": "hidden", "b": "hidden", "c": "hidden"}),  # or b would be known to be the 6
        ({"a": 4, "b": 4}, {"a": "hidden", "b": "hidden"}),
        (dict.fromkeys("abcdef", 1), {}),
        ({"a": 20, "b": 3, "c": 2}, {"a": 20, "b": "<5", "c": "<5"}),
        ({"a": 2}, {"a": "<5"}),
        ({}, {}),
    ],
)
def test_small_subgroups_are_kept_back_with_one_that_would_give_them_away(sizes, told):
    assert tellable(sizes, 5) == told


@pytest.mark.parametrize(("n_labels", "most"), [(2, 24), (3, 24), (4, 12)])
def test_two_sizes_or_more_fit_each_subgroup_that_is_kept_back(n_labels, most):
    """All tables with a known total, for a reader who goes through them all with the rule in hand."""
    fitting: dict[tuple[object, ...], list[tuple[int, ...]]] = {}
    for sizes in product(range(most + 1), repeat=n_labels):
        groups = {str(i): n for i, n in enumerate(sizes) if n}
        if 5 <= sum(sizes) <= most:  # of fewer cases no table is told at all
            fitting.setdefault((sum(sizes), *tellable(groups, 5).items()), []).append(sizes)
    assert len(fitting) > 50
    for (_, *told), tables in fitting.items():
        for label, word in told:
            if isinstance(word, str):
                assert len({sizes[int(label)] for sizes in tables}) > 1, (told, tables)


def test_no_rest_of_few_cases_follows_from_what_is_told():
    """All tables of three subgroups of up to 12 cases: the total leaves nothing, or enough; or nothing is told."""
    for sizes in product(range(13), repeat=3):
        groups = {str(i): n for i, n in enumerate(sizes) if n}
        told = tellable(groups, 5)
        shown = {label: n for label, n in told.items() if not isinstance(n, str)}
        rest = sum(groups.values()) - sum(shown.values())
        assert all(n >= 5 and n == groups[label] for label, n in shown.items())
        assert rest == 0 or rest >= 5 or not shown, sizes
        assert all(groups[label] < 5 for label, word in told.items() if word == "<5")
