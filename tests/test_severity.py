"""The grading scales against the numbers that the paper and the ARIA-H literature print."""

from __future__ import annotations

import pytest

from mhsev_monai.severity import ARIA_H_COUNTS, PAPER_SCALE, GradingScale, Severity, severity_from_count


@pytest.mark.parametrize(
    ("count", "grade"),
    [
        (0, Severity.NONE),
        (1, Severity.MILD),
        (5, Severity.MILD),
        (6, Severity.MODERATE),
        (10, Severity.MODERATE),
        (11, Severity.SEVERE),
        (83, Severity.SEVERE),
    ],
)
def test_paper_scale_has_the_bounds_of_section_2(count, grade):
    assert severity_from_count(count) is grade


def test_scales_differ_only_at_five_and_ten():
    differing = [n for n in range(100) if PAPER_SCALE.grade(n) is not ARIA_H_COUNTS.grade(n)]
    assert differing == [5, 10]


@pytest.mark.parametrize("count", [-1, float("nan")])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match="0 or more"):
        PAPER_SCALE.grade(count)


@pytest.mark.parametrize("bounds", [(0, 1, 2), (1, 1, 2), (3, 2, 5)])
def test_bounds_that_do_not_rise_are_refused(bounds):
    with pytest.raises(ValueError, match="strictly rising"):
        GradingScale("odd", bounds)
