"""The FLARE job of a row in one process: the same arithmetic in the same order, without messages.

A test runs both on one cohort and compares weights and results. What is shared is called, not written again: pooling of
standardisation, seeds, weights of the sites, the choice of the best round.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from mhsev_flare.jobs import JobSpec
from mhsev_flare.protocol import BUFFERS, Moments
from mhsev_flare.result import pool_tables
from mhsev_flare.rounds import BestRound, ledger_row, training_seed
from mhsev_flare.site_data import SiteData, grade_counts
from mhsev_flare.standardisation import pool_standardisation
from mhsev_flare.weighting import WEIGHTINGS, weighted_mean
from mhsev_monai.evaluation import evaluate_severity
from mhsev_monai.severity import SCALES
from mhsev_monai.training import (
    FeatureMoments,
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
    """The network's own weights, standardisation by all sites' training cases and twins, class weights by the cases."""
    messages = {}
    for name, data in sites.items():
        moments = FeatureMoments.of(data.lessons.features)
        messages[name] = {
            Moments.N: np.array([moments.n], dtype=np.float64),
            Moments.MEAN: moments.mean,
            Moments.SQUARED_DEVIATION: moments.squared_deviation,
            Moments.CLASS_COUNTS: grade_counts(data.train, SCALES[spec.scale]).astype(np.float64),
        }
    own = {key: value.numpy().copy() for key, value in spec.network.state_dict().items()}
    return {**own, **pool_standardisation(messages).buffers()}


def average_federated(spec: JobSpec, sites: Mapping[str, SiteData]) -> BestRound:
    """What ``SeverityFedAvg`` and its executors arrive at with these cases: the best round and its weights.

    Args:
        spec: its ``seed`` is that of shuffling and dropout.
        sites: name to cases; the test cases are not looked at.
    """
    names = sorted(sites)
    network, sent, best = copy.deepcopy(spec.network), start_weights(spec, sites), BestRound()
    shares = WEIGHTINGS[spec.weighting]([len(sites[name].train) for name in names])
    for round_number in range(spec.num_rounds):
        _offer(best, round_number, spec, network, sent, sites)
        updates = []
        for name in names:
            load_weights(network, sent)
            _fit(spec, network, sites[name].lessons, training_seed(spec.seed, name, round_number))
            updates.append({k: v - sent[k] for k, v in _weights(network).items() if k not in BUFFERS})
        mean = weighted_mean(updates, shares)
        sent = {key: value + mean[key] if key in mean else value for key, value in sent.items()}
    _offer(best, spec.num_rounds, spec, network, sent, sites)
    return best


def train_alone(spec: JobSpec, name: str, data: SiteData, start: Weights) -> BestRound:
    """What one site arrives at without the others: as many passes, the best round by its own validation cases.

    Args:
        spec: as for :func:`average_federated`.
        name: of the site, for the seeds.
        data: its cases.
        start: initial weights; their standardisation and class weights stay.
    """
    network, best = copy.deepcopy(spec.network), BestRound()
    load_weights(network, start)
    for round_number in range(spec.num_rounds):
        _offer(best, round_number, spec, network, _weights(network), {name: data})
        _fit(spec, network, data.lessons, training_seed(spec.seed, name, round_number))
    _offer(best, spec.num_rounds, spec, network, _weights(network), {name: data})
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
) -> None:
    """Judge ``weights`` by the sites' validation cases; ``network`` holds them afterwards, in evaluation mode."""
    best.offer(round_number, weights, _judged(round_number, spec, network, weights, sites))


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
