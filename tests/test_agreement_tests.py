"""Comparisons of graders against statsmodels, SciPy, scikit-learn, plain loops and published tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import SquareTable

from mhsev_monai.agreement_tests import bowker, delong, naive_anova, stuart_maxwell, worst_site
from mhsev_monai.severity_table import SeverityTable

# Unaided distance vision of the right and the left eye of 7477 women (Stuart 1953, Biometrika 40:105-110).
VISION = [[1520, 266, 124, 66], [234, 1512, 432, 78], [117, 362, 1772, 205], [36, 82, 179, 492]]


def scores(seed, n=80, tied=False):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.35
    common = rng.normal(size=n) + positive
    first, second = common + 0.5 * rng.normal(size=n), common + rng.normal(size=n)
    return positive, *(np.round(score, 0 if tied else 9) for score in (first, second))


def delong_by_loops(positive, first, second):
    """Equations 4 to 7 of DeLong et al. 1988, one pair at a time."""
    areas, v10, v01 = [], [], []
    for score in (first, second):
        x, y = score[positive], score[~positive]
        psi = [[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x]
        areas.append(sum(map(sum, psi)) / (len(x) * len(y)))
        v10.append([sum(row) / len(y) for row in psi])
        v01.append([sum(column) / len(x) for column in zip(*psi, strict=True)])
    variance = 0.0
    for v in (v10, v01):
        gaps = [a - b for a, b in zip(*v, strict=True)]
        mean = sum(gaps) / len(gaps)
        variance += sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1) / len(gaps)
    return areas, (areas[0] - areas[1]) / variance**0.5


@pytest.mark.parametrize("tied", [False, True])
def test_delong_is_the_loop_over_pairs_of_its_paper(tied):
    positive, first, second = scores(3, tied=tied)
    areas, z = delong_by_loops(positive, first, second)
    found = delong(positive, first, second)
    np.testing.assert_allclose([found.first, found.second], areas, rtol=1e-12)
    assert found.z == pytest.approx(z, rel=1e-9)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)


@pytest.mark.parametrize("tied", [False, True])
def test_areas_are_those_of_scikit_learn(tied):
    positive, first, second = scores(4, tied=tied)
    found = delong(positive, first, second)
    assert found.first == pytest.approx(roc_auc_score(positive, first), abs=1e-12)
    assert found.second == pytest.approx(roc_auc_score(positive, second), abs=1e-12)


def test_delong_of_scores_that_rank_alike_finds_no_difference():
    positive, first, _ = scores(5)
    found = delong(positive, first, np.exp(first))
    assert (found.difference, found.z, found.p_value) == (0.0, 0.0, 1.0)


def test_delong_holds_its_level():
    """900 pairs of equally good scores: rejections at 5 % stay within a binomial bound of 1e-4 on either side."""
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(900):
        positive = np.arange(120) < 40
        common = rng.normal(size=120) + positive
        rejected += delong(positive, common + rng.normal(size=120), common + rng.normal(size=120)).p_value < 0.05
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], 900, 0.05)
    assert low <= rejected <= high


def test_vision_table_has_its_published_statistics():
    """Margins: Stuart 1955, Biometrika 42:412. Symmetry: Bishop, Fienberg and Holland 1975, of the same table."""
    margins, symmetry = stuart_maxwell(VISION), bowker(VISION)
    assert (round(margins.statistic, 2), margins.degrees_of_freedom) == (11.96, 3)
    assert (round(symmetry.statistic, 2), symmetry.degrees_of_freedom) == (19.11, 6)


@pytest.mark.parametrize("seed", range(4))
def test_square_tables_agree_with_statsmodels(seed):
    table = np.random.default_rng(seed).integers(1, 30, (4, 4))
    peer = SquareTable(table, shift_zeros=False)
    margins, symmetry = peer.homogeneity("stuart_maxwell"), peer.symmetry("bowker")
    assert stuart_maxwell(table) == pytest.approx((margins.statistic, margins.df, margins.pvalue), rel=1e-9)
    assert bowker(table) == pytest.approx((symmetry.statistic, symmetry.df, symmetry.pvalue), rel=1e-9)


def test_both_tests_of_two_grades_are_mcnemars_chi_square():
    table = [[40, 9], [3, 21]]
    expected = (9 - 3) ** 2 / (9 + 3)
    assert stuart_maxwell(table).statistic == pytest.approx(expected, rel=1e-12)
    assert bowker(table).statistic == pytest.approx(expected, rel=1e-12)


def test_a_grade_that_nobody_confuses_changes_nothing():
    table = np.array([[40, 9, 0], [3, 21, 0], [0, 0, 7]])
    assert stuart_maxwell(table) == pytest.approx(stuart_maxwell(table[:2, :2]))
    assert bowker(table) == pytest.approx(bowker(table[:2, :2]))


def test_graders_that_always_agree_do_not_differ():
    assert stuart_maxwell(np.diag([3, 4, 5])) == (0.0, 0, 1.0)
    assert bowker(np.diag([3, 4, 5])) == (0.0, 0, 1.0)


def test_naive_anova_is_scipys_and_carries_its_warning():
    values = np.random.default_rng(1).normal(size=(3, 7))
    found, peer = naive_anova(values), stats.f_oneway(*values)
    assert found[:3] == (pytest.approx(peer.statistic, rel=1e-9), (2, 18), pytest.approx(peer.pvalue, rel=1e-9))
    assert "35 %" in found.warning


def test_the_worst_site_is_the_one_with_the_lowest_value():
    good = SeverityTable.from_predictions(np.eye(4), [0, 1, 6, 11], [0, 1, 6, 11], [0, 1, 2, 3])
    poor = SeverityTable.from_predictions(np.eye(4)[[1, 1, 2, 3]], [1, 1, 6, 11], [0, 1, 6, 11], [0, 1, 2, 3])
    found = worst_site({"a": good, "b": poor, "empty": SeverityTable.empty()}, "balanced_accuracy")
    assert found == ("b", 0.75, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: delong([True, False], [1.0, 2.0], [1.0, 2.0]), "two or more positive"),
        (lambda: delong([True, False, True, False], [1.0, 2.0, np.nan, 0.0], np.ones(4)), "finite"),
        (lambda: stuart_maxwell([[1, 2, 3], [4, 5, 6]]), "square"),
        (lambda: bowker([[1.5, 2], [3, 4]]), "whole numbers"),
        (lambda: stuart_maxwell([[1, 2, 0, 0], [3, 1, 0, 0], [0, 0, 1, 5], [0, 0, 2, 1]]), "separate groups"),
        (lambda: naive_anova([[1.0, 2.0]]), "two or more"),
        (lambda: naive_anova([[1.0, 1.0], [2.0, 2.0]]), "no variance"),
        (lambda: worst_site({"a": SeverityTable.empty()}), "not defined at any site"),
        (lambda: worst_site({"a": SeverityTable.empty()}, "brier"), "metric must be one of"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
