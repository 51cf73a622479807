"""Areas and DeLong's errors from histograms: those of the scores rounded to their bins, by ways that share no code."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from simulated_grades import judged_cases
from sklearn.metrics import roc_auc_score

from mhsev_monai.agreement_tests import delong
from mhsev_monai.metrics import SeverityTable, severity_metrics
from mhsev_monai.roc_areas import (
    AreaVariance,
    area_entry,
    delong_of_histogram,
    logit_interval,
    most_error_of_mean,
)

N_BINS = 50
CASES = judged_cases(3, 120)
ALIKE = {"rtol": 0, "atol": 1e-12}


def binned(grade):
    """The bin of each case's probability of ``grade``, and whether it is of it."""
    bins = np.minimum((CASES.probabilities[:, grade] * N_BINS).astype(int), N_BINS - 1)
    return bins, CASES.true_grades == grade


def histogram(bins, positive):
    return np.stack([np.bincount(bins[positive == kind], minlength=N_BINS) for kind in (False, True)])


def jackknife(bins, positive):
    """Variance from areas without one case each, of either kind: DeLong's, by another definition (Arvesen 1969)."""
    parts = []
    for kind in (True, False):
        without = np.flatnonzero(positive == kind)
        areas = np.array([roc_auc_score(np.delete(positive, i), np.delete(bins, i)) for i in without])
        parts.append((len(areas) - 1) / len(areas) * ((areas - areas.mean()) ** 2).sum())
    return parts


@pytest.mark.parametrize("grade", range(4))
def test_it_is_delongs_of_the_scores_rounded_to_their_bins(grade):
    bins, positive = binned(grade)
    found = delong_of_histogram(CASES.table().score_histograms[grade])
    # A score that is the same for all has the area 1/2 without any variance, so that the error is the other's alone.
    raw = delong(positive, bins.astype(float), np.zeros(len(bins)))
    np.testing.assert_allclose([found.area, found.standard_error], [raw.first, raw.standard_error], **ALIKE)
    assert found.standard_error > 0.01


@pytest.mark.parametrize("grade", range(4))
def test_it_is_scikit_learns_area_and_the_jackknifes_variance(grade):
    bins, positive = binned(grade)
    found = delong_of_histogram(histogram(bins, positive))
    np.testing.assert_allclose(found.area, roc_auc_score(positive, bins), **ALIKE)
    np.testing.assert_allclose(found[1:], jackknife(bins, positive), **ALIKE)


def test_a_small_table_by_hand():
    """Negatives in bins 0, 0, 1, positives in 0 and 2: they stand above 1 and 3 of 3 (a tie counts one half)."""
    found = delong_of_histogram([[2, 1, 0], [1, 0, 1]])
    assert found.area == pytest.approx((1 / 3 + 1) / 2)
    assert found.of_positives == pytest.approx((1 / 3) ** 2 * 2 / 1 / 2)
    # Of two positives 3/2, 3/2 and 1 stand above the negatives.
    assert found.of_negatives == pytest.approx(np.var([0.75, 0.75, 0.5], ddof=1) / 3)


def test_sites_are_ranked_together():
    """A curve of all cases is not the mean of the sites' curves: here each site is perfect, and its scale its own."""
    low, high = np.array([[4, 0, 0, 0], [0, 4, 0, 0]]), np.array([[0, 0, 4, 0], [0, 0, 0, 4]])
    assert [delong_of_histogram(each).area for each in (low, high)] == [1.0, 1.0]
    assert delong_of_histogram(low + high).area == 0.75


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([[1, 2], [0, 0]], "cases of either kind, got 0 positive and 3 negative"),
        ([[1, -2], [1, 1]], "whole numbers"),
        ([[1.5, 2.0], [1.0, 1.0]], "whole numbers"),
        ([1, 2], "shape"),
        ([[1, 2]], "shape"),
    ],
)
def test_what_is_no_histogram_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        delong_of_histogram(wrong)


def test_an_interval_stays_inside_and_is_there_only_where_something_is_known():
    low, high = logit_interval(0.97, 0.03)
    assert 0.75 < low < 0.97 < high < 1
    # On the logit scale both ends are as far from the middle.
    logits = [math.log(p / (1 - p)) for p in (low, 0.97, high)]
    assert logits[1] - logits[0] == pytest.approx(logits[2] - logits[1])
    assert logits[2] - logits[1] == pytest.approx(1.959964 * 0.03 / (0.97 * 0.03), rel=1e-6)
    for nothing in ((1.0, 0.0), (0.0, 0.0), (0.5, 0.0), (0.5, math.nan)):
        assert logit_interval(*nothing) is None


def influence(cases):
    """``(n, 4)`` what each case adds to the areas of the grades, in plain loops over pairs."""
    found = np.zeros((len(cases.true_grades), 4))
    for grade in range(4):
        positive, score = cases.true_grades == grade, cases.probabilities[:, grade]
        wins = (score[positive][:, None] > score[~positive]) + 0.5 * (score[positive][:, None] == score[~positive])
        found[positive, grade] = (wins.mean(axis=1) - wins.mean()) / positive.sum()
        found[~positive, grade] = (wins.mean(axis=0) - wins.mean()) / (~positive).sum()
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_most_that_a_mean_of_areas_can_err_is_above_what_it_errs_and_below_the_mean_error(seed):
    cases = judged_cases(seed, 150)
    parts = [delong_of_histogram(each) for each in cases.table().score_histograms]
    # From the cases themselves: how the areas vary together is known here, and the variance of their mean with it.
    true_error = np.sqrt((influence(cases).mean(axis=1) ** 2).sum())
    mean_error = np.mean([part.standard_error for part in parts])
    assert true_error < most_error_of_mean(parts) < 0.95 * mean_error


def test_the_most_error_is_the_largest_over_a_grid_of_shares():
    parts = [AreaVariance(0.8, *variances) for variances in ((4e-4, 1e-4), (1e-4, 3e-4), (9e-4, 0.0))]
    found, grid = most_error_of_mean(parts), np.linspace(0, 1, 1001)
    first, second = np.meshgrid(grid, grid, indexing="ij")
    shares = np.stack([first, second, 1 - first - second])[:, first + second <= 1].clip(0, 1)
    positive, negative = np.sqrt(np.array(parts)[:, 1:]).T[..., None]
    largest = (positive * np.sqrt(shares) + negative * np.sqrt(1 - shares)).sum(axis=0).max() / 3
    # The grid may miss the largest value by the square of its step.
    assert largest <= found + 1e-15
    assert found == pytest.approx(largest, rel=1e-4)


def test_the_most_error_can_be_reached():
    """Two grades whose probabilities sum to 1 have the same area, and each case counts in both."""
    part = AreaVariance(0.8, 4e-4, 1e-4)
    mirrored = AreaVariance(0.8, 1e-4, 4e-4)
    assert most_error_of_mean([part, mirrored]) == pytest.approx(part.standard_error)
    assert most_error_of_mean([part, AreaVariance(1.0, 0.0, 0.0)]) == pytest.approx(part.standard_error / 2)
    assert math.isnan(most_error_of_mean([part, AreaVariance(0.8, math.nan, 1e-4)]))


def test_the_entry_of_the_result_is_plain_and_agrees_with_the_metrics():
    table = CASES.table()
    entry = json.loads(json.dumps(area_entry(table), allow_nan=False))
    metrics = severity_metrics(table)
    assert entry["level"] == 0.95
    assert entry["macro_auc"]["auc"] == pytest.approx(metrics.macro_auc, abs=1e-12)
    for told, rates in zip([entry["macro_auc"], *entry["per_class"]], [None, *metrics.per_class], strict=True):
        assert told["interval"][0] < told["auc"] < told["interval"][1]
        assert rates is None or told["auc"] == pytest.approx(rates.auc, abs=1e-12)


NOTHING = {"auc": None, "standard_error": None, "interval": None}


def test_what_the_cases_do_not_tell_is_none():
    entry = area_entry(SeverityTable.empty())
    assert entry["macro_auc"] == NOTHING
    assert entry["per_class"] == [NOTHING] * 4
    two = area_entry(CASES.take(np.flatnonzero(CASES.true_grades < 2)).table())
    assert two["per_class"][2:] == [NOTHING] * 2
    assert two["macro_auc"]["auc"] == np.mean([each["auc"] for each in two["per_class"][:2]])
    assert two["macro_auc"]["interval"]
    single = np.flatnonzero(CASES.true_grades == 3)[:1]
    one = area_entry(CASES.take(np.concatenate([np.flatnonzero(CASES.true_grades < 3), single])).table())
    assert one["per_class"][3]["auc"] is not None
    assert one["per_class"][3]["standard_error"] is None
    assert one["macro_auc"]["auc"] is not None
    assert one["macro_auc"]["interval"] is None
    sure = np.eye(4)[[0, 0, 1, 1, 2, 2, 3, 3]]
    perfect = area_entry(SeverityTable.from_predictions(sure, [0] * 8, [0] * 8, sure.argmax(axis=1)))
    assert perfect["per_class"] == [{**NOTHING, "auc": 1.0}] * 4
    assert perfect["macro_auc"] == {**NOTHING, "auc": 1.0}


def test_intervals_hold_the_true_area_as_often_as_they_say():
    truth = [delong_of_histogram(each).area for each in judged_cases(10**6, 100_000).table().score_histograms]
    held = []
    for seed in range(100):
        found = [delong_of_histogram(each) for each in judged_cases(seed, 200).table().score_histograms]
        for one, true in zip(found, truth, strict=True):
            low, high = logit_interval(one.area, one.standard_error)
            held.append(low < true < high)
    # 400 intervals: three standard errors are 0.033 if those of the same cases are independent.
    assert 0.91 < np.mean(held) < 0.99
