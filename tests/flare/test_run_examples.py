"""Which single cases a report shows: chosen by a rule, so that nobody picks the handsome or the ugly ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhsev_flare import run_examples
from mhsev_flare.run_examples import MOST_FAILURES, GradedCase, example_cases, failed_cases
from mhsev_monai.cases import Case
from mhsev_monai.severity import Severity


def graded(site, case_id, true_count, true, predicted, count):
    case = Case(case_id, Path("x.nii.gz"), Path("x.bval"), true_count)
    return GradedCase(site, case, true, predicted, count)


@pytest.fixture(autouse=True)
def named(monkeypatch):
    """A picture takes a whole processing of its scan; its name will do."""
    monkeypatch.setattr(run_examples, "picture_of", lambda site, case, model: f"{site} {case.case_id}")


NONE, MILD, MODERATE, SEVERE = Severity
CASES = [
    graded("a", "1", 3, MILD, MILD, 3),
    graded("a", "2", 2, MILD, SEVERE, 15),
    graded("a", "3", 0, NONE, MILD, 1),
    graded("b", "1", 12, SEVERE, NONE, 0),
    graded("b", "2", 8, MODERATE, MILD, 2),
    graded("b", "3", 8, MODERATE, SEVERE, 20),
    graded("b", "4", 0, NONE, NONE, 0),
]


def test_examples_are_the_first_of_each_true_grade():
    assert list(example_cases(CASES, None)) == ["a 1", "a 3", "b 1", "b 2"]


def test_failures_are_those_farthest_off_by_grade_then_by_count():
    assert list(failed_cases(CASES, None)) == ["b 1", "a 2", "b 3", "b 2"][:MOST_FAILURES]


def test_without_an_error_there_is_no_failure():
    assert list(failed_cases([CASES[0], CASES[-1]], None)) == []
