"""How far the grade of one scan is to be trusted: calibrated probabilities, a set of grades, and when none is given.

A model abstains where its answer says nothing, or the scan is none that it can speak of. The grade and the count are
still told, since who reads them may know better; what acts on a grade by itself should not act on one that comes with
an abstention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mhsev_monai.grade_calibration import GradeCalibration
from mhsev_monai.oddness import Oddness
from mhsev_monai.quality import ODD_DEVIATION
from mhsev_monai.severity import Severity

ODD_SCAN, WHOLE_SET, EMPTY_SET = "odd_scan", "whole_set", "empty_set"

ABSTENTIONS: Mapping[str, str] = MappingProxyType(
    {
        ODD_SCAN: "the scan is unlike those that the model was trained with",
        WHOLE_SET: "every grade is possible",
        EMPTY_SET: "no grade is likely enough",
    }
)
"""Why a model abstains, by its code, in the order in which they are looked for."""


class Trust(NamedTuple):
    """What is known of a grade beside itself.

    Attributes:
        probabilities: of each grade, at the model's temperature.
        calibrated: whether they are at a temperature that was fitted; where it stayed 1 there can be a prediction set
            all the same.
        prediction_set: grades that may be the true one; None without a calibration.
        set_coverage: share of cases, like those that it was made with, whose set holds the true grade; None likewise.
        oddness: how unlike the training cases the scan is.
        abstains: a key of ``ABSTENTIONS``; None where the model does not abstain.
    """

    probabilities: dict[str, float]
    calibrated: bool
    prediction_set: tuple[str, ...] | None
    set_coverage: float | None
    oddness: Oddness
    abstains: str | None


def trust(calibration: GradeCalibration | None, raw: ArrayLike, deviations: ArrayLike) -> Trust:
    """What is to be told of one scan.

    Args:
        calibration: of the model; None where its file has none.
        raw: ``(4,)`` the network's own probabilities.
        deviations: ``(F,)`` of ``oddness.deviations``.
    """
    known = calibration or GradeCalibration()
    own = np.asarray(raw, dtype=np.float64)[None]
    taken = known.sets(own)
    grades = (
        None if taken is None else tuple(grade.label for grade, held in zip(Severity, taken[0], strict=True) if held)
    )
    oddness = _oddness(known.odd_above, np.asarray(deviations, dtype=np.float64))
    return Trust(
        probabilities={g.label: float(p) for g, p in zip(Severity, known.probabilities(own)[0], strict=True)},
        calibrated=known.is_fitted,
        prediction_set=grades,
        set_coverage=None if known.thresholds is None else known.thresholds.coverage,
        oddness=oddness,
        abstains=_abstains(oddness, grades),
    )


def _oddness(limit: float | None, deviations: np.ndarray) -> Oddness:
    values = np.nan_to_num(deviations, nan=0.0, posinf=0.0)
    score = float(np.sqrt((values**2).mean())) if values.size else 0.0
    # A model that does not know which scores are usual calls odd what lies far off in any feature.
    is_odd = bool((values > ODD_DEVIATION).any()) if limit is None else score > limit
    return Oddness(score, limit, is_odd)


def _abstains(oddness: Oddness, grades: Sequence[str] | None) -> str | None:
    if oddness.is_odd:
        return ODD_SCAN
    if grades is None:
        return None
    return EMPTY_SET if not grades else WHOLE_SET if len(grades) == len(Severity) else None


def set_text(grades: Sequence[str]) -> str:
    """A prediction set in words: ``mild``, ``mild or moderate``, ``none, mild or moderate``."""
    if not grades:
        return "no grade"
    return grades[0] if len(grades) == 1 else f"{', '.join(grades[:-1])} or {grades[-1]}"
