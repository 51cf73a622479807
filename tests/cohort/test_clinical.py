"""Clinical variables: that the percentile is one, and that each variable has the odds ratio that is stated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from mhsev_monai.cohort.clinical import AGE_ODDS_RATIO, RISK_FACTORS, draw_clinical, risk_percentile

N = 10_000


@pytest.fixture(scope="module")
def clinicals():
    rng = np.random.default_rng(5)
    return [draw_clinical(rng) for _ in range(N)]


def test_risk_percentiles_are_uniform(clinicals):
    assert stats.kstest([c.risk_percentile for c in clinicals], "uniform").pvalue > 0.01


def test_the_percentile_is_the_share_of_simulated_risks_below():
    """Oracle: risks drawn from the model as the docstring states it."""
    rng = np.random.default_rng(1)
    risks = rng.logistic(size=200_000) + 0.9 * np.log(AGE_ODDS_RATIO) * rng.standard_normal(200_000)
    for factor in RISK_FACTORS.values():
        risks += np.log(factor.odds_ratio) * (rng.random(200_000) < factor.share)
    for risk in (-2.0, 0.0, 1.0, 3.0, 6.0):
        # Four standard errors of a share near one half.
        assert risk_percentile(risk) == pytest.approx((risks < risk).mean(), abs=4 * 0.5 / np.sqrt(200_000))


@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_logistic_regression_finds_the_stated_odds_ratios_at_any_threshold(clinicals, threshold):
    names = [name for name in RISK_FACTORS if name != "male"]
    flags = [[getattr(c, name) for name in names] for c in clinicals]
    variables = np.column_stack([flags, [c.sex == "M" for c in clinicals], [c.age / 10 for c in clinicals]])
    above = [c.risk_percentile > threshold for c in clinicals]
    fitted = LogisticRegression(C=np.inf, max_iter=500).fit(variables.astype(float), above)
    stated = [RISK_FACTORS[name].odds_ratio for name in [*names, "male"]] + [AGE_ODDS_RATIO]
    # Three standard errors of the rarest factor; ages are rounded and end at 45 and 92.
    np.testing.assert_allclose(fitted.coef_[0], np.log(stated), atol=0.2)


def test_risk_factors_are_as_common_as_stated(clinicals):
    for name, factor in RISK_FACTORS.items():
        share = np.mean([c.sex == "M" if name == "male" else getattr(c, name) for c in clinicals])
        assert share == pytest.approx(factor.share, abs=4 * 0.5 / np.sqrt(N)), name
