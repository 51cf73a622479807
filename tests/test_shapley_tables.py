"""Tables of attributions: sums add up bit for bit, and tell of no few cases."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mhsev_monai.shapley_tables import LEAST_CASES, ShapleyTable, quantile_edges

NAMES = (("depth", "place", "protocol"), ("severe", "expected severity"))
EDGES = quantile_edges([0.0, 0.0, 1.0], [1.0, 1.0, 2.0], 4)


def cases(n: int, seed: int = 0):
    """Values, outputs and sizes of ``n`` cases; sums in another order would differ in their last bits."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3, 2)) / 7, rng.random((n, 2)), rng.normal([0.0, 0.0, 1.0], size=(n, 3))


def table(n: int, seed: int = 0) -> ShapleyTable:
    return ShapleyTable.of(NAMES, *cases(n, seed), EDGES)


def same(first: ShapleyTable, second: ShapleyTable) -> bool:
    """Whether tables are equal in every bit."""
    return first.to_json() == second.to_json()


def test_pooled_is_central_bit_for_bit_in_any_order_of_sites():
    values, outputs, sizes = cases(103)
    central = ShapleyTable.of(NAMES, values, outputs, sizes, EDGES)
    parts = [
        ShapleyTable.of(NAMES, values[part], outputs[part], sizes[part], EDGES)
        for part in (slice(0, 50), slice(50, 57), slice(57, 103))
    ]
    assert same(parts[0] + parts[1] + parts[2], central)
    assert same(parts[2] + (parts[1] + parts[0]), central)
    # To 2^-31 a case, the sums are those of the values themselves.
    np.testing.assert_allclose(central.value_sum, values.sum(axis=0), rtol=0, atol=103 / 2**31)
    np.testing.assert_allclose(central.absolute_sum, np.abs(values).sum(axis=0), rtol=0, atol=103 / 2**31)
    np.testing.assert_allclose(central.square_sum, (values**2).sum(axis=0), rtol=0, atol=103 / 2**29)
    np.testing.assert_allclose(central.output_sum, outputs.sum(axis=0), rtol=0, atol=103 / 2**31)


def test_bins_hold_the_cases_whose_feature_lies_in_them():
    values, outputs, sizes = cases(200)
    sizes[:3, 1] = np.nan
    found = ShapleyTable.of(NAMES, values, outputs, sizes, EDGES)
    for player in range(3):
        for number, (low, high) in enumerate(zip([-np.inf, *EDGES[player]], [*EDGES[player], np.inf], strict=True)):
            inside = (sizes[:, player] >= low) & (sizes[:, player] < high)
            assert found.bin_counts[player, number] == inside.sum() > 0
            np.testing.assert_allclose(
                found.bin_sums[player, number], values[inside, player].sum(axis=0), rtol=0, atol=200 / 2**31
            )
    assert found.bin_counts.sum(axis=1).tolist() == [200, 197, 200]


def test_edges_cut_a_normal_feature_into_equal_parts():
    draws = 3 + 2 * np.random.default_rng(0).normal(size=40_000)
    edges = quantile_edges([3.0], [2.0], 5)
    share = np.bincount(np.searchsorted(edges[0], draws), minlength=5) / len(draws)
    # A share of 0.2 of 40,000 has a standard error of 0.002.
    np.testing.assert_allclose(share, 0.2, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("counts", "without_size", "told"),
    [
        ([10, 10, 10, 10], 0, [10, 10, 10, 10]),
        ([0, 20, 0, 20], 0, [0, 20, 0, 20]),
        # One small bin would follow from the totals: the next smallest goes with it.
        ([3, 12, 9, 16], 0, [0, 12, 0, 16]),
        # Two small ones cover each other only if they are enough together.
        ([3, 3, 18, 16], 0, [0, 0, 18, 16]),
        ([1, 2, 18, 19], 0, [0, 0, 0, 19]),
        ([4, 36, 0, 0], 0, [0, 0, 0, 0]),
        # Cases without a size follow from the totals, too.
        ([10, 10, 10, 8], 2, [10, 10, 10, 0]),
        ([10, 10, 10, 4], 6, [10, 10, 10, 0]),
    ],
)
def test_bins_of_few_cases_are_not_told_nor_follow_from_the_totals(counts, without_size, told):
    edges = [[1.0, 2.0, 3.0]]
    sizes = np.array([*np.repeat([0.5, 1.5, 2.5, 3.5], counts), *[np.nan] * without_size])[:, None]
    values = np.random.default_rng(1).normal(size=(40, 1, 1))
    whole = ShapleyTable.of((("depth",), ("severe",)), values, np.ones((40, 1)), sizes, edges)
    assert whole.bin_counts[0].tolist() == counts
    left = whole.told(LEAST_CASES)
    assert left.bin_counts[0].tolist() == told
    untold = left.n - left.bin_counts[0].sum()
    assert untold == 0 or untold >= LEAST_CASES
    shown = left.bin_counts[0] > 0
    assert (left.bin_sums[0, ~shown] == 0).all()
    np.testing.assert_array_equal(left.bin_sums[0, shown], whole.bin_sums[0, shown])
    # Totals are of all cases still.
    np.testing.assert_array_equal(left.value_sum, whole.value_sum)


def test_a_few_cases_are_not_told_at_all():
    with pytest.raises(ValueError, match="fewer than 5 cases are not told"):
        table(4).told()
    assert table(5).told().n == 5
    with pytest.raises(ValueError, match="least must be 2 or more"):
        table(9).told(1)


def test_importance_is_that_of_the_cases_themselves():
    values, outputs, sizes = cases(60)
    values[:, 1] *= 5
    found = ShapleyTable.of(NAMES, values, outputs, sizes, EDGES).importance("severe")
    assert found[0].player == "place"
    assert sum(row.share for row in found) == pytest.approx(1)
    for row in found:
        column = values[:, NAMES[0].index(row.player), 0]
        assert row.mean_absolute == pytest.approx(np.abs(column).mean(), abs=1e-9)
        assert row.mean == pytest.approx(column.mean(), abs=1e-9)
        assert row.standard_error == pytest.approx(np.abs(column).std() / 60**0.5, rel=1e-6)
    with pytest.raises(ValueError, match="one of the outputs"):
        table(5).importance("mild")


def test_a_table_comes_back_from_json_and_holds_no_row_of_a_case():
    first = table(30).told()
    text = json.dumps(first.to_json())
    assert same(ShapleyTable.from_json(json.loads(text)), first)
    assert set(first.to_json()) == {
        *("players", "outputs", "n", "absolute_sum", "value_sum", "square_sum", "output_sum", "bin_counts", "bin_sums")
    }
    # As many numbers of 30 cases as of 300.
    assert [np.shape(v) for v in first.to_json().values()] == [np.shape(v) for v in table(300).to_json().values()]


def changed(**changes):
    return {**table(20).to_json(), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": -1}, "n must be a whole number"),
        ({"n": True}, "n must be a whole number"),
        ({"n": 3}, "square_sum must be at least|bins must hold"),
        ({"n": 0}, "square_sum must be|sums must be 0"),
        ({"players": ["depth", "depth", "place"]}, "must be different"),
        ({"players": ["a", "b"]}, "bin_counts must be"),
        ({"players": ["a", "b", "c\n"]}, "printable letters"),
        ({"outputs": ["a", "x" * 81]}, "printable letters"),
        ({"absolute_sum": [[0.0, 0.0]] * 3}, "at least the size of value_sum"),
        ({"absolute_sum": [[0.0]] * 3}, "absolute_sum must be finite numbers of the shape"),
        ({"square_sum": [[0.0, 0.0]] * 3}, "square_sum must be at least"),
        ({"value_sum": [[float("nan"), 0.0]] * 3}, "value_sum must be finite"),
        ({"output_sum": ["many", 0]}, "output_sum must be finite"),
        ({"bin_counts": [[21, 0, 0, 0]] * 3}, "no more than the n = 20"),
        ({"bin_counts": [[-1, 0, 0, 0]] * 3}, "whole numbers from 0"),
        ({"bin_counts": [[0, 0, 0, 0]] * 3}, "0 where a bin has no case"),
        ({"bin_sums": [[[99.0, 0.0]] * 4] * 3}, "no larger together"),
        ({"bin_sums": [[[0.0], [0.0, 1.0]]]}, "unequal length"),
    ],
)
def test_tables_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ShapleyTable.from_json(changed(**changes))


def test_unknown_entries_and_other_players_are_refused():
    for wrong in ([], {"n": 1}, changed(more=1)):
        with pytest.raises(ValueError, match="exactly the entries"):
            ShapleyTable.from_json(wrong)
    with pytest.raises(ValueError, match="same players"):
        table(5) + replace(table(5), players=("a", "b", "c"))
    values, outputs, sizes = cases(6)
    with pytest.raises(ValueError, match="values must be finite"):
        ShapleyTable.of(NAMES, values * np.nan, outputs, sizes, EDGES)
    with pytest.raises(ValueError, match=r"sizes must be \(6, 3\)"):
        ShapleyTable.of(NAMES, values, outputs, sizes[:, :2], EDGES)
    with pytest.raises(ValueError, match="n_bins must be 2"):
        quantile_edges([0.0], [1.0], 1)
