"""The table that a site sends: sums that add up, and nothing malformed gets in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.severity_table import SeverityTable

WHOLE = ("n", "confusion", "score_histograms", "true_count_sums")
SUMS = ("count_absolute_error", "count_error", "brier_sum", "rps_sum")


def cases(seed, n):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(4), size=n)
    counts = random.integers(0, 20, size=n)
    return probabilities, random.gamma(2.0, 3.0, size=n), counts, [int(PAPER_SCALE.grade(count)) for count in counts]


def assert_same(one, other):
    for name in WHOLE:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in SUMS:
        # The order of additions may differ.
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12, abs=1e-12), name


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(0, 30))
def test_tables_of_sites_add_up_to_the_table_of_all_cases(seed, n_first, n_second):
    columns = cases(seed, n_first + n_second)
    first = SeverityTable.from_predictions(*(column[:n_first] for column in columns))
    second = SeverityTable.from_predictions(*(column[n_first:] for column in columns))
    assert_same(first + second, SeverityTable.from_predictions(*columns))
    assert_same(first + second, second + first)
    assert_same(first + SeverityTable.empty(), first)


def test_the_order_of_cases_does_not_matter():
    columns = cases(1, 50)
    order = np.random.default_rng(2).permutation(50)
    shuffled = (np.asarray(column)[order] for column in columns)
    assert_same(SeverityTable.from_predictions(*columns), SeverityTable.from_predictions(*shuffled))


def test_two_cases_by_hand():
    table = SeverityTable.from_predictions(
        [[0.7, 0.2, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]], [0.5, 9.0], [0, 12], true_grades=[0, 3]
    )
    assert table.n == 2
    # The median grade of the second is moderate: 0.4 is not more than one half.
    assert [table.confusion[0, 0], table.confusion[3, 2], table.confusion.sum()] == [1, 1, 2]
    assert table.true_count_sums.tolist() == [0, 0, 0, 12]
    assert (table.count_absolute_error, table.count_error) == (3.5, -2.5)
    assert table.brier_sum == pytest.approx(0.09 + 0.04 + 0.01 + 0.01 + 0.04 + 0.09 + 0.36)
    assert table.rps_sum == pytest.approx((0.3**2 + 0.1**2 + 0.0 + 0.1**2 + 0.3**2 + 0.6**2) / 3)
    # P(severe) is 0 for the first, negative, case, and 0.4 for the second, positive, one: bins 0 and 20 of 50.
    assert table.score_histograms[3, 0].nonzero()[0].tolist() == [0]
    assert table.score_histograms[3, 1].nonzero()[0].tolist() == [20]


@pytest.mark.parametrize(
    ("probabilities", "grade"),
    [
        ([0.6, 0.4, 0.0, 0.0], 0),
        ([0.4, 0.1, 0.1, 0.4], 1),  # the most probable grades are 0 and 3; half of the weight lies above 0, not above 1
        ([0.0, 0.0, 0.45, 0.55], 3),
        ([0.5, 0.5, 0.0, 0.0], 0),  # exactly one half is not more than one half
    ],
)
def test_the_predicted_grade_is_the_median_unless_given(probabilities, grade):
    table = SeverityTable.from_predictions([probabilities], [1.0], [1], [1])
    assert table.confusion[1].tolist() == np.eye(4, dtype=int)[grade].tolist()


def test_predicted_grades_that_are_given_are_used():
    table = SeverityTable.from_predictions([[1.0, 0, 0, 0]], [7.0], [7], [2], predicted_grades=[3])
    assert table.confusion[2, 3] == 1


def test_a_probability_of_one_falls_into_the_last_bin():
    table = SeverityTable.from_predictions([[0, 0, 0, 1.0]], [20.0], [20], [3], n_bins=10)
    assert table.score_histograms[3, 1].tolist() == [0] * 9 + [1]


def test_json_round_trip_is_exact_and_plain():
    table = SeverityTable.from_predictions(*cases(3, 25))
    text = json.dumps(table.to_json(), allow_nan=False)
    assert SeverityTable.from_json(json.loads(text)).to_json() == table.to_json()


def test_a_table_cannot_be_changed_and_does_not_hold_the_callers_arrays():
    value = SeverityTable.from_predictions(*cases(4, 5)).to_json()
    confusion = np.array(value["confusion"])
    table = SeverityTable.from_json({**value, "confusion": confusion})
    confusion += 1
    assert table.confusion.sum() == 5
    with pytest.raises(ValueError, match="read-only"):
        table.confusion[0, 0] = 7


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("n", 7, "must hold n = 7 cases"),
        ("n", True, "whole number from 0"),
        ("n", 10**9, "whole number from 0"),
        ("n", -1, "whole number from 0"),
        ("confusion", [[1, 2], [3, 4]], "must have the shape"),
        ("confusion", [[1, 2], [3]], "unequal length"),
        ("confusion", [[1.5] * 4] * 4, "whole numbers"),
        ("confusion", [[-1] * 4] * 4, "whole numbers"),
        ("confusion", [[2**70] * 4] * 4, "whole numbers"),
        ("confusion", "none", "must have the shape"),
        ("score_histograms", [[[0] * 50] * 2] * 4, "class by class"),
        ("score_histograms", [[[]] * 2] * 4, "must have the shape"),
        ("true_count_sums", [0, 0, 0, None], "whole numbers"),
        ("count_error", float("nan"), "finite number"),
        ("count_error", 1e6, "at least the size"),
        ("count_absolute_error", "3", "finite number"),
        ("brier_sum", 1e3, "from 0 to"),
        ("rps_sum", -1.0, "from 0 to"),
    ],
)
def test_a_malformed_entry_is_refused_by_name(entry, value, message):
    table = SeverityTable.from_predictions(*cases(6, 20)).to_json()
    with pytest.raises(ValueError, match=message) as refusal:
        SeverityTable.from_json({**table, entry: value})
    assert entry in str(refusal.value)


def test_a_count_for_a_grade_without_cases_is_refused():
    table = SeverityTable.from_predictions([[1.0, 0, 0, 0]], [0.0], [0], [0]).to_json()
    with pytest.raises(ValueError, match="true_count_sums must be 0"):
        SeverityTable.from_json({**table, "true_count_sums": [0, 0, 0, 30]})


def test_unknown_and_missing_entries_are_refused_by_name():
    table = SeverityTable.empty().to_json()
    with pytest.raises(ValueError, match=r"unknown \['patients'\]"):
        SeverityTable.from_json({**table, "patients": []})
    coarse = [[[sum(side), *[0] * 39] for side in grade] for grade in table["score_histograms"]]
    with pytest.raises(ValueError, match="score_histograms must have 50 bins, got 40"):
        SeverityTable.from_json({**table, "score_histograms": coarse})
    del table["rps_sum"]
    with pytest.raises(ValueError, match=r"missing \['rps_sum'\]"):
        SeverityTable.from_json(table)
    with pytest.raises(ValueError, match="must be a mapping"):
        SeverityTable.from_json([1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": [[0.5, 0.5, 0.5, 0.5]]}, "sum to 1"),
        ({"probabilities": [[1.5, -0.5, 0.0, 0.0]]}, "0 or more"),
        ({"probabilities": [[0.5, 0.5]]}, r"must be \(n, 4\)"),
        ({"predicted_counts": [np.inf]}, "predicted_counts"),
        ({"predicted_counts": [1.0, 2.0]}, "predicted_counts"),
        ({"true_counts": [1.5]}, "whole numbers"),
        ({"true_counts": [-1]}, "from 0 on"),
        ({"true_grades": [-1]}, "true_grades must be"),
        ({"true_grades": [0, 0]}, "true_grades must be"),
        ({"predicted_grades": [4]}, "from 0 to 3"),
        ({"predicted_grades": [1.0]}, "whole numbers"),
        ({"n_bins": 1}, "2 or more"),
    ],
)
def test_predictions_outside_their_range_are_refused(change, message):
    good = {"probabilities": [[1.0, 0, 0, 0]], "predicted_counts": [0.0], "true_counts": [0], "true_grades": [0]}
    SeverityTable.from_predictions(**good)
    with pytest.raises(ValueError, match=message):
        SeverityTable.from_predictions(**{**good, **change})


def test_tables_with_other_bins_do_not_add_up():
    with pytest.raises(ValueError, match="equal numbers of bins"):
        SeverityTable.empty(10) + SeverityTable.empty(50)
