"""How far a scan's features lie from the training cases, and from where on a scan is called odd.

The score of a scan is the root mean square, over features, of the distance between its value (of a set of candidates,
their mean) and the training mean, in training standard deviations: a Mahalanobis distance with a diagonal covariance,
per feature. Which scores are usual is read off the cases that choose the best round: a site sends how many of them have
their score in each of 64 bins, and a scan is odd whose score lies above the last bin that holds one. If a new scan is
exchangeable with these n cases, this happens with a probability of 1 / (n + 1) at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mhsev_monai.checked_arrays import check_entries, whole_numbers

N_BINS = 64
_BINS_A_DOUBLING = 4
_LOWEST = -6
"""Power of two at which the second bin begins; the last one takes what exceeds 2^9.5."""


class Oddness(NamedTuple):
    """What a scan's deviation says.

    Attributes:
        score: root mean square deviation of its features, in training standard deviations.
        limit: the largest score that is usual; None where the model does not know.
        is_odd: whether the scan is unlike the training cases.
    """

    score: float
    limit: float | None
    is_odd: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values under stable names."""
        limit = None if self.limit is None else round(self.limit, 4)
        return {"score": round(self.score, 4), "limit": limit, "is_odd": self.is_odd}


@torch.no_grad()
def deviations(network: torch.nn.Module, features: Tensor) -> Tensor:
    """``(n, F)`` distance of each scan's features from their training means, in training standard deviations.

    Args:
        network: with the buffers ``feature_mean`` and ``feature_scale``.
        features: ``(n, ..., F)``; of sets and volumes the mean over rows that are not all NaN counts, and where there
            is none, the distances are 0.
    """
    middles = []
    mean, scale = (network.get_buffer(name).to(features.device).float() for name in ("feature_mean", "feature_scale"))
    for scan in features:
        rows = scan.reshape(-1, scan.shape[-1]).float()
        rows = rows[~rows.isnan().all(dim=1)]
        middles.append(rows.mean(dim=0) if len(rows) else mean)
    stacked = torch.stack(middles) if middles else mean.new_zeros((0, len(mean)))
    return ((stacked - mean) / scale).abs()


def odd_scores(network: torch.nn.Module, features: Tensor) -> NDArray[np.float64]:
    """``(n,)`` score of each scan, 0 or more; see :func:`deviations`. Features that are not finite count as 0."""
    values = deviations(network, features).double().nan_to_num(nan=0.0, posinf=0.0)
    return np.asarray(values.square().mean(dim=1).sqrt().cpu().numpy())


@dataclass(frozen=True, eq=False)
class OddHistogram:
    """Cases by bin of their score, ``(N_BINS,)`` counts; bins are a fourth of a doubling wide.

    Raises:
        ValueError: if the shape or a value is not possible.
    """

    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", whole_numbers(self.counts, "counts", (N_BINS,)))

    @staticmethod
    def from_scores(scores: ArrayLike) -> OddHistogram:
        """The histogram of ``(n,)`` scores."""
        with np.errstate(divide="ignore"):
            powers = np.log2(np.asarray(scores, dtype=np.float64)) - _LOWEST
        bins = np.clip(np.floor(powers * _BINS_A_DOUBLING) + 1, 0, N_BINS - 1).astype(np.int64)
        return OddHistogram(np.bincount(bins, minlength=N_BINS))

    def __add__(self, other: OddHistogram) -> OddHistogram:
        """The histogram of both sites' cases."""
        if not isinstance(other, OddHistogram):
            return NotImplemented
        return OddHistogram(self.counts + other.counts)

    def limit(self) -> float | None:
        """Upper edge of the last bin that holds a case; None without cases, or where it is the last of all."""
        held = np.flatnonzero(self.counts)
        if held.size == 0 or held[-1] == N_BINS - 1:
            return None
        return float(2.0 ** (_LOWEST + held[-1] / _BINS_A_DOUBLING))

    def to_json(self) -> dict[str, Any]:
        """Plain lists, one entry for each attribute."""
        return {"counts": self.counts.tolist()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> OddHistogram:
        """What ``to_json`` wrote; raises ``ValueError`` for anything else."""
        check_entries(value, {field.name for field in fields(OddHistogram)}, "histogram of odd scores")
        return OddHistogram(**value)
