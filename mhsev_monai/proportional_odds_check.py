"""Whether odds are proportional: a score test from one more answer of each site.

The wider model gives each threshold its own coefficients: P(grade <= k) = logistic(threshold_k - x . coefficients_k).
Where the coefficients are the same for all k, the gradient of the wider log-likelihood at the fitted regression is near
0; its square, in the metric of the expected information, has a chi-square distribution with (K - 2) p degrees of
freedom (Rao's score test; Peterson and Harrell 1990, Appl Stat 39:205-217, who note that it rejects too often where
cells are sparse). The wider model is never fitted, so nothing can fail to converge. Brant's test (1990, Biometrics
46:1171-1178) asks the same by K - 1 binary regressions; they need rounds of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mhsev_monai.checked_arrays import check_entries, finite_numbers
from mhsev_monai.proportional_odds import OrdinalData, OrdinalSite, case_terms, checked_parameters
from mhsev_monai.proportional_odds_result import OrdinalFit


@dataclass(frozen=True, eq=False)
class SlopeSums:
    """What a site answers for the check, with coefficients of their own for each threshold.

    Attributes:
        gradient: ``(d',)`` thresholds, then the coefficients of the first threshold, of the second, and so on.
        information: ``(d', d')`` expected, symmetric.

    Raises:
        ValueError: if a shape or a value is not possible.
    """

    gradient: NDArray[np.float64]
    information: NDArray[np.float64]

    def __post_init__(self) -> None:
        d = np.size(self.gradient)
        object.__setattr__(self, "gradient", finite_numbers(self.gradient, "gradient", (d,)))
        object.__setattr__(self, "information", finite_numbers(self.information, "information", (d, d)))
        margin = 1e-9 * (1.0 + float(np.abs(self.information).max(initial=0.0)))
        if np.abs(self.information - self.information.T).max(initial=0.0) > margin:
            raise ValueError("information must be symmetric")
        if np.linalg.eigvalsh(self.information)[0] < -margin * d:
            raise ValueError("information must have no eigenvalue below 0")

    def to_json(self) -> dict[str, Any]:
        """Plain lists, one entry for each attribute."""
        return {"gradient": self.gradient.tolist(), "information": self.information.tolist()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> SlopeSums:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(SlopeSums)}, "an answer for the check")
        return SlopeSums(**value)


class ParallelTest(NamedTuple):
    """A score test of proportional odds.

    Attributes:
        name: of the variable; ``all`` for all of them at once.
        statistic: chi-square.
        degrees_of_freedom: (number of grades - 2) for each variable.
        p_value: of proportional odds.
    """

    name: str
    statistic: float
    degrees_of_freedom: int
    p_value: float


def slope_sums(data: OrdinalData, thresholds: ArrayLike, coefficients: ArrayLike) -> SlopeSums:
    """Gradient and expected information of the wider model of a site's cases, at equal coefficients.

    Args:
        data: the site's.
        thresholds: ``(K - 1,)`` rising.
        coefficients: ``(p,)``, of every threshold.

    Raises:
        ValueError: if shapes differ or thresholds do not rise.
    """
    theta, beta = checked_parameters(data, thresholds, coefficients)
    predictors = theta - (data.covariates @ beta)[:, None]
    n, p = data.covariates.shape
    size = theta.size * (1 + p)
    gradient, information = np.zeros(size), np.zeros((size, size))
    for grade in range(data.n_grades):
        terms = case_terms(np.full(n, grade), predictors)
        score = np.zeros((n, size))
        for threshold, derivative in ((grade, terms.upper), (grade - 1, terms.lower)):
            if 0 <= threshold < theta.size:
                score[:, threshold] += derivative
                first = theta.size + threshold * p
                score[:, first : first + p] -= derivative[:, None] * data.covariates
        gradient += score[data.grades == grade].sum(axis=0)
        information += score.T @ (np.exp(terms.log_probability)[:, None] * score)
    return SlopeSums(gradient, (information + information.T) / 2)


def check_proportional_odds(
    fit: OrdinalFit, sites: Mapping[str, OrdinalSite | OrdinalData]
) -> tuple[ParallelTest, ...]:
    """Ask the sites of a fit once more, and test.

    Args:
        fit: a settled regression.
        sites: those that took part, by name; others are not asked.

    Returns:
        The test of all variables at once, then of each by itself.

    Raises:
        StaysOutError: if a site gave all its answers.
        ValueError: as :func:`parallel_tests`.
    """
    answers = {}
    for name in fit.sites:
        site = sites[name]
        site = OrdinalSite(site) if isinstance(site, OrdinalData) else site
        site.count_answer()
        answers[name] = slope_sums(site.data, *fit.layout.split(fit.estimates, name))
    return parallel_tests(fit, answers)


def parallel_tests(fit: OrdinalFit, answers: Mapping[str, SlopeSums]) -> tuple[ParallelTest, ...]:
    """The tests, from what the sites answered at the estimates of ``fit``.

    Raises:
        ValueError: if there are only two grades or no variable, a site is missing, or an answer has another size.
    """
    layout = fit.layout
    if layout.n_grades < 3 or not layout.kept:
        raise ValueError("proportional odds can be checked with three or more grades and a variable, there are less")
    if set(answers) != set(fit.sites):
        raise ValueError(f"the check needs an answer of each site of the fit, {sorted(fit.sites)}")
    n_deviations = layout.n_grades - 2
    size = len(layout.parameters) + n_deviations * len(layout.kept)
    gradient, information = np.zeros(size), np.zeros((size, size))
    for site, sums in answers.items():
        matrix = _wider_matrix(fit, site)
        if sums.gradient.size != matrix.shape[0]:
            raise ValueError(f"{site} answered for {sums.gradient.size} parameters, {matrix.shape[0]} were asked for")
        gradient += matrix.T @ sums.gradient
        information += matrix.T @ sums.information @ matrix
    columns = np.arange(len(layout.parameters), size).reshape(len(layout.kept), n_deviations)
    groups = [("all", columns.ravel()), *zip(layout.kept, columns, strict=True)]
    return tuple(_score_test(name, gradient, information, freed, len(layout.parameters)) for name, freed in groups)


def _wider_matrix(fit: OrdinalFit, site: str) -> NDArray[np.float64]:
    """From the fitted vector, and deviations of the coefficients of the later thresholds, to a site's wider model."""
    layout, n_thresholds, p = fit.layout, fit.layout.n_grades - 1, len(fit.layout.names)
    local = layout.of_site(site)
    n_fitted = local.shape[1]
    matrix = np.zeros((n_thresholds * (1 + p), n_fitted + (n_thresholds - 1) * len(layout.kept)))
    matrix[:n_thresholds, :n_fitted] = local[:n_thresholds]
    matrix[n_thresholds:, :n_fitted] = np.tile(local[n_thresholds:], (n_thresholds, 1))
    for index, name in enumerate(layout.kept):
        for later in range(1, n_thresholds):
            row = n_thresholds + later * p + layout.names.index(name)
            matrix[row, n_fitted + index * (n_thresholds - 1) + later - 1] = 1.0
    return matrix


def _score_test(
    name: str,
    gradient: NDArray[np.float64],
    information: NDArray[np.float64],
    freed: Sequence[int] | NDArray[np.int64],
    n_fitted: int,
) -> ParallelTest:
    """Of the deviations ``freed``, those beside them staying 0."""
    chosen = np.concatenate([np.arange(n_fitted), np.asarray(freed)])
    score, metric = gradient[chosen], information[np.ix_(chosen, chosen)]
    scale = np.sqrt(np.clip(np.diag(metric), np.finfo(float).tiny, None))
    solved = np.linalg.lstsq(metric / np.outer(scale, scale), score / scale, rcond=None)[0]
    statistic = max(0.0, float((score / scale) @ solved))
    freedom = len(freed)
    return ParallelTest(name, statistic, freedom, float(stats.chi2.sf(statistic, freedom)))
