"""Distributions of counts against the real numbers they are made from, and the hospitals' own shares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mhsev_monai.cohort.counts import (
    LOGNORMAL_MU,
    LOGNORMAL_SIGMA,
    MAX_COUNT,
    balanced_probabilities,
    count_at,
    count_probabilities,
    lognormal_probabilities,
    mu_of_severe_share,
)
from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.subject import draw_record
from mhsev_monai.severity import Severity, severity_from_count

COUNTS = np.arange(1, MAX_COUNT + 1)


def test_lognormal_counts_are_rounded_lognormal_numbers():
    """Oracle: SciPy's lognormal, drawn, rounded, zeros left out, ended at 83."""
    drawn = stats.lognorm(LOGNORMAL_SIGMA, scale=np.exp(LOGNORMAL_MU)).rvs(400_000, random_state=0)
    rounded = np.minimum(np.floor(drawn + 0.5), MAX_COUNT)
    positive = rounded[rounded > 0]
    observed = np.array([(positive == count).mean() for count in COUNTS])
    # Four standard errors of the commonest count.
    np.testing.assert_allclose(lognormal_probabilities(), observed, atol=4 * 0.5 / np.sqrt(positive.size))


@pytest.mark.parametrize(
    ("statistic", "real"),
    [
        (lambda counts: np.median(counts, axis=1), 2.0),
        (lambda counts: (counts == 1).mean(axis=1), 100 / 206),
        (lambda counts: counts.mean(axis=1), 4.65),
        (lambda counts: np.quantile(counts, 0.9, axis=1), 11.0),
    ],
    ids=["median", "share of one", "mean", "90th percentile"],
)
def test_two_hundred_and_six_scans_look_like_the_real_ones(statistic, real):
    drawn = np.random.default_rng(0).choice(COUNTS, p=lognormal_probabilities(), size=(2000, 206))
    low, high = np.quantile(statistic(drawn), (0.05, 0.95))
    assert low <= real <= high


@pytest.mark.parametrize("share", [0.04, 0.14, 0.33, 0.9])
def test_the_location_gives_the_severe_share(share):
    assert lognormal_probabilities(mu_of_severe_share(share))[10:].sum() == pytest.approx(share, abs=1e-8)


def test_a_severe_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"lognormal_severe_share must be above 0 and at most 0\.9, got 0"):
        mu_of_severe_share(0.0)


def test_balanced_counts_are_weighted_by_one_over_k_within_a_severity():
    probabilities = balanced_probabilities((0.5, 0.3, 0.2))
    # By hand: 1 + 1/2 + 1/3 + 1/4 + 1/5 = 137/60.
    assert probabilities[0] == pytest.approx(0.5 * 60 / 137)
    assert probabilities[5:10].sum() == pytest.approx(0.3)
    assert probabilities[25:].sum() == 0


@pytest.mark.parametrize(
    ("percentile", "count"), [(0.0, 0), (0.099, 0), (0.1, 1), (0.599, 1), (0.6, 3), (1 - 1e-17, 3)]
)
def test_a_percentile_becomes_the_quantile(percentile, count):
    assert count_at(percentile, np.array([0.1, 0.5, 0.0, 0.4])) == count


@pytest.mark.parametrize("mix", ["balanced", "lognormal"])
def test_subjects_have_their_hospitals_shares_and_negatives(mix):
    settings, n = CohortSettings(mix=mix, negatives=0.3), 500
    for hospital in HOSPITALS[1:]:
        grades = [severity_from_count(draw_record(hospital, 3, i, settings).n_microbleeds) for i in range(1, n + 1)]
        severe = hospital.severity_mix[-1] if mix == "balanced" else hospital.lognormal_severe_share
        # Four standard errors of a share near one half.
        assert grades.count(Severity.NONE) / n == pytest.approx(0.3, abs=4 * 0.5 / np.sqrt(n))
        assert grades.count(Severity.SEVERE) / n == pytest.approx(0.7 * severe, abs=4 * 0.5 / np.sqrt(n))


def test_more_negatives_leave_the_mix_of_the_others():
    few, many = (count_probabilities(HOSPITALS[0], "lognormal", share) for share in (0.0, 0.8))
    np.testing.assert_allclose(many[1:] / 0.2, few[1:])
    assert few.sum() == pytest.approx(1.0)


def test_older_and_hypertensive_subjects_have_more_bleeds():
    records = [draw_record(HOSPITALS[1], 2, index) for index in range(1, 801)]
    for variable in ("age", "hypertension"):
        values = [getattr(record.clinical, variable) for record in records]
        tau = stats.kendalltau(values, [record.n_microbleeds for record in records])
        assert tau.statistic > 0.05, variable
        assert tau.pvalue < 1e-3, variable
