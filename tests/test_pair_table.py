"""Two graders from one table: the very tests of the raw grades, and a bootstrap that agrees with that of cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, cohen_kappa_score
from statsmodels.stats.contingency_tables import SquareTable, mcnemar

from mhsev_monai.metrics import SeverityTable
from mhsev_monai.pair_table import PairTable, bootstrap_differences, compare, comparisons_json
from mhsev_monai.statistics import exact_mcnemar, paired_bootstrap


def graders(seed, n):
    """A grader that is right or one off, and one that often guesses."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 4, n)
    first = np.clip(truth + random.integers(-1, 2, n), 0, 3)
    second = np.where(random.random(n) < 0.4, truth, random.integers(0, 4, n))
    return truth, first, second


SITES = {"a": graders(0, 60), "b": graders(1, 45), "c": graders(2, 30)}
TABLES = [PairTable.from_grades(*grades) for grades in SITES.values()]
TRUTH, FIRST, SECOND = (np.concatenate(each) for each in zip(*SITES.values(), strict=True))


def test_tables_of_sites_add_up_to_that_of_all_cases():
    together = PairTable.from_grades(TRUTH, FIRST, SECOND)
    assert np.array_equal((TABLES[0] + TABLES[1] + TABLES[2]).counts, together.counts)
    assert together.n == len(TRUTH)
    for t, a, b in ((0, 1, 2), (3, 3, 3)):
        assert together.counts[t, a, b] == ((t == TRUTH) & (a == FIRST) & (b == SECOND)).sum()


def test_mcnemar_is_statsmodels_and_that_of_the_raw_grades():
    found = compare(("all", "one", "other"), TABLES, 1)
    right = [FIRST == TRUTH, SECOND == TRUTH]
    assert found.only_right == ((right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum())
    assert found.mcnemar == exact_mcnemar(*right)
    four = np.array([[(a & b).sum() for b in (right[1], ~right[1])] for a in (right[0], ~right[0])])
    assert found.mcnemar == pytest.approx(mcnemar(four, exact=True).pvalue, abs=1e-9)


def test_margins_are_statsmodels():
    found = compare(("all", "one", "other"), TABLES, 1).margins
    square = np.zeros((4, 4))
    np.add.at(square, (FIRST, SECOND), 1)
    expected = SquareTable(square, shift_zeros=False).homogeneity(method="stuart_maxwell")
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-9)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-9)


def test_differences_are_scikit_learns_and_intervals_those_of_cases_drawn_within_sites():
    found = bootstrap_differences(TABLES, np.random.default_rng(0), 4000)
    names = np.repeat(list(SITES), [len(truth) for truth, *_ in SITES.values()])
    expected = paired_bootstrap(TRUTH, FIRST, SECOND, names, 4, np.random.default_rng(0), 4000)
    kappas = [cohen_kappa_score(TRUTH, grades, weights="quadratic") for grades in (FIRST, SECOND)]
    assert found.quadratic_kappa.value == pytest.approx(kappas[0] - kappas[1], abs=1e-9)
    accuracies = [accuracy_score(TRUTH, grades) for grades in (FIRST, SECOND)]
    assert found.accuracy.value == pytest.approx(accuracies[0] - accuracies[1], abs=1e-9)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.value == pytest.approx(theirs.value, abs=1e-12)
        assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_a_constant_grade_beside_a_grader_by_hand():
    confusion = np.array([[3, 1, 0, 0], [0, 4, 2, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    truth, predicted = (np.repeat(axis.ravel(), confusion.ravel()) for axis in np.indices((4, 4)))
    counts = np.array([0, 3, 8, 20])
    table = SeverityTable.from_predictions(np.eye(4)[predicted], counts[predicted], counts[truth], truth, predicted)
    found = compare(("all", "global", "majority"), [PairTable.with_constant(table, 1)], 1)
    assert found.n == 11
    assert found.only_right == (4, 2)  # 3 of none and 1 moderate; 2 mild ones that the grader calls moderate
    assert found.mcnemar == pytest.approx(stats.binomtest(4, 6, 0.5).pvalue, abs=1e-9)
    assert found.differences.accuracy.value == pytest.approx(8 / 11 - 6 / 11)


def test_adjusted_values_are_holms_over_the_comparisons_of_one_test():
    comparisons = [compare((site, "one", "other"), [table], 1) for site, table in zip(SITES, TABLES, strict=True)]
    rows = comparisons_json(comparisons)
    json.dumps(rows, allow_nan=False)
    p = sorted(row["mcnemar"]["p"] for row in rows)
    expected = np.minimum(1, np.maximum.accumulate(np.array(p) * [3, 2, 1]))
    assert sorted(row["mcnemar"]["p_holm"] for row in rows) == pytest.approx(expected.tolist(), abs=1e-12)
    assert all(row["quadratic_kappa"]["p_holm"] >= row["quadratic_kappa"]["p"] for row in rows)
    assert [row["cases"] for row in rows] == list(SITES)


def test_graders_that_are_one_differ_in_nothing():
    row = comparisons_json([compare(("a", "one", "one"), [PairTable.from_grades(TRUTH, FIRST, FIRST)], 1)])[0]
    assert row["mcnemar"] == {"only_first": 0, "only_second": 0, "p": 1.0, "p_holm": 1.0}
    assert row["stuart_maxwell"]["p"] == 1.0
    assert row["accuracy"] == {"difference": 0.0, "interval": [0.0, 0.0], "p": 1.0, "p_holm": 1.0}


@pytest.mark.parametrize(
    "value", [{}, {"counts": [[0] * 4] * 4}, {"counts": [[[-1] * 4] * 4] * 4}, {"counts": [[[0.5] * 4] * 4] * 4}, 3]
)
def test_what_is_no_table_is_refused(value):
    with pytest.raises(ValueError, match=r"counts|entries"):
        PairTable.from_json(value)
