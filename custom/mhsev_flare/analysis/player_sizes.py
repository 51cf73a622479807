"""How large the players of an explanation are in each case, and the federation's edges of their strips. No FLARE.

A group's size is the mean over its features, and over the dark spots of the scan, of (x - mean) / deviation with the
federation's mean and deviation, which are in the model: one number a case, in standard deviations. Of the number of
dark spots it is that number. Sites send number, mean and squared deviation of each, as they do of features before
training, so that all have the same edges and each strip has about as many cases in all its bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mhsev_flare.analysis.answer_bounds import LARGEST_VALUE, check_cases, check_sizes
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.shapley_groups import FeatureGroups
from mhsev_monai.shapley_tables import quantile_edges

N_BINS = 5
"""Of a strip; a site of some 40 cases then tells most of them."""


@dataclass(frozen=True, eq=False)
class SizeMoments:
    """Moments of the players' sizes over cases; those of several sites add up.

    Attributes:
        n: ``(P,)`` int64 cases that have a size: all of a site's, but for groups of a scan without a dark spot.
        mean: ``(P,)`` float64.
        squared_deviation: ``(P,)`` sum of squares about the mean.

    Raises:
        ValueError: if shapes differ, or a number is not possible.
    """

    n: NDArray[np.int64]
    mean: NDArray[np.float64]
    squared_deviation: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = np.shape(self.n)
        same = len(shape) == 1 and np.shape(self.mean) == shape == np.shape(self.squared_deviation)
        if not same or not (np.isfinite(self.mean).all() and np.isfinite(self.squared_deviation).all()):
            raise ValueError("moments of sizes must be finite and of one length")
        if np.asarray(self.n).dtype != np.int64 or (self.n < 0).any() or (self.squared_deviation < 0).any():
            raise ValueError("numbers of cases must be whole, and neither they nor squares below 0")

    @staticmethod
    def of(sizes: NDArray[np.float64]) -> SizeMoments:
        """Moments of sizes ``(n, P)``, NaN where a case has none."""
        known = np.isfinite(sizes)
        n = known.sum(axis=0).astype(np.int64)
        filled = np.where(known, sizes, 0.0)
        mean = filled.sum(axis=0) / np.maximum(n, 1)
        return SizeMoments(n, mean, (np.where(known, sizes - mean, 0.0) ** 2).sum(axis=0))

    def __add__(self, other: SizeMoments) -> SizeMoments:
        """Moments of the union (Chan, Golub and LeVeque 1979)."""
        n, shift = self.n + other.n, other.mean - self.mean
        share = other.n / np.maximum(n, 1)
        between = shift**2 * self.n * share
        return SizeMoments(n, self.mean + shift * share, self.squared_deviation + other.squared_deviation + between)

    def shows_few(self, least: int) -> bool:
        """Whether the numbers of cases differ by 1 to ``least - 1``: so many scans then have no dark spot."""
        without = self.n.max() - self.n
        return bool(((without > 0) & (without < least)).any())

    def edges(self, n_bins: int = N_BINS) -> NDArray[np.float64]:
        """``(P, n_bins - 1)`` edges, the same for all sites."""
        return quantile_edges(self.mean, np.sqrt(self.squared_deviation / np.maximum(self.n, 1)), n_bins)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """For a message."""
        return {"n": self.n, "mean": self.mean, "squared_deviation": self.squared_deviation}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]], n_players: int) -> SizeMoments:
        """What :meth:`to_arrays` made; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        moments = SizeMoments(arrays["n"], arrays["mean"], arrays["squared_deviation"])
        for number in moments.n:
            check_cases(number)
        check_sizes(moments.mean, LARGEST_VALUE)
        check_sizes(moments.squared_deviation, float(moments.n.max(initial=0)) * LARGEST_VALUE**2)
        if moments.n.size != n_players:
            raise ValueError(f"moments must be of {n_players} players, got {moments.n.size}")
        return moments


@torch.no_grad()
def player_sizes(network: nn.Module, features: Tensor, groups: FeatureGroups) -> NDArray[np.float64]:
    """``(n, P)`` size of each player in each case, in the players' order of ``shapley_explain.explain``.

    Args:
        network: with the federation's ``feature_mean`` and ``feature_scale``.
        features: ``(n, n_features)``, or ``(n, N, n_features)`` with rows of NaN that stand for no candidate.
        groups: of the features.
    """
    mean, scale = (network.get_buffer(name).double().cpu() for name in ("feature_mean", "feature_scale"))
    standardised = (features.double().cpu() - mean) / scale
    is_set = isinstance(network, CandidateMLP)
    n_candidates = (~standardised[..., 0].isnan()).sum(dim=-1).double() if is_set else None
    if is_set:
        standardised = standardised.nanmean(dim=1)
    group_of = torch.tensor(groups.group_of)
    columns = [standardised[:, group_of == index].mean(dim=1) for index in range(len(groups.names))]
    if n_candidates is not None:
        columns.append(n_candidates)
    return torch.stack(columns, dim=1).numpy()
