"""How updates lie beside each other, by hand, and in words and numbers that any file can hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mhsev_flare.anomalies import Limits, Oddity, judge

LIMITS = Limits(norm_limit=2.0, norm_gate=20.0, opposition=0.2)
NONE = Limits(norm_limit=np.inf, norm_gate=np.inf, opposition=1.0)
GREATEST = float(np.finfo(np.float32).max)
AGAINST = "an update against most others: cosines below -0.2 to more than half of them"
ZEROS = "an update of zeros, where the others changed the model"


def judged(rows, limits: Limits = LIMITS) -> list[Oddity]:
    return judge(np.array(rows, dtype=np.float64), limits)


def reasons(rows, limits: Limits = LIMITS) -> list[str]:
    return [oddity.reason for oddity in judged(rows, limits)]


def test_lengths_and_cosines_by_hand():
    """Norms 5, 10 and 5; the coordinate median is (3, 5), of length sqrt(34)."""
    found = judged([[3, 4], [6, 8], [0, 5]])
    close = {"rel": 1e-14}  # a handful of float64 roundings
    assert [o.norm for o in found] == pytest.approx([5, 10, 5], **close)
    assert [o.norm_ratio for o in found] == pytest.approx([1, 2, 1], **close)
    root = 34**0.5
    assert [o.cosine_to_median for o in found] == pytest.approx([29 / 5 / root, 29 / 5 / root, 5 / root], **close)
    assert [o.opposed for o in found] == pytest.approx([1, 1, 0.8], **close)
    # Twice the median is not longer than twice the median.
    assert [(o.clipped, o.reason) for o in found] == [(False, "")] * 3


@pytest.mark.parametrize(
    ("limits", "clipped", "reason"),
    [
        (Limits(7.9, 20.0, 1.0), True, ""),
        (Limits(8.0, 20.0, 1.0), False, ""),
        (Limits(2.0, 8.0, 1.0), True, ""),
        (Limits(2.0, 7.5, 1.0), False, "an update 8 times as long as the median, where 7.5 is the limit"),
        (Limits(np.inf, 7.0, 1.0), False, "an update 8 times as long as the median, where 7 is the limit"),
        (NONE, False, ""),
    ],
)
def test_one_that_is_eight_times_as_long_is_clipped_refused_or_neither(limits, clipped, reason):
    found = judged([[1, 0], [0, 8], [0, 1]], limits)
    assert (found[1].clipped, found[1].reason) == (clipped, reason)
    assert [(o.clipped, o.reason) for o in (found[0], found[2])] == [(False, "")] * 2


def test_an_update_of_zeros_is_refused_where_the_others_changed_the_model():
    found = judged([[3, 4], [0, 0], [4, 3]])
    assert [o.reason for o in found] == ["", ZEROS, ""]
    assert found[1].norm == found[1].norm_ratio == 0.0
    assert found[1].cosine_to_median is None
    assert found[1].opposed is None
    # The others see each other alone: 24 / 25.
    assert [found[0].opposed, found[2].opposed] == pytest.approx([0.96, 0.96], rel=1e-14)  # float64 roundings


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_zeros_from_all_are_not_odd(n):
    for oddity in judged(np.zeros((n, 4))):
        assert oddity == Oddity(0.0, 1.0, None, None, False, "")


def test_where_most_send_zeros_any_other_is_endlessly_long():
    found = judged([[0, 0], [0, 0], [3, 4]])
    assert [o.norm_ratio for o in found] == [1, 1, np.inf]
    assert [o.reason for o in found[:2]] == ["", ""]
    assert found[2].reason == "an update inf times as long as the median, where 20 is the limit"
    assert found[2].to_json()["norm_ratio"] is None


@pytest.mark.parametrize("liar", range(3))
def test_the_one_of_three_that_flips_its_sign_is_refused(liar):
    rows = np.roll([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]], liar, axis=0)
    assert reasons(rows) == [AGAINST if row == liar else "" for row in range(3)]
    assert judged(rows)[liar].opposed == pytest.approx(-(0.5**0.5), rel=1e-14)  # float64 roundings
    assert reasons(rows, NONE) == [""] * 3
    assert reasons(rows, Limits(2.0, 20.0, 0.75)) == [""] * 3  # -0.707 is not below -0.75


def test_length_is_said_before_direction():
    assert reasons([[1, 0], [0, 1], [-50, -50]])[2].startswith("an update 70.7 times as long as the median")


def test_one_update_has_nothing_to_be_compared_with():
    assert judged([[3, 4]]) == [Oddity(5.0, 1.0, 1.0, None, False, "")]


@pytest.mark.parametrize(
    ("rows", "ratios", "to_median", "nearest"),
    [
        ([[1, 0], [-1, 0]], [1, 1], [None, None], [-1, -1]),  # the median is zero
        ([[0, 0], [9, 0]], [0, 2], [None, 1], [None, None]),  # the median norm is the mean of both
        ([[1, 0], [1e6, 0]], [2 / (1e6 + 1), 2e6 / (1e6 + 1)], [1, 1], [1, 1]),
        ([[1, 0], [0, 1]], [1, 1], [0.5**0.5, 0.5**0.5], [0, 0]),
    ],
)
def test_of_two_updates_nobody_can_tell_which_is_odd(rows, ratios, to_median, nearest):
    found = judged(rows)
    assert [(o.clipped, o.reason) for o in found] == [(False, "")] * 2
    assert [o.norm_ratio for o in found] == pytest.approx(ratios, rel=1e-14)  # float64 roundings
    for name, expected in (("cosine_to_median", to_median), ("opposed", nearest)):
        for oddity, value in zip(found, expected, strict=True):
            assert getattr(oddity, name) == (None if value is None else pytest.approx(value, rel=1e-14))


def test_what_is_odd_does_not_depend_on_the_order_or_the_unit():
    rows = np.array([[1.0, 0.2], [0.8, 0.1], [1.1, -0.1], [-1.0, 0.0], [0.0, 0.0], [30.0, 1.0], [4.0, 0.0]])
    expected = [(bool(o.reason), o.clipped) for o in judged(rows)]
    assert expected == [(False, False)] * 3 + [(True, False)] * 3 + [(False, True)]
    order = [5, 3, 6, 0, 4, 2, 1]
    for scale in (1e-20, 1.0, 1e20):
        found = [(bool(o.reason), o.clipped) for o in judged(rows[order] * scale)]
        assert found == [expected[i] for i in order]


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((1, 3)),
        np.zeros((4, 3)),
        [[0, 0], [0, 0], [1, 0]],
        [[GREATEST, GREATEST], [-GREATEST, 0], [1e-45, 0]],  # the ends of float32
        [[1, 0], [0, 0]],
        [[1, 0], [-1, 0], [0, 0], [GREATEST, 0]],
    ],
)
@pytest.mark.parametrize("limits", [LIMITS, NONE])
def test_no_number_reaches_a_file_that_json_does_not_know(rows, limits):
    for oddity in judged(rows, limits):
        stored = oddity.to_json()
        assert json.loads(json.dumps(stored, allow_nan=False)) == stored
        assert set(stored) == {"norm", "norm_ratio", "cosine_to_median", "nearest_cosine", "clipped"}


def test_the_ledger_holds_four_digits():
    stored = Oddity(123456.0, 2 / 3, -1 / 3, 1e-7 / 3, True, "").to_json()
    assert stored == {
        "norm": 123500.0,
        "norm_ratio": 0.6667,
        "cosine_to_median": -0.3333,
        "nearest_cosine": 3.333e-8,
        "clipped": True,
    }
    for value in (np.nan, np.inf, None):
        assert Oddity(1.0, 1.0, value, value, False, "").to_json()["nearest_cosine"] is None


def test_updates_are_not_changed():
    rows = np.array([[1.0, 0.0], [0.0, 50.0], [-1.0, -1.0]])
    rows.setflags(write=False)
    judge(rows, LIMITS)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((0.9, 20.0, 0.2), "norm_limit and norm_gate must be 1 or more, got 0.9 and 20.0"),
        ((2.0, 0.5, 0.2), "norm_limit and norm_gate must be 1 or more, got 2.0 and 0.5"),
        ((2.0, 20.0, -0.1), "opposition must be between 0 and 1, got -0.1"),
        ((2.0, 20.0, 1.1), "opposition must be between 0 and 1, got 1.1"),
    ],
)
def test_limits_out_of_range_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Limits(*limits)
