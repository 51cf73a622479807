"""What a proportional-odds regression over several sites found: odds ratios, intervals, and tests between models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats


class OddsRatio(NamedTuple):
    """The effect of a variable.

    Attributes:
        name: of the variable.
        coefficient: logarithm of the odds ratio.
        standard_error: of the coefficient.
        odds_ratio: factor on the odds of a higher grade for one unit more.
        low: lower end of the Wald interval of the odds ratio.
        high: upper end.
        p_value: two-sided, of an odds ratio of 1 (Wald).
    """

    name: str
    coefficient: float
    standard_error: float
    odds_ratio: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Layout:
    """Which parameter stands where in the vector that is fitted: thresholds, coefficients, shifts of sites.

    Attributes:
        n_grades: K.
        names: of the variables that sites know, in their order.
        kept: of those whose coefficient is fitted; the others' is 0.
        shifted: sites that have a shift.
    """

    n_grades: int
    names: tuple[str, ...]
    kept: tuple[str, ...]
    shifted: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """A name for each parameter."""
        return (*(f"threshold {k}" for k in range(1, self.n_grades)), *self.kept, *self.shifted)

    def of_site(self, site: str) -> NDArray[np.float64]:
        """``(K - 1 + p, D)``: from the vector to thresholds and coefficients as this site sees them."""
        n_thresholds = self.n_grades - 1
        matrix = np.zeros((n_thresholds + len(self.names), len(self.parameters)))
        matrix[:n_thresholds, :n_thresholds] = np.eye(n_thresholds)
        for column, name in enumerate(self.kept, start=n_thresholds):
            matrix[n_thresholds + self.names.index(name), column] = 1.0
        if site in self.shifted:
            matrix[:n_thresholds, n_thresholds + len(self.kept) + self.shifted.index(site)] = -1.0
        return matrix

    def split(self, vector: NDArray[np.float64], site: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Thresholds and coefficients at which this site is asked."""
        local = self.of_site(site) @ vector
        return local[: self.n_grades - 1], local[self.n_grades - 1 :]


@dataclass(frozen=True, eq=False)
class OrdinalFit:
    """A fitted regression.

    Attributes:
        layout: of ``estimates`` and ``covariance``.
        estimates: ``(D,)``.
        covariance: ``(D, D)``, the inverse of the observed information.
        log_likelihood: at the maximum.
        grade_counts: ``(K,)`` cases of all sites by grade.
        n_rounds: times that the sites were asked.
        sites: that took part.
        left_out: reason by site of those that did not.
    """

    layout: Layout
    estimates: NDArray[np.float64]
    covariance: NDArray[np.float64]
    log_likelihood: float
    grade_counts: NDArray[np.int64]
    n_rounds: int
    sites: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of cases."""
        return int(self.grade_counts.sum())

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """``(K - 1,)``, of the site without a shift."""
        return self.estimates[: self.layout.n_grades - 1]

    def odds_ratios(self, level: float = 0.95) -> tuple[OddsRatio, ...]:
        """Of each variable that was fitted, with a Wald interval of this coverage.

        Raises:
            ValueError: if ``level`` is outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be in (0, 1), got {level}")
        reach = float(stats.norm.ppf((1 + level) / 2))
        ratios = []
        for index, name in enumerate(self.layout.kept, start=self.layout.n_grades - 1):
            value, error = float(self.estimates[index]), float(np.sqrt(self.covariance[index, index]))
            ratio, low, high = np.exp([value, value - reach * error, value + reach * error]).tolist()
            ratios.append(OddsRatio(name, value, error, ratio, low, high, float(2 * stats.norm.sf(abs(value) / error))))
        return tuple(ratios)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        n_shifts = len(self.layout.shifted)
        shifts = self.estimates[self.estimates.size - n_shifts :].tolist()
        return {
            "n": self.n,
            "grade_counts": self.grade_counts.tolist(),
            "odds_ratios": [ratio._asdict() for ratio in self.odds_ratios()],
            "thresholds": self.thresholds.tolist(),
            "site_shifts": dict(zip(self.layout.shifted, shifts, strict=True)),
            "log_likelihood": self.log_likelihood,
            "rounds": self.n_rounds,
            "sites": list(self.sites),
            "left_out": dict(self.left_out),
        }


class LikelihoodRatio(NamedTuple):
    """Twice the gain in log-likelihood, which has a chi-square distribution where the reduced model holds."""

    statistic: float
    degrees_of_freedom: int
    p_value: float


def likelihood_ratio(full: OrdinalFit, reduced: OrdinalFit) -> LikelihoodRatio:
    """Test of the variables that the full model has and the reduced one has not.

    Raises:
        ValueError: if the two are not of the same cases, or the reduced one has a parameter that the full one lacks.
    """
    same = full.sites == reduced.sites and (full.grade_counts == reduced.grade_counts).all()
    if not same or not set(reduced.layout.parameters) < set(full.layout.parameters):
        raise ValueError("a likelihood ratio needs two fits on the same cases, the reduced one with fewer variables")
    statistic = max(0.0, 2 * (full.log_likelihood - reduced.log_likelihood))
    freedom = full.estimates.size - reduced.estimates.size
    return LikelihoodRatio(statistic, freedom, float(stats.chi2.sf(statistic, freedom)))
