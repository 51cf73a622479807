"""Graders without a network: what a row must beat to have earned its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mhsev_flare.benchmark.graded import Grading
from mhsev_monai.dsd.feature_table import THRESHOLDS, per_cent
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.metrics import N_CLASSES
from mhsev_monai.severity import GradingScale, Severity
from mhsev_monai.statistics import agreement_scores
from mhsev_monai.training import LabelledFeatures

LOG_COUNTS = [f"log_count_{per_cent(threshold)}" for threshold in THRESHOLDS]
"""Numbers of spots on the Laplacian of Gaussian at each depth: what the count rules read."""

_RANKS = np.arange(N_CLASSES)
_PENALTY = (_RANKS[:, None] - _RANKS) ** 2


class FittedRule(Protocol):
    """A rule whose numbers are set."""

    def grade(self, site: str, data: LabelledFeatures) -> Grading:
        """Grade the cases of a site; the truth in ``data`` is not looked at."""


class Rule(Protocol):
    """A rule that training cases set the numbers of."""

    @property
    def inputs(self) -> CaseInputs:
        """What the rule reads."""

    def fit(self, training: Mapping[str, LabelledFeatures], scale: GradingScale) -> FittedRule:
        """Set the numbers by the training cases of all sites, by name."""


@dataclass(frozen=True)
class MajorityBySite:
    """Every case gets the most frequent grade of its site's training cases; all sites' where the site has none."""

    inputs: CaseInputs

    def fit(self, training: Mapping[str, LabelledFeatures], scale: GradingScale) -> FittedRule:
        """Count the grades of each site."""
        counts = {name: data.counts.double().numpy() for name, data in training.items()}
        return FittedMajority(counts, np.concatenate(list(counts.values())), scale)


@dataclass(frozen=True)
class FittedMajority:
    """Counts of the training cases, by site and of all sites."""

    by_site: Mapping[str, NDArray[np.float64]]
    everywhere: NDArray[np.float64]
    scale: GradingScale

    def grade(self, site: str, data: LabelledFeatures) -> Grading:
        """The same answer for every case of the site."""
        counts = self.by_site.get(site, self.everywhere)
        grades = _grades_of(counts, self.scale)
        frequency = np.bincount(grades, minlength=N_CLASSES)
        bleeding = frequency * (_RANKS > Severity.NONE)
        mode, mode_given_bleed = int(frequency.argmax()), max(int(bleeding.argmax()), int(Severity.MILD))
        n = len(data)
        return _certain(np.full(n, mode), np.full(n, mode_given_bleed), np.full(n, np.median(counts[grades == mode])))


@dataclass(frozen=True)
class NaiveCount:
    """The paper's grade of a count of dark spots, at the one of four depths that grades the training cases best."""

    inputs: CaseInputs

    def fit(self, training: Mapping[str, LabelledFeatures], scale: GradingScale) -> FittedRule:
        """Choose the depth by quadratic kappa."""
        spots, truth = _spots_and_grades(training, scale)
        kappas = [_kappa(truth, _grades_of(column, scale)) for column in spots.T]
        return FittedCount(int(np.nanargmax(kappas)), tuple(map(float, scale.lower_bounds)), None)


@dataclass(frozen=True)
class CalibratedCount:
    """Three cut points on the count of dark spots, at one of four depths, that grade the training cases best of all."""

    inputs: CaseInputs

    def fit(self, training: Mapping[str, LabelledFeatures], scale: GradingScale) -> FittedRule:
        """Search all cut points of all depths for the greatest quadratic kappa."""
        spots, truth = _spots_and_grades(training, scale)
        found = [best_cuts(column, truth) for column in spots.T]
        depth = int(np.argmax([kappa for _, kappa in found]))
        cuts = found[depth][0]
        counts = np.concatenate([training[name].counts.double().numpy() for name in sorted(training)])
        graded = np.searchsorted(np.asarray(cuts), spots[:, depth], side="right")
        typical = tuple(_typical_count(counts, graded == grade, grade, scale) for grade in range(N_CLASSES))
        return FittedCount(depth, cuts, typical)


@dataclass(frozen=True)
class FittedCount:
    """Cut points on one count of spots.

    Attributes:
        depth: which of the counts.
        cuts: the least number of spots of MILD, MODERATE and SEVERE.
        typical_counts: microbleeds that stand for each grade; None: as many as spots.
    """

    depth: int
    cuts: tuple[float, ...]
    typical_counts: tuple[float, ...] | None

    def grade(self, site: str, data: LabelledFeatures) -> Grading:  # noqa: ARG002
        """The same cut points at every site."""
        spots = _spots(data)[:, self.depth]
        grades = np.searchsorted(np.asarray(self.cuts), spots, side="right")
        counts = spots if self.typical_counts is None else np.asarray(self.typical_counts)[grades]
        return _certain(grades, np.maximum(grades, int(Severity.MILD)), counts)


def best_cuts(spots: NDArray[np.float64], truth: NDArray[np.int64]) -> tuple[tuple[float, ...], float]:
    """The three cut points with the greatest quadratic kappa, by exact search over all of them.

    Cut points lie half way between neighbouring numbers of spots, or beyond the ends. Kappa is 1 less a ratio of two
    sums over the four groups that the cuts make, so cumulative sums give that of every triple.

    Args:
        spots: ``(n,)`` of each case, n at least 1.
        truth: ``(n,)`` grades 0 to 3.

    Returns:
        The cut points, rising, the lowest of equally good ones; and their kappa, 0 where it is not defined.
    """
    values, place = np.unique(spots, return_inverse=True)
    cuts = np.concatenate([[values[0] - 0.5], (values[:-1] + values[1:]) / 2, [values[-1] + 0.5]])
    by_value = np.zeros((len(values), N_CLASSES))
    np.add.at(by_value, (place, truth), 1.0)
    below = np.concatenate([np.zeros((1, N_CLASSES)), np.cumsum(by_value, axis=0)])
    n, truths = below.sum(axis=1), below[-1]
    # Cost of calling all cases below a cut a grade, and what it would cost by chance.
    observed, expected = below @ _PENALTY, n[:, None] * (truths @ _PENALTY)[None, :] / n[-1]
    best, chosen = 0.0, (0, 0, 0)
    for first in range(len(cuts)):
        seen, chance = (_cost_of_pairs(cost, first) for cost in (observed, expected))
        with np.errstate(divide="ignore", invalid="ignore"):
            kappa = np.where(chance > 0, 1 - seen / chance, -np.inf)
        second, third = np.unravel_index(int(kappa.argmax()), kappa.shape)
        if kappa[second, third] > best + 1e-12:
            best, chosen = float(kappa[second, third]), (first, first + int(second), first + int(third))
    return tuple(float(cuts[position]) for position in chosen), best


def _cost_of_pairs(cost: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """Cost by second and third cut, counted from ``first``; 0 where the third lies below the second, which none may."""
    later = cost[first:]
    second = cost[first, 0] - cost[first, 1] + later[:, 1] - later[:, 2]
    third = later[:, 2] - later[:, 3] + cost[-1, 3]
    return np.where(np.tri(len(later), k=-1, dtype=bool), 0.0, second[:, None] + third[None, :])


def _spots(data: LabelledFeatures) -> NDArray[np.float64]:
    """``(n, 4)`` whole numbers of spots at each depth."""
    return np.rint(np.expm1(data.features.double().numpy()))


def _spots_and_grades(
    training: Mapping[str, LabelledFeatures], scale: GradingScale
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sites = [training[name] for name in sorted(training)]
    return np.concatenate([_spots(data) for data in sites]), np.concatenate([d.grades(scale).numpy() for d in sites])


def _grades_of(counts: NDArray[np.float64], scale: GradingScale) -> NDArray[np.int64]:
    return np.searchsorted(np.asarray(scale.lower_bounds), counts, side="right")


def _kappa(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    confusion = np.zeros((N_CLASSES, N_CLASSES))
    np.add.at(confusion, (truth, predicted), 1.0)
    kappa = float(agreement_scores(confusion)[1])
    return kappa if np.isfinite(kappa) else 0.0


def _typical_count(counts: NDArray[np.float64], chosen: NDArray[np.bool_], grade: int, scale: GradingScale) -> float:
    """Median count of the training cases that are graded so; the least count of the grade where there is none."""
    return float(np.median(counts[chosen])) if chosen.any() else float((0, *scale.lower_bounds)[grade])


def _certain(grades: NDArray[np.int64], grades_given_bleed: NDArray[np.int64], counts: NDArray[np.float64]) -> Grading:
    return Grading(grades, grades_given_bleed, np.eye(N_CLASSES)[grades], counts.astype(np.float64))
