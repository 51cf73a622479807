"""From a site's table of participants to what its part in an association needs: grades and clinical variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.association_tables import AssociationTable, GroupSums, bin_labels, bins, group_sums, tabulate
from mhsev_monai.cases import Case
from mhsev_monai.clinical_inputs import ClinicalInputs
from mhsev_monai.errors import CohortError
from mhsev_monai.proportional_odds import OrdinalData


class Covariate(NamedTuple):
    """A clinical variable of a study; all sites need the same.

    Attributes:
        column: of the table of participants.
        label: as written in results.
        per: units of the column that an odds ratio is of.
        centre: a usual value, in units of the column.
        edges: of the bins of a number; empty for a variable that is there or not (yes and no, M and F, 1 and 0).
    """

    column: str
    label: str
    per: float = 1.0
    centre: float = 0.0
    edges: tuple[float, ...] = ()


CLINICAL_COVARIATES = (
    Covariate("age", "age, 10 years", per=10.0, centre=70.0, edges=(60.0, 75.0)),
    Covariate("sex", "male sex"),
    Covariate("hypertension", "hypertension"),
    Covariate("diabetes", "diabetes"),
    Covariate("anticoagulant", "anticoagulant"),
    Covariate("antiplatelet", "antiplatelet"),
    Covariate("prior_stroke", "prior stroke"),
    Covariate("apoe_e4", "apoe e4"),
)
"""What is related to the grade unless others are named."""


def grade_labels(cuts: Sequence[int]) -> tuple[str, ...]:
    """Labels of the grades that counts fall in, such as ``0``, ``1-5``, ``6-10``, ``11+``.

    Args:
        cuts: least count of each grade above the lowest.

    Raises:
        ValueError: if they do not rise from 1 on.
    """
    bounds = [0, *cuts]
    if len(bounds) < 2 or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"cuts must rise from 1 on, at least one, got {list(cuts)}")
    ranges = (f"{low}-{high - 1}" if high - low > 1 else f"{low}" for low, high in pairwise(bounds))
    return (*ranges, f"{bounds[-1]}+")


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """Grades and variables of a site's patients, one row each.

    Attributes:
        grades: ``(n,)`` from 0 to the number of cuts.
        values: ``(n, p)``, NaN where not known.
        covariates: of the ``p`` columns.
        labels: of the grades.
    """

    grades: NDArray[np.int64]
    values: NDArray[np.float64]
    covariates: tuple[Covariate, ...]
    labels: tuple[str, ...]

    def ordinal_data(self) -> OrdinalData:
        """For the regression: patients of whom all variables are known."""
        known = np.isfinite(self.values).all(axis=1)
        centres, units = (np.array([getattr(c, name) for c in self.covariates]) for name in ("centre", "per"))
        return OrdinalData(
            grades=self.grades[known],
            covariates=(self.values[known] - centres) / units,
            names=tuple(covariate.label for covariate in self.covariates),
            n_grades=len(self.labels),
            n_left_out=int((~known).sum()),
        )

    def complete(self) -> ClinicalTable:
        """The patients of whom all variables are known, as the regression takes them."""
        known = np.isfinite(self.values).all(axis=1)
        return ClinicalTable(self.grades[known], self.values[known], self.covariates, self.labels)

    def table(self, covariate: Covariate) -> AssociationTable:
        """Patients by grade and category or bin of one variable that is known of them."""
        grades, values = self._known(covariate)
        if covariate.edges:
            return tabulate(grades, bins(values, covariate.edges), self.labels, bin_labels(covariate.edges))
        return tabulate(grades, values.astype(np.int64), self.labels, ("no", "yes"))

    def sums(self, covariate: Covariate) -> GroupSums:
        """Sums of one number, in units of its column, by grade."""
        return group_sums(*self._known(covariate), self.labels, covariate.centre)

    def _known(self, covariate: Covariate) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        values = self.values[:, self.covariates.index(covariate)]
        known = np.isfinite(values)
        return self.grades[known], values[known]


def read_clinical(cases: Sequence[Case], covariates: Sequence[Covariate], cuts: Sequence[int]) -> ClinicalTable:
    """The table of a site's patients.

    Of a patient with several scans the first counts, since the regression takes its cases to be independent.

    Args:
        cases: with counts, in the order of their sessions.
        covariates: variables of the study, all different.
        cuts: least count of each grade above the lowest.

    Raises:
        CohortError: if a variable that is there or not holds another number than 0 and 1.
        ValueError: if ``cuts`` do not rise, or there is no variable.
    """
    labels = grade_labels(cuts)
    inputs = ClinicalInputs([covariate.column for covariate in covariates])
    first = {case.subject: case for case in reversed(cases) if case.count is not None}
    patients = [first[subject] for subject in sorted(first)]
    found = np.array([inputs(case).vector(inputs.feature_names) for case in patients])
    values, known = np.split(found.reshape(len(patients), 2 * len(covariates)), 2, axis=1)
    for covariate, column, is_known in zip(covariates, values.T, known.T, strict=True):
        if not covariate.edges and not np.isin(column[is_known > 0], (0.0, 1.0)).all():
            raise CohortError(
                f"the column {covariate.column} of participants.tsv holds other numbers than 0 and 1; write yes and no"
            )
    grades = np.searchsorted(cuts, [case.count or 0 for case in patients], side="right")
    return ClinicalTable(grades, np.where(known > 0, values, np.nan), tuple(covariates), labels)
