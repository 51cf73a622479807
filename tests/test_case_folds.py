"""Folds of a cross-validation: every case is tested once, no patient or copy is in two parts, grades are even."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhsev_monai.case_folds import fold_cases
from mhsev_monai.cases import Case
from mhsev_monai.severity import PAPER_SCALE, Severity

COUNTS = st.lists(st.sampled_from([0, 1, 2, 3, 5, 6, 10, 11, 40]), max_size=60)


def cases_of(counts):
    return [Case(f"sub-{i:02d}", Path("x.nii.gz"), count=count) for i, count in enumerate(counts)]


@given(COUNTS, st.integers(2, 7), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_each_case_is_tested_once_and_never_in_two_parts(counts, n_folds, seed):
    cases = cases_of(counts)
    folds = fold_cases(cases, n_folds, seed)
    assert sorted(case.case_id for split in folds for case in split.test) == [case.case_id for case in cases]
    for split in folds:
        assert Counter(case.case_id for part in split for case in part) == Counter(case.case_id for case in cases)
        # A fifth of what is not tested, which a single grade may leave rounded up or down.
        n = len(split.train) + len(split.validation)
        assert abs(len(split.validation) - 0.2 * n) < 1


@given(COUNTS, st.integers(2, 7), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_folds_differ_by_one_patient_at_most_in_each_grade_and_in_all(counts, n_folds, seed):
    folds = fold_cases(cases_of(counts), n_folds, seed)
    sizes = [len(split.test) for split in folds]
    assert max(sizes) - min(sizes) <= 1
    for grade in Severity:
        own = [sum(PAPER_SCALE.grade(case.count) == grade for case in split.test) for split in folds]
        assert max(own) - min(own) <= 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), min_size=1, max_size=40), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_no_patient_and_no_copy_of_a_scan_is_in_two_parts(scans, seed):
    """Sessions of ten patients whose contents are seven: chains of both must stay together."""
    cases, hashes = [], {}
    for session, (patient, content) in enumerate(scans):
        case_id = f"sub-{patient}_ses-{session:02d}"
        cases.append(Case(case_id, Path("x.nii.gz"), count=patient))
        hashes[case_id] = str(content)
    for split in fold_cases(cases, 3, seed, content_hashes=hashes):
        for marks in (lambda case: case.subject, lambda case: hashes[case.case_id]):
            parts = [{marks(case) for case in part} for part in split]
            assert sum(map(len, parts)) == len(set().union(*parts))


def test_a_seed_decides_and_the_order_does_not():
    cases = cases_of([0, 1, 2, 3, 6, 7, 8, 11, 12, 40] * 3)
    assert fold_cases(cases, 5, 1) == fold_cases(cases[::-1], 5, 1) != fold_cases(cases, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((1, 1), "n_folds must be 2"), ((3, -1), "seed must be 0"), ((3, 1, "twice"), "each case may come once")],
)
def test_a_wrong_call_says_what_is_wrong(arguments, words):
    cases = cases_of([1, 2, 3])
    n_folds, seed, *twice = arguments
    with pytest.raises(ValueError, match=words):
        fold_cases(cases * 2 if twice else cases, n_folds, seed)
