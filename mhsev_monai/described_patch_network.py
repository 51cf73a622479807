"""Descriptors and patches together: one small network judges every candidate by what is said of it and how it looks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mhsev_monai.candidate_network import FEDERATION, SCAN, CandidateMLP, against_scan, judging_layers
from mhsev_monai.patch_network import seeing_layers


class DescribedPatchNetwork(CandidateMLP):
    """``CandidateMLP`` whose perceptron reads the descriptors by both yardsticks and what convolutions see of a patch.

    Descriptors say in mm and shares of signal what spot finders have always asked for; a patch holds what nobody
    thought of asking. Descriptors are standardised over the federation and measured against the scan's other
    candidates, and the perceptron reads both; so all scanners should take part in training. Everything behind the
    scores is that of ``CandidateMLP``.

    Args:
        in_features: entries of a row, ``descriptors + channels * side * side``.
        descriptors: how many entries of a row, the first, are descriptors.
        channels: of a patch.
        side: pixels along an edge of a patch, at least 5.
        convolutions: channels after the first and the second convolution (3 x 3, no padding).
        embedding: numbers that stand for a patch beside the descriptors.
        hidden_features: width of each hidden layer of the perceptron over both.
        members: networks that differ in their initial weights.
        num_classes: number of grades, none included.
        lower_bounds: least count of each grade above none.
        dropout: probability of dropping a hidden unit or a number of the embedding in training, in [0, 1).
        noise: standard deviation of the normal noise that training adds to all standardised entries.
        grade_weight: weight of the ordinal loss beside the count's negative log-likelihood.
        mark_weight: weight of the cross-entropy of marked candidates, where a site has lesion masks.
        context_features: see ``CandidateMLP``; indices of descriptors.
        max_deviation: descriptors measured within the scan are limited to this many of its spreads.
        max_federation_deviation: the same of those measured over the federation.
        max_pixel_deviation: the same of pixels.
        seed: of the initial weights.

    Raises:
        ValueError: if the sizes do not fit each other, or as ``CandidateMLP`` has it.
    """

    def __init__(
        self,
        in_features: int,
        descriptors: int,
        channels: int,
        side: int,
        convolutions: Sequence[int],
        embedding: int,
        hidden_features: Sequence[int],
        members: int,
        num_classes: int,
        lower_bounds: Sequence[int],
        dropout: float,
        noise: float,
        grade_weight: float,
        mark_weight: float,
        context_features: Sequence[int],
        max_deviation: float,
        max_federation_deviation: float,
        max_pixel_deviation: float,
        seed: int,
    ) -> None:
        if in_features != descriptors + channels * side**2 or side < 5 or len(convolutions) != 2:
            raise ValueError(
                "in_features must be descriptors + channels * side * side, side at least 5, and convolutions two "
                f"numbers; got {in_features}, {descriptors}, {channels}, {side} and {list(convolutions)}"
            )
        if min([descriptors, channels, embedding, *convolutions]) < 1 or not max_pixel_deviation > 0:
            raise ValueError("descriptors, channels, convolutions, embedding and limits of deviation must be positive")
        if any(index >= descriptors for index in context_features):
            raise ValueError(f"context_features must be descriptors, below {descriptors}, got {list(context_features)}")
        self.descriptors = descriptors
        self.channels = channels
        self.side = side
        self.convolutions = list(convolutions)
        self.embedding = embedding
        self.max_pixel_deviation = max_pixel_deviation
        super().__init__(
            in_features=in_features,
            hidden_features=hidden_features,
            members=members,
            num_classes=num_classes,
            lower_bounds=lower_bounds,
            dropout=dropout,
            noise=noise,
            grade_weight=grade_weight,
            mark_weight=mark_weight,
            yardstick=FEDERATION,
            context_features=context_features,
            max_deviation=max_deviation,
            seed=seed,
            max_federation_deviation=max_federation_deviation,
        )
        self._limit = {SCAN: max_deviation, FEDERATION: max_federation_deviation}

    def _scorer(self) -> nn.Module:
        sight = seeing_layers(self.channels, self.side, self.convolutions, self.embedding, self.dropout)
        width = 2 * self.descriptors + self.embedding
        return _Scorer(2 * self.descriptors, sight, judging_layers(width, self.hidden_features, self.dropout))

    def standardised(self, features: Tensor) -> Tensor:
        """Descriptors within the scan, the same over the federation, and pixels; rows of NaN stay.

        Returns:
            ``(n, N, len(descriptor_read))`` float32.
        """
        features = features.float()
        over_all = (features - self.feature_mean) / self.feature_scale
        described, pixels = over_all[..., : self.descriptors], over_all[..., self.descriptors :]
        within = against_scan(features, self.descriptors)
        return torch.cat(
            [
                self._limited(within, described, SCAN),
                self._limited(described, described, FEDERATION),
                pixels.clamp(-self.max_pixel_deviation, self.max_pixel_deviation),
            ],
            dim=-1,
        )

    @property
    def descriptor_read(self) -> list[int]:
        """For each column of :meth:`standardised` the index of the entry that it is made of."""
        described = list(range(self.descriptors))
        return [*described, *described, *range(self.descriptors, self.in_features)]


class _Scorer(nn.Sequential):
    """From ``(k, n_described + pixels)`` to ``(k, 1)`` logits.

    One sequence, of which the first layers see the pixels alone: so weights have names that the sites' filters know.
    """

    def __init__(self, n_described: int, sight: Sequence[nn.Module], judge: Sequence[nn.Module]) -> None:
        super().__init__(*sight, *judge)
        self.n_described = n_described
        self.n_sight = len(sight)

    def forward(self, values: Tensor) -> Tensor:
        described, seen = values[:, : self.n_described], values[:, self.n_described :]
        for index, layer in enumerate(self):
            if index == self.n_sight:
                seen = torch.cat([described, seen], dim=1)
            seen = layer(seen)
        return seen
