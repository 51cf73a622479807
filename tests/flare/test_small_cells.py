"""Small numbers of cases: what stays hidden from a reader who knows the rule."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_context import FLContext
from test_executor import ask, message, weights_of

from mhsev_flare.protocol import Meta, Moments
from mhsev_flare.small_cell_cleanser import SmallCellCleanser
from mhsev_flare.small_cells import cleanse_summary, round_counts, small_cell, suppress_small_cells


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ([12, 10, 6, 5], [12, 10, 6, 5]),
        ([12, 0, 0, 8], [12, 0, 0, 8]),
        ([12, 10, 6, 2], ["5+", "5+", "5+", "1-4"]),  # 12 + 10 + 6 from the total would leave 2
        ([3, 2, 0, 0], ["1-4", "1-4", 0, 0]),  # 1 + 4, 2 + 3, 3 + 2 or 4 + 1
        ([4, 4, 0, 0], [None] * 4),  # two of 1-4 that make 8
        ([1, 5, 0, 0], [None] * 4),  # 6 less at least 5
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
def test_what_of_a_table_is_shown(counts, shown):
    assert suppress_small_cells(counts) == shown


def test_no_reader_who_knows_the_rule_and_the_total_can_compute_a_hidden_number():
    """Every table of four grades up to 22 cases, the most for which a table becomes None, by what is shown of it."""
    alike = defaultdict(list)
    for counts in itertools.product(range(23), repeat=4):
        if 5 <= sum(counts) <= 22:
            alike[tuple(suppress_small_cells(counts)), sum(counts)].append(counts)
    assert any(None in shown for shown, _ in alike)
    for (shown, _), tables in alike.items():
        for grade, cell in enumerate(shown):
            possible = {table[grade] for table in tables}
            if cell == "1-4":
                assert possible == {1, 2, 3, 4}
            elif not isinstance(cell, int):
                assert len(possible) >= 2


@pytest.mark.parametrize(("base", "rounded"), [(1, [0, 1, 2, 7, 8, 13]), (5, [0, 5, 5, 5, 10, 15])])
def test_rounding_goes_to_the_nearest_multiple_and_never_to_zero(base, rounded):
    assert round_counts([0, 1, 2, 7, 8, 13], base) == rounded


def test_rounding_is_off_by_less_than_the_base_and_keeps_what_is_round():
    for count, base in itertools.product(range(60), range(1, 12)):
        (rounded,) = round_counts([count], base)
        assert rounded % base == 0
        assert (rounded == 0) == (count == 0)
        assert abs(rounded - count) <= (base / 2 if count >= base else base - 1)


@pytest.mark.parametrize("wrong", [lambda: suppress_small_cells([1, -1]), lambda: round_counts([-3], 5)])
def test_negative_counts_are_refused(wrong):
    with pytest.raises(ValueError, match="from 0 on"):
        wrong()


@pytest.mark.parametrize(("least", "base", "named"), [(4, 5, "least"), (5, 0, "base")])
def test_thresholds_that_hide_too_little_are_refused(least, base, named):
    with pytest.raises(ValueError, match=f"{named} must be"):
        SmallCellCleanser(least=least, base=base)


def summary(**changes):
    own = {
        "cases": {"train": 30, "validation": 3, "test": 8},
        "grades": {"train": [12, 10, 6, 2], "validation": [0, 1, 1, 1], "test": [8, 0, 0, 0]},
        "excluded": 2,
        "twins": 30,
    }
    return {**own, **changes}


def test_the_site_summary_keeps_no_small_number():
    assert cleanse_summary(summary(), least=5) == {
        "cases": {"train": 30, "validation": "1-4", "test": 8},
        "grades": {"train": ["5+", "5+", "5+", "1-4"], "validation": [None] * 4, "test": [8, 0, 0, 0]},
        "excluded": "1-4",
        "twins": 30,
    }


@pytest.mark.parametrize(("twins", "shown"), [(0, 0), (3, "1-4"), (20, 20), (25, 25), (26, None), (29, None), (30, 30)])
def test_the_number_of_twins_does_not_tell_how_few_cases_have_none(twins, shown):
    assert cleanse_summary(summary(twins=twins), least=5)["twins"] == shown


def test_a_number_by_itself_is_hidden_by_its_own_size():
    assert [small_cell(n, 10) for n in (0, 1, 9, 10)] == [0, "1-9", "1-9", 10]


def test_the_filter_changes_the_handshake_and_leaves_the_sums_that_standardise(site):
    made, fl_ctx = site("site-1", n=12)
    reply = made.execute("standardise", message({"protocol": np.array([1])}), fl_ctx, None)
    before = from_shareable(reply)
    exact, counts = before.meta[Meta.SITE_SUMMARY], before.data[Moments.CLASS_COUNTS].copy()
    after = from_shareable(SmallCellCleanser(least=5, base=5).process(reply, fl_ctx))
    assert after.meta[Meta.SITE_SUMMARY] == cleanse_summary(exact, 5) != exact
    assert after.data[Moments.CLASS_COUNTS].tolist() == round_counts(counts.astype(int).tolist(), 5)
    assert after.data[Moments.CLASS_COUNTS].dtype == counts.dtype
    for key in (Moments.N, Moments.MEAN, Moments.SQUARED_DEVIATION):
        np.testing.assert_array_equal(after.data[key], before.data[key])
    np.testing.assert_array_equal(before.data[Moments.CLASS_COUNTS], counts)


def test_the_filter_leaves_other_messages_as_they_are(site):
    made, fl_ctx = site("site-1")
    alone = ask(made, fl_ctx, "submit_model", message(weights_of(made)))
    untouched = SmallCellCleanser(5, 5).process_dxo(DXO(DataKind.WEIGHTS, alone.data, alone.meta), None, FLContext())
    assert untouched is None
