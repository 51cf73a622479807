"""Federations that a server watches, with and without protection, and what attacks make of what it sees.

The study is simulated (``simulated_sites``) with vectors as long as those of the job ``dsd_mlp_literal``, and the job
is that one: its network, learning rate, batch size and epochs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from privacy_attacks import (
    Arrays,
    Membership,
    Nearest,
    Search,
    Sent,
    case_losses,
    cosine_distance,
    first_layer_inputs,
    gradient_simulation,
    likelihood_ratios,
    membership,
    nearest,
    squared_distance,
    standardised,
    training_simulation,
)
from simulated_sites import Population, simulate_sites
from torch import nn

from mhsev_flare.benchmark.averaging import Weights, load_weights, start_weights
from mhsev_flare.jobs import GLOBAL_FEATURES, JOBS, JobSpec
from mhsev_flare.protocol import BUFFERS
from mhsev_flare.result import pool_tables
from mhsev_flare.rounds import training_seed
from mhsev_flare.site_data import SiteData
from mhsev_monai.evaluation import evaluate_severity
from mhsev_monai.metrics import severity_metrics
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.private_training import PrivacyParameters, train_severity_privately
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures, TrainingParameters, train_severity

SIZES = (84, 36, 24)
"""Cases of the sites; four fifths of the first are the pool of which half, 34 cases, are trained on each time."""
WATCHED = "site-1"
N_FEATURES = len(GLOBAL_FEATURES)


@dataclass(frozen=True)
class Protection:
    """What sites do so that their updates tell less.

    Attributes:
        title: in words.
        privacy: DP-SGD at every site; None: plain training.
        longest: a site cuts its update to this length (L2); None: it sends it as it is.
    """

    title: str
    privacy: PrivacyParameters | None = None
    longest: float | None = None


@dataclass(frozen=True)
class Watched:
    """What a server keeps of a training.

    Attributes:
        sent: weights that it sent out in each round, and at the end those that came of the last.
        updates: of the watched site, one a round.
        account: of the watched site's private training; None without it.
    """

    sent: tuple[Weights, ...]
    updates: tuple[Mapping[str, np.ndarray], ...]
    account: Mapping[str, Any] | None


def watched_job(seed: int) -> JobSpec:
    """``dsd_mlp_literal``, whose sites take part whatever their features are."""
    return replace(JOBS["dsd_mlp_literal"], seed=seed)


def watched_study(seed: int) -> tuple[dict[str, SiteData], LabelledFeatures]:
    """The sites, and the pool of cases of which the watched site trains on half."""
    sites = simulate_sites(SIZES, seed, Population(n_features=N_FEATURES))
    return sites, sites[WATCHED].train


def with_members(sites: Mapping[str, SiteData], pool: LabelledFeatures, members: NDArray[np.bool_]) -> dict[str, Any]:
    """The sites, of which the watched one trains on these cases of the pool."""
    chosen = pool.take(torch.from_numpy(np.flatnonzero(members)))
    return {**sites, WATCHED: replace(sites[WATCHED], train=chosen)}


def halves(n_trainings: int, n: int, seed: int) -> NDArray[np.bool_]:
    """``(n_trainings, n)`` random halves of ``n`` cases; two after one another hold every case once between them."""
    random = np.random.default_rng(seed)
    first = [random.permutation(n) < n // 2 for _ in range((n_trainings + 1) // 2)]
    return np.array([half for one in first for half in (one, ~one)][:n_trainings])


def parameters_of(spec: JobSpec) -> TrainingParameters:
    """How a site trains in a round."""
    return TrainingParameters(spec.epochs, spec.learning_rate, spec.weight_decay, spec.batch_size, spec.count_weight)


def local_update(
    network: nn.Module,
    data: LabelledFeatures,
    parameters: TrainingParameters,
    seed: int,
    protection: Protection,
    account: Mapping[str, Any] | None = None,
) -> tuple[dict[str, np.ndarray], Mapping[str, Any] | None]:
    """What a site sends in a round that begins with ``network``, which stays as it is; and its account."""
    trained = copy.deepcopy(network)
    if protection.privacy is None:
        train_severity(trained, data, PAPER_SCALE, parameters, seed)
    else:
        # Seeded, so that the page can be made again; a study must not be.
        _, account = train_severity_privately(trained, data, PAPER_SCALE, parameters, protection.privacy, seed, account)
    before = network.state_dict()
    update = {k: v.numpy() - before[k].numpy() for k, v in trained.state_dict().items() if k not in BUFFERS}
    if protection.longest is not None:
        shorter = np.float32(min(1.0, protection.longest / update_length(update)))
        update = {key: shorter * value for key, value in update.items()}
    return update, account


def update_length(update: Mapping[str, np.ndarray]) -> float:
    """L2 over all weights."""
    return float(np.sqrt(sum(np.sum(np.square(value, dtype=np.float64)) for value in update.values())))


def as_sent(update: Mapping[str, np.ndarray]) -> Sent:
    """An update in the form of ``privacy_attacks``."""
    return [torch.from_numpy(value) for value in update.values()]


def watch(spec: JobSpec, sites: Mapping[str, SiteData], protection: Protection, secret: int = 0) -> Watched:
    """Federated averaging as ``averaging.federate`` does it, a test compares the two, with protection at the sites.

    Args:
        spec: its seed is known to the server.
        sites: name to cases.
        protection: at every site.
        secret: seed of private training, of which the server knows nothing: another one for each training, or LiRA
            would compare trainings with the same noise, which then hides nothing.
    """
    known = spec.seed if protection.privacy is None else secret
    network, sent, updates = copy.deepcopy(spec.network), start_weights(spec, sites), []
    names, history = sorted(sites), []
    accounts: dict[str, Mapping[str, Any] | None] = {}
    cases = [len(sites[name].train) for name in names]
    for round_number in range(spec.num_rounds):
        history.append(sent)
        load_weights(network, sent)
        arrived = {}
        for name in names:
            seed = training_seed(known, name, round_number)
            arrived[name], accounts[name] = local_update(
                network, sites[name].lessons, parameters_of(spec), seed, protection, accounts.get(name)
            )
        updates.append(arrived[WATCHED])
        mean = spec.combination.combine([arrived[name] for name in names], cases, cases).update
        sent = {key: value + mean[key] if key in mean else value for key, value in sent.items()}
    return Watched((*history, sent), tuple(updates), accounts[WATCHED])


ATTACKS = (
    "loss, last global model",
    "loss, site's last model",
    "LiRA, last global model",
    "LiRA, site's last model",
    "LiRA, site's models of all rounds",
    "LiRA, first model, which knows moments and numbers by grade alone",
)


def statistics_of(spec: JobSpec, seen: Watched, pool: LabelledFeatures) -> list[Arrays]:
    """For each of ``ATTACKS`` what it knows of every case of the pool after one training."""
    network = copy.deepcopy(spec.network)

    def fit(weights: Weights) -> Arrays:
        load_weights(network, weights)
        return -np.log(case_losses(network, pool, spec.count_weight) + 1e-6)

    own = [
        fit({k: v + update.get(k, 0) for k, v in sent.items()})
        for sent, update in zip(seen.sent[:-1], seen.updates, strict=True)
    ]
    common = fit(seen.sent[-1])
    return [common, own[-1], common, own[-1], np.mean(own, axis=0), fit(seen.sent[0])]


def memberships(statistics: Sequence[Sequence[Arrays]], inside: NDArray[np.bool_], seed: int) -> dict[str, Membership]:
    """By attack, from :func:`statistics_of` of each training and who was in it."""
    found = {}
    for number, attack in enumerate(ATTACKS):
        scores = np.array([each[number] for each in statistics])
        if attack.startswith("LiRA"):
            scores = likelihood_ratios(scores, inside)
        pairs = [(row[there], row[~there]) for row, there in zip(scores, inside, strict=True)]
        found[attack] = membership(pairs, seed)
    return found


def global_scores(spec: JobSpec, seen: Watched, sites: Mapping[str, SiteData]) -> tuple[float, float]:
    """Accuracy and quadratic kappa of the last global model on all sites' test cases."""
    network = copy.deepcopy(spec.network)
    load_weights(network, seen.sent[-1])
    network.eval()
    tables = {name: evaluate_severity(network, data.test, PAPER_SCALE) for name, data in sites.items()}
    metrics = severity_metrics(pool_tables(tables))
    return float(metrics.accuracy or 0.0), float(metrics.quadratic_kappa or 0.0)


GRADIENT, STEP, ROUND = "gradient of all, one step", "one step of AdamW", "a round of the job"
CLOSED_FORM, SQUARED, COSINE = "closed form", "search, squared distance", "search, cosine"
THROUGH = "search through the training, cosine"


@dataclass(frozen=True)
class Reconstruction:
    """One row: what is sent of how many cases, and what is made of it.

    Attributes:
        sends: ``GRADIENT``, ``STEP`` or ``ROUND``, from the weights of round 0.
        n_cases: that the site has.
        attack: ``CLOSED_FORM``, ``SQUARED``, ``COSINE`` or ``THROUGH``.
        n_repeats: with other cases each time.
        n_steps: of a search.
        protection: at the site, for updates.
    """

    sends: str
    n_cases: int
    attack: str
    n_repeats: int
    n_steps: int
    protection: Protection

    def run(self, network: SeverityMLP, pool: LabelledFeatures, spec: JobSpec) -> tuple[Nearest, Nearest]:
        """How well the sent cases are known, and as many others of the same site that were not there."""
        found: list[list[Nearest]] = [[], []]
        for repeat in range(self.n_repeats):
            order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(repeat))
            cases, absent = (pool.take(part) for part in order[: 2 * self.n_cases].split(self.n_cases))
            guesses = self._guess(network, cases, spec, repeat)
            for rows, each in zip(found, (cases, absent), strict=True):
                rows.append(nearest(guesses, standardised(network, each.features)))
        true, others = (Nearest(*map(np.concatenate, zip(*rows, strict=True))) for rows in found)
        return true, others

    def _guess(self, network: SeverityMLP, cases: LabelledFeatures, spec: JobSpec, repeat: int) -> torch.Tensor:
        seed, parameters = training_seed(spec.seed, WATCHED, 0), parameters_of(spec)
        if self.sends == STEP:
            parameters = replace(parameters, epochs=1, batch_size=len(cases))
        gradient = gradient_simulation(network, spec.count_weight)
        if self.sends == GRADIENT:
            sent: Sent = [part.detach() for part in gradient(cases)]
        else:
            # Private training has a seed that the server does not know.
            own = seed if self.protection.privacy is None else seed + 1 + repeat
            sent = as_sent(local_update(network, cases, parameters, own, self.protection)[0])
        if self.attack == CLOSED_FORM:
            return first_layer_inputs(sent)
        search, simulate = Search(self.n_steps, repeat), gradient
        if self.attack == THROUGH:
            simulate = training_simulation(network, parameters, seed)
        elif self.sends != GRADIENT:
            sent = [-part for part in sent]  # an update leads down the gradient
        distance = squared_distance if self.attack == SQUARED else cosine_distance
        return search.find(sent, simulate, distance, network, cases.counts)[0]
