"""What sites tell of their sureness: sums equal what raw predictions give, and the guarantees hold on other cases."""

from __future__ import annotations

import json
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from simulated_grades import judged_cases, pooled
from sklearn.metrics import brier_score_loss

from mhsev_monai.calibration import TEMPERATURES, at_temperature
from mhsev_monai.conformal import ConformalThresholds
from mhsev_monai.evaluation import AS_IT_IS
from mhsev_monai.grade_calibration import (
    LEAST_POOLED,
    CalibrationCases,
    GradeCalibration,
    choose_temperature,
    loss_at,
)
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.oddness import N_BINS, OddHistogram, deviations, odd_scores
from mhsev_monai.uncertainty import MEASURES, UncertaintySums

SITES = [judged_cases(seed, n) for seed, n in ((0, 90), (1, 60), (2, 40))]
TESTED = [judged_cases(seed, n) for seed, n in ((3, 300), (4, 200), (5, 150))]


def calibrated() -> GradeCalibration:
    sums = reduce(add, [site.calibration_cases(1.0) for site in SITES])
    temperature, _ = choose_temperature(sums.temperatures)
    return reduce(add, [site.calibration_cases(temperature) for site in SITES]).calibration(temperature)


def test_sums_of_sites_make_the_calibration_of_all_cases():
    together = pooled(SITES).calibration_cases(1.0)
    temperature, reason = choose_temperature(together.temperatures)
    assert reason == ""
    assert 1.5 < temperature < 4  # the simulation's is 2.5
    assert calibrated() == pooled(SITES).calibration_cases(temperature).calibration(temperature)


def test_thresholds_are_those_of_the_sorted_scores():
    cases, found = pooled(SITES), calibrated()
    scaled = at_temperature(cases.probabilities, found.temperature)
    scores = np.sort(1 - scaled[np.arange(len(cases)), cases.true_grades])
    rank = int(np.ceil((len(cases) + 1) * 0.9))
    assert found.thresholds.last_bins == (int(scores[rank - 1] * 50),) * 4
    assert found.odd_above >= cases.odd.max() > found.odd_above / 2**0.25


def test_the_grade_and_the_confusion_stay_what_they_are_at_any_temperature():
    for cases in TESTED:
        before, after = cases.table(), cases.table(calibrated())
        assert np.array_equal(before.confusion, after.confusion)
        assert (before.count_absolute_error, before.count_error) == (after.count_absolute_error, after.count_error)
        assert before.brier_sum > after.brier_sum
        assert not np.array_equal(before.score_histograms, after.score_histograms)


def test_a_temperature_of_one_changes_not_a_bit():
    cases = TESTED[0]
    assert cases.table().to_json() == cases.table(GradeCalibration(1.0)).to_json()
    assert AS_IT_IS.probabilities(cases.probabilities) is cases.probabilities


def test_sums_of_sites_say_of_all_cases_what_raw_predictions_say():
    found, cases = calibrated(), pooled(TESTED)
    sums = reduce(add, [site.uncertainty(found) for site in TESTED])
    truth, onehot = cases.true_grades, np.eye(4)[cases.true_grades]
    after = at_temperature(cases.probabilities, found.temperature)
    assert sums.n == len(cases)
    for measure, scores in (("brier_before", cases.probabilities), ("brier", after)):
        assert sums.mean(measure) == pytest.approx(brier_score_loss(truth, scores, labels=range(4)), abs=1e-9)
    for measure, scores in (("rps_before", cases.probabilities), ("rps", after)):
        gaps = (scores.cumsum(axis=1) - onehot.cumsum(axis=1))[:, :3]
        assert sums.mean(measure) == pytest.approx((gaps**2).sum(axis=1).mean() / 3, abs=1e-9)
    errors = cases.counts - cases.true_counts
    assert sums.mean("count_mae") == pytest.approx(np.abs(errors).mean(), abs=1e-9)
    assert sums.moments[MEASURES.index("count_bias")].tolist() == [errors.sum(), (errors**2).sum()]
    sets = 1 - after <= (found.thresholds.last_bins[0] + 1) / 50
    assert sums.sets.coverage() == sets[np.arange(len(cases)), truth].mean()
    assert sums.sets.mean_size() == sets.sum(axis=1).mean()
    assert sums.n_odd == (cases.odd > found.odd_above).sum()


def test_means_agree_with_the_table_that_goes_beside_them():
    found = calibrated()
    for cases in TESTED:
        table, sums = cases.table(found), cases.uncertainty(found)
        assert sums.mean("brier") == pytest.approx(table.brier_sum / table.n, abs=1e-9)
        assert sums.mean("rps") == pytest.approx(table.rps_sum / table.n, abs=1e-9)
        assert cases.table().rps_sum / table.n == pytest.approx(sums.mean("rps_before"), abs=1e-9)


def test_calibration_lowers_the_error_of_other_cases_and_sets_cover_them():
    sums = reduce(add, [site.uncertainty(calibrated()) for site in TESTED])
    assert sums.after.expected_error() < sums.before.expected_error() / 2
    assert sums.sets.coverage() == pytest.approx(0.9, abs=0.05)  # of 190 calibration and 650 test cases, sd 0.025
    assert sums.n_odd <= 10  # 650 / 191 are expected at most


def test_what_is_known_survives_json():
    found, cases = calibrated(), TESTED[0]
    assert GradeCalibration.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert GradeCalibration.from_json(json.loads(json.dumps(AS_IT_IS.to_json()))) == AS_IT_IS
    for value in (cases.calibration_cases(2.0), cases.uncertainty(found), cases.uncertainty(AS_IT_IS)):
        text = json.dumps(value.to_json())
        assert json.dumps(type(value).from_json(json.loads(text)).to_json()) == text


def test_sums_of_another_shape_are_refused_where_they_are_read():
    cases, found = TESTED[0], calibrated()
    sums, n = cases.calibration_cases(1.0).to_json(), len(cases)
    sums["scores"]["counts"] = [[n] + [0] * 48, *([0] * 49 for _ in range(3))]
    with pytest.raises(ValueError, match=r"scores must have the shape \(4, 50\)"):
        CalibrationCases.from_json(sums)
    told = cases.uncertainty(found).to_json()
    seven = {"n": [n] + [0] * 6, "confidence": [0.1 * n] + [0.0] * 6, "right": [0] * 7}
    three = {"covered": [n, 0, 0], "sizes": [[0, n, 0, 0], [0] * 4, [0] * 4]}
    for change, words in (({"before": seven}, "10 bins"), ({"after": seven}, "10 bins"), ({"sets": three}, "4 grades")):
        with pytest.raises(ValueError, match=words):
            UncertaintySums.from_json({**told, **change})


def test_an_answer_has_the_parts_of_the_calibration_that_was_sent():
    found, cases = calibrated(), TESTED[0]
    full, bare = cases.uncertainty(found).to_json(), cases.uncertainty(AS_IT_IS).to_json()
    assert UncertaintySums.under(found, full).to_json() == full
    assert UncertaintySums.under(AS_IT_IS, bare).to_json() == bare
    for name in ("sets", "n_odd"):
        with pytest.raises(ValueError, match=f"{name} must be told"):
            UncertaintySums.under(found, {**full, name: None})
        with pytest.raises(ValueError, match=f"{name} must be None"):
            UncertaintySums.under(AS_IT_IS, {**bare, name: full[name]})


def test_few_cases_choose_no_temperature():
    few = judged_cases(7, LEAST_POOLED - 1).calibration_cases(1.0).temperatures
    temperature, reason = choose_temperature(few)
    assert temperature == 1.0
    assert f"{few.n} cases are too few" in reason
    assert loss_at(few, 1.0) == few.losses[TEMPERATURES.tolist().index(1.0)] / few.n


def test_probabilities_that_are_right_already_stay():
    temperature, reason = choose_temperature(judged_cases(1, 4000, sharpness=1.0).calibration_cases(1.0).temperatures)
    assert (temperature, reason) == (1.0, "no other temperature has a smaller loss")


def test_a_temperature_is_taken_only_where_chance_would_seldom_make_it_better():
    """With probabilities that are right, 5 % of sets of cases may have one."""
    chosen = [
        choose_temperature(judged_cases(seed, 200, sharpness=1.0).calibration_cases(1.0).temperatures)[0]
        for seed in range(100)
    ]
    assert sum(temperature != 1.0 for temperature in chosen) <= 12  # 5 expected, sd 2.2
    sharp = choose_temperature(judged_cases(1, 200, sharpness=2.0).calibration_cases(1.0).temperatures)
    assert sharp[0] > 1.4
    assert sharp[1] == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.0}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": True}, "temperature must be"),
        ({"odd_above": -1.0}, "odd_above must be"),
        ({"last_bins": [50, 0, 0, 0]}, "must be those of prediction sets"),
        ({"coverage": None}, "must be those of prediction sets"),
        ({"last_bins": "4444"}, "must be those of prediction sets"),
        ({"more": 1}, "unknown"),
    ],
)
def test_a_calibration_that_is_none_is_refused(change, words):
    value = GradeCalibration(2.0, ConformalThresholds((40,) * 4, 50, 0.9), 1.5).to_json()
    with pytest.raises(ValueError, match=words):
        GradeCalibration.from_json({**value, **change})


def test_sums_of_different_cases_are_refused():
    few, many = judged_cases(1, 5), judged_cases(2, 6)
    a, b = few.calibration_cases(1.0), many.calibration_cases(1.0)
    with pytest.raises(ValueError, match="same cases"):
        CalibrationCases(a.temperatures, b.scores, a.odd)
    c, d = few.uncertainty(AS_IT_IS), many.uncertainty(AS_IT_IS)
    with pytest.raises(ValueError, match="same cases"):
        UncertaintySums(c.before, d.after, c.moments)
    with pytest.raises(ValueError, match="exceeds what its squares allow"):
        UncertaintySums(c.before, c.after, c.moments * np.array([100.0, 1.0]))
    with pytest.raises(ValueError, match="n_odd must be at most"):
        UncertaintySums(c.before, c.after, c.moments, n_odd=6)


def network(mean=(1.0, 2.0), scale=(2.0, 0.5)) -> SeverityMLP:
    made = SeverityMLP(in_features=2, hidden_features=[], num_classes=4, dropout=0.0, max_deviation=8.0, seed=1)
    made.feature_mean.copy_(torch.tensor(mean))
    made.feature_scale.copy_(torch.tensor(scale))
    return made


def test_deviations_by_hand():
    vectors = torch.tensor([[1.0, 2.0], [5.0, 1.0]])
    assert deviations(network(), vectors).tolist() == [[0.0, 0.0], [2.0, 2.0]]
    assert odd_scores(network(), vectors).tolist() == [0.0, 2.0]
    nothing = [torch.nan, torch.nan]
    sets = torch.tensor([[[5.0, 1.0], [9.0, 3.0], nothing], [nothing, nothing, nothing]])
    assert deviations(network(), sets).tolist() == [[3.0, 0.0], [0.0, 0.0]]
    assert odd_scores(network(), sets[:0]).tolist() == []


def test_bins_of_deviations_by_hand():
    histogram = OddHistogram.from_scores([0.0, 1.0, 1.18, 1.2, 1e9])
    assert {i: n for i, n in enumerate(histogram.counts.tolist()) if n} == {0: 1, 25: 2, 26: 1, N_BINS - 1: 1}
    assert histogram.limit() is None
    assert OddHistogram.from_scores([1.0, 1.18]).limit() == pytest.approx(2**0.25)
    assert OddHistogram.from_scores([]).limit() is None


def test_a_new_scan_is_called_odd_no_more_often_than_promised():
    """Of n + 1 exchangeable scores the last is the largest once in n + 1 times; bins can only make it rarer."""
    random = np.random.default_rng(0)
    odd = 0
    for _ in range(4000):
        *known, new = random.gamma(4.0, 0.2, 20)
        odd += new > OddHistogram.from_scores(known).limit()
    assert 0 < odd / 4000 < 1 / 21
