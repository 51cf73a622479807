"""Plain-torch training of a severity network on feature vectors; no federation in here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.networks import run_network, split_output
from mhsev_monai.ordinal import corn_loss
from mhsev_monai.severity import GradingScale


@dataclass(frozen=True)
class LabelledFeatures:
    """Network inputs and counts of the same cases.

    Attributes:
        features: float32, ``(n, n_features)`` vectors or ``(n, N, n_features)`` sets, where a row of NaN fills up; or
            ``(n, X, Y, Z, n_features)`` volumes, float16 or float32, NaN outside the brain.
        counts: ``(n,)`` float32, microbleeds of each case, 0 or more.
        marks: ``(n, N)`` float32 for sets: 1 where a vector is a bleed, 0 where it is none, NaN where nobody knows;
            None where nobody knows of any.
    """

    features: Tensor
    counts: Tensor
    marks: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim not in (2, 3, 5) or self.counts.shape != self.features.shape[:1]:
            raise ValueError(
                f"features must be (n, n_features), (n, N, n_features) or (n, X, Y, Z, n_features) and counts (n,), "
                f"got {tuple(self.features.shape)} and {tuple(self.counts.shape)}"
            )
        if self.marks is not None and self.marks.shape != self.features.shape[:-1]:
            raise ValueError(
                f"marks must be one for each vector, {tuple(self.features.shape[:-1])}, got {tuple(self.marks.shape)}"
            )

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, cases: Tensor) -> LabelledFeatures:
        """The cases of these indices."""
        marks = None if self.marks is None else self.marks[cases]
        return LabelledFeatures(self.features[cases], self.counts[cases], marks)

    @staticmethod
    def join(parts: Sequence[LabelledFeatures]) -> LabelledFeatures:
        """The cases of all parts, in the order given."""
        marks = None
        if any(part.marks is not None for part in parts):
            unknown = (part.features.new_full(part.features.shape[:2], torch.nan) for part in parts)
            marks = torch.cat([u if part.marks is None else part.marks for part, u in zip(parts, unknown, strict=True)])
        features, counts = torch.cat([part.features for part in parts]), torch.cat([part.counts for part in parts])
        return LabelledFeatures(features, counts, marks)

    def grades(self, scale: GradingScale) -> Tensor:
        """``(n,)`` integer grades on ``scale``."""
        return torch.tensor([int(scale.grade(float(count))) for count in self.counts], dtype=torch.long)


@dataclass(frozen=True)
class TrainingParameters:
    """How one round of local training runs.

    Attributes:
        epochs: passes over the local training cases.
        learning_rate: of AdamW (Loshchilov and Hutter 2019).
        weight_decay: of AdamW.
        batch_size: cases a step; more than there are means full batch.
        count_weight: weight of the count loss beside the ordinal loss.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    count_weight: float

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be positive, got {self.epochs} and {self.batch_size}")
        if not self.learning_rate > 0 or self.weight_decay < 0 or self.count_weight < 0:
            raise ValueError(
                "learning_rate must be positive, weight_decay and count_weight not negative, "
                f"got {self.learning_rate}, {self.weight_decay} and {self.count_weight}"
            )


class TrainingAbortedError(RuntimeError):
    """Training was asked to stop; the network is in an undefined state."""


def severity_loss(network: nn.Module, data: LabelledFeatures, scale: GradingScale, count_weight: float) -> Tensor:
    """What training lowers, a differentiable scalar.

    A ``CandidateMLP`` has its own loss; for other networks it is the ordinal loss plus ``count_weight`` times the Huber
    loss of log(1 + count).
    """
    if isinstance(network, CandidateMLP):
        return network.loss(network.standardised(data.features), data.counts, data.grades(scale), scale, data.marks)
    output = split_output(run_network(network, data.features))
    weights = getattr(network, "class_weights", None)
    weights = None if weights is None else weights.to(output.ordinal_logits.device)
    ordinal = corn_loss(output.ordinal_logits, data.grades(scale), weights)
    return ordinal + count_weight * F.smooth_l1_loss(output.log_count, torch.log1p(data.counts))


@dataclass(frozen=True)
class TrainingHooks:
    """What a federated optimiser adds to plain local training.

    Attributes:
        should_stop: asked before each step.
        penalty: added to the loss of each step, such as FedProx's distance to the global model.
        after_step: called after each step, such as SCAFFOLD's correction.
    """

    should_stop: Callable[[], bool] = lambda: False
    penalty: Callable[[nn.Module], Tensor] | None = None
    after_step: Callable[[nn.Module], None] | None = None


def train_severity(
    network: nn.Module,
    data: LabelledFeatures,
    scale: GradingScale,
    parameters: TrainingParameters,
    seed: int,
    hooks: TrainingHooks | None = None,
) -> int:
    """Train ``network`` in place on ``data``.

    Args:
        network: its parameters change; its buffers do not.
        data: at least one case.
        scale: turns counts into grades.
        parameters: see ``TrainingParameters``.
        seed: of shuffling and dropout; equal seeds give equal weights on one machine.
        hooks: what a federated optimiser adds, see ``TrainingHooks``.

    Returns:
        Number of optimiser steps.

    Raises:
        ValueError: if there is no case to train on.
        TrainingAbortedError: if ``hooks.should_stop`` said so.
    """
    if len(data) == 0:
        raise ValueError("training needs at least one case, got none")
    hooks = hooks or TrainingHooks()
    loss_of = _loss_of(network, data, scale, parameters.count_weight)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=parameters.learning_rate, weight_decay=parameters.weight_decay
    )
    n_steps = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.train()
        for _ in range(parameters.epochs):
            for batch in torch.randperm(len(data)).split(parameters.batch_size):
                if hooks.should_stop():
                    raise TrainingAbortedError(f"stopped after {n_steps} steps")
                optimiser.zero_grad()
                loss = loss_of(batch)
                (loss if hooks.penalty is None else loss + hooks.penalty(network)).backward()
                optimiser.step()
                if hooks.after_step is not None:
                    hooks.after_step(network)
                n_steps += 1
    network.eval()
    return n_steps


def _loss_of(
    network: nn.Module, data: LabelledFeatures, scale: GradingScale, count_weight: float
) -> Callable[[Tensor], Tensor]:
    """The loss of a batch of case indices; what does not change in training is computed once."""
    if not isinstance(network, CandidateMLP):
        return lambda batch: severity_loss(network, data.take(batch), scale, count_weight)
    grades = data.grades(scale)
    prepared = LabelledFeatures(network.standardised(data.features), data.counts, data.marks)

    def loss(batch: Tensor) -> Tensor:
        cases = prepared.take(batch)
        return network.loss(cases.features, cases.counts, grades[batch], scale, cases.marks)

    return loss


@dataclass(frozen=True)
class FeatureMoments:
    """Count, mean and sum of squared deviations of feature vectors: all that standardisation needs of a site.

    Attributes:
        n: number of vectors: of cases, of the candidates of all cases, or of the brain's voxels of all cases.
        mean: ``(n_features,)`` float64.
        squared_deviation: ``(n_features,)`` float64, sum over vectors of (x - mean)^2.
    """

    n: int
    mean: np.ndarray
    squared_deviation: np.ndarray

    @staticmethod
    def of(features: Tensor) -> FeatureMoments:
        """Moments of the vectors along the last axis; rows of NaN, which only fill up a set, do not count."""
        if features.ndim > 3 and len(features) > 1:
            # Case by case: all volumes at once would be gigabytes in double precision.
            return sum((FeatureMoments.of(case[None]) for case in features[1:]), FeatureMoments.of(features[:1]))
        values = features.reshape(-1, features.shape[-1]).numpy().astype(np.float64)
        values = values[~np.isnan(values).all(axis=1)]
        mean = values.mean(axis=0) if len(values) else np.zeros(values.shape[1])
        return FeatureMoments(len(values), mean, ((values - mean) ** 2).sum(axis=0))

    def __add__(self, other: FeatureMoments) -> FeatureMoments:
        """Moments of the union, without loss of digits (Chan, Golub and LeVeque 1979)."""
        n = self.n + other.n
        if n == 0:
            return self
        shift = other.mean - self.mean
        mean = self.mean + shift * other.n / n
        return FeatureMoments(
            n, mean, self.squared_deviation + other.squared_deviation + shift**2 * self.n * other.n / n
        )

    def scale(self) -> np.ndarray:
        """``(n_features,)`` standard deviations; 1 for a feature that never varies, which then carries nothing."""
        deviation = np.sqrt(self.squared_deviation / max(self.n, 1))
        varies = deviation > 1e-6 * np.maximum(1.0, np.abs(self.mean))
        return np.where(varies, deviation, 1.0)


def balanced_class_weights(class_counts: np.ndarray) -> np.ndarray:
    """Weights that give every grade that occurs the same total, with mean 1 over cases; 0 for grades without a case."""
    counts = np.asarray(class_counts, dtype=np.float64)
    present = counts > 0
    if not present.any():
        raise ValueError("class weights need at least one case, got none")
    weights = np.zeros_like(counts)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights
