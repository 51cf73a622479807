"""Tables of the grade against a clinical variable that a site may send and that add up.

Three kinds of sums: cases by grade and category (chi-square, Cramer's V), the same with a number in bins (Spearman),
and number, sum and sum of squares of a variable by grade (analysis of variance). All are of the pooled cases and look
at one variable at a time: where sites differ in both the variable and the grade, that difference shows as an
association. The regression (``proportional_odds_fit``) adjusts for site and for the other variables; these tables are
to be read beside it. The tests made of them are in ``association_tests``.

At the site, a grade with a cell from 1 to ``least - 1`` is left out as a whole, so that a row of zeros means "left out
or no case". To send the small cells alone as 0, as is usual for reports, would make associations where there are none:
with three sites of 220, 170 and 110 cases and a variable that 18 % have, chi-square at 5 % then called 47 % of 1500
simulated tables without an association significant, and 5 % where the grade was left out. Who knows the rule and each
grade's number of cases learns no small cell; who also knows the numbers by category can subtract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhsev_monai.checked_arrays import check_entries, class_indices, finite_numbers, whole_numbers
from mhsev_monai.proportional_odds import LEAST, LEAST_IN_ALL, StaysOutError


@dataclass(frozen=True, eq=False)
class AssociationTable:
    """Cases by grade and category.

    Attributes:
        rows: labels of the grades, in rising order.
        columns: labels of the categories or bins; bins in rising order.
        counts: ``(R, C)`` cases.
        least: grades with a smaller cell were left out; 0 where nothing is. Of a sum, the smallest of the sites'.

    Raises:
        ValueError: if labels come twice, or shapes or values are not possible.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: NDArray[np.int64]
    least: int = 0

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            object.__setattr__(self, name, _labels(getattr(self, name), name))
        object.__setattr__(self, "counts", whole_numbers(self.counts, "counts", (len(self.rows), len(self.columns))))
        object.__setattr__(self, "least", _least(self.least))
        if ((self.counts > 0) & (self.counts < self.least)).any():
            raise ValueError(
                f"counts holds cells from 1 to {self.least - 1}, which least = {self.least} says are hidden"
            )

    @property
    def n(self) -> int:
        """Cases that are shown."""
        return int(self.counts.sum())

    def for_sending(self, least: int = LEAST, least_in_all: int = LEAST_IN_ALL) -> AssociationTable:
        """The table without the grades that have a small cell.

        Raises:
            StaysOutError: if there are few cases in all.
        """
        hidden = hidden_rows(self.counts, least, least_in_all)
        return AssociationTable(self.rows, self.columns, np.where(hidden[:, None], 0, self.counts), least)

    def __add__(self, other: AssociationTable) -> AssociationTable:
        """The table of both sites' cases.

        Raises:
            ValueError: if their labels differ.
        """
        if not isinstance(other, AssociationTable):
            return NotImplemented
        if (self.rows, self.columns) != (other.rows, other.columns):
            raise ValueError("tables to be added need equal rows and columns, in the same order")
        least = min(self.least, other.least)
        return AssociationTable(self.rows, self.columns, self.counts + other.counts, least)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, one entry for each attribute."""
        return {
            "rows": list(self.rows),
            "columns": list(self.columns),
            "counts": self.counts.tolist(),
            "least": self.least,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> AssociationTable:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(AssociationTable)}, "a table")
        return AssociationTable(**value)


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Sums of a number by grade.

    Attributes:
        rows: labels of the grades.
        n: ``(R,)`` cases.
        total: ``(R,)`` sum of value - ``centre``.
        squares: ``(R,)`` sum of (value - ``centre``)^2.
        centre: a number near the values that all sites know, so that little is lost when squares are subtracted.
        least: grades with fewer cases were sent as 0; 0 where nothing is hidden. Of a sum, the smallest of the sites'.

    Raises:
        ValueError: if labels come twice, or the sums are of no numbers.
    """

    rows: tuple[str, ...]
    n: NDArray[np.int64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    centre: float = 0.0
    least: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _labels(self.rows, "rows"))
        shape = (len(self.rows),)
        object.__setattr__(self, "n", whole_numbers(self.n, "n", shape))
        for name in ("total", "squares"):
            object.__setattr__(self, name, finite_numbers(getattr(self, name), name, shape))
        object.__setattr__(self, "centre", float(finite_numbers(self.centre, "centre", ())))
        object.__setattr__(self, "least", _least(self.least))
        # By Cauchy and Schwarz; the margin covers the order of additions, no more.
        if (self.total**2 > self.n * self.squares * (1 + 1e-9) + 1e-12).any() or (self.squares < 0).any():
            raise ValueError("total and squares must be sums over n numbers: total^2 exceeds n times squares")
        if ((self.n > 0) & (self.n < self.least)).any():
            raise ValueError(f"n holds groups of 1 to {self.least - 1}, which least = {self.least} says are hidden")

    def for_sending(self, least: int = LEAST, least_in_all: int = LEAST_IN_ALL) -> GroupSums:
        """The sums without the grades that have few cases.

        Raises:
            StaysOutError: if there are few cases in all, or the total would tell how many a grade has.
        """
        hidden = hidden_groups(self.n, least, least_in_all)
        n, total, squares = (np.where(hidden, 0, sums) for sums in (self.n, self.total, self.squares))
        return GroupSums(self.rows, n, total, squares, self.centre, least)

    def __add__(self, other: GroupSums) -> GroupSums:
        """The sums of both sites' cases.

        Raises:
            ValueError: if their labels or centres differ.
        """
        if not isinstance(other, GroupSums):
            return NotImplemented
        if (self.rows, self.centre) != (other.rows, other.centre):
            raise ValueError("sums to be added need equal rows and one centre")
        n, total, squares = self.n + other.n, self.total + other.total, self.squares + other.squares
        return GroupSums(self.rows, n, total, squares, self.centre, min(self.least, other.least))

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, one entry for each attribute."""
        arrays = {name: getattr(self, name).tolist() for name in ("n", "total", "squares")}
        return {"rows": list(self.rows), **arrays, "centre": self.centre, "least": self.least}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> GroupSums:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(GroupSums)}, "sums")
        return GroupSums(**value)


def hidden_rows(counts: ArrayLike, least: int, least_in_all: int) -> NDArray[np.bool_]:
    """``(R,)``, which rows of a table of two or more columns are left out: those with a cell from 1 to ``least - 1``.

    Args:
        counts: ``(R, C)`` cases.
        least: the smallest number above 0 that is told.
        least_in_all: fewest cases of a table that is sent.

    Raises:
        StaysOutError: if there are fewer cases in all.
        ValueError: if ``least`` is below 1, or there is only one column, where a row's total is its cell.
    """
    cells = _enough(counts, least, least_in_all)
    if cells.ndim != 2 or cells.shape[1] < 2:
        raise ValueError(f"counts must be (rows, columns), two or more columns, got {cells.shape}")
    return np.asarray(((cells > 0) & (cells < least)).any(axis=1))


def hidden_groups(n: ArrayLike, least: int, least_in_all: int) -> NDArray[np.bool_]:
    """``(R,)``, which groups are left out: those of 1 to ``least - 1`` cases.

    Args:
        n: ``(R,)`` cases.
        least: the smallest number above 0 that is told.
        least_in_all: fewest cases of sums that are sent.

    Raises:
        StaysOutError: if there are fewer cases in all, or what is missing from the total is one group's number: only
            one shows 0, or all that do must have ``least - 1``.
        ValueError: if ``least`` is below 1.
    """
    cells = _enough(n, least, least_in_all)
    small = (cells > 0) & (cells < least)
    n_zero, n_missing = int((cells < least).sum()), int(cells[small].sum())
    if n_missing and (n_zero == 1 or n_missing == n_zero * (least - 1)):
        raise StaysOutError("the total would tell how many cases a grade has; join grades, on all sites alike")
    return np.asarray(small)


def _enough(counts: ArrayLike, least: int, least_in_all: int) -> NDArray[np.int64]:
    if least < 1:
        raise ValueError(f"least must be 1 or more, got {least}")
    cells = np.asarray(counts)
    if cells.sum() < least_in_all:
        raise StaysOutError(f"fewer than {least_in_all} cases")
    return cells


def tabulate(grades: ArrayLike, categories: ArrayLike, rows: Sequence[str], columns: Sequence[str]) -> AssociationTable:
    """The table of a site's cases, nothing hidden.

    Args:
        grades: ``(n,)`` indices into ``rows``.
        categories: ``(n,)`` indices into ``columns``.
        rows: labels of the grades.
        columns: labels of the categories.

    Raises:
        ValueError: if lengths differ or an index is out of range.
    """
    down = class_indices(grades, "grades", None, len(rows))
    across = class_indices(categories, "categories", down.size, len(columns))
    counts = np.bincount(down * len(columns) + across, minlength=len(rows) * len(columns))
    return AssociationTable(tuple(rows), tuple(columns), counts.reshape(len(rows), len(columns)))


def bins(values: ArrayLike, edges: Sequence[float]) -> NDArray[np.int64]:
    """``(n,)`` bin of each finite value: 0 below the first edge, then from each edge on; edges rise.

    Raises:
        ValueError: if a value is not finite or edges do not rise.
    """
    numbers = finite_numbers(values, "values", np.shape(values))
    bounds = finite_numbers(edges, "edges", (len(edges),))
    if bounds.size == 0 or (np.diff(bounds) <= 0).any():
        raise ValueError(f"edges must rise, at least one, got {list(edges)}")
    return np.searchsorted(bounds, numbers, side="right").astype(np.int64)


def bin_labels(edges: Sequence[float]) -> tuple[str, ...]:
    """A label for each bin of :func:`bins`."""
    between = (f"{low:g} to below {high:g}" for low, high in pairwise(edges))
    return (f"below {edges[0]:g}", *between, f"{edges[-1]:g} and more")


def group_sums(grades: ArrayLike, values: ArrayLike, rows: Sequence[str], centre: float = 0.0) -> GroupSums:
    """Sums of a site's numbers by grade, nothing hidden.

    Args:
        grades: ``(n,)`` indices into ``rows``.
        values: ``(n,)`` finite numbers.
        rows: labels of the grades.
        centre: the same at each site.

    Raises:
        ValueError: if lengths differ, or a value is not possible.
    """
    index = class_indices(grades, "grades", None, len(rows))
    numbers = finite_numbers(values, "values", (index.size,)) - centre
    total, squares = (np.bincount(index, weights, len(rows)).astype(np.float64) for weights in (numbers, numbers**2))
    return GroupSums(tuple(rows), np.bincount(index, minlength=len(rows)), total, squares, centre)


def _labels(value: Any, name: str) -> tuple[str, ...]:
    labels = tuple(value) if isinstance(value, list | tuple) else ()
    if not labels or len(set(labels)) != len(labels) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{name} must be different texts, at least one, got {value!r}")
    return labels


def _least(value: Any) -> int:
    return int(whole_numbers(value, "least", ()))
