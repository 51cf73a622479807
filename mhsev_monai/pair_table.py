"""Two graders of the same cases from one table that adds up over sites: which of them is better, and by how much.

A site sends how many of its cases have each true grade, grade by the first and grade by the second: 64 numbers. From
these follow McNemar's exact test, the Stuart-Maxwell test, and a bootstrap of the differences that draws cases, with
both their grades, anew within each site. No test over repeated splits is made of them: a naive paired t-test called one
of two equally good models better in 31 %, an ANOVA in 35 % of 600 simulations, where 5 % were meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhsev_monai.agreement_tests import SquareTest, stuart_maxwell
from mhsev_monai.checked_arrays import check_entries, class_indices, whole_numbers
from mhsev_monai.metrics import draw_counts
from mhsev_monai.severity_table import N_CLASSES, SeverityTable
from mhsev_monai.statistics import (
    Difference,
    PairedDifferences,
    agreement_scores,
    difference_of_draws,
    holm,
    mcnemar_of_counts,
)

N_DRAWS = 2000


@dataclass(frozen=True, eq=False)
class PairTable:
    """Cases by true grade, grade of the first and grade of the second grader: ``(4, 4, 4)`` counts.

    Raises:
        ValueError: if the shape or a value is not possible.
    """

    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", whole_numbers(self.counts, "counts", (N_CLASSES,) * 3))

    @property
    def n(self) -> int:
        """Number of cases."""
        return int(self.counts.sum())

    @staticmethod
    def from_grades(truth: ArrayLike, first: ArrayLike, second: ArrayLike) -> PairTable:
        """The table of ``(n,)`` cases; raises ``ValueError`` if lengths differ or a grade is none."""
        true = class_indices(truth, "truth", None, N_CLASSES)
        graded = [
            class_indices(grades, name, true.size, N_CLASSES) for name, grades in (("first", first), ("second", second))
        ]
        cells = (true * N_CLASSES + graded[0]) * N_CLASSES + graded[1]
        return PairTable(np.bincount(cells, minlength=N_CLASSES**3).reshape((N_CLASSES,) * 3))

    @staticmethod
    def with_constant(table: SeverityTable, grade: int) -> PairTable:
        """The grader of ``table`` beside one that gives every case the same ``grade``."""
        counts = np.zeros((N_CLASSES,) * 3, dtype=np.int64)
        counts[:, :, grade] = table.confusion
        return PairTable(counts)

    def __add__(self, other: PairTable) -> PairTable:
        """The table of both sites' cases."""
        if not isinstance(other, PairTable):
            return NotImplemented
        return PairTable(self.counts + other.counts)

    def only_right(self) -> tuple[int, int]:
        """Cases that the first alone, and the second alone, has right."""
        right = np.eye(N_CLASSES, dtype=np.int64)
        first = (self.counts * (right[:, :, None] * (1 - right[:, None, :]))).sum()
        second = (self.counts * ((1 - right[:, :, None]) * right[:, None, :])).sum()
        return int(first), int(second)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, one entry for each attribute."""
        return {"counts": self.counts.tolist()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> PairTable:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {"counts"}, "a pair table")
        return PairTable(value["counts"])


@dataclass(frozen=True)
class PairedComparison:
    """Two graders on some cases.

    Attributes:
        cases: whose cases, such as a site.
        first: name of the one grader.
        second: name of the other.
        n: number of cases.
        only_right: cases that the first alone, and the second alone, has right.
        mcnemar: p-value of equally many errors.
        margins: whether both use the grades equally often; None where that cannot be tested.
        differences: first less second.
    """

    cases: str
    first: str
    second: str
    n: int
    only_right: tuple[int, int]
    mcnemar: float
    margins: SquareTest | None
    differences: PairedDifferences


def compare(
    names: tuple[str, str, str], tables: Sequence[PairTable], seed: int, n_draws: int = N_DRAWS
) -> PairedComparison:
    """Compare two graders on the pooled cases of ``tables``.

    Args:
        names: whose cases, first and second grader.
        tables: one a site, at least one.
        seed: of the draws.
        n_draws: bootstrap samples.
    """
    pooled = PairTable(np.sum([table.counts for table in tables], axis=0))
    only_right = pooled.only_right()
    try:
        margins = stuart_maxwell(pooled.counts.sum(axis=0))
    except ValueError:
        margins = None
    differences = bootstrap_differences(tables, np.random.default_rng([seed, 4]), n_draws)
    return PairedComparison(*names, pooled.n, only_right, mcnemar_of_counts(*only_right), margins, differences)


def bootstrap_differences(
    tables: Sequence[PairTable], random: np.random.Generator, n_draws: int = N_DRAWS
) -> PairedDifferences:
    """What ``statistics.paired_bootstrap`` says of the same cases, from their tables.

    Args:
        tables: one a site, at least one.
        random: of the draws.
        n_draws: bootstrap samples, 100 or more.
    """
    counts = [table.counts for table in tables]
    # The first row takes every case once: the difference itself, by the same arithmetic as that of the draws.
    drawn = np.concatenate([np.sum(counts, axis=0)[None], draw_counts(counts, random, n_draws)])
    scores = [agreement_scores(drawn.sum(axis=axis)) for axis in (3, 2)]
    accuracy, kappa = (difference_of_draws(first - second) for first, second in zip(*scores, strict=True))
    return PairedDifferences(accuracy, kappa)


def comparisons_json(comparisons: Sequence[PairedComparison]) -> list[dict[str, Any]]:
    """The comparisons as ``result.json`` tells them; each test is adjusted by Holm over all of them."""
    mcnemar = holm([c.mcnemar for c in comparisons])
    margins = holm([np.nan if c.margins is None else c.margins.p_value for c in comparisons])
    accuracy = holm([c.differences.accuracy.p_value for c in comparisons])
    kappa = holm([c.differences.quadratic_kappa.p_value for c in comparisons])
    return [
        {
            **{"cases": c.cases, "first": c.first, "second": c.second, "n": c.n},
            "mcnemar": {
                "only_first": c.only_right[0],
                "only_second": c.only_right[1],
                "p": c.mcnemar,
                "p_holm": _known(mcnemar[i]),
            },
            "stuart_maxwell": None
            if c.margins is None
            else {
                "statistic": c.margins.statistic,
                "degrees_of_freedom": c.margins.degrees_of_freedom,
                "p": c.margins.p_value,
                "p_holm": _known(margins[i]),
            },
            "accuracy": _difference(c.differences.accuracy, accuracy[i]),
            "quadratic_kappa": _difference(c.differences.quadratic_kappa, kappa[i]),
        }
        for i, c in enumerate(comparisons)
    ]


def _difference(found: Difference, adjusted: float) -> dict[str, Any]:
    low, high = _known(found.low), _known(found.high)
    return {
        "difference": _known(found.value),
        "interval": None if low is None or high is None else [low, high],
        "p": _known(found.p_value),
        "p_holm": _known(adjusted),
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
