"""What a study of associations asks of all sites alike: variables and grades. No FLARE."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mhsev_flare.site_data import SiteError
from mhsev_monai.clinical_covariates import CLINICAL_COVARIATES, Covariate, grade_labels

MOST_GRADES = 6
"""More grades than these leave cells with few cases at every hospital."""

KNOWN_COVARIATES = {covariate.column: covariate for covariate in CLINICAL_COVARIATES}


@dataclass(frozen=True)
class Design:
    """Variables and grades.

    Attributes:
        columns: of the table of participants, of ``KNOWN_COVARIATES``.
        cuts: least number of microbleeds of each grade above the lowest.

    Raises:
        ValueError: if a variable is not known or comes twice, there is none, or the grades are too many or do not rise.
    """

    columns: tuple[str, ...]
    cuts: tuple[int, ...]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(KNOWN_COVARIATES))
        if unknown or not self.columns or len(set(self.columns)) < len(self.columns):
            raise ValueError(
                f"columns must be some of {', '.join(KNOWN_COVARIATES)}, each once; got {', '.join(self.columns)}"
            )
        grade_labels(self.cuts)
        if len(self.cuts) >= MOST_GRADES:
            raise ValueError(f"cuts must make {MOST_GRADES} grades at most, got {len(self.cuts) + 1}")

    @property
    def covariates(self) -> tuple[Covariate, ...]:
        """The variables."""
        return tuple(KNOWN_COVARIATES[column] for column in self.columns)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the grades."""
        return grade_labels(self.cuts)

    def digest(self) -> str:
        """64 hexadecimal digits, which differ where a version of this package has other units or bins."""
        told = {"cuts": list(self.cuts), "variables": [covariate._asdict() for covariate in self.covariates]}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def to_message(self) -> dict[str, Any]:
        """Plain values, for a message."""
        return {"columns": list(self.columns), "cuts": list(self.cuts)}

    @staticmethod
    def from_message(value: Any) -> Design:
        """What :meth:`to_message` made.

        Raises:
            SiteError: if it is something else; what came is not repeated.
        """
        if not isinstance(value, dict) or set(value) != {"columns", "cuts"}:
            raise SiteError("the question names no variables and grades; install the same mhsev everywhere")
        columns, cuts = value["columns"], value["cuts"]
        if not _are(columns, str) or not _are(cuts, int):
            raise SiteError("the question names no variables and grades; install the same mhsev everywhere")
        try:
            return Design(tuple(columns), tuple(cuts))
        except ValueError as error:
            raise SiteError("the question names variables or grades that this version does not know") from error


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, Sequence) and all(type(value) is kind for value in values)
