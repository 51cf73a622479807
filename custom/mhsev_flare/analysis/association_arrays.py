"""Sums of an association as the arrays of a message, and back: symmetric matrices as their upper triangle. No FLARE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_flare.analysis.answer_bounds import LARGEST_VALUE, check_cases, check_sizes
from mhsev_monai.association_tables import AssociationTable, GroupSums, bin_labels
from mhsev_monai.associations import SumsName
from mhsev_monai.clinical_covariates import Covariate
from mhsev_monai.proportional_odds import LEAST, OrdinalSums
from mhsev_monai.proportional_odds_check import SlopeSums

COUNTS, SUMS = "counts", "sums"


def upper_triangle(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(d (d + 1) / 2,)`` of a symmetric ``(d, d)``, row by row from the diagonal on."""
    return np.asarray(matrix[np.triu_indices(len(matrix))], dtype=np.float64)


def symmetric(triangle: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The ``(size, size)`` matrix of an upper triangle.

    Raises:
        ValueError: if it is the triangle of another size.
    """
    if np.shape(triangle) != (size * (size + 1) // 2,):
        raise ValueError(f"the triangle of {size} rows has {size * (size + 1) // 2} entries, got {np.size(triangle)}")
    matrix = np.zeros((size, size))
    rows, columns = np.triu_indices(size)
    matrix[rows, columns] = matrix[columns, rows] = triangle
    return matrix


def sums_to_arrays(sums: OrdinalSums) -> dict[str, NDArray[Any]]:
    """A site's answer for the regression."""
    return {
        "grade_counts": sums.grade_counts.astype(np.int64),
        "log_likelihood": np.array([sums.log_likelihood]),
        "gradient": sums.gradient,
        "hessian": upper_triangle(sums.hessian),
    }


def sums_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> OrdinalSums:
    """What :func:`sums_to_arrays` made; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    size = len(arrays["gradient"])
    value = np.asarray(arrays["log_likelihood"])
    if value.shape != (1,):
        raise ValueError("log_likelihood must be one number")
    check_cases(arrays["grade_counts"])
    for name in ("log_likelihood", "gradient", "hessian"):
        check_sizes(arrays[name])
    return OrdinalSums(arrays["grade_counts"], float(value[0]), arrays["gradient"], symmetric(arrays["hessian"], size))


def slopes_to_arrays(sums: SlopeSums) -> dict[str, NDArray[Any]]:
    """A site's answer for the check."""
    return {"gradient": sums.gradient, "information": upper_triangle(sums.information)}


def slopes_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> SlopeSums:
    """What :func:`slopes_to_arrays` made; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    for name in ("gradient", "information"):
        check_sizes(arrays[name])
    return SlopeSums(arrays["gradient"], symmetric(arrays["information"], len(arrays["gradient"])))


def table_key(name: SumsName) -> str:
    """How a message calls the sums of a variable, such as ``age.sums``."""
    return f"{name.column}.{SUMS if name.test == 'ANOVA' else COUNTS}"


def table_to_array(sums: AssociationTable | GroupSums) -> NDArray[Any]:
    """``(R, C)`` int64 cases by grade and category, or ``(3, R)`` float64: numbers, sums and squares by grade."""
    if isinstance(sums, AssociationTable):
        return sums.counts.astype(np.int64)
    return np.stack([sums.n.astype(np.float64), sums.total, sums.squares])


def table_from_array(
    name: SumsName, array: NDArray[Any], covariate: Covariate, labels: Sequence[str]
) -> AssociationTable | GroupSums:
    """What :func:`table_to_array` made of sums without small cells; raises ``ValueError`` for anything else."""
    if name.test != "ANOVA":
        columns = bin_labels(covariate.edges) if covariate.edges else ("no", "yes")
        check_cases(array)
        return AssociationTable(tuple(labels), columns, array, LEAST)
    if np.shape(array) != (3, len(labels)) or (np.asarray(array[0]) != np.floor(array[0])).any():
        raise ValueError(f"sums by grade must be (3, {len(labels)}) with whole numbers first")
    check_sizes(array)
    n, total, squares = array[0].astype(np.int64), array[1], array[2]
    check_cases(n)
    # The sums of numbers of this size at most; that total^2 is n times squares at most is looked at below.
    if (squares > n * LARGEST_VALUE**2).any():
        raise ValueError("sums by grade must be of numbers near the centre")
    return GroupSums(tuple(labels), n, total, squares, covariate.centre, LEAST)
