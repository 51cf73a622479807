"""Sets of grades that hold the true one with a stated probability: split-conformal prediction over several sites.

The score of a grade is 1 - its probability (Sadinle, Lei and Wasserman 2019, J Am Stat Assoc 114:223-234), in 50 equal
bins. A site sends how many of its calibration cases have their true grade in each bin, by true grade. A set holds the
grades up to the bin in which the ceil((n + 1) coverage)-th smallest of the n pooled scores lies. The bin is itself a
score, so nothing is lost by it but size: if a new case is exchangeable with the calibration cases, its set holds its
grade with at least the stated probability (Vovk, Gammerman and Shafer 2005, chapter 2), on average over both.

Pooled over sites this holds for a case from a site drawn like the calibration cases, not at each site. With thresholds
by grade (Mondrian; the same book, section 4.5) it holds for the cases of each grade, at the price of larger sets.
A histogram of a grade that a site has one case of tells that case's score: from how many cases on a site sends its
histograms is for the site to decide, as with ``SeverityTable``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhsev_monai.checked_arrays import check_entries, class_indices, class_probabilities, whole_numbers

N_BINS = 50


@dataclass(frozen=True, eq=False)
class ScoreHistograms:
    """Calibration cases by true grade and bin of 1 - the probability of that grade: ``(K, B)`` counts.

    Raises:
        ValueError: if the shape or a value is not possible.
    """

    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = np.shape(self.counts)
        if len(shape) != 2 or min(shape) < 2:
            raise ValueError(f"counts must be (grades, bins), two or more of either, got {shape}")
        object.__setattr__(self, "counts", whole_numbers(self.counts, "counts", shape))

    @staticmethod
    def from_predictions(probabilities: ArrayLike, grades: ArrayLike, n_bins: int = N_BINS) -> ScoreHistograms:
        """The histograms of a site's calibration cases, which the network was not trained with.

        Args:
            probabilities: ``(n, K)``, rows sum to 1.
            grades: ``(n,)`` true grades from 0 to K - 1.
            n_bins: 2 or more; histograms that are added need the same.

        Raises:
            ValueError: if shapes or ranges disagree.
        """
        if n_bins < 2:
            raise ValueError(f"n_bins must be 2 or more, got {n_bins}")
        scores = class_probabilities(probabilities)
        n, n_classes = scores.shape
        truth = class_indices(grades, "grades", n, n_classes)
        index = score_bins(scores, n_bins)[np.arange(n), truth]
        counts = np.bincount(truth * n_bins + index, minlength=n_classes * n_bins)
        return ScoreHistograms(counts.reshape(n_classes, n_bins))

    def __add__(self, other: ScoreHistograms) -> ScoreHistograms:
        """The histograms of both sites' cases.

        Raises:
            ValueError: if they have different numbers of grades or bins.
        """
        if not isinstance(other, ScoreHistograms):
            return NotImplemented
        if self.counts.shape != other.counts.shape:
            raise ValueError(
                f"histograms to be added need equal shapes, got {self.counts.shape} and {other.counts.shape}"
            )
        return ScoreHistograms(self.counts + other.counts)

    def thresholds(self, coverage: float, *, by_grade: bool = False) -> ConformalThresholds:
        """The last bin of a score whose grade is taken into a set.

        Args:
            coverage: in (0, 1).
            by_grade: whether each grade has a threshold of its own, so that the coverage holds for each.

        Raises:
            ValueError: if ``coverage`` is out of range.
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must be in (0, 1), got {coverage}")
        n_classes, n_bins = self.counts.shape
        histograms = self.counts if by_grade else np.tile(self.counts.sum(axis=0), (n_classes, 1))
        return ConformalThresholds(tuple(_last_bin(histogram, coverage) for histogram in histograms), n_bins, coverage)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, one entry for each attribute."""
        return {"counts": self.counts.tolist()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ScoreHistograms:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(ScoreHistograms)}, "score histograms")
        return ScoreHistograms(**value)


@dataclass(frozen=True)
class ConformalThresholds:
    """Which grades a set takes in.

    Attributes:
        last_bins: of each grade, the last bin of its score with which it is taken in; the last bin of all where the
            calibration cases are too few for the coverage, so that every set holds the grade.
        n_bins: of the scores.
        coverage: that the sets are made for.
    """

    last_bins: tuple[int, ...]
    n_bins: int
    coverage: float

    def sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """``(n, K)``, whether each grade is in the set of each case; a set can be empty.

        Raises:
            ValueError: if ``probabilities`` is not ``(n, K)`` of rows that sum to 1.
        """
        scores = class_probabilities(probabilities)
        if scores.shape[1] != len(self.last_bins):
            raise ValueError(f"probabilities must be of {len(self.last_bins)} grades, got {scores.shape[1]}")
        return np.asarray(score_bins(scores, self.n_bins) <= np.array(self.last_bins))


@dataclass(frozen=True, eq=False)
class SetSums:
    """How sets did on cases whose grade is known; sums of several sites add up.

    Attributes:
        covered: ``(K,)`` cases by true grade whose set holds it.
        sizes: ``(K, K + 1)`` cases by true grade and number of grades in their set.

    Raises:
        ValueError: if a shape or a value is not possible.
    """

    covered: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __post_init__(self) -> None:
        n_classes = np.size(self.covered)
        object.__setattr__(self, "covered", whole_numbers(self.covered, "covered", (n_classes,)))
        object.__setattr__(self, "sizes", whole_numbers(self.sizes, "sizes", (n_classes, n_classes + 1)))
        # An empty set holds no grade, the set of all grades holds the true one.
        most, fewest = self.sizes[:, 1:].sum(axis=1), self.sizes[:, -1]
        if (self.covered > most).any() or (self.covered < fewest).any():
            raise ValueError("covered must lie between the numbers of full and of not empty sets, grade by grade")

    @staticmethod
    def from_sets(sets: NDArray[np.bool_], grades: ArrayLike) -> SetSums:
        """The sums of cases with sets ``(n, K)`` and true grades ``(n,)``; raises ``ValueError`` if shapes disagree."""
        taken = np.asarray(sets, dtype=bool)
        if taken.ndim != 2:
            raise ValueError(f"sets must be (n, K), got {taken.shape}")
        n, n_classes = taken.shape
        truth = class_indices(grades, "grades", n, n_classes)
        sizes = np.bincount(truth * (n_classes + 1) + taken.sum(axis=1), minlength=n_classes * (n_classes + 1))
        hit = taken[np.arange(n), truth]
        return SetSums(np.bincount(truth[hit], minlength=n_classes), sizes.reshape(n_classes, n_classes + 1))

    def __add__(self, other: SetSums) -> SetSums:
        """The sums of both sites' cases.

        Raises:
            ValueError: if they have different numbers of grades.
        """
        if not isinstance(other, SetSums):
            return NotImplemented
        if self.covered.size != other.covered.size:
            raise ValueError(
                f"sums to be added need equal numbers of grades, got {self.covered.size} and {other.covered.size}"
            )
        return SetSums(self.covered + other.covered, self.sizes + other.sizes)

    def coverage(self) -> float | None:
        """Share of cases whose set holds their grade; None without cases."""
        n = int(self.sizes.sum())
        return int(self.covered.sum()) / n if n else None

    def coverage_by_grade(self) -> tuple[float | None, ...]:
        """The same of the cases of each grade; None where there is none."""
        totals = self.sizes.sum(axis=1).tolist()
        return tuple(hit / n if n else None for hit, n in zip(self.covered.tolist(), totals, strict=True))

    def mean_size(self) -> float | None:
        """Mean number of grades in a set; None without cases."""
        by_size = self.sizes.sum(axis=0)
        n = int(by_size.sum())
        return float(by_size @ np.arange(by_size.size)) / n if n else None

    def share_empty(self) -> float | None:
        """Share of cases whose set is empty: no grade looks like it; None without cases."""
        n = int(self.sizes.sum())
        return int(self.sizes[:, 0].sum()) / n if n else None

    def to_json(self) -> dict[str, Any]:
        """Plain lists, one entry for each attribute."""
        return {"covered": self.covered.tolist(), "sizes": self.sizes.tolist()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> SetSums:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(SetSums)}, "set sums")
        return SetSums(**value)


def score_bins(probabilities: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """Bin of 1 - each probability, of equal bins over [0, 1]; the last one holds 1 as well."""
    return np.clip(np.floor((1.0 - probabilities) * n_bins), 0, n_bins - 1).astype(np.int64)


def _last_bin(histogram: NDArray[np.int64], coverage: float) -> int:
    n = int(histogram.sum())
    # A product such as 0.9 * 10 comes out a little beside the whole number that it is.
    rank = int(np.ceil(round((n + 1) * coverage, 9)))
    if rank > n:
        return histogram.size - 1
    return int(np.searchsorted(np.cumsum(histogram), rank))
