"""The ceiling of grading by counts: against published sums, draws, hand-made sums and laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from mhsev_monai.cohort.ceiling import count_grading_ceiling, detected_pmf
from mhsev_monai.cohort.counts import balanced_probabilities, lognormal_probabilities
from mhsev_monai.severity import ARIA_H_COUNTS, PAPER_SCALE

REAL_SHARES = (0.0, 0.796, 0.073, 0.131)
# Accuracy of the best rule on the counts of 206 positive scans of five cohorts, and with their grades brought to equal
# shares. We know of these counts their fitted distribution and their shares, not the counts.
PUBLISHED = [
    (0.95, 0.10, 0.984, 0.959),
    (0.90, 0.50, 0.965, 0.925),
    (0.82, 0.83, 0.946, 0.879),
    (0.77, 0.58, 0.944, 0.872),
    (0.69, 0.10, 0.944, 0.864),
    (0.62, 0.50, 0.926, 0.814),
    (0.50, 0.50, 0.909, 0.771),
    (0.30, 0.13, 0.889, 0.703),
    (0.11, 0.20, 0.840, 0.555),
]


def with_grade_shares(pmf, shares):
    """The counts within a grade as they are, the grades as shared."""
    grades = np.digitize(np.arange(len(pmf)), (1, 6, 11))
    held = np.bincount(grades, pmf, minlength=4)
    return pmf * np.divide(shares, held, out=np.zeros(4), where=held > 0)[grades]


def positive_counts():
    return np.concatenate([[0.0], lognormal_probabilities()])


def real_mix():
    return with_grade_shares(positive_counts(), REAL_SHARES)


def balanced_mix():
    return np.concatenate([[0.1], 0.9 * balanced_probabilities((1, 1, 1))])


@pytest.mark.parametrize(("sensitivity", "false_positives", "real", "balanced"), PUBLISHED)
def test_the_ceiling_of_real_counts_is_the_published_one(sensitivity, false_positives, real, balanced):
    found = count_grading_ceiling(real_mix(), sensitivity, false_positives)
    # The fit's counts within a grade are not the scans' own, which matters more the more detections are lost.
    assert found.accuracy == pytest.approx(real, abs=0.015)
    equal = with_grade_shares(positive_counts(), (0, 1 / 3, 1 / 3, 1 / 3))
    assert count_grading_ceiling(equal, sensitivity, false_positives).accuracy == pytest.approx(balanced, abs=0.04)


def test_two_counts_by_hand():
    # Scans have one bleed or six; each is found with 0.5, nothing else is. More than one found: six. One found is as
    # likely to be the one of one (1/2) as against 6/64 of six; none: 1/2 against 1/64. So one and none are mild.
    pmf = [0, 0.5, 0, 0, 0, 0, 0.5]
    found = count_grading_ceiling(pmf, 0.5, 0.0)
    sensitivity_of_six = 1 - 7 / 64
    assert found.accuracy == pytest.approx(0.5 + 0.5 * sensitivity_of_six)
    assert found.balanced_accuracy == pytest.approx(found.accuracy)
    # The naive rule calls six what is six: 1/64 of the sixes.
    assert found.naive_accuracy == pytest.approx(0.5 + 0.5 / 64)
    # Two grades at distance 1: kappa = 1 - disagreement / chance, of shares 1/2 and g = graded moderate.
    moderate = 0.5 * sensitivity_of_six
    chance = 0.5 * moderate + 0.5 * (1 - moderate)
    assert found.quadratic_kappa == pytest.approx(1 - 0.5 * (7 / 64) / chance)


def test_false_positives_by_hand():
    # No bleed or one, always found, with a Poisson(1) of false ones: 0 detected is none; 1 detected is one (e^-1 / 2)
    # or none (e^-1 / 2); above that one is the likelier, k : 1.
    found = count_grading_ceiling([0.5, 0.5], 1.0, 1.0)
    assert found.accuracy == pytest.approx(0.5 * (np.exp(-1) + 1))


@pytest.mark.parametrize(("sensitivity", "false_positives"), [(0.9, 0.5), (0.5, 2.0)])
def test_draws_agree_with_the_sums(sensitivity, false_positives):
    rng, n, pmf = np.random.default_rng(5), 200_000, balanced_mix()
    counts = rng.choice(len(pmf), size=n, p=pmf)
    detected = rng.binomial(counts, sensitivity) + rng.poisson(false_positives, n)
    truth, naive = (np.digitize(number, (1, 6, 11)) for number in (counts, detected))
    table = np.zeros((4, detected.max() + 1))
    np.add.at(table, (truth, detected), 1)
    best = table.argmax(axis=0)[detected]
    found = count_grading_ceiling(pmf, sensitivity, false_positives)
    drawn = (
        (best == truth).mean(),
        cohen_kappa_score(truth, best, weights="quadratic"),
        balanced_accuracy_score(truth, best),
        (naive == truth).mean(),
        cohen_kappa_score(truth, naive, weights="quadratic"),
    )
    # A share of 200 000 has a standard error of 0.0011 at most; kappas stay within a few of them.
    assert found == pytest.approx(drawn, abs=0.005)


def test_the_law_of_detections_is_that_of_draws_of_both_parts():
    law = detected_pmf(6, 0.4, 0.7)
    expected = [
        sum(stats.binom.pmf(k, 6, 0.4) * stats.poisson.pmf(d - k, 0.7) for k in range(min(d, 6) + 1)) for d in range(9)
    ]
    assert law[6, :9] == pytest.approx(expected, rel=1e-9)
    assert law.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("mix", [real_mix, balanced_mix], ids=["real", "balanced"])
@pytest.mark.parametrize("scale", [PAPER_SCALE, ARIA_H_COUNTS], ids=lambda scale: scale.name)
def test_a_detector_without_error_grades_without_error(mix, scale):
    assert count_grading_ceiling(mix(), 1.0, 0.0, scale) == pytest.approx((1,) * 5)


@pytest.mark.parametrize("mix", [real_mix, balanced_mix], ids=["real", "balanced"])
def test_the_ceiling_rises_with_sensitivity_and_falls_with_false_positives(mix):
    sensitivities, rates = np.linspace(0, 1, 9), (0.0, 0.3, 1.0, 3.0, 10.0)
    accuracy = np.array([[count_grading_ceiling(mix(), s, f).accuracy for f in rates] for s in sensitivities])
    assert (np.diff(accuracy, axis=0) > -1e-12).all()
    assert (np.diff(accuracy, axis=1) < 1e-12).all()
    assert accuracy[-1, 0] - accuracy[0, 0] > 0.15


@pytest.mark.parametrize(("sensitivity", "false_positives"), [(0.0, 5.0), (0.2, 8.0), (0.6, 0.5)])
def test_the_best_rule_beats_the_majority_and_the_naive_rule(sensitivity, false_positives):
    found = count_grading_ceiling(real_mix(), sensitivity, false_positives)
    assert found.accuracy >= max(REAL_SHARES) - 1e-12
    assert found.accuracy >= found.naive_accuracy


def test_knowing_nothing_gives_the_majority_and_no_agreement():
    found = count_grading_ceiling(balanced_mix(), 0.0, 2.0)
    assert found.accuracy == pytest.approx(0.3)
    assert found.quadratic_kappa == pytest.approx(0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.5, 0.4], 0.5, 0.5), "sum to 1"),
        (([1.5, -0.5], 0.5, 0.5), "sum to 1"),
        (([[1.0]], 0.5, 0.5), "2 axes"),
        (([0.5, 0.5], 1.5, 0.5), "sensitivity .* got 1.5"),
        (([0.5, 0.5], 0.5, -1), "false_positives .* got -1"),
        (([0.5, 0.5], 0.5, float("nan")), "false_positives .* got nan"),
    ],
)
def test_what_is_no_distribution_or_rate_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        count_grading_ceiling(*arguments)
