"""Addable tables and their tests against SciPy and statsmodels, and what a reader can find out of hidden cells."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from functools import reduce
from operator import add

import numpy as np
import pytest
from scipy import stats
from scipy.stats.contingency import association
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.oneway import anova_oneway

from mhsev_monai.association_tables import (
    AssociationTable,
    GroupSums,
    bin_labels,
    bins,
    group_sums,
    hidden_groups,
    hidden_rows,
    tabulate,
)
from mhsev_monai.association_tests import chi_square, one_way_anova, spearman
from mhsev_monai.proportional_odds import StaysOutError
from mhsev_monai.statistics import holm

GRADES = ("none", "mild", "moderate", "severe")
DECADES = (50, 60, 70, 80)


@pytest.fixture(scope="module")
def cases():
    """Age and grade of 500 simulated cases at three sites."""
    rng = np.random.default_rng(0)
    age = rng.normal(68, 9, 500)
    grades = np.searchsorted([-1.0, 1.0, 2.5], 0.06 * (age - 68) + rng.logistic(size=500))
    return np.repeat(["a", "b", "c"], [220, 170, 110]), grades, age


def by_site(cases, make):
    sites, grades, age = cases
    return [make(grades[sites == site], age[sites == site]) for site in "abc"]


def test_pooled_table_gives_scipys_chi_square(cases):
    def table(grades, age):
        return tabulate(grades, bins(age, DECADES), GRADES, bin_labels(DECADES))

    found = chi_square(reduce(add, by_site(cases, table)))
    peer = stats.contingency.crosstab(cases[1], bins(cases[2], DECADES)).count
    expected = stats.chi2_contingency(peer, correction=False)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.degrees_of_freedom == expected.dof
    assert found.cramers_v == pytest.approx(association(peer, method="cramer"), rel=1e-12)
    assert found.smallest_expected == pytest.approx(expected.expected_freq.min(), rel=1e-12)


def test_chi_square_by_hand():
    """20 cases, expected 5 in each cell, 3 away from it each: 4 x 9 / 5."""
    found = chi_square(AssociationTable(("low", "high"), ("no", "yes"), [[8, 2], [2, 8]]))
    assert found.statistic == pytest.approx(7.2, rel=1e-12)
    assert found.cramers_v == pytest.approx(0.6, rel=1e-12)
    assert (found.degrees_of_freedom, found.smallest_expected, found.reliable) == (1, 5.0, True)


@pytest.mark.parametrize(
    ("counts", "reliable"),
    [
        ([[9, 1], [1, 9]], True),  # 5 everywhere
        ([[40, 40, 30, 4], [40, 40, 30, 4]], False),  # 4 expected in a quarter of the cells
        ([[40, 40, 40, 30, 4], [40, 40, 40, 30, 4]], True),  # 4 expected in a fifth
        ([[20, 20, 20], [20, 20, 3]], True),
        ([[200, 200], [1, 0]], False),  # half a case expected
    ],
)
def test_reliability_is_cochrans_rule(counts, reliable):
    columns = tuple("vwxyz"[: len(counts[0])])
    assert chi_square(AssociationTable(("low", "high"), columns, counts)).reliable is reliable


def test_rows_and_columns_without_cases_change_nothing():
    small = AssociationTable(("low", "high"), ("no", "yes"), [[8, 2], [2, 8]])
    wide = AssociationTable(("low", "mid", "high"), ("no", "maybe", "yes"), [[8, 0, 2], [0, 0, 0], [2, 0, 8]])
    assert chi_square(wide) == chi_square(small)


def test_pooled_sums_give_scipys_anova(cases):
    sums = reduce(add, by_site(cases, lambda grades, age: group_sums(grades, age, GRADES, centre=70.0)))
    groups = [cases[2][cases[1] == grade] for grade in range(4)]
    found, peer = one_way_anova(sums), stats.f_oneway(*groups)
    assert found.statistic == pytest.approx(peer.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(peer.pvalue, rel=1e-9)
    assert list(found.means.values()) == pytest.approx([group.mean() for group in groups], rel=1e-12)
    welch, peer = one_way_anova(sums, welch=True), anova_oneway(groups, use_var="unequal")
    assert (welch.statistic, welch.within) == pytest.approx((peer.statistic, peer.df[1]), rel=1e-9)
    assert welch.p_value == pytest.approx(peer.pvalue, rel=1e-9)


def test_anova_by_hand():
    """1 2 3 and 3 4 5: means 2 and 4, 6 between of 1 degree, 4 within of 4."""
    found = one_way_anova(group_sums([0, 0, 0, 1, 1, 1], [1, 2, 3, 3, 4, 5], ("low", "high")))
    assert found.statistic == pytest.approx(6.0, rel=1e-12)
    assert (found.between, found.within) == (1, 4.0)
    assert found.eta_squared == pytest.approx(0.6, rel=1e-12)
    assert found.means == {"low": 2.0, "high": 4.0}


def test_centre_changes_no_statistic_and_saves_digits():
    values, grades = np.random.default_rng(0).normal(0, 1e-3, 60) + 1000, np.arange(60) % 3
    peer = stats.f_oneway(*(values[grades == k] for k in range(3))).statistic
    found = one_way_anova(group_sums(grades, values, GRADES[:3], centre=1000.0)).statistic
    assert found == pytest.approx(peer, rel=1e-9)


@pytest.mark.parametrize("edges", [DECADES, (60.0,), tuple(np.linspace(45, 90, 30))])
def test_spearman_of_a_table_is_scipys_of_the_binned_cases(cases, edges):
    tables = by_site(cases, lambda g, a: tabulate(g, bins(a, edges), GRADES, bin_labels(edges)))
    found, peer = spearman(reduce(add, tables)), stats.spearmanr(cases[1], bins(cases[2], edges))
    assert found.correlation == pytest.approx(peer.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(peer.pvalue, rel=1e-9)
    assert found.n == 500


def test_bins_draw_spearman_towards_zero_and_less_so_the_finer():
    """Means over 200 draws of the loss by binning, told apart by four of their own standard errors."""
    rng, losses = np.random.default_rng(1), {2: [], 5: [], 40: []}
    for _ in range(200):
        age = rng.normal(68, 9, 300)
        grades = np.searchsorted([-1.0, 1.0, 2.5], 0.08 * (age - 68) + rng.logistic(size=300))
        raw = stats.spearmanr(grades, age).statistic
        for n_bins, loss in losses.items():
            edges = tuple(np.linspace(50, 86, n_bins + 1)[1:-1])
            table = tabulate(grades, bins(age, edges), GRADES, bin_labels(edges))
            loss.append(raw - spearman(table).correlation)
    mean = {n_bins: np.mean(loss) for n_bins, loss in losses.items()}
    error = {n_bins: np.std(loss) / np.sqrt(200) for n_bins, loss in losses.items()}
    assert mean[2] - mean[5] > 4 * (error[2] + error[5])
    assert mean[5] - mean[40] > 4 * (error[5] + error[40])
    assert abs(mean[40]) < 0.005


def test_rank_correlation_of_a_diagonal_is_one():
    assert spearman(AssociationTable(GRADES, GRADES, 3 * np.eye(4, dtype=int))) == (1.0, 12, 0.0)
    assert spearman(AssociationTable(GRADES, GRADES, 3 * np.eye(4, dtype=int)[::-1])) == (-1.0, 12, 0.0)


def test_holm_over_the_tests_of_several_variables_is_statsmodels():
    values = [0.012, 0.2, 0.004, 0.03]
    np.testing.assert_allclose(holm(values), multipletests(values, method="holm")[1], rtol=1e-12)


def test_bins_are_closed_below_and_named():
    assert bins([49.9, 50, 69, 80, 99], DECADES).tolist() == [0, 1, 2, 4, 4]
    assert bin_labels(DECADES) == ("below 50", "50 to below 60", "60 to below 70", "70 to below 80", "80 and more")


def test_grade_with_a_small_cell_is_left_out_as_a_whole():
    table = AssociationTable(("low", "mid", "high"), ("no", "yes"), [[30, 3], [20, 5], [8, 0]]).for_sending()
    assert table.counts.tolist() == [[0, 0], [20, 5], [8, 0]]
    sums = group_sums([0] * 20 + [1] * 3 + [2] * 2, np.arange(25.0), GRADES).for_sending()
    assert sums.n.tolist() == [20, 0, 0, 0]
    assert (sums.total.tolist(), sums.squares.tolist()) == ([190.0, 0, 0, 0], [2470.0, 0, 0, 0])


@pytest.mark.parametrize(
    ("n", "reason"),
    [
        ([4, 2, 3, 0], "fewer than 10 cases"),
        ([30, 3, 20, 8], "the total would tell"),
        ([30, 4, 20, 4], "the total would tell"),
    ],
)
def test_sums_that_their_total_gives_away_are_withheld(n, reason):
    with pytest.raises(StaysOutError, match=reason):
        GroupSums(GRADES, n, np.zeros(4), np.zeros(4)).for_sending()
    with pytest.raises(StaysOutError, match="fewer than 10"):
        AssociationTable(("low", "high"), ("no", "yes"), [[3, 2], [2, 2]]).for_sending()


def look(hide, cells):
    """What is seen of some cells."""
    try:
        hidden = hide(cells, 5, 10)
    except StaysOutError as error:
        return str(error)
    return np.where(hidden[:, None] if hidden.ndim < np.ndim(cells) else hidden, 0, cells).tolist()


def small_cells_told(seen):
    """Cells from 1 to 4 that can have no other number, and how many small cells there are."""
    told, n_small = [], 0
    for possible in seen.values():
        for numbers in zip(*possible, strict=True):
            small = [number for number in numbers if 1 <= number <= 4]
            n_small += len(small)
            told += small if len(set(numbers)) == 1 else []
    return told, n_small


def test_who_knows_the_rule_and_the_grades_never_learns_a_small_cell():
    """All tables of 2 x 2 cells from 0 to 9: whatever is seen, each small cell could have another number as well."""
    seen = defaultdict(list)
    for cells in itertools.product(range(10), repeat=4):
        table = np.reshape(cells, (2, 2))
        seen[str(look(hidden_rows, table)), *table.sum(axis=1).tolist()].append(cells)
    # A grade of up to 9 cases can be split in all ways; of more, some splits lie outside of this range.
    whole = {key: possible for key, possible in seen.items() if max(key[1:]) <= 9}
    told, n_small = small_cells_told(whole)
    assert n_small > 1000
    assert told == []


def test_who_knows_the_rule_and_the_total_never_learns_a_small_group():
    seen = defaultdict(list)
    for cells in itertools.product(range(9), repeat=4):
        seen[str(look(hidden_groups, np.array(cells))), sum(cells)].append(cells)
    told, n_small = small_cells_told(seen)
    assert n_small > 1000
    assert told == []


def test_leaving_grades_out_makes_no_association():
    """400 times three sites without one, a variable that 18 % have: rejections within a binomial bound of 1e-4."""
    rng, rejected, tested = np.random.default_rng(0), 0, 0
    mixes = ([0.1, 0.45, 0.27, 0.18], [0.1, 0.27, 0.36, 0.27], [0.1, 0.18, 0.27, 0.45])
    for _ in range(400):
        tables = [
            tabulate(rng.choice(4, n, p=mix), (rng.random(n) < 0.18).astype(int), GRADES, ("no", "yes"))
            for n, mix in zip((220, 170, 110), mixes, strict=True)
        ]
        found = chi_square(reduce(add, (table.for_sending() for table in tables)))
        tested += 1
        rejected += found.p_value < 0.05
    assert tested == 400
    assert rejected <= stats.binom.ppf(1 - 1e-4, 400, 0.05)


def test_tables_survive_json_and_add_only_to_their_like(cases):
    table = by_site(cases, lambda g, a: tabulate(g, bins(a, DECADES), GRADES, bin_labels(DECADES)))[0].for_sending()
    again = AssociationTable.from_json(json.loads(json.dumps(table.to_json())))
    np.testing.assert_array_equal(again.counts, table.counts)
    assert (again.rows, again.columns, again.least, (again + table).least) == (GRADES, bin_labels(DECADES), 5, 5)
    sums = by_site(cases, lambda g, a: group_sums(g, a, GRADES, 70.0))[0]
    np.testing.assert_array_equal(GroupSums.from_json(json.loads(json.dumps(sums.to_json()))).squares, sums.squares)
    with pytest.raises(ValueError, match="equal rows and columns"):
        table + AssociationTable(GRADES, ("no", "yes"), np.ones((4, 2), dtype=int))
    with pytest.raises(ValueError, match="one centre"):
        sums + group_sums([0], [1.0], GRADES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AssociationTable(("low",), ("no", "no"), [[1, 2]]), "columns must be different texts"),
        (lambda: AssociationTable(("low",), ("no", "yes"), [[1, 2, 3]]), "counts must have the shape"),
        (lambda: AssociationTable(("low",), ("no", "yes"), [[1, 2.5]]), "whole numbers"),
        (lambda: AssociationTable(("low",), ("no", "yes"), [[9, 2]], least=5), "cells from 1 to 4"),
        (lambda: AssociationTable.from_json({"rows": ["low"]}), "missing"),
        (lambda: GroupSums(("low",), [2], [5.0], [1.0]), "exceeds n times squares"),
        (lambda: GroupSums(("low",), [0], [5.0], [1.0]), "exceeds n times squares"),
        (lambda: GroupSums(("low",), [2], [np.inf], [1.0]), "finite"),
        (lambda: GroupSums(("low",), [2], [2.0], [2.0], least=5), "groups of 1 to 4"),
        (lambda: hidden_groups([20, 30], 0, 10), "least must be 1 or more"),
        (lambda: hidden_rows([[20], [30]], 5, 10), "two or more columns"),
        (lambda: tabulate([0, 4], [0, 0], GRADES, ("no", "yes")), "grades must be"),
        (lambda: tabulate([0, 3], [0], GRADES, ("no", "yes")), "categories must be"),
        (lambda: bins([1.0], [2.0, 2.0]), "edges must rise"),
        (lambda: chi_square(AssociationTable(("low", "high"), ("no", "yes"), [[5, 0], [7, 0]])), "two or more rows"),
        (lambda: one_way_anova(group_sums([0, 0], [1.0, 2.0], GRADES)), "two or more grades"),
        (lambda: one_way_anova(group_sums([0, 0, 1, 1], [1.1, 1.1, 2.3, 2.3], GRADES)), "does not vary"),
        (lambda: one_way_anova(group_sums([0, 0, 1], [1.0, 2.0, 3.0], GRADES), welch=True), "does not vary"),
        (lambda: spearman(AssociationTable(("low", "high"), ("no", "yes"), [[5, 3], [0, 0]])), "differ in grade"),
    ],
)
def test_what_is_no_table_or_has_no_test_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
