"""The table that a site sends of its graded cases: sums from which every metric follows, and no patient.

Tables add up: those of several sites to the table of all their cases. A table of one case *is* that case, so from how
many cases on a site sends its tables is for the site to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhsev_monai.severity import Severity

N_CLASSES = len(Severity)
N_BINS = 50
"""Bins of the score histograms; measured error of the AUC at 150 simulated cases: mean 0.0013, largest 0.0071."""

MAX_CASES = 10**7
"""The largest table that is accepted: squares of its counts stay far inside 64 bits."""

_RANKS = np.arange(N_CLASSES)


@dataclass(frozen=True, eq=False)
class SeverityTable:
    """Sums over ``n`` graded cases; classes in the order of ``Severity``.

    Attributes:
        n: number of cases.
        confusion: ``(4, 4)`` int64 cases, rows truth, columns prediction.
        score_histograms: ``(4, 2, n_bins)`` int64: for each class the cases that are not of it, then those that are,
            by their probability of it, in equal bins over [0, 1].
        true_count_sums: ``(4,)`` int64, microbleeds of all cases of each true grade.
        count_absolute_error: sum of the absolute difference of predicted and true count.
        count_error: sum of predicted count - true count.
        brier_sum: sum over cases and classes of (probability - 1 if true else 0)^2, 0 to 2 a case.
        rps_sum: sum of the ranked probability scores (Epstein 1969), each divided by 3 so that it is 0 to 1 a case.

    Raises:
        ValueError: if an entry has another shape or type, or the entries contradict each other.
    """

    n: int
    confusion: NDArray[np.int64]
    score_histograms: NDArray[np.int64]
    true_count_sums: NDArray[np.int64]
    count_absolute_error: float
    count_error: float
    brier_sum: float
    rps_sum: float

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int | np.integer) or not 0 <= self.n <= MAX_CASES:
            raise ValueError(f"n must be a whole number from 0 to {MAX_CASES}, got {self.n!r}")
        object.__setattr__(self, "n", int(self.n))
        shapes: tuple[tuple[str, tuple[int | None, ...], int], ...] = (
            ("confusion", (N_CLASSES, N_CLASSES), self.n),
            ("score_histograms", (N_CLASSES, 2, None), self.n),
            ("true_count_sums", (N_CLASSES,), MAX_CASES**2),
        )
        for name, shape, limit in shapes:
            object.__setattr__(self, name, _whole_numbers(getattr(self, name), name, shape, limit))
        for name in ("count_absolute_error", "count_error", "brier_sum", "rps_sum"):
            object.__setattr__(self, name, _finite(getattr(self, name), name))
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        truth = self.confusion.sum(axis=1)
        if self.confusion.sum() != self.n:
            raise ValueError(f"confusion must hold n = {self.n} cases, it holds {self.confusion.sum()}")
        if (self.score_histograms.sum(axis=2) != np.stack([self.n - truth, truth], axis=1)).any():
            raise ValueError("score_histograms must hold the cases of confusion, class by class")
        if (self.true_count_sums[truth == 0] != 0).any():
            raise ValueError("true_count_sums must be 0 for a grade that no case has")
        # The margin covers the order of additions, no more.
        margin = 1e-9 * (1.0 + abs(self.count_error) + self.n)
        if self.count_absolute_error < abs(self.count_error) - margin or (
            self.n == 0 and self.count_absolute_error != 0
        ):
            raise ValueError("count_absolute_error must be at least the size of count_error, and 0 without cases")
        for name, largest in (("brier_sum", 2.0 * self.n), ("rps_sum", 1.0 * self.n)):
            if not -margin <= getattr(self, name) <= largest + margin:
                raise ValueError(f"{name} must be from 0 to {largest}, got {getattr(self, name)}")

    @staticmethod
    def empty(n_bins: int = N_BINS) -> SeverityTable:
        """The table of no case, the neutral element of ``+``."""
        return SeverityTable.from_predictions(np.zeros((0, N_CLASSES)), [], [], [], n_bins=n_bins)

    @staticmethod
    def from_predictions(
        probabilities: ArrayLike,
        predicted_counts: ArrayLike,
        true_counts: ArrayLike,
        true_grades: ArrayLike,
        predicted_grades: ArrayLike | None = None,
        n_bins: int = N_BINS,
    ) -> SeverityTable:
        """The table of cases whose truth is known.

        Args:
            probabilities: ``(n, 4)`` of each grade; rows sum to 1.
            predicted_counts: ``(n,)`` microbleeds, any finite number.
            true_counts: ``(n,)`` microbleeds, whole numbers from 0 on.
            true_grades: ``(n,)`` grades 0 to 3 of ``true_counts``, on one scale.
            predicted_grades: ``(n,)`` grades 0 to 3. By default the median grade, that is how many of the
                P(grade > k) exceed one half, which is what the ordinal head of mhsev predicts.
            n_bins: of the score histograms; tables that are added need the same.

        Raises:
            ValueError: if shapes differ, rows do not sum to 1, or a value is outside its range.
        """
        scores = _probabilities(probabilities)
        n = len(scores)
        above = np.cumsum(scores[:, ::-1], axis=1)[:, ::-1][:, 1:]
        predicted = (above > 0.5).sum(axis=1)
        if predicted_grades is not None:
            predicted = _grades(predicted_grades, "predicted_grades", n)
        truth, counts = _grades(true_grades, "true_grades", n), _true_counts(true_counts, n)
        is_class = truth[:, None] == _RANKS
        error = _column(predicted_counts, "predicted_counts", n) - counts
        return SeverityTable(
            n=n,
            confusion=is_class.T.astype(np.int64) @ (predicted[:, None] == _RANKS),
            score_histograms=_histograms(scores, is_class, n_bins),
            true_count_sums=(counts @ is_class).astype(np.int64),
            count_absolute_error=float(np.abs(error).sum()),
            count_error=float(error.sum()),
            brier_sum=float(((scores - is_class) ** 2).sum()),
            rps_sum=float(((above - (truth[:, None] > _RANKS[:-1])) ** 2).sum() / (N_CLASSES - 1)),
        )

    def __add__(self, other: SeverityTable) -> SeverityTable:
        """The table of the cases of both.

        Raises:
            ValueError: if their histograms have different numbers of bins.
        """
        if not isinstance(other, SeverityTable):
            return NotImplemented
        bins = (self.score_histograms.shape[-1], other.score_histograms.shape[-1])
        if bins[0] != bins[1]:
            raise ValueError(f"tables to be added need equal numbers of bins, got {bins[0]} and {bins[1]}")
        return SeverityTable(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, one entry for each attribute."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> SeverityTable:
        """The table that ``to_json`` wrote.

        Raises:
            ValueError: if it is no mapping, an entry is missing, unknown or malformed, or it has not ``N_BINS`` bins.
        """
        names = {f.name for f in fields(SeverityTable)}
        if not isinstance(value, Mapping):
            raise ValueError(f"a table must be a mapping with the entries {sorted(names)}, got {type(value).__name__}")
        if set(value) != names:
            missing, unknown = sorted(names - set(value)), sorted(str(key) for key in set(value) - names)
            raise ValueError(f"a table has exactly the entries {sorted(names)}; missing {missing}, unknown {unknown}")
        table = SeverityTable(**value)
        # Tables of other bins do not add up, so one from elsewhere would end the sum of all.
        if table.score_histograms.shape[-1] != N_BINS:
            raise ValueError(f"score_histograms must have {N_BINS} bins, got {table.score_histograms.shape[-1]}")
        return table


def _whole_numbers(value: Any, name: str, shape: tuple[int | None, ...], limit: int) -> NDArray[np.int64]:
    """A read-only copy of ``value`` in ``shape``, where None stands for any length but 0."""
    accepted = f"({', '.join('any' if side is None else str(side) for side in shape)})"
    try:
        array = np.array(value)
    except ValueError:
        raise ValueError(f"{name} must have the shape {accepted}, got rows of unequal length") from None
    fits = array.ndim == len(shape) and all(w in (None, got) for w, got in zip(shape, array.shape, strict=True))
    if not fits or array.size == 0:
        raise ValueError(f"{name} must have the shape {accepted}, got {array.shape}")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > limit:
        raise ValueError(f"{name} must hold whole numbers from 0 to {limit}")
    array = array.astype(np.int64)
    array.flags.writeable = False
    return array


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _probabilities(value: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(value, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] != N_CLASSES:
        raise ValueError(f"probabilities must be (n, {N_CLASSES}), got {scores.shape}")
    # 1e-3: half-precision networks do not sum to 1 any better.
    if not (np.isfinite(scores).all() and (np.abs(scores.sum(axis=1) - 1) <= 1e-3).all() and (scores >= -1e-6).all()):
        raise ValueError("probabilities must be 0 or more, and each row must sum to 1")
    scores = np.clip(scores, 0.0, None)
    normalised: NDArray[np.float64] = scores / scores.sum(axis=1, keepdims=True)
    return normalised


def _column(value: ArrayLike, name: str, n: int) -> NDArray[np.float64]:
    column = np.asarray(value, dtype=np.float64)
    if column.shape != (n,) or not np.isfinite(column).all():
        raise ValueError(f"{name} must be ({n},) finite numbers, one a case, got shape {column.shape}")
    return column


def _true_counts(value: ArrayLike, n: int) -> NDArray[np.float64]:
    counts = _column(value, "true_counts", n)
    if (counts != np.floor(counts)).any() or (counts < 0).any():
        raise ValueError("true_counts must be whole numbers from 0 on")
    return counts


def _grades(value: ArrayLike, name: str, n: int) -> NDArray[np.int64]:
    grades = np.asarray(value)
    if n == 0 and grades.shape == (0,):
        return np.zeros(0, dtype=np.int64)
    if grades.shape != (n,) or grades.dtype.kind not in "iu" or not np.isin(grades, _RANKS).all():
        raise ValueError(f"{name} must be ({n},) whole numbers from 0 to {N_CLASSES - 1}")
    return grades.astype(np.int64)


def _histograms(scores: NDArray[np.float64], is_class: NDArray[np.bool_], n_bins: int) -> NDArray[np.int64]:
    if n_bins < 2:
        raise ValueError(f"n_bins must be 2 or more, got {n_bins}")
    bins = np.minimum((scores * n_bins).astype(np.int64), n_bins - 1)
    histograms = np.zeros((N_CLASSES, 2, n_bins), dtype=np.int64)
    np.add.at(histograms, (_RANKS[None, :], is_class.astype(np.int64), bins), 1)
    return histograms
