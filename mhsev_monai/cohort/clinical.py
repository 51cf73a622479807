"""Clinical variables of a subject and its place in the distribution of the number of microbleeds.

The model is one of proportional odds: a latent risk is a weighted sum of the variables plus a remainder with the
standard logistic distribution, and the share of the population with a lower risk is the quantile of the count
distribution that the subject receives (see ``counts``). So the distribution of counts holds exactly, and whatever
threshold is set on the count, a variable multiplies the odds of being above it by its odds ratio.

The odds ratios below are assumptions, not estimates: of the size that population and clinic cohorts report for the
presence of microbleeds, with age and an earlier stroke the strongest. The variables are drawn independently of each
other, which real ones are not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

MEAN_AGE, AGE_SD = 68.0, 9.0
_AGE_RANGE = (45.0, 92.0)

AGE_ODDS_RATIO = 1.7
"""Of ten years of age."""


class RiskFactor(NamedTuple):
    """A variable that is there or not: ``share`` of subjects that have it, ``odds_ratio`` of more bleeds, meaning."""

    share: float
    odds_ratio: float
    description: str


RISK_FACTORS = {
    "male": RiskFactor(0.50, 1.15, "Male sex"),
    "hypertension": RiskFactor(0.55, 2.0, "Hypertension"),
    "diabetes": RiskFactor(0.18, 1.25, "Diabetes mellitus"),
    "anticoagulant": RiskFactor(0.18, 1.4, "Takes an anticoagulant"),
    "antiplatelet": RiskFactor(0.30, 1.3, "Takes an antiplatelet drug"),
    "prior_stroke": RiskFactor(0.15, 2.5, "Had a stroke before"),
    "apoe_e4": RiskFactor(0.28, 1.3, "Carries an epsilon 4 allele of apolipoprotein E"),
}
"""By name; all but ``male`` are fields of :class:`Clinical`."""

# Gauss-Hermite nodes that integrate a logistic curve of this slope to 1e-6 and better.
_AGE_NODES = 24


class Clinical(NamedTuple):
    """What the table of participants tells of a subject, and the subject's place in the hospital's distribution.

    Attributes:
        age: years.
        sex: ``"F"`` or ``"M"``.
        hypertension: whether diagnosed.
        anticoagulant: whether taken.
        risk_percentile: share of the population whose latent risk is lower, in (0, 1).
        diabetes: whether diagnosed.
        antiplatelet: whether taken.
        prior_stroke: whether there was one.
        apoe_e4: whether at least one allele is carried.
    """

    age: int
    sex: str
    hypertension: bool
    anticoagulant: bool
    risk_percentile: float
    diabetes: bool = False
    antiplatelet: bool = False
    prior_stroke: bool = False
    apoe_e4: bool = False


def draw_clinical(rng: np.random.Generator) -> Clinical:
    """A random subject."""
    years = float(rng.standard_normal())
    present = {name: bool(rng.random() < factor.share) for name, factor in RISK_FACTORS.items()}
    risk = years * _age_weight() + sum(np.log(RISK_FACTORS[name].odds_ratio) for name, has in present.items() if has)
    percentile = risk_percentile(risk + float(rng.logistic()))
    age = round(float(np.clip(MEAN_AGE + AGE_SD * years, *_AGE_RANGE)))
    sex = "M" if present.pop("male") else "F"
    return Clinical(age=age, sex=sex, risk_percentile=percentile, **present)


def risk_percentile(risk: float) -> float:
    """The distribution function of the latent risk: a mixture of logistic ones over age and the risk factors."""
    weights, predictors = _mixture()
    return float(weights @ expit(risk - predictors))


def _age_weight() -> float:
    """Logarithm of the odds ratio of one standard deviation of age."""
    return float(np.log(AGE_ODDS_RATIO) * AGE_SD / 10)


@lru_cache(maxsize=1)
def _mixture() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights and weighted sums of the variables, each ``(n,)``, over nodes of age and all sets of risk factors."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_AGE_NODES)
    weights, predictors = weights / weights.sum(), nodes * _age_weight()
    for factor in RISK_FACTORS.values():
        weights = np.concatenate([weights * (1 - factor.share), weights * factor.share])
        predictors = np.concatenate([predictors, predictors + np.log(factor.odds_ratio)])
    return weights, predictors
