"""Paired comparisons against hand-made sums, SciPy, scikit-learn and laws."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, cohen_kappa_score

from mhsev_monai.statistics import (
    agreement_scores,
    corrected_interval,
    corrected_resampled_t,
    exact_mcnemar,
    holm,
    paired_bootstrap,
)


def graders(rng, n=120):
    truth = rng.integers(0, 4, n)
    first = np.clip(truth + rng.integers(-1, 2, n), 0, 3)
    second = np.where(rng.random(n) < 0.5, truth, rng.integers(0, 4, n))
    sites = np.repeat(["a", "b", "c"], n // 3)
    return truth, first, second, sites


@pytest.mark.parametrize(("only_first", "only_second"), [(2, 8), (0, 5), (7, 9), (1, 0), (30, 12)])
def test_mcnemar_is_twice_the_binomial_tail(only_first, only_second):
    n = only_first + only_second
    tail = sum(comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    first = [True] * only_first + [False] * only_second + [True, True, False]
    second = [False] * only_first + [True] * only_second + [True, True, False]
    assert exact_mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail), rel=1e-12)


def test_mcnemar_of_graders_that_never_differ_is_one():
    assert exact_mcnemar([True, False], [True, False]) == 1.0


def test_mcnemar_refuses_other_numbers_of_cases():
    with pytest.raises(ValueError, match="same cases"):
        exact_mcnemar([True], [True, False])


def test_scores_of_stacked_tables_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    tables, expected = np.zeros((5, 4, 4)), []
    for table in tables:
        truth, first, _, _ = graders(rng)
        np.add.at(table, (truth, first), 1)
        expected.append((accuracy_score(truth, first), cohen_kappa_score(truth, first, weights="quadratic")))
    np.testing.assert_allclose(np.transpose(agreement_scores(tables)), expected, rtol=1e-12)


def test_scores_that_are_not_defined_are_nan():
    accuracy, kappa = agreement_scores(np.array([np.zeros((2, 2)), [[3.0, 0.0], [0.0, 0.0]]]))
    np.testing.assert_array_equal(accuracy, [np.nan, 1.0])
    np.testing.assert_array_equal(kappa, [np.nan, np.nan])


def test_the_difference_is_that_of_the_scores_and_several_models_count_by_their_mean():
    truth, first, second, sites = graders(np.random.default_rng(1))
    third = truth[::-1].copy()
    found = paired_bootstrap(truth, first, np.stack([second, third]), sites, 4, np.random.default_rng(2), 200)
    kappas = [cohen_kappa_score(truth, grades, weights="quadratic") for grades in (first, second, third)]
    assert found.quadratic_kappa.value == pytest.approx(kappas[0] - (kappas[1] + kappas[2]) / 2, abs=1e-12)
    accuracies = [accuracy_score(truth, grades) for grades in (first, second, third)]
    assert found.accuracy.value == pytest.approx(accuracies[0] - (accuracies[1] + accuracies[2]) / 2, abs=1e-12)


def test_the_spread_of_the_accuracy_difference_is_the_analytic_one():
    """The variance of a mean of paired differences d in {-1, 0, 1} is var(d) / n, summed over the sites' shares."""
    truth, first, second, sites = graders(np.random.default_rng(3), 300)
    found = paired_bootstrap(truth, first, second, sites, 4, np.random.default_rng(4), 4000).accuracy
    d = (first == truth).astype(float) - (second == truth)
    error = np.sqrt(sum(d[sites == s].var() * (sites == s).sum() for s in "abc")) / 300
    # 4000 draws: an end of a 95 % interval has a relative standard error of about 2 % of its distance.
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_cases_stay_in_their_sites():
    """One grader is right at one site alone and the other at the other: no draw within sites can tilt the balance."""
    truth = np.tile([0, 1], 20)
    sites = np.repeat(["a", "b"], 20)
    first, second = np.where(sites == "a", truth, 1 - truth), np.where(sites == "b", truth, 1 - truth)
    found = paired_bootstrap(truth, first, second, sites, 2, np.random.default_rng(5), 200).accuracy
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.p_value == 1.0


def test_exchanging_the_graders_changes_the_sign_alone():
    truth, first, second, sites = graders(np.random.default_rng(6))
    one = paired_bootstrap(truth, first, second, sites, 4, np.random.default_rng(7), 500).quadratic_kappa
    other = paired_bootstrap(truth, second, first, sites, 4, np.random.default_rng(7), 500).quadratic_kappa
    assert other.value == -one.value
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-12)
    assert other.p_value == one.p_value


def test_a_grader_that_is_always_right_beats_chance_at_every_draw():
    truth, _, _, sites = graders(np.random.default_rng(8))
    guess = np.random.default_rng(9).integers(0, 4, truth.size)
    found = paired_bootstrap(truth, truth, guess, sites, 4, np.random.default_rng(10), 199).quadratic_kappa
    assert found.low > 0
    assert found.p_value == pytest.approx(2 / 200)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"first": [0]}, "same cases"), ({"n_draws": 10}, "100 or more"), ({"truth": [], "sites": []}, "at least one")],
)
def test_the_bootstrap_refuses_what_it_cannot_pair(changes, message):
    arguments = {"truth": [0, 1], "first": [0, 1], "second": [1, 1], "sites": ["a", "a"], "n_draws": 100}
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(**{**arguments, **changes}, n_classes=2, rng=np.random.default_rng(0))


def test_the_corrected_t_is_the_hand_computed_one():
    """Mean 0.03, s^2 = 0.002 / 4; t = 0.03 / sqrt((1/5 + 30/70) 0.0005) = 1.69223."""
    found = corrected_resampled_t([0.02, 0.04, 0.00, 0.06, 0.03], n_train=70, n_test=30)
    assert found.mean == pytest.approx(0.03)
    assert found.statistic == pytest.approx(1.69223, abs=1e-5)
    assert found.degrees_of_freedom == 4


def test_without_overlap_the_corrected_t_is_the_plain_one():
    differences = [0.02, 0.04, -0.01, 0.06, 0.03]
    plain = stats.ttest_1samp(differences, 0.0)
    found = corrected_resampled_t(differences, n_train=10**12, n_test=1)
    assert found.statistic == pytest.approx(plain.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(plain.pvalue, rel=1e-9)


@pytest.mark.parametrize(("value", "statistic", "p_value"), [(0.0, 0.0, 1.0), (0.1, np.inf, 0.0), (-0.1, -np.inf, 0.0)])
def test_differences_without_spread_are_certain(value, statistic, p_value):
    found = corrected_resampled_t([value] * 3, 70, 30)
    assert (found.statistic, found.p_value) == (statistic, p_value)


@pytest.mark.parametrize("differences", [[0.1], [0.1, np.nan], [[0.1, 0.2]]])
def test_the_corrected_t_needs_two_finite_differences(differences):
    with pytest.raises(ValueError, match="two finite numbers"):
        corrected_resampled_t(differences, 70, 30)


def test_holm_adjusts_by_hand_computed_steps():
    """0.005 x 4; 0.01 x 3; 0.03 x 2; 0.04 x 1, which must not fall below 0.06."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_holm_counts_only_the_tests_that_were_made_and_stops_at_one():
    np.testing.assert_allclose(holm([0.9, np.nan, 0.6]), [1.0, np.nan, 1.0])
    assert holm([]).shape == (0,)


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match="0 to 1"):
        holm([1.5])


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.05])
def test_the_corrected_interval_holds_what_the_corrected_test_does_not_refuse(shift):
    """The interval's end nearest to 0 is where the test's p-value is what the interval leaves out."""
    values = np.array([0.02, 0.04, 0.00, 0.06, 0.03]) + shift
    p_value = corrected_resampled_t(values, 70, 30).p_value
    low, high = corrected_interval(values, 70, 30, level=1 - p_value)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(2 * values.mean())
