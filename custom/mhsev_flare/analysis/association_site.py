"""A site's part in a study of associations: from its table to arrays that may leave. No FLARE."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_flare.analysis.association_arrays import slopes_to_arrays, sums_to_arrays, table_key, table_to_array
from mhsev_flare.analysis.association_design import Design
from mhsev_flare.analysis.protocol import REGRESSION
from mhsev_flare.site_data import SiteError
from mhsev_flare.small_cells import Cell, small_cell
from mhsev_monai.associations import told_sums
from mhsev_monai.cases import read_cases
from mhsev_monai.clinical_covariates import ClinicalTable, read_clinical
from mhsev_monai.errors import CohortError
from mhsev_monai.proportional_odds import LEAST, LEAST_IN_ALL, OrdinalData, few_cases, ordinal_sums
from mhsev_monai.proportional_odds_check import slope_sums

CASES_A_VARIABLE = 10
"""A site with fewer complete cases for each variable of the regression sends nothing at all."""


@dataclass(frozen=True)
class TablesTold:
    """A site's answer to the first question.

    Attributes:
        arrays: sums by name of the table, see ``association_arrays``.
        withheld: the reason of each table that is not told, and of a regression that the site takes no part in.
        incomplete: patients with a value that is not known, or the range of a small number.
    """

    arrays: dict[str, NDArray[Any]]
    withheld: dict[str, str]
    incomplete: Cell


@dataclass(frozen=True)
class AssociationSite:
    """One site's cases and what it tells of them.

    Attributes:
        table: grades and variables of its patients.
        least: fewest cases of a grade or category that are told, ``LEAST`` or more.

    Raises:
        SiteError: if the site has too few cases to take any part; the message holds no number of its own.
    """

    table: ClinicalTable
    least: int = LEAST
    _data: OrdinalData = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        data = self.table.ordinal_data()
        fewest = max(LEAST_IN_ALL, CASES_A_VARIABLE * len(self.table.covariates), self.least)
        if data.grades.size < fewest:
            raise SiteError(f"fewer than {fewest} cases with all values known")
        object.__setattr__(self, "_data", data)

    def tables(self) -> TablesTold:
        """Tables without small cells, and whether the site takes part in the regression."""
        told = {table_key(name): sums for name, sums in told_sums(self.table, self.least).items()}
        arrays = {key: table_to_array(sums) for key, sums in told.items() if not isinstance(sums, str)}
        withheld = {key: sums for key, sums in told.items() if isinstance(sums, str)}
        reason = few_cases(self._data, self.least, LEAST_IN_ALL)
        if reason is not None:
            withheld[REGRESSION] = reason
        return TablesTold(arrays, withheld, small_cell(self._data.n_left_out, max(self.least, LEAST)))

    def sums(self, thresholds: Any, coefficients: Any) -> dict[str, NDArray[Any]]:
        """Log-likelihood, gradient and Hessian.

        Raises:
            SiteError: if the site takes no part in the regression, or the parameters do not fit.
        """
        self._check()
        try:
            return sums_to_arrays(ordinal_sums(self._data, thresholds, coefficients))
        except ValueError as error:
            raise SiteError("the parameters that came do not fit the variables and grades") from error

    def slopes(self, thresholds: Any, coefficients: Any) -> dict[str, NDArray[Any]]:
        """Gradient and information of the check; raises as :meth:`sums`."""
        self._check()
        try:
            return slopes_to_arrays(slope_sums(self._data, thresholds, coefficients))
        except ValueError as error:
            raise SiteError("the parameters that came do not fit the variables and grades") from error

    def _check(self) -> None:
        reason = few_cases(self._data, self.least, LEAST_IN_ALL)
        if reason is not None:
            raise SiteError(reason)


def read_association_site(site: str, data_root: Path, design: Design, least: int) -> AssociationSite:
    """The part of the site whose BIDS root this is; no image is opened.

    Args:
        site: name, for messages.
        data_root: of the site.
        design: of the study.
        least: of the site's policy; less than ``LEAST`` counts as that.

    Raises:
        SiteError: if the root cannot be used, or has too few cases.
    """
    try:
        table = read_clinical(read_cases(data_root).cases, design.covariates, design.cuts)
    except CohortError as error:
        raise SiteError(f"the data root of {site} cannot be used: {error}") from error
    return AssociationSite(table, max(least, LEAST))


def checked_question(arrays: Any, names: tuple[str, str] = ("thresholds", "coefficients")) -> tuple[Any, Any]:
    """Thresholds and coefficients of a question.

    Raises:
        SiteError: if it holds something else.
    """
    if not isinstance(arrays, dict) or set(arrays) != set(names):
        raise SiteError("the question holds no thresholds and coefficients; install the same mhsev everywhere")
    first, second = (arrays[name] for name in names)
    if not all(isinstance(value, np.ndarray) and value.dtype == np.float64 for value in (first, second)):
        raise SiteError("the question holds no thresholds and coefficients; install the same mhsev everywhere")
    return first, second
