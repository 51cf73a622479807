"""Networks that grade severity; each holds all that inference needs, the standardisation of its inputs included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mhsev_monai.ordinal import corn_grade, corn_probabilities
from mhsev_monai.severity import GradingScale


class SeverityOutput(NamedTuple):
    """What a network says of ``n`` scans.

    Attributes:
        ordinal_logits: ``(n, num_classes - 1)`` conditional logits (see ``mhsev_monai.ordinal``).
        log_count: ``(n,)`` estimate of log(1 + number of microbleeds).
    """

    ordinal_logits: Tensor
    log_count: Tensor


class SeverityMLP(nn.Module):
    """Multi-layer perceptron from a feature vector to an ordinal grade and a count (the paper, section 2.2).

    Features are standardised by ``feature_mean`` and ``feature_scale``, buffers that a federation fills once with its
    global statistics: per-site standardisation costs 6 to 8 points of accuracy where the mix of grades differs by site.
    No normalisation layer, since running statistics do not average. ``class_weights`` weigh the ordinal loss.

    Args:
        in_features: length of the feature vector.
        hidden_features: width of each hidden layer.
        num_classes: number of grades.
        dropout: probability of dropping a hidden unit in training, in [0, 1).
        max_deviation: standardised features are limited to this many standard deviations. Beyond it they say "unlike
            anything seen" and no more: on scanners that the training cases do not hold, some lie tens of them away.
        seed: of the initial weights; equal arguments give equal weights.

    Raises:
        ValueError: if a size or ``max_deviation`` is not positive, or ``dropout`` is outside [0, 1).
    """

    feature_mean: Tensor
    feature_scale: Tensor
    class_weights: Tensor

    # FLARE drops arguments that equal a default from a job's JSON; there are none here, so the JSON is complete.
    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        num_classes: int,
        dropout: float,
        max_deviation: float,
        seed: int,
    ) -> None:
        super().__init__()
        if min([in_features, num_classes - 1, *hidden_features]) < 1:
            raise ValueError(
                "in_features, hidden_features and num_classes - 1 must be positive, "
                f"got {in_features}, {list(hidden_features)} and {num_classes - 1}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.in_features = in_features
        self.hidden_features = list(hidden_features)
        self.num_classes = num_classes
        if not max_deviation > 0:
            raise ValueError(f"max_deviation must be positive, got {max_deviation}")
        self.dropout = dropout
        self.max_deviation = max_deviation
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = _perceptron(in_features, self.hidden_features, num_classes, dropout)
        self.register_buffer("feature_mean", torch.zeros(in_features))
        self.register_buffer("feature_scale", torch.ones(in_features))
        self.register_buffer("class_weights", torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits and log count in one tensor, so that any tool for torch networks can read it.

        Args:
            features: ``(n, in_features)``, in the units of the feature table.

        Returns:
            ``(n, num_classes)``: ``num_classes - 1`` ordinal logits, then log(1 + count); see ``split_output``.
        """
        return self.layers(self.standardised(features))

    def standardised(self, features: Tensor) -> Tensor:
        """What the first layer reads, ``(n, in_features)``."""
        standardised = (features - self.feature_mean) / self.feature_scale
        return standardised.clamp(-self.max_deviation, self.max_deviation)


def _perceptron(in_features: int, hidden: Sequence[int], out_features: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = in_features
    for next_width in hidden:
        layers += [nn.Linear(width, next_width), nn.ReLU(), nn.Dropout(dropout)]
        width = next_width
    return nn.Sequential(*layers, nn.Linear(width, out_features))


def split_output(output: Tensor) -> SeverityOutput:
    """The two parts of a network's output ``(n, num_classes)``."""
    return SeverityOutput(output[:, :-1], output[:, -1])


class SeverityPrediction(NamedTuple):
    """Grades and counts of ``n`` scans that agree with one another.

    Attributes:
        grades: ``(n,)`` integers, values of ``Severity``.
        probabilities: ``(n, num_classes)``, rows sum to 1.
        counts: ``(n,)`` microbleeds, moved into the range of the grade where the two parts of the head disagree.
    """

    grades: Tensor
    probabilities: Tensor
    counts: Tensor


CASES_AT_ONCE = 4
"""Volumes that a network is given at once; a batch of all cases would take gigabytes."""
_VOLUMES = 5
"""Dimensions of a batch of volumes with their channels."""


def run_network(network: nn.Module, features: Tensor) -> Tensor:
    """The network's output ``(n, num_classes)`` on all cases, float32 on the device of ``features``.

    Volumes go through it a few at a time. On CUDA the network computes in mixed precision, with bfloat16, whose range
    is that of float32, so that gradients need no scaling.
    """
    device = next(network.parameters()).device
    parts = features.split(CASES_AT_ONCE) if features.ndim == _VOLUMES else (features,)
    with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
        outputs = [network(part.to(device)) for part in parts]
    return torch.cat(outputs).float().to(features.device)


@torch.no_grad()
def predict_severity(network: nn.Module, features: Tensor, scale: GradingScale) -> SeverityPrediction:
    """Grade ``n`` cases of any kind of features; the network is left in evaluation mode."""
    network.eval()
    output = split_output(run_network(network, features))
    grades = corn_grade(output.ordinal_logits)
    lower = torch.tensor([0, *scale.lower_bounds], dtype=torch.float32)
    upper = torch.tensor([bound - 1 for bound in scale.lower_bounds] + [float("inf")])
    counts = torch.expm1(output.log_count.clamp(0.0, 7.0)).round()
    return SeverityPrediction(
        grades=grades,
        probabilities=corn_probabilities(output.ordinal_logits),
        counts=torch.minimum(torch.maximum(counts, lower[grades]), upper[grades]),
    )
