"""A lesion detector: a small convolutional network looks at every candidate, and its scores make the count."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mhsev_monai.candidate_network import FEDERATION, CandidateMLP, judging_layers


class CandidateCNN(CandidateMLP):
    """``CandidateMLP`` with convolutions over a picture in the place of the perceptron over descriptors.

    Meant for sites with lesion masks, which teach it candidate by candidate; without them it learns from counts. The
    count's distribution and the grade come from the scores as in ``CandidateMLP``, so that map is calibrated with the
    rest.

    Args:
        in_features: entries of a row, ``channels * side * side``.
        channels: of a picture.
        side: pixels along an edge of a picture, at least 5.
        hidden_features: channels after the first and the second convolution, then the width of the hidden layer.
        members: networks that differ in their initial weights.
        num_classes: number of grades, none included.
        lower_bounds: least count of each grade above none.
        dropout: probability of dropping a hidden unit in training, in [0, 1).
        noise: standard deviation of the normal noise that training adds to standardised pixels.
        grade_weight: weight of the ordinal loss beside the count's negative log-likelihood.
        mark_weight: weight of the cross-entropy of marked candidates, where a site has lesion masks.
        max_deviation: standardised pixels are limited to this many standard deviations.
        seed: of the initial weights.

    Raises:
        ValueError: if the sizes do not fit each other, or as ``CandidateMLP`` has it.
    """

    def __init__(
        self,
        in_features: int,
        channels: int,
        side: int,
        hidden_features: Sequence[int],
        members: int,
        num_classes: int,
        lower_bounds: Sequence[int],
        dropout: float,
        noise: float,
        grade_weight: float,
        mark_weight: float,
        max_deviation: float,
        seed: int,
    ) -> None:
        if in_features != channels * side**2 or side < 5 or len(hidden_features) != 3:
            raise ValueError(
                "in_features must be channels * side * side, side at least 5, and hidden_features three numbers; got "
                f"{in_features}, {channels}, {side} and {list(hidden_features)}"
            )
        self.channels = channels
        self.side = side
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
            context_features=[],
            max_deviation=max_deviation,
            seed=seed,
        )

    def _scorer(self) -> nn.Module:
        first, second, hidden = self.hidden_features
        # In this order, on which the initial weights depend.
        last = judging_layers(hidden, [], self.dropout)
        sight = seeing_layers(self.channels, self.side, (first, second), hidden, self.dropout)
        return nn.Sequential(*sight, *last)

    def standardised(self, features: Tensor) -> Tensor:
        """Pixels over all of the federation's candidates, ``(n, N, in_features)`` float32; rows of NaN stay."""
        return super().standardised(features.float())


def seeing_layers(
    channels: int, side: int, convolutions: Sequence[int], n_numbers: int, dropout: float
) -> list[nn.Module]:
    """From the pixels of a picture, ``(k, channels * side * side)``, over two convolutions to ``(k, n_numbers)``."""
    first, second = convolutions
    return [
        nn.Unflatten(1, (channels, side, side)),
        nn.Conv2d(channels, first, 3),
        nn.SiLU(),
        nn.Conv2d(first, second, 3),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(second * (side - 4) ** 2, n_numbers),
        nn.SiLU(),
        nn.Dropout(dropout),
    ]
