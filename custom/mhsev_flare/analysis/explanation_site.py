"""A site's part in the explanation of a model: from its cases to sums that may leave. No FLARE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mhsev_flare.analysis.explanation_arrays import moments_to_arrays, table_to_arrays
from mhsev_flare.analysis.explanation_plan import SPLITS
from mhsev_flare.analysis.player_sizes import SizeMoments, player_sizes
from mhsev_flare.analysis.protocol import Entry
from mhsev_flare.site_data import SiteData, SiteError
from mhsev_monai.shapley_background import SecondMoments
from mhsev_monai.shapley_explain import Effort, ExplainError, explain
from mhsev_monai.shapley_groups import feature_groups
from mhsev_monai.shapley_tables import LEAST_CASES, ShapleyTable

CASES_A_FEATURE = 10
"""Second moments of fewer cases for each feature tell of single cases, and are not told."""


def chosen_cases(data: SiteData, split: str) -> Tensor:
    """Features of the cases of a split of ``SPLITS``."""
    if split != "all":
        return data.split(split).features
    return torch.cat([data.split(name).features for name in SPLITS[:-1]])


@dataclass(frozen=True, eq=False)
class ExplanationSite:
    """One site's cases and what it tells of a network's answers on them.

    Attributes:
        network: with the weights that came.
        names: of its features.
        features: of the cases, as the network reads them.
        least: fewest cases that are told, ``LEAST_CASES`` or more.

    Raises:
        SiteError: if there are fewer; the message holds no number of its own.
    """

    network: nn.Module
    names: tuple[str, ...]
    features: Tensor
    least: int = LEAST_CASES

    def __post_init__(self) -> None:
        if len(self.features) < self.least:
            raise SiteError(f"fewer than {self.least} cases to explain")

    def measured(self) -> dict[str, NDArray[Any]]:
        """Moments of the players' sizes.

        Raises:
            SiteError: if a player has few cases with a size, or few without.
        """
        moments = SizeMoments.of(player_sizes(self.network, self.features, feature_groups(self.names)))
        if (moments.n < self.least).any():
            raise SiteError(f"fewer than {self.least} cases to explain have a dark spot")
        # Leaving these scans out would not do: the tables of a study tell how many cases there are.
        if moments.shows_few(self.least):
            raise SiteError(f"there are cases to explain without a dark spot, and fewer than {self.least}")
        return moments.to_arrays()

    def second_moments(self) -> dict[str, NDArray[Any]]:
        """Count, mean and scatter of the features, of cases or of their dark spots.

        Raises:
            SiteError: if there are few cases for so many features.
        """
        fewest = CASES_A_FEATURE * self.features.shape[-1]
        if len(self.features) < fewest:
            raise SiteError(f"second moments of so many features are told of {fewest} cases at least")
        return moments_to_arrays(SecondMoments.of(self.features))

    def attributed(self, background: Tensor, edges: NDArray[np.float64], effort: Effort) -> dict[str, NDArray[Any]]:
        """Sums of the attributions.

        Args:
            background: the same at all sites.
            edges: of the strips, likewise.
            effort: how much is computed.

        Raises:
            SiteError: if the network cannot be explained, or what came does not fit it.
        """
        groups = feature_groups(self.names)
        try:
            found = explain(self.network, self.features, background, groups, effort=effort)
            sizes = player_sizes(self.network, self.features, groups)
            table = ShapleyTable.of(
                (found.players, found.outputs), found.values.values.numpy(), found.values.outputs.numpy(), sizes, edges
            )
            return table_to_arrays(table.told(self.least))
        except ExplainError as error:
            raise SiteError("the network of this job cannot be explained by groups of features") from error
        except ValueError as error:
            raise SiteError("the background that came does not fit the network of this job") from error


def load_weights(network: nn.Module, arrays: Any) -> None:
    """Put the weights that came into the network.

    Raises:
        SiteError: if they are not all of its weights, and no others, in their shapes.
    """
    own = network.state_dict()
    fit = isinstance(arrays, Mapping) and set(arrays) == set(own)
    if not fit or any(np.shape(arrays[key]) != tuple(value.shape) for key, value in own.items()):
        raise SiteError("the weights that came are not those of the network of this job; send the job again")
    network.load_state_dict({key: torch.from_numpy(np.array(arrays[key])) for key in own})
    network.eval()


def question_arrays(beside: Mapping[str, Any]) -> tuple[Tensor, NDArray[np.float64]]:
    """Background and edges of a question.

    Raises:
        SiteError: if one is missing or no finite numbers.
    """
    background, edges = beside.get(Entry.BACKGROUND), beside.get(Entry.EDGES)
    for value, dtype in ((background, np.float32), (edges, np.float64)):
        if not isinstance(value, np.ndarray) or value.dtype != dtype or not np.isfinite(value).all():
            raise SiteError("the question holds no background and edges; install the same mhsev everywhere")
    assert isinstance(background, np.ndarray)
    assert isinstance(edges, np.ndarray)
    if edges.ndim != 2 or (np.diff(edges, axis=1) < 0).any():
        raise SiteError("the question holds no background and edges; install the same mhsev everywhere")
    return torch.from_numpy(background.copy()), edges
