"""Training of a severity network that tells little of any single scan: DP-SGD (Abadi et al. 2016, algorithm 1).

Each record's gradient is limited in length, and normal noise hides whether it was there at all. The guarantee is for
one record of ``data``, which is one scan, added or removed, with the number of records taken as known:

* A patient with several scans has several records, and the guarantee for the patient is the weaker by as much.
* A scan's twin is made of the scan, so with twins a scan would be in two records. Train without them.
* What else leaves a site is not covered: the moments behind the standardisation, numbers of cases, tables and losses.
  The buffers of the network (``feature_mean``, ``feature_scale``, ``class_weights``) count as known to everybody.
* Whoever knows the seed can take the noise away again. So a run leaves it out, and it is drawn from the system.

Gradients are taken record by record. Neither per-layer hooks nor ``torch.func.vmap`` suit a set network: its layers see
the candidates of all scans in one batch, a number that differs from scan to scan.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.severity import GradingScale
from mhsev_monai.training import LabelledFeatures, TrainingAbortedError, TrainingParameters, severity_loss

_MECHANISM = "rdp"


@dataclass(frozen=True)
class PrivacyParameters:
    """How much a step may tell of a record.

    Attributes:
        noise_multiplier: standard deviation of the noise over ``max_grad_norm``; 0 adds none, and protects nobody.
        max_grad_norm: the longest that a record's gradient may be (L2, all weights together).
        delta: probability with which the guarantee may fail; far below one over the number of records.
    """

    noise_multiplier: float
    max_grad_norm: float
    delta: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0):
            raise ValueError(f"noise_multiplier must be a finite number from 0 on, got {self.noise_multiplier}")
        if not (math.isfinite(self.max_grad_norm) and self.max_grad_norm > 0):
            raise ValueError(f"max_grad_norm must be a finite number above 0, got {self.max_grad_norm}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must be between 0 and 1, got {self.delta}")


def train_severity_privately(
    network: nn.Module,
    data: LabelledFeatures,
    scale: GradingScale,
    parameters: TrainingParameters,
    privacy: PrivacyParameters,
    seed: int | None = None,
    accountant_state: Mapping[str, Any] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[int, dict[str, Any]]:
    """Train ``network`` in place on ``data`` as ``train_severity`` does, with differential privacy for each record.

    Every step draws each record with probability ``batch_size / len(data)``, so batches differ in size and can be
    empty; their sum is divided by ``batch_size``, never by what was drawn. A record's loss is that of a batch of it
    alone times its class weight: the loss of a plain batch divides by the batch's own class weights and questions,
    through which records would meet. AdamW, and its weight decay, see the noisy gradient only.

    Args:
        network: its parameters change; its buffers do not.
        data: one record a scan, without twins.
        scale: turns counts into grades.
        parameters: see ``TrainingParameters``; an epoch has as many steps as in plain training.
        privacy: see ``PrivacyParameters``.
        seed: of sampling, noise and dropout, for tests; None draws one that nobody can know.
        accountant_state: what the call before returned; None if nothing was trained on these records yet.
        should_stop: asked before each step.

    Returns:
        Number of optimiser steps, and the account of all steps so far: plain JSON, see :func:`epsilon`.

    Raises:
        ImportError: if opacus is not installed.
        ValueError: if there is no record, delta is too large for their number, the state is no account, or a layer
            mixes records.
        TrainingAbortedError: if ``should_stop`` said so. The network must then be thrown away, since no account has
            its steps.
    """
    accountant = _accountant(accountant_state)
    _refuse_unsuitable(network, data, privacy)
    rate, n_steps = _plan(parameters, len(data))
    loss_of = _record_loss(network, data, scale, parameters.count_weight)
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=parameters.learning_rate, weight_decay=parameters.weight_decay)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(secrets.randbits(63) if seed is None else seed)
        network.train()
        for step in range(n_steps):
            if should_stop():
                raise TrainingAbortedError(f"stopped after {step} steps")
            drawn = (torch.rand(len(data)) < rate).nonzero()[:, 0]
            gradient = _clipped_sum(loss_of, drawn, weights, privacy.max_grad_norm)
            for weight, summed in zip(weights, gradient, strict=True):
                noise = _normal(summed) * (privacy.noise_multiplier * privacy.max_grad_norm)
                weight.grad = (summed + noise) / (rate * len(data))
            optimiser.step()
            accountant.step(noise_multiplier=privacy.noise_multiplier, sample_rate=rate)
    network.eval()
    return n_steps, _state_of(accountant)


def epsilon(accountant_state: Mapping[str, Any], delta: float) -> float:
    """The epsilon of (epsilon, delta)-differential privacy that all steps of an account have spent.

    By Rényi differential privacy (Mironov 2017; sampling after Mironov, Talwar, Zhang 2019), as opacus computes it: an
    upper bound. Infinity if any step had no noise, 0 if there was none.

    Args:
        accountant_state: from :func:`train_severity_privately`.
        delta: probability with which the guarantee may fail, between 0 and 1.

    Raises:
        ImportError: if opacus is not installed.
        ValueError: if the state is no account or delta outside its range.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, got {delta}")
    accountant = _accountant(accountant_state)
    if any(noise == 0 for noise, _, _ in accountant.history):
        return math.inf
    return float(accountant.get_epsilon(delta)) if accountant.history else 0.0


def planned_account(
    accountant_state: Mapping[str, Any] | None,
    parameters: TrainingParameters,
    privacy: PrivacyParameters,
    n_records: int,
    n_rounds: int = 1,
) -> dict[str, Any]:
    """The account as it would be after further calls of :func:`train_severity_privately`; nothing is trained.

    Args:
        accountant_state: what the call before returned; None if nothing was trained on these records yet.
        parameters: of each call.
        privacy: of each call.
        n_records: scans, 1 or more.
        n_rounds: number of calls.

    Raises:
        ImportError: if opacus is not installed.
        ValueError: if the state is no account.
    """
    state = _state_of(_accountant(accountant_state))
    rate, n_steps = _plan(parameters, n_records)
    return {**state, "history": [*state["history"], [privacy.noise_multiplier, rate, n_steps * n_rounds]]}


def _plan(parameters: TrainingParameters, n_records: int) -> tuple[float, int]:
    """With which probability a step draws a record, and the number of steps."""
    rate = min(1.0, parameters.batch_size / n_records)
    return rate, parameters.epochs * math.ceil(1 / rate)


def _accountant(state: Mapping[str, Any] | None) -> Any:
    """An accountant of opacus that goes on from ``state``."""
    try:
        # Only whoever trains privately has opacus.
        accountants = import_module("opacus.accountants")
    except ImportError as error:
        raise ImportError("private training needs opacus, which is not installed: pip install 'mhsev[dp]'") from error
    accountant = accountants.RDPAccountant()
    if state is not None:
        accountant.history = account_history(state)
    return accountant


def account_history(state: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """The steps of an account: noise multiplier, sample rate and number; raises ``ValueError`` if it is none."""
    try:
        if state["mechanism"] != _MECHANISM:
            raise ValueError
        rows = [(float(noise), float(rate), int(steps)) for noise, rate, steps in state["history"]]
        if any(not (noise >= 0 and 0 < rate <= 1 and steps >= 1) for noise, rate, steps in rows):
            raise ValueError
    except (TypeError, KeyError, ValueError, OverflowError):
        raise ValueError(
            f"accountant_state must hold the mechanism {_MECHANISM} and a history of noise multipliers, sample rates "
            "and steps, as train_severity_privately returns it; an account that is lost cannot be made again"
        ) from None
    return rows


def _state_of(accountant: Any) -> dict[str, Any]:
    return {"mechanism": _MECHANISM, "history": [[noise, rate, steps] for noise, rate, steps in accountant.history]}


def _refuse_unsuitable(network: nn.Module, data: LabelledFeatures, privacy: PrivacyParameters) -> None:
    if len(data) == 0:
        raise ValueError("training needs at least one case, got none")
    if privacy.delta * len(data) >= 1:
        raise ValueError(
            f"delta must be below one over the {len(data)} records, got {privacy.delta}: it would allow that one of "
            "them is published as it is"
        )
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        raise ValueError("the network has batch normalisation, which mixes records; use group normalisation instead")


def _record_loss(
    network: nn.Module, data: LabelledFeatures, scale: GradingScale, count_weight: float
) -> Callable[[int], Tensor]:
    """The loss of one record by its index, whatever else is drawn; what training does not change is computed once."""
    grades = data.grades(scale)
    known = getattr(network, "class_weights", None)
    class_weights = torch.ones(len(grades)) if known is None else known.detach().cpu()[grades]
    if not isinstance(network, CandidateMLP):
        return lambda i: class_weights[i] * severity_loss(network, data.take(torch.tensor([i])), scale, count_weight)
    prepared = LabelledFeatures(network.standardised(data.features), data.counts, data.marks)

    def loss(i: int) -> Tensor:
        case = prepared.take(torch.tensor([i]))
        return class_weights[i] * network.loss(case.features, case.counts, grades[i : i + 1], scale, case.marks)

    return loss


def _clipped_sum(
    loss_of: Callable[[int], Tensor], drawn: Tensor, weights: list[nn.Parameter], longest: float
) -> list[Tensor]:
    """Sum over the drawn records of their gradients, each cut to ``longest``; zeros where none was drawn."""
    total = [torch.zeros_like(weight) for weight in weights]
    for record in drawn.tolist():
        for summed, gradient in zip(total, _clipped(loss_of(record), weights, longest), strict=True):
            summed += gradient
    return total


def _clipped(loss: Tensor, weights: list[nn.Parameter], longest: float) -> list[Tensor]:
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    gradient = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
    # In double precision the square of no float32 number overflows.
    norm = math.sqrt(sum(float(part.double().square().sum()) for part in gradient))
    if not math.isfinite(norm):
        # One such record would make the whole sum undefined, which tells that it was there.
        return [torch.zeros_like(weight) for weight in weights]
    return [part * min(1.0, longest / norm) if norm > 0 else part for part in gradient]


def _normal(like: Tensor) -> Tensor:
    """Standard normal numbers in the shape of ``like``.

    Half the sum of four: what one draw's rounding tells of the number beneath it is lost (Holohan and Braghin 2021).
    """
    drawn = torch.randn(4, *like.shape, dtype=torch.float64).sum(dim=0) / 2
    return drawn.to(like.dtype).to(like.device)
