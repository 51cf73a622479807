"""What grades without a look at the scan: age, sex and risk factors from the table of participants."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cases import Case
from mhsev_monai.feature_cache import CaseFeatures

COLUMNS = (
    "age",
    "sex",
    "hypertension",
    "diabetes",
    "anticoagulant",
    "antiplatelet",
    "prior_stroke",
    "apoe_e4",
)
"""Columns that are read unless others are named. Never one that tells of microbleeds."""

_NUMBER_OF = {"f": 0.0, "female": 0.0, "m": 1.0, "male": 1.0, "no": 0.0, "n": 0.0, "yes": 1.0, "y": 1.0}


class ClinicalInputs:
    """Clinical variables of a case, each with a flag that says whether it is known.

    Numbers are read as they are, F and M as 0 and 1, no and yes as 0 and 1; anything else is unknown. An unknown value
    is 0 and its flag is 0. The scan is not opened. With a perceptron without hidden layers over them, the ordinal head
    is a continuation-ratio regression: what a reader of the referral alone could say.

    Args:
        columns: of the table of participants.

    Raises:
        ValueError: if there is none, or one comes twice.
    """

    reads_scan = False

    def __init__(self, columns: Sequence[str] = COLUMNS) -> None:
        if not columns or len(set(columns)) != len(columns):
            raise ValueError(f"columns must be different names, at least one; got {list(columns)}")
        self.columns = list(columns)

    _always_serialize_args = ("columns",)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each entry of the vector: the values, then the flags."""
        return (*self.columns, *(f"knows_{column}" for column in self.columns))

    def fingerprint(self) -> str:
        """64 hexadecimal digits over the columns: what a model is tied to."""
        return hashlib.sha256(json.dumps({"kind": "clinical/1", "columns": self.columns}).encode()).hexdigest()

    def computation(self) -> str:
        """The same; there is nothing to keep that reading the table again would not give."""
        return self.fingerprint()

    def __call__(self, case: Case) -> CaseFeatures:
        """The variables of one case."""
        found = [_number(case.clinical.get(column)) for column in self.columns]
        values = [0.0 if number is None else number for number in found]
        known = [float(number is not None) for number in found]
        return CaseFeatures(dict(zip(self.feature_names, [*values, *known], strict=True)), {})

    def assemble(self, found: CaseFeatures) -> NDArray[np.float32]:
        """``(len(feature_names),)``; raises ``KeyError`` for a value that is not there."""
        return found.vector(self.feature_names).astype(np.float32)


def _number(value: float | str | None) -> float | None:
    return _NUMBER_OF.get(value.strip().lower()) if isinstance(value, str) else value
