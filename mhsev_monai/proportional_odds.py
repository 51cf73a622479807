"""Sums of one site for a proportional-odds regression of the grade: what leaves the site, and what it refuses to send.

The model (McCullagh 1980, J R Stat Soc B 42:109-142) is P(grade <= k | x) = logistic(threshold_k - x . coefficients)
with rising thresholds, so that a coefficient is the logarithm of the factor by which a variable multiplies the odds of
being above k, the same for every k. The log-likelihood is concave (Pratt 1981, J Am Stat Assoc 76:103-106), so
Newton's method needs its gradient and Hessian alone, and those of several sites add up.

With K grades and p variables a site has d = K - 1 + p parameters, and an answer is 1 log-likelihood, d numbers of the
gradient, d (d + 1) / 2 of the Hessian and K counts: 82 numbers for 4 grades and 8 variables. The check of proportional
odds takes one answer more, of d' = (K - 1) (1 + p) and d' (d' + 1) / 2 numbers: 405 for the same.

Sums are not secrets. The counts are the site's numbers of cases by grade, and from the Hessian at known parameters
follows the table of the grade against each variable of 0 and 1. ``OrdinalSite`` sends nothing where a grade or a
category has few cases; it does not look at the cells where these cross. A server that asks at parameters of its own
choosing can with enough answers solve for single cases, so a site gives a limited number. Where neither must be
possible, the sums are to be added under encryption before anybody reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

from mhsev_monai.checked_arrays import check_entries, class_indices, finite_numbers, whole_numbers

LEAST = 5
"""Fewest cases of a grade or a category, where it has any, with which a site takes part."""
LEAST_IN_ALL = 10
"""Fewest cases of a site that takes part; ten is what FLARE's own federated statistics ask for."""
MOST_ANSWERS = 20
"""Answers that a site gives: two models of 8 rounds and a check. Each at other parameters tells more of its cases."""


class StaysOutError(ValueError):
    """A site sends nothing: the message says why, without a number of cases."""


@dataclass(frozen=True, eq=False)
class OrdinalData:
    """Cases of one site.

    Attributes:
        grades: ``(n,)`` whole numbers from 0 to ``n_grades - 1``.
        covariates: ``(n, p)`` finite numbers.
        names: of the ``p`` columns.
        n_grades: 2 or more.
        n_left_out: cases that are not among the ``n``, since a value of theirs is not known.

    Raises:
        ValueError: if shapes, types or ranges disagree.
    """

    grades: NDArray[np.int64]
    covariates: NDArray[np.float64]
    names: tuple[str, ...]
    n_grades: int
    n_left_out: int = 0

    def __post_init__(self) -> None:
        if self.n_grades < 2 or len(set(self.names)) != len(self.names):
            raise ValueError(f"n_grades must be 2 or more and names differ, got {self.n_grades} and {list(self.names)}")
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "grades", class_indices(self.grades, "grades", None, self.n_grades))
        shape = (self.grades.size, len(self.names))
        object.__setattr__(self, "covariates", finite_numbers(self.covariates, "covariates", shape))


@dataclass(frozen=True, eq=False)
class OrdinalSums:
    """What a site answers; answers of several sites add up, entry by entry.

    Attributes:
        grade_counts: ``(K,)`` cases by grade.
        log_likelihood: of the cases, 0 or less.
        gradient: ``(d,)`` first the thresholds, then the coefficients.
        hessian: ``(d, d)``, symmetric, no eigenvalue above 0.

    Raises:
        ValueError: if a shape or a value is not possible.
    """

    grade_counts: NDArray[np.int64]
    log_likelihood: float
    gradient: NDArray[np.float64]
    hessian: NDArray[np.float64]

    def __post_init__(self) -> None:
        d = np.size(self.gradient)
        object.__setattr__(
            self, "grade_counts", whole_numbers(self.grade_counts, "grade_counts", np.shape(self.grade_counts))
        )
        object.__setattr__(self, "gradient", finite_numbers(self.gradient, "gradient", (d,)))
        object.__setattr__(self, "hessian", finite_numbers(self.hessian, "hessian", (d, d)))
        object.__setattr__(self, "log_likelihood", float(finite_numbers(self.log_likelihood, "log_likelihood", ())))
        n_grades = self.grade_counts.size
        if self.grade_counts.ndim != 1 or n_grades < 2 or d < n_grades - 1:
            raise ValueError(
                f"gradient must hold a number a threshold of 2 or more grades, got {d} of {n_grades} grades"
            )
        # Sums of many products: their order of addition shows in the last digits.
        margin = 1e-9 * (1.0 + float(np.abs(self.hessian).max(initial=0.0)))
        if self.log_likelihood > margin or np.abs(self.hessian - self.hessian.T).max(initial=0.0) > margin:
            raise ValueError("log_likelihood must be 0 or less and hessian symmetric")
        if np.linalg.eigvalsh(self.hessian)[-1] > margin * d:
            raise ValueError("hessian must have no eigenvalue above 0: the log-likelihood is concave")

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, one entry for each attribute."""
        return {
            "grade_counts": self.grade_counts.tolist(),
            "log_likelihood": self.log_likelihood,
            "gradient": self.gradient.tolist(),
            "hessian": self.hessian.tolist(),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> OrdinalSums:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(OrdinalSums)}, "an answer")
        return OrdinalSums(**value)


class CaseTerms(NamedTuple):
    """Of each case, by the linear predictors above and below its grade, ``(n,)`` each.

    Attributes:
        log_probability: of the case's grade.
        upper: first derivative by threshold_y - x . coefficients; 0 for the highest grade, which has none.
        lower: the same by threshold_(y - 1) - x . coefficients; 0 for the lowest grade.
        upper_upper: second derivatives, and so on.
        lower_lower: second derivatives by the lower.
        upper_lower: mixed second derivatives.
    """

    log_probability: NDArray[np.float64]
    upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper_upper: NDArray[np.float64]
    lower_lower: NDArray[np.float64]
    upper_lower: NDArray[np.float64]


def case_terms(grades: NDArray[np.int64], predictors: NDArray[np.float64]) -> CaseTerms:
    """Log-probabilities and their derivatives.

    Args:
        grades: ``(n,)`` from 0 to K - 1.
        predictors: ``(n, K - 1)`` threshold_k - x . coefficients, rising along each row.
    """
    ends = np.full((len(predictors), 1), np.inf)
    bounds = np.concatenate([-ends, predictors, ends], axis=1)
    rows = np.arange(len(predictors))
    above, below = bounds[rows, grades + 1], bounds[rows, grades]
    # logistic(a) - logistic(b) = logistic(a) logistic(-b) (1 - e^(b - a)), of which no factor cancels.
    log_probability = log_expit(above) + log_expit(-below) + np.log(-np.expm1(below - above))
    # 1 / (e^(a - b) - 1), which would overflow where the two are far apart.
    ratio = np.exp(below - above) / -np.expm1(below - above)
    curvature = ratio * (1.0 + ratio)
    return CaseTerms(
        log_probability=log_probability,
        upper=expit(-above) + ratio,
        lower=-expit(below) - ratio,
        upper_upper=-expit(above) * expit(-above) - curvature,
        lower_lower=-expit(below) * expit(-below) - curvature,
        upper_lower=curvature,
    )


def ordinal_sums(data: OrdinalData, thresholds: ArrayLike, coefficients: ArrayLike) -> OrdinalSums:
    """Log-likelihood, gradient and Hessian of a site's cases.

    Args:
        data: the site's.
        thresholds: ``(K - 1,)`` rising.
        coefficients: ``(p,)``.

    Raises:
        ValueError: if shapes differ or thresholds do not rise.
    """
    theta, beta = checked_parameters(data, thresholds, coefficients)
    terms = case_terms(data.grades, theta - (data.covariates @ beta)[:, None])
    n, rows = data.grades.size, np.arange(data.grades.size)
    # A column for a threshold below the lowest and one above the highest, which are no parameters.
    steps = np.zeros((2, n, theta.size + 2))
    steps[0, rows, data.grades + 1] = 1.0
    steps[1, rows, data.grades] = 1.0
    upper, lower = (np.concatenate([step[:, 1:-1], -data.covariates], axis=1) for step in steps)
    mixed = upper.T @ (terms.upper_lower[:, None] * lower)
    hessian = (
        upper.T @ (terms.upper_upper[:, None] * upper)
        + lower.T @ (terms.lower_lower[:, None] * lower)
        + mixed
        + mixed.T
    )
    return OrdinalSums(
        grade_counts=np.bincount(data.grades, minlength=data.n_grades),
        log_likelihood=float(terms.log_probability.sum()),
        gradient=upper.T @ terms.upper + lower.T @ terms.lower,
        hessian=(hessian + hessian.T) / 2,
    )


def checked_parameters(
    data: OrdinalData, thresholds: ArrayLike, coefficients: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The parameters as arrays; raises ``ValueError`` if shapes differ or thresholds do not rise."""
    theta = finite_numbers(thresholds, "thresholds", (data.n_grades - 1,))
    beta = finite_numbers(coefficients, "coefficients", (len(data.names),))
    if (np.diff(theta) <= 0).any():
        raise ValueError("thresholds must rise")
    return theta, beta


class OrdinalSite:
    """A site that answers with sums, as long as its cases are enough and it was not asked too often.

    Args:
        data: its cases.
        least: fewest cases of a grade, or of either value of a variable that has two, where there are any.
        least_in_all: fewest cases.
        most_answers: that it gives.

    Raises:
        ValueError: if ``least`` or ``least_in_all`` is below 1.
    """

    def __init__(
        self,
        data: OrdinalData,
        least: int = LEAST,
        least_in_all: int = LEAST_IN_ALL,
        most_answers: int = MOST_ANSWERS,
    ) -> None:
        if least < 1 or least_in_all < 1:
            raise ValueError(f"least and least_in_all must be 1 or more, got {least} and {least_in_all}")
        self.data = data
        self.n_answers = 0
        self._most_answers = most_answers
        self._reason = few_cases(data, least, least_in_all)

    def __call__(self, thresholds: ArrayLike, coefficients: ArrayLike) -> OrdinalSums:
        """The sums at these parameters.

        Raises:
            StaysOutError: if the site has few cases of a kind, or gave all its answers.
            ValueError: as :func:`ordinal_sums`.
        """
        self.count_answer()
        return ordinal_sums(self.data, thresholds, coefficients)

    def count_answer(self) -> None:
        """Count an answer that is about to be given; raises :class:`StaysOutError` where it may not be."""
        if self._reason is not None:
            raise StaysOutError(self._reason)
        if self.n_answers >= self._most_answers:
            raise StaysOutError(f"the site gave its {self._most_answers} answers and gives no more")
        self.n_answers += 1


def few_cases(data: OrdinalData, least: int, least_in_all: int) -> str | None:
    """Why a site must send nothing; None if it may. A value that no case has is not few: it says of nobody."""
    if data.grades.size < least_in_all:
        return f"fewer than {least_in_all} cases with all values known"
    if _is_few(np.bincount(data.grades), least):
        return f"a grade with fewer than {least} cases; join grades, on all sites alike"
    for name, column in zip(data.names, data.covariates.T, strict=True):
        values, counts = np.unique(column, return_counts=True)
        if values.size <= 2 and _is_few(counts, least):
            return f"a category of {name} with fewer than {least} cases; join categories or leave the variable out"
    return None


def _is_few(counts: NDArray[Any] | Sequence[int], least: int) -> bool:
    return bool(((np.asarray(counts) > 0) & (np.asarray(counts) < least)).any())
