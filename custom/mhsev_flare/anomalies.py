"""How each update lies beside the others, and what of that is refused: pure numbers, no FLARE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_flare.robust import cosines_to_median, norm_ratios, opposing, pairwise_cosines


@dataclass(frozen=True)
class Limits:
    """What is odd enough to act upon.

    Attributes:
        norm_limit: an update longer than this times the median length counts as clipped.
        norm_gate: one longer than this times the median length is refused.
        opposition: one whose cosine to more than half of the others is below minus this is refused; 1 never does.
    """

    norm_limit: float
    norm_gate: float
    opposition: float

    def __post_init__(self) -> None:
        if not (self.norm_gate >= 1 and self.norm_limit >= 1):
            raise ValueError(f"norm_limit and norm_gate must be 1 or more, got {self.norm_limit} and {self.norm_gate}")
        if not 0 <= self.opposition <= 1:
            raise ValueError(f"opposition must be between 0 and 1, got {self.opposition}")


@dataclass(frozen=True)
class Oddity:
    """One update beside the others of its round.

    Attributes:
        norm: Euclidean length.
        norm_ratio: to the median length.
        cosine_to_median: to the coordinate median; None where one of both is zero.
        opposed: highest cosine to another update, with its sign; None where there is no other.
        clipped: whether it counts with the median length.
        reason: why it is refused; empty where it is not.
    """

    norm: float
    norm_ratio: float
    cosine_to_median: float | None
    opposed: float | None
    clipped: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Numbers for the ledger, to four digits; no value that JSON does not know."""
        return {
            "norm": _rounded(self.norm),
            "norm_ratio": _rounded(self.norm_ratio),
            "cosine_to_median": _rounded(self.cosine_to_median),
            "nearest_cosine": _rounded(self.opposed),
            "clipped": self.clipped,
        }


def judge(matrix: NDArray[np.float64], limits: Limits) -> list[Oddity]:
    """Measure every update against the others.

    Args:
        matrix: ``(n, d)`` finite updates, a row a site.
        limits: what is refused.

    Returns:
        One entry a row. With two updates nobody can tell which is odd, so only lengths are looked at.
    """
    ratios, norms = norm_ratios(matrix), np.linalg.norm(matrix, axis=1)
    to_median = cosines_to_median(matrix)
    against = opposing(matrix, limits.opposition) if limits.opposition < 1 else np.zeros(len(matrix), dtype=bool)
    others = pairwise_cosines(matrix)
    np.fill_diagonal(others, np.nan)
    found = []
    for row in range(len(matrix)):
        known = others[row][np.isfinite(others[row])]
        clipped = bool(limits.norm_limit < ratios[row] <= limits.norm_gate)
        reason = _reason(float(ratios[row]), float(norms[row]), bool(against[row]), limits, len(matrix))
        nearest = float(known.max()) if known.size else None
        cosine = float(to_median[row]) if np.isfinite(to_median[row]) else None
        found.append(Oddity(float(norms[row]), float(ratios[row]), cosine, nearest, clipped and not reason, reason))
    return found


def _reason(ratio: float, norm: float, against: bool, limits: Limits, n: int) -> str:
    if n < 3:
        return ""
    if ratio > limits.norm_gate:
        return f"an update {ratio:.3g} times as long as the median, where {limits.norm_gate:g} is the limit"
    if norm == 0.0 and ratio != 1.0:
        return "an update of zeros, where the others changed the model"
    if against:
        return f"an update against most others: cosines below {-limits.opposition:g} to more than half of them"
    return ""


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.4g}") if value is not None and np.isfinite(value) else None
