"""Metrics from tables: scikit-learn as the oracle, pooling as the law, small tables by hand."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as oracle

from mhsev_monai.metrics import (
    N_BINS,
    SeverityTable,
    majority_table,
    severity_intervals,
    severity_metrics,
)
from mhsev_monai.severity import ARIA_H_COUNTS, Severity

LABELS = [0, 1, 2, 3]
COUNT_OF_GRADE = np.array([0, 3, 8, 20])


def table_of(truth, predicted, probabilities=None, predicted_counts=None):
    """The table of cases with these grades, certain of what they predict unless told otherwise."""
    truth, predicted = np.asarray(truth, dtype=int), np.asarray(predicted, dtype=int)
    probabilities = np.eye(4)[predicted] if probabilities is None else probabilities
    counts = COUNT_OF_GRADE[predicted] if predicted_counts is None else predicted_counts
    return SeverityTable.from_predictions(probabilities, counts, COUNT_OF_GRADE[truth], truth, predicted)


def random_cases(seed, n):
    """True grades, probabilities that know something of them, and their most probable grade."""
    random = np.random.default_rng(seed)
    truth = random.choice(4, size=n, p=[0.4, 0.3, 0.2, 0.1])
    logits = 1.5 * np.eye(4)[truth] + random.normal(size=(n, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, probabilities, probabilities.argmax(axis=1)


def graded_pairs(max_size=60):
    grades = st.integers(0, 3)
    return st.lists(st.tuples(grades, grades), min_size=1, max_size=max_size)


def expect(value, wanted):
    """Equal, where the oracle's NaN stands for None."""
    if wanted is None or np.isnan(wanted):
        assert value is None
    else:
        assert value == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=70, deadline=None)
@given(graded_pairs())
def test_every_score_of_the_confusion_table_is_scikit_learns(pairs):
    truth, predicted = np.array(pairs).T
    ours = severity_metrics(table_of(truth, predicted))
    present = np.unique(truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expect(ours.accuracy, oracle.accuracy_score(truth, predicted))
        expect(ours.balanced_accuracy, oracle.balanced_accuracy_score(truth, predicted))
        expect(
            ours.macro_sensitivity,
            oracle.recall_score(truth, predicted, labels=present, average="macro", zero_division=np.nan),
        )
        expect(ours.macro_f1, oracle.f1_score(truth, predicted, labels=present, average="macro"))
        expect(ours.cohen_kappa, oracle.cohen_kappa_score(truth, predicted, labels=LABELS))
        expect(ours.quadratic_kappa, oracle.cohen_kappa_score(truth, predicted, labels=LABELS, weights="quadratic"))


@settings(max_examples=40, deadline=None)
@given(graded_pairs())
def test_one_against_the_rest_rates_are_scikit_learns(pairs):
    truth, predicted = np.array(pairs).T
    per_class = severity_metrics(table_of(truth, predicted)).per_class
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for grade, ours in enumerate(per_class):
            is_true, is_predicted = truth == grade, predicted == grade
            nan = {"zero_division": np.nan}
            assert ours.n == is_true.sum()
            expect(ours.sensitivity, oracle.recall_score(is_true, is_predicted, **nan))
            expect(ours.specificity, oracle.recall_score(~is_true, ~is_predicted, **nan))
            expect(ours.ppv, oracle.precision_score(is_true, is_predicted, **nan))
            expect(ours.f1, oracle.f1_score(is_true, is_predicted, **nan))


@pytest.mark.parametrize("seed", range(8))
def test_auc_differs_from_scikit_learns_by_no_more_than_half_the_tied_pairs(seed):
    truth, probabilities, predicted = random_cases(seed, n=150)
    table = table_of(truth, predicted, probabilities)
    ours = severity_metrics(table)
    for grade in Severity:
        negatives, positives = table.score_histograms[grade]
        bound = 0.5 * (negatives * positives).sum() / (negatives.sum() * positives.sum())
        exact = oracle.roc_auc_score(truth == grade, probabilities[:, grade])
        assert abs(ours.per_class[grade].auc - exact) <= bound + 1e-12
        assert bound < 0.03  # or the bound would allow anything: 50 bins leave few ties among 150 cases
    exact = oracle.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    # Errors of the bins are random in sign; the measured mean at 150 cases is 0.002.
    assert ours.macro_auc == pytest.approx(exact, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, (4, 12), elements=st.integers(0, 49)), st.integers(0, 2**32 - 1))
def test_auc_is_exact_for_scores_in_the_middle_of_bins(bins, seed):
    truth = np.random.default_rng(seed).integers(0, 2, size=12)
    if truth.min() == truth.max():
        truth[0] = 1 - truth[0]
    score = (bins[0] + 0.5) / N_BINS
    probabilities = np.stack([1 - score, score, 0 * score, 0 * score], axis=1)
    ours = severity_metrics(table_of(truth, truth, probabilities)).per_class[1].auc
    assert ours == pytest.approx(oracle.roc_auc_score(truth, score), abs=1e-12)


def test_brier_is_scikit_learns_and_rps_is_the_sum_over_cumulative_probabilities():
    truth, probabilities, predicted = random_cases(3, n=80)
    ours = severity_metrics(table_of(truth, predicted, probabilities))
    exact = oracle.brier_score_loss(truth, probabilities, labels=LABELS, scale_by_half=False)
    assert ours.brier == pytest.approx(exact, rel=1e-12)
    ranked = 0.0
    for grade, row in zip(truth, probabilities, strict=True):
        for k in range(3):
            ranked += (sum(row[: k + 1]) - (grade <= k)) ** 2 / 3
    assert ours.rps == pytest.approx(ranked / 80, rel=1e-12)


def test_a_table_of_four_cases_by_hand():
    """Truth none, mild, mild, severe; predicted none, mild, severe, mild."""
    ours = severity_metrics(table_of([0, 1, 1, 3], [0, 1, 3, 1], predicted_counts=[1.0, 3.0, 20.5, 4.0]))
    assert (ours.n, ours.accuracy, ours.off_by_two_rate) == (4, 0.5, 0.5)
    assert ours.balanced_accuracy == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert ours.macro_specificity == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)
    assert ours.macro_f1 == pytest.approx((1 + 1 / 2 + 0) / 3)
    # Chance: (1*1 + 2*2 + 1*1) / 16 = 3/8.
    assert ours.cohen_kappa == pytest.approx((1 / 2 - 3 / 8) / (1 - 3 / 8))
    # Observed squared distance 4 + 4; by chance (2*1 + 9 + 2 + 2*4 + 9 + 2*4) / 4.
    assert ours.quadratic_kappa == pytest.approx(1 - 8 / (38 / 4))
    assert ours.count_mae == pytest.approx((1 + 0 + 17.5 + 16) / 4)
    assert ours.count_bias == pytest.approx((1 + 0 + 17.5 - 16) / 4)
    assert [c.n for c in ours.per_class] == [1, 2, 0, 1]
    assert ours.per_class[2].sensitivity is None
    assert ours.per_class[2].specificity == 1.0
    assert ours.per_class[2].auc is None


def test_what_is_not_defined_is_none_and_not_zero():
    only_mild = severity_metrics(table_of([1, 1], [1, 1]))
    assert (only_mild.accuracy, only_mild.balanced_accuracy) == (1.0, 1.0)
    assert (only_mild.cohen_kappa, only_mild.quadratic_kappa) == (None, None)
    assert (only_mild.macro_auc, only_mild.macro_specificity) == (None, None)
    nothing = severity_metrics(SeverityTable.empty()).to_json()
    assert nothing["n"] == 0
    assert {v for k, v in nothing.items() if k not in ("n", "per_class")} == {None}


def test_kappa_of_one_true_grade_and_two_predicted_is_zero():
    ours = severity_metrics(table_of([1, 1], [1, 2]))
    assert (ours.cohen_kappa, ours.quadratic_kappa) == (0.0, 0.0)


def test_metrics_are_plain_json():
    truth, probabilities, predicted = random_cases(5, n=30)
    value = severity_metrics(table_of(truth, predicted, probabilities)).to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert [entry["severity"] for entry in value["per_class"]] == ["none", "mild", "moderate", "severe"]


@settings(max_examples=60, deadline=None)
@given(graded_pairs())
def test_majority_row_scores_the_largest_share_and_no_kappa(pairs):
    truth, predicted = np.array(pairs).T
    table = table_of(truth, predicted)
    ours = severity_metrics(majority_table(table))
    shares = np.bincount(truth, minlength=4) / len(truth)
    assert ours.accuracy == pytest.approx(shares.max())
    assert ours.balanced_accuracy == pytest.approx(1 / (shares > 0).sum())
    assert ours.quadratic_kappa in (None, 0.0)
    assert ours.macro_auc in (None, 0.5)
    grade = int(shares.argmax())
    as_cases = table_of(
        truth,
        np.full(len(truth), grade),
        np.tile(shares, (len(truth), 1)),
        np.full(len(truth), [0, 1, 6, 11][grade]),
    )
    wanted = as_cases.to_json()
    for name, value in majority_table(table).to_json().items():
        assert np.allclose(value, wanted[name], rtol=1e-9, atol=1e-9), name


def test_majority_row_follows_the_scale_of_the_truth():
    table = SeverityTable.from_predictions(np.eye(4)[[2, 2, 0]], [5, 5, 0], [5, 5, 0], [2, 2, 0])
    assert severity_metrics(majority_table(table, ARIA_H_COUNTS)).count_mae == pytest.approx(5 / 3)


def test_majority_of_an_empty_table_is_empty():
    assert majority_table(SeverityTable.empty()).n == 0


def test_intervals_are_those_of_a_bootstrap_over_cases():
    truth, probabilities, predicted = random_cases(11, n=120)
    ours = severity_intervals([table_of(truth, predicted, probabilities)], seed=1)
    random = np.random.default_rng(2)
    draws = []
    for _ in range(2000):
        chosen = random.integers(0, 120, size=120)
        draws.append(oracle.cohen_kappa_score(truth[chosen], predicted[chosen], labels=LABELS, weights="quadratic"))
    # Twice the Monte Carlo error of a 2.5 % quantile at 2000 draws, about 0.006 each.
    assert ours["quadratic_kappa"] == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.025)


def test_intervals_repeat_with_the_seed_and_hold_the_point():
    truth, probabilities, predicted = random_cases(7, n=60)
    tables = [table_of(truth[part], predicted[part], probabilities[part]) for part in (slice(0, 20), slice(20, 60))]
    first, again = (severity_intervals(tables, seed=4) for _ in range(2))
    assert first == again
    point = severity_metrics(tables[0] + tables[1])
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "quadratic_kappa"):
        low, high = first[name]
        assert low < getattr(point, name) < high


def test_a_table_without_errors_has_no_bootstrap_interval():
    intervals = severity_intervals([table_of([0, 1, 2], [0, 1, 2])], seed=1)
    assert intervals["accuracy"] is None
    assert severity_intervals([], seed=1)["accuracy"] is None


def test_intervals_refuse_a_level_of_one():
    with pytest.raises(ValueError, match="level in"):
        severity_intervals([table_of([0], [0])], seed=1, level=1.0)
