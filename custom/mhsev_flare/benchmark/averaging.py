"""The FLARE job of a row in one process: the same arithmetic in the same order, without messages.

A test runs both on one cohort and compares weights and results. What is shared is called, not written again: pooling of
standardisation, seeds, weights of the sites, the choice of the best round.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mhsev_flare.anomalies import Oddity
from mhsev_flare.combination import TooFewUpdatesError
from mhsev_flare.convergence import has_converged
from mhsev_flare.gates import ExpectedUpdate, array_refusal
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.model_average import averaged_models, is_kept
from mhsev_flare.protocol import BUFFERS
from mhsev_flare.result import pool_tables
from mhsev_flare.rounds import BestRound, ledger_row, training_seed
from mhsev_flare.site_data import SiteData
from mhsev_flare.site_sums import site_sums
from mhsev_flare.standardisation import Asked, pool_standardisation
from mhsev_monai.evaluation import evaluate_severity
from mhsev_monai.severity import SCALES
from mhsev_monai.training import (
    LabelledFeatures,
    TrainingParameters,
    severity_loss,
    train_severity,
)
from mhsev_monai.volume_network import place_network

CENTRAL = "central"
"""Plays the site in the seeds of central training."""

Weights = Mapping[str, np.ndarray]


def start_weights(spec: JobSpec, sites: Mapping[str, SiteData]) -> dict[str, np.ndarray]:
    """The network's own weights; standardisation by all sites' training cases and twins, class weights by the cases."""
    messages = {name: site_sums(spec.network, data, SCALES[spec.scale]) for name, data in sites.items()}
    own = {key: value.numpy().copy() for key, value in spec.network.state_dict().items()}
    return {**own, **pool_standardisation(messages, Asked.by(spec.network)).buffers()}


@dataclass(frozen=True)
class SiteUpdate:
    """What one site sends in a round.

    Attributes:
        site: its name.
        n_samples: training cases that it says it has.
        update: weight differences.
    """

    site: str
    n_samples: int
    update: dict[str, np.ndarray]


Meddle = Callable[[int, list[SiteUpdate]], list[SiteUpdate]]
"""From a round and its updates, in order of the sites' names, to those that arrive: what an attacker does."""


@dataclass(frozen=True)
class Averaged:
    """What a federation in one process came to.

    Attributes:
        best: the kept round and its weights: of those that were closed, as a study that stops judges no more.
        oddities: of each closed round, by site; None where the rule does not compare updates.
        stopped: why it ended before its rounds did; empty if it did not.
    """

    best: BestRound
    oddities: tuple[Mapping[str, Oddity | None], ...]
    stopped: str = ""


def average_federated(spec: JobSpec, sites: Mapping[str, SiteData]) -> BestRound:
    """What ``SeverityFedAvg`` and its executors arrive at with these cases: the best round and its weights.

    Args:
        spec: its ``seed`` is that of shuffling and dropout.
        sites: name to cases; the test cases are not looked at.

    Raises:
        ValueError: if the job has another optimiser than FedAvg, which only FLARE's own processes run.
        TooFewUpdatesError: if a round's updates were too few for the rule or the quorum.
    """
    averaged = federate(spec, sites)
    if averaged.stopped:
        raise TooFewUpdatesError(averaged.stopped)
    return averaged.best


def federate(spec: JobSpec, sites: Mapping[str, SiteData], meddle: Meddle | None = None) -> Averaged:
    """Federated averaging in one process, with an attacker where there is one.

    Args:
        spec: the job.
        sites: name to cases.
        meddle: changes the updates of a round.

    Raises:
        ValueError: if the job has another optimiser than FedAvg.
    """
    if spec.optimiser.control_variates or spec.optimiser.server or spec.optimiser.fedprox_mu or spec.privacy:
        raise ValueError("one process trains by FedAvg alone; run other optimisers, and privacy, in FLARE's simulator")
    names = sorted(sites)
    network, sent = copy.deepcopy(spec.network), start_weights(spec, sites)
    # Until a round has been judged the untrained network is what is kept.
    best = BestRound.restored(0, (None, None), sent)
    expected = ExpectedUpdate(ExpectedUpdate.shapes_of(sent), "")
    told, losses = [len(sites[name].train) for name in names], []
    oddities: list[Mapping[str, Oddity | None]] = []
    average: dict[str, np.ndarray] = {}
    while len(oddities) < spec.num_rounds:
        round_number = len(oddities)
        updates = [_update(spec, network, sent, name, sites[name], round_number) for name in names]
        arrived = updates if meddle is None else meddle(round_number, updates)
        kept = [u for u in arrived if not array_refusal(u.update, expected)]
        try:
            combined = spec.combination.combine(
                [u.update for u in kept], [u.n_samples for u in kept], told, len(arrived) - len(kept)
            )
        except TooFewUpdatesError as error:
            return Averaged(best, tuple(oddities), str(error))
        told_of = {u.site: oddity for u, oddity in zip(kept, combined.oddities, strict=True)}
        # As in a study: the table and the loss of a site come with its update, and are refused with it.
        judges = {site: sites[site] for site, oddity in told_of.items() if oddity is None or not oddity.reason}
        missing = _missing(spec, judges, names)
        if missing:
            return Averaged(best, tuple(oddities), missing)
        oddities.append(told_of)
        losses.append(_offer(best, round_number, spec, network, sent, judges))
        mean = combined.update
        sent = {key: value + mean[key] if key in mean else value for key, value in sent.items()}
        if spec.ema_decay:
            average = averaged_models(average, sent, spec.ema_decay, len(oddities))
        if has_converged(losses, spec.policy.patience, spec.policy.least_improvement):
            break
    last = _offer(best, len(oddities), spec, network, sent, sites)
    best = _mean_or_best(average, last, best, len(oddities), spec, network, sites)
    return Averaged(best, tuple(oddities))


def _missing(spec: JobSpec, accepted: Collection[str], names: Collection[str]) -> str:
    """Why a round with these sites' updates does not count; empty where it does.

    FLARE begins no study of fewer sites than the quorum. Such a federation, as of two sites of which one is left out,
    is trained here all the same, and stopped by what is refused alone.
    """
    return spec.policy.missing(accepted, len(names)) if len(accepted) < len(names) else ""


def _update(
    spec: JobSpec, network: nn.Module, sent: Weights, name: str, data: SiteData, round_number: int
) -> SiteUpdate:
    """What an honest site sends."""
    load_weights(network, sent)
    _fit(spec, network, data.lessons, training_seed(spec.seed, name, round_number))
    update = {k: v - sent[k] for k, v in _weights(network).items() if k not in BUFFERS}
    return SiteUpdate(name, len(data.train), update)


def train_alone(spec: JobSpec, name: str, data: SiteData, start: Weights) -> BestRound:
    """What one site arrives at without the others: as many passes, the best round by its own validation cases.

    Args:
        spec: as for :func:`average_federated`.
        name: of the site, for the seeds.
        data: its cases.
        start: initial weights; their standardisation and class weights stay.
    """
    network, best, average = copy.deepcopy(spec.network), BestRound(), dict[str, np.ndarray]()
    load_weights(network, start)
    for round_number in range(spec.num_rounds):
        _offer(best, round_number, spec, network, _weights(network), {name: data})
        _fit(spec, network, data.lessons, training_seed(spec.seed, name, round_number))
        if spec.ema_decay:
            average = averaged_models(average, _weights(network), spec.ema_decay, round_number + 1)
    last = _offer(best, spec.num_rounds, spec, network, _weights(network), {name: data})
    return _mean_or_best(average, last, best, spec.num_rounds, spec, network, {name: data})


def _mean_or_best(
    average: Weights,
    last_loss: float | None,
    best: BestRound,
    n_rounds: int,
    spec: JobSpec,
    network: nn.Module,
    sites: Mapping[str, SiteData],
) -> BestRound:
    """The average of the rounds' models where there is one that is no worse than the last of them; else the best."""
    mean = BestRound()
    if average and is_kept(_offer(mean, n_rounds, spec, network, average, sites), last_loss):
        return mean
    return best


def train_central(spec: JobSpec, sites: Mapping[str, SiteData]) -> BestRound:
    """What one site arrives at that holds all sites' cases: the bound that a federation is measured against."""
    return train_alone(spec, CENTRAL, pool_sites(sites), start_weights(spec, sites))


def pool_sites(sites: Mapping[str, SiteData]) -> SiteData:
    """All sites' cases as one site's, split by split, in the order of the names."""
    parts = [sites[name] for name in sorted(sites)]
    train, validation, test = (
        LabelledFeatures.join([part.split(split) for part in parts]) for split in ("train", "validation", "test")
    )
    twins = [part.twins for part in parts if part.twins is not None]
    return SiteData(train, validation, test, excluded={}, twins=LabelledFeatures.join(twins) if twins else None)


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Put a copy of ``weights`` into ``network``, which is moved to where it trains."""
    place_network(network)
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in weights.items()})


def _weights(network: nn.Module) -> dict[str, np.ndarray]:
    return {key: value.detach().cpu().numpy().copy() for key, value in network.state_dict().items()}


def _fit(spec: JobSpec, network: nn.Module, data: LabelledFeatures, seed: int) -> None:
    parameters = TrainingParameters(
        spec.epochs, spec.learning_rate, spec.weight_decay, spec.batch_size, spec.count_weight
    )
    train_severity(network, data, SCALES[spec.scale], parameters, seed)


def _offer(
    best: BestRound,
    round_number: int,
    spec: JobSpec,
    network: nn.Module,
    weights: Weights,
    sites: Mapping[str, SiteData],
) -> float | None:
    """Judge ``weights`` by the sites' validation cases; ``network`` holds them afterwards, in evaluation mode.

    Returns:
        The loss; None where it is not finite.
    """
    judged = _judged(round_number, spec, network, weights, sites)
    best.offer(round_number, weights, judged)
    return None if judged["loss"] is None else float(judged["loss"])


@torch.no_grad()
def _judged(
    round_number: int, spec: JobSpec, network: nn.Module, weights: Weights, sites: Mapping[str, SiteData]
) -> Mapping[str, Any]:
    load_weights(network, weights)
    network.eval()
    scale = SCALES[spec.scale]
    held = {name: sites[name].validation for name in sorted(sites)}
    tables = {name: evaluate_severity(network, data, scale) for name, data in held.items()}
    losses = [(float(severity_loss(network, data, scale, spec.count_weight)), len(data)) for data in held.values()]
    validation: Mapping[str, Any] = ledger_row(round_number, (), pool_tables(tables), spec.weighting, losses)[
        "validation"
    ]
    return validation
