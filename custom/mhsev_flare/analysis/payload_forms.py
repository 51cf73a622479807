"""Forms of what may leave a site in an analysis: shapes and sums that fit each other, and no small cell. No FLARE.

A form of the training's messages bounds type and size. Here each answer is rebuilt at the site, as the server will do:
what is no log-likelihood with its gradient and Hessian, or no table of attributions, does not leave, and neither does
an array with an entry for each patient in the place of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mhsev_flare.analysis.association_arrays import COUNTS, SUMS, slopes_from_arrays, sums_from_arrays
from mhsev_flare.analysis.association_design import KNOWN_COVARIATES, MOST_GRADES
from mhsev_flare.analysis.explanation_arrays import TABLE_ARRAYS, moments_from_arrays, table_from_arrays
from mhsev_flare.analysis.player_sizes import N_BINS, SizeMoments
from mhsev_flare.analysis.protocol import (
    REGRESSION,
    TASK_ATTRIBUTE,
    TASK_MEASURE,
    TASK_SLOPES,
    TASK_SUMS,
    TASK_TABLES,
    Entry,
)
from mhsev_flare.payload_forms import Array, Form, Record, kind_of
from mhsev_monai.proportional_odds import LEAST
from mhsev_monai.shapley_outputs import COUNT_OUTPUTS
from mhsev_monai.shapley_tables import LEAST_CASES

MOST_PLAYERS = 64
"""Groups of features and the number of dark spots; the shipped models have up to nine."""

MOST_FEATURES = 300
"""Of second moments; the widest of the shipped inputs has 259."""

_MOST_SLOPES = (MOST_GRADES - 1) * (1 + len(KNOWN_COVARIATES))
_KIB = 2**10


@dataclass(frozen=True)
class Shaped:
    """An array of one type, without more dimensions or longer ones than are given, and finite.

    Attributes:
        dtype: its name.
        most: the longest that each dimension may be.
    """

    dtype: str
    most: tuple[int, ...]

    def __call__(self, value: Any) -> str:
        """Whether it is such an array."""
        complaint = Array((self.dtype,))(value)
        if complaint:
            return complaint
        fits = value.ndim == len(self.most) and all(
            0 < n <= most for n, most in zip(value.shape, self.most, strict=True)
        )
        if not fits:
            return f"is {kind_of(value)} of another shape than is expected"
        return "" if np.isfinite(value).all() else "holds entries that are not finite"


@dataclass(frozen=True)
class NoSmallCells:
    """An array of numbers of cases, none of which is from 1 to ``least - 1``.

    Attributes:
        form: of the array.
        least: smallest number above 0 that is told.
        first: whether the first row alone is numbers of cases.
    """

    form: Form
    least: int = LEAST
    first: bool = False

    def __call__(self, value: Any) -> str:
        """Whether it holds no small number."""
        complaint = self.form(value)
        if complaint:
            return complaint
        cells = value[0] if self.first else value
        small = ((cells < self.least) & (cells != 0)).any()
        return "holds a number of cases that is too small to be told" if small else ""


@dataclass(frozen=True)
class Rebuilt:
    """A mapping of all of these arrays and no others, from which what they are can be made.

    Attributes:
        forms: of the arrays.
        build: makes it, and raises an exception where it cannot.
    """

    forms: Mapping[str, Form]
    build: Callable[[Mapping[str, Any]], Any]

    def __call__(self, value: Any) -> str:
        """What is wrong with the first wrong array, or that together they are not what they should be."""
        complaint = Record(self.forms)(value)
        if complaint:
            return complaint
        if set(value) != set(self.forms):
            return f"has {len(value)} of {len(self.forms)} arrays that go together"
        try:
            self.build(value)
        except Exception:
            # Its text could hold numbers.
            return "holds arrays that do not fit each other"
        return ""


def _tables() -> dict[str, Form]:
    forms: dict[str, Form] = {}
    for column, covariate in KNOWN_COVARIATES.items():
        n_columns = len(covariate.edges) + 1 if covariate.edges else 2
        forms[f"{column}.{COUNTS}"] = NoSmallCells(Shaped("int64", (MOST_GRADES, n_columns)))
        if covariate.edges:
            forms[f"{column}.{SUMS}"] = NoSmallCells(Shaped("float64", (3, MOST_GRADES)), first=True)
    return forms


def _sums() -> Form:
    size = MOST_GRADES - 1 + len(KNOWN_COVARIATES)
    forms: dict[str, Form] = {
        "grade_counts": NoSmallCells(Shaped("int64", (MOST_GRADES,))),
        "log_likelihood": Shaped("float64", (1,)),
        "gradient": Shaped("float64", (size,)),
        "hessian": Shaped("float64", (size * (size + 1) // 2,)),
    }
    return Rebuilt(forms, sums_from_arrays)


def _slopes() -> Form:
    triangle = _MOST_SLOPES * (_MOST_SLOPES + 1) // 2
    forms = {"gradient": Shaped("float64", (_MOST_SLOPES,)), "information": Shaped("float64", (triangle,))}
    return Rebuilt(forms, slopes_from_arrays)


def _sizes() -> Form:
    numbers = Shaped("float64", (MOST_PLAYERS,))
    n = NoSmallCells(Shaped("int64", (MOST_PLAYERS,)), LEAST_CASES)
    forms: dict[str, Form] = {"n": n, "mean": numbers, "squared_deviation": numbers}
    return Rebuilt(forms, _moments_of_sizes)


def _moments_of_sizes(arrays: Mapping[str, Any]) -> SizeMoments:
    moments = SizeMoments.from_arrays(arrays, arrays["n"].size)
    if moments.shows_few(LEAST_CASES):
        raise ValueError("the number of scans without a dark spot follows, and is small")
    return moments


def _moments() -> Form:
    forms = {
        "n": Shaped("int64", (1,)),
        "mean": Shaped("float64", (MOST_FEATURES,)),
        "scatter": Shaped("float64", (MOST_FEATURES * (MOST_FEATURES + 1) // 2,)),
    }
    return Rebuilt(forms, lambda arrays: moments_from_arrays(arrays, arrays["mean"].size))


def _attributions() -> Form:
    players, outputs = MOST_PLAYERS, len(COUNT_OUTPUTS)
    shapes = {
        **dict.fromkeys(TABLE_ARRAYS, (players, outputs)),
        "output_sum": (outputs,),
        "bin_counts": (players, N_BINS),
        "bin_sums": (players, N_BINS, outputs),
    }
    forms: dict[str, Form] = {name: Shaped("float64", shape) for name, shape in shapes.items()}
    forms["n"] = NoSmallCells(Shaped("int64", (1,)), LEAST_CASES)
    forms["bin_counts"] = NoSmallCells(Shaped("int64", (players, N_BINS)), LEAST_CASES)
    return Rebuilt(forms, _table)


def _table(arrays: Mapping[str, Any]) -> Any:
    n_players, n_outputs = arrays["absolute_sum"].shape
    names = ([f"player {k}" for k in range(n_players)], [f"output {k}" for k in range(n_outputs)])
    if int(arrays["n"][0]) < LEAST_CASES:
        raise ValueError("too few cases")
    return table_from_arrays(arrays, names, N_BINS)


def analysis_forms(refusal: Form, cell: Form) -> dict[str, tuple[dict[str, Form], int]]:
    """Forms of the entries beside an answer's arrays, and the most bytes of the answer, by task.

    Args:
        refusal: of a sentence.
        cell: of a number of cases or a range.
    """
    reasons = Record(dict.fromkeys((REGRESSION, *_tables()), refusal))
    return {
        TASK_TABLES: (
            {Entry.TABLES: Record(_tables()), Entry.WITHHELD: reasons, Entry.INCOMPLETE: cell},
            16 * _KIB,
        ),
        TASK_SUMS: ({Entry.SUMS: _sums()}, 4 * _KIB),
        TASK_SLOPES: ({Entry.SLOPES: _slopes()}, 16 * _KIB),
        TASK_MEASURE: (
            {
                Entry.SIZES: _sizes(),
                Entry.SECOND_MOMENTS: _moments(),
                Entry.WITHHELD: Record({Entry.SECOND_MOMENTS: refusal}),
            },
            512 * _KIB,
        ),
        TASK_ATTRIBUTE: ({Entry.ATTRIBUTIONS: _attributions()}, 64 * _KIB),
    }
