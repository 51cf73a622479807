"""Temperature, calibration error and conformal sets against scikit-learn, SciPy and sorted scores; guarantees."""

from __future__ import annotations

import json
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from mhsev_monai.calibration import TEMPERATURES, CalibrationSums, TemperatureSums, at_temperature
from mhsev_monai.conformal import ConformalThresholds, ScoreHistograms, SetSums
from mhsev_monai.ordinal import corn_grade, corn_probabilities

GRADES = np.arange(4)


def simulated(rng, n, sharpness=1.0):
    """Grades drawn from probabilities, and those probabilities made over-confident by a power."""
    true = rng.dirichlet([0.8, 1.2, 0.7, 0.5], n)
    grades = (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, 3)
    powers = (true + 1e-4) ** sharpness
    return powers / powers.sum(axis=1, keepdims=True), grades


@pytest.fixture(scope="module")
def sites():
    """Three sites' over-confident probabilities and grades."""
    return [simulated(np.random.default_rng(seed), n, 2.5) for seed, n in ((0, 220), (1, 170), (2, 110))]


def pooled(sites):
    return np.concatenate([p for p, _ in sites]), np.concatenate([grades for _, grades in sites])


def test_loss_at_each_temperature_is_scikit_learns(sites):
    probabilities, grades = pooled(sites)
    sums = reduce(add, (TemperatureSums.from_predictions(*site) for site in sites))
    # Colder ones make probabilities below 2e-16, which scikit-learn cuts off.
    warm = TEMPERATURES >= 0.5
    expected = [
        log_loss(grades, at_temperature(probabilities, t), labels=GRADES, normalize=False) for t in TEMPERATURES[warm]
    ]
    np.testing.assert_allclose(sums.losses[warm], expected, rtol=1e-9)
    assert sums.n == 500
    assert 1.0 in TEMPERATURES


def test_sites_find_the_temperature_of_all_cases(sites):
    probabilities, grades = pooled(sites)
    sums = reduce(add, (TemperatureSums.from_predictions(*site) for site in sites))
    assert sums.best() == TemperatureSums.from_predictions(probabilities, grades).best()
    exact = optimize.minimize_scalar(
        lambda log_t: log_loss(grades, at_temperature(probabilities, np.exp(log_t)), labels=GRADES),
        bounds=(np.log(0.25), np.log(11)),
        method="bounded",
    )
    # One step of the grid is a factor of 2^0.1.
    assert abs(np.log(sums.best()) - exact.x) <= np.log(2) / 10
    assert log_loss(grades, at_temperature(probabilities, sums.best()), labels=GRADES) - exact.fun < 1e-3


def test_temperature_undoes_the_power_that_made_probabilities_over_confident():
    probabilities, grades = simulated(np.random.default_rng(5), 20000, 2.0)
    assert TemperatureSums.from_predictions(probabilities, grades).best() == pytest.approx(2.0, rel=0.08)


def test_temperature_is_softmax_of_divided_logits():
    logits = np.random.default_rng(0).normal(0, 2, (30, 4))

    def softmax(values):
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    np.testing.assert_allclose(at_temperature(softmax(logits), 1.7), softmax(logits / 1.7), rtol=1e-9)


def test_temperature_by_hand():
    """Square roots of 0.64 and 0.36 are 0.8 and 0.6."""
    np.testing.assert_allclose(at_temperature([[0.64, 0.36]], 2.0), [[0.8 / 1.4, 0.6 / 1.4]], rtol=1e-12)
    np.testing.assert_allclose(at_temperature([[0.64, 0.36]], 1.0), [[0.64, 0.36]], rtol=1e-12)


def test_temperature_of_an_ordinal_head_keeps_the_most_probable_grade_and_may_move_the_median():
    logits = torch.tensor(np.random.default_rng(0).normal(0, 3, (500, 3)))
    before = corn_probabilities(logits).numpy()
    after = at_temperature(before, 3.0)
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    above = np.cumsum(after[:, ::-1], axis=1)[:, ::-1][:, 1:]
    assert ((above > 0.5).sum(axis=1) != corn_grade(logits).numpy()).any()


def test_an_impossible_grade_costs_a_finite_loss():
    sums = TemperatureSums.from_predictions([[1.0, 0.0, 0.0, 0.0]], [3])
    assert sums.losses[TEMPERATURES == 1.0] == pytest.approx(-np.log(1e-7), abs=1e-6)


def test_of_temperatures_that_are_equally_good_the_one_nearest_to_1_is_taken():
    sums = TemperatureSums.from_predictions(np.full((3, 4), 0.25), [0, 1, 2])
    np.testing.assert_allclose(sums.losses, 3 * np.log(4), rtol=1e-12)
    assert sums.best() == 1.0


@pytest.mark.parametrize(
    ("probabilities", "grades", "message"),
    [
        (np.zeros((0, 4)), [], "there are none"),
        (np.eye(4) * 0.96 + 0.01, [0, 1, 2, 3], "never errs"),
        (np.eye(4) * 0.96 + 0.01, [1, 2, 3, 0], "say nothing"),
    ],
)
def test_cases_without_a_temperature_are_refused(probabilities, grades, message):
    with pytest.raises(ValueError, match=message):
        TemperatureSums.from_predictions(probabilities, grades).best()


def test_calibration_error_is_that_of_scikit_learns_curve(sites):
    probabilities, grades = pooled(sites)
    sums = reduce(add, (CalibrationSums.from_predictions(*site) for site in sites))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == grades
    share, mean = calibration_curve(right, confidence, n_bins=10)
    held = sums.n > 0
    np.testing.assert_allclose(sums.right[held] / sums.n[held], share, rtol=1e-9)
    np.testing.assert_allclose(sums.confidence[held] / sums.n[held], mean, rtol=1e-9)
    assert sums.expected_error() == pytest.approx((sums.n[held] * np.abs(share - mean)).sum() / 500, rel=1e-9)


def test_calibration_error_by_hand():
    """Two cases at 0.7 of which one is right, two at 0.9, both right: (|1 - 1.4| + |2 - 1.8|) / 4."""
    probabilities = [[0.7, 0.3], [0.7, 0.3], [0.9, 0.1], [0.9, 0.1]]
    assert CalibrationSums.from_predictions(probabilities, [0, 1, 0, 0]).expected_error() == pytest.approx(0.15)
    other = CalibrationSums.from_predictions(probabilities, [0, 1, 0, 0], predicted_grades=[1, 1, 1, 1])
    assert other.expected_error() == pytest.approx((abs(1 - 0.6) + abs(0 - 0.2)) / 4)
    assert CalibrationSums.from_predictions(np.zeros((0, 2)), []).expected_error() is None


def test_temperature_lowers_the_calibration_error_of_other_cases(sites):
    probabilities, grades = simulated(np.random.default_rng(9), 2000, 2.5)
    best = reduce(add, (TemperatureSums.from_predictions(*site) for site in sites)).best()
    before = CalibrationSums.from_predictions(probabilities, grades).expected_error()
    after = CalibrationSums.from_predictions(at_temperature(probabilities, best), grades).expected_error()
    assert after < before / 2


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_fine_bins_give_the_sets_of_sorted_scores(sites, coverage):
    probabilities, grades = pooled(sites)
    scores = np.sort(1 - probabilities[np.arange(500), grades])
    threshold = scores[int(np.ceil(501 * coverage)) - 1]
    new, _ = simulated(np.random.default_rng(3), 300, 2.5)
    fine = ScoreHistograms.from_predictions(probabilities, grades, n_bins=10**6)
    # The grade of the case that is the threshold shares its bin with nothing else here.
    np.testing.assert_array_equal(fine.thresholds(coverage).sets(new), 1 - new <= threshold)
    coarse = ScoreHistograms.from_predictions(probabilities, grades)
    assert (coarse.thresholds(coverage).sets(new) >= (1 - new <= threshold)).all()


def test_histograms_of_sites_add_up_to_those_of_all_cases(sites):
    summed = reduce(add, (ScoreHistograms.from_predictions(*site) for site in sites))
    np.testing.assert_array_equal(summed.counts, ScoreHistograms.from_predictions(*pooled(sites)).counts)


@pytest.mark.parametrize("n_bins", [50, 10**4])
def test_coverage_holds_on_exchangeable_cases(n_bins):
    """2000 times 39 calibration cases and a new one: hits are binomial, and their bound of 1e-4 is computed.

    Of scores without ties the new one is as likely at each of 40 ranks, so the chance is 36 / 40, at least that with
    bins. Ten thousand hardly tie any; 50 may only add.
    """
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        probabilities, grades = simulated(rng, 40, 2.5)
        calibration = ScoreHistograms.from_predictions(probabilities[1:], grades[1:], n_bins)
        hits += int(calibration.thresholds(0.9).sets(probabilities[:1])[0, grades[0]])
    assert hits >= stats.binom.ppf(1e-4, 2000, 0.9)
    if n_bins > 50:
        assert hits <= stats.binom.ppf(1 - 1e-4, 2000, 0.9)


def test_coverage_holds_for_each_grade_with_thresholds_by_grade():
    """As above, 1500 new cases of each grade; calibration cases of a grade are exchangeable with new ones of it."""
    rng = np.random.default_rng(1)
    hits, n = np.zeros(4), np.zeros(4)
    while n.min() < 1500:
        probabilities, grades = simulated(rng, 200, 2.5)
        calibration = ScoreHistograms.from_predictions(probabilities[:190], grades[:190])
        sets = calibration.thresholds(0.9, by_grade=True).sets(probabilities[190:])
        # One new case a grade and round: those of a round share their calibration cases, and are not independent.
        for grade in GRADES:
            first = np.flatnonzero(grades[190:] == grade)[:1]
            if first.size and n[grade] < 1500:
                n[grade] += 1
                hits[grade] += sets[first[0], grade]
    assert (hits >= stats.binom.ppf(1e-4 / 4, 1500, 0.9)).all()


def test_thresholds_by_hand():
    """Nine cases, coverage 0.8: the 8th of the sorted scores; coverage 0.95 would need the 10th of nine."""
    histogram = ScoreHistograms([[2, 2, 1, 0, 0], [1, 1, 1, 1, 0]])
    assert histogram.thresholds(0.8) == ConformalThresholds((2, 2), 5, 0.8)
    assert histogram.thresholds(0.95).last_bins == (4, 4)
    assert histogram.thresholds(0.8, by_grade=True).last_bins == (2, 3)
    sets = ConformalThresholds((2, 2), 5, 0.8).sets([[0.9, 0.1], [0.5, 0.5]])
    assert sets.tolist() == [[True, False], [True, True]]
    assert not ConformalThresholds((0, 0), 5, 0.8).sets([[0.5, 0.5]]).any()


def test_set_sums_say_coverage_and_size_and_add_up(sites):
    probabilities, grades = pooled(sites)
    thresholds = ScoreHistograms.from_predictions(probabilities, grades).thresholds(0.8)
    sets = thresholds.sets(probabilities)
    sums = reduce(add, (SetSums.from_sets(thresholds.sets(p), g) for p, g in sites))
    hit = sets[np.arange(500), grades]
    assert sums.coverage() == pytest.approx(hit.mean(), rel=1e-12)
    assert sums.coverage_by_grade() == pytest.approx([hit[grades == k].mean() for k in GRADES], rel=1e-12)
    assert sums.mean_size() == pytest.approx(sets.sum(axis=1).mean(), rel=1e-12)
    assert sums.share_empty() == pytest.approx((sets.sum(axis=1) == 0).mean(), rel=1e-12)
    nothing = SetSums.from_sets(np.zeros((0, 4), dtype=bool), [])
    assert (nothing.coverage(), nothing.mean_size(), nothing.coverage_by_grade()) == (None, None, (None,) * 4)


def test_sums_survive_json(sites):
    for kind in (TemperatureSums, CalibrationSums, ScoreHistograms):
        sums = kind.from_predictions(*sites[0])
        assert kind.from_json(json.loads(json.dumps(sums.to_json()))).to_json() == sums.to_json()
        with pytest.raises(ValueError, match="unknown"):
            kind.from_json({**sums.to_json(), "cases": []})
    sets = SetSums.from_sets(np.eye(4, dtype=bool)[[0, 1, 1]], [0, 1, 2])
    assert SetSums.from_json(json.loads(json.dumps(sets.to_json()))).to_json() == sets.to_json()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: at_temperature(p, 0.0), "temperature must be above 0"),
        (lambda p: at_temperature(p + 1, 1.0), "each row must sum to 1"),
        (lambda p: TemperatureSums.from_predictions(p, [0]), "grades must be"),
        (lambda p: TemperatureSums(3, -np.ones(56)), "0 or more"),
        (lambda p: TemperatureSums(3, np.ones(55)), "losses must have the shape"),
        (lambda p: CalibrationSums([1, 0], [0.9, 0.0], [1, 0]), "of the bin"),
        (lambda p: CalibrationSums([1, 0], [0.2, 0.0], [2, 0]), "at most n"),
        (lambda p: CalibrationSums.from_predictions(p, [0, 1], n_bins=0), "n_bins must be"),
        (
            lambda p: (
                CalibrationSums.from_predictions(p, [0, 1]) + CalibrationSums.from_predictions(p, [0, 1], n_bins=5)
            ),
            "equal numbers of bins",
        ),
        (lambda p: ScoreHistograms([1, 2]), "counts must be"),
        (lambda p: ScoreHistograms.from_predictions(p, [0, 1], n_bins=1), "n_bins must be"),
        (lambda p: ScoreHistograms.from_predictions(p, [0, 1]).thresholds(1.0), "coverage must be"),
        (lambda p: ScoreHistograms.from_predictions(p, [0, 1]) + ScoreHistograms([[1, 1], [1, 1]]), "equal shapes"),
        (lambda p: ConformalThresholds((1, 1), 5, 0.9).sets(p), "of 2 grades"),
        (lambda p: SetSums([1, 0], [[1, 0, 0], [0, 0, 0]]), "between"),
        (lambda p: SetSums.from_sets(np.ones(4, dtype=bool), [0]), "sets must be"),
    ],
)
def test_what_is_no_sum_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.full((2, 4), 0.25))
