"""One training under attack: the study, who attacks, how updates are combined, and what the model is worth."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from attacks import ATTACKS, NONE, TRIGGER
from simulated_sites import NINE_SITES, THREE_SITES, Population, simulate_sites

from mhsev_flare.benchmark.averaging import Averaged, federate, load_weights
from mhsev_flare.combination import Combination
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.jobs import JOBS
from mhsev_flare.result import pool_tables
from mhsev_flare.site_data import SiteData
from mhsev_monai.evaluation import evaluate_severity
from mhsev_monai.metrics import severity_metrics
from mhsev_monai.networks import SeverityMLP, predict_severity
from mhsev_monai.severity import PAPER_SCALE, Severity


@dataclass(frozen=True)
class DefendedJob(JobSpec):
    """A job whose combination is given whole; a job of the table names a rule and leaves the rest at its default."""

    chosen: Combination = field(default_factory=Combination)

    @property
    def combination(self) -> Combination:
        """How the sites' updates are combined."""
        return self.chosen


def attack_job(combination: Combination, seed: int, num_rounds: int = 12) -> DefendedJob:
    """The job that is attacked: ``dsd_mlp_literal`` with a network of the simulated vectors and short training."""
    job = JOBS["dsd_mlp_literal"]
    own = {entry.name: getattr(job, entry.name) for entry in fields(job)}
    network = SeverityMLP(
        in_features=Population().n_features,
        hidden_features=[16],
        num_classes=len(Severity),
        dropout=0.1,
        max_deviation=5.0,
        seed=1,
    )
    made = DefendedJob(**{**own, "network": network}, chosen=combination)
    return replace(
        made, num_rounds=num_rounds, epochs=2, learning_rate=3e-2, weight_decay=1e-2, batch_size=64, seed=seed
    )


@dataclass(frozen=True)
class Setup:
    """Who is there.

    Attributes:
        title: in words.
        sizes: training and validation cases of each site.
        attackers: names of those that attack; the others are judged.
    """

    title: str
    sizes: tuple[int, ...]
    attackers: tuple[str, ...]


SETUPS: Mapping[str, Setup] = {
    "smallest of three": Setup("three sites, the smallest attacks", THREE_SITES, ("site-3",)),
    "largest of three": Setup("three sites, the largest attacks", THREE_SITES, ("site-1",)),
    "two of nine": Setup("nine sites, the two smallest attack together", NINE_SITES, ("site-8", "site-9")),
}


@dataclass(frozen=True)
class Outcome:
    """What a training came to, judged by the honest sites' test cases.

    Attributes:
        accuracy: over four grades.
        kappa: quadratic.
        backdoor: share of the cases that are not severe and are graded so once they bear the trigger.
        lies_refused: share of the attackers' updates that did not enter the average.
        honest_refused: the same of the honest sites.
        best_round: that was kept.
        stopped: why training ended early; empty if it did not.
    """

    accuracy: float
    kappa: float
    backdoor: float
    lies_refused: float
    honest_refused: float
    best_round: int
    stopped: str


def run_attack(setup: Setup, attack: str, job: JobSpec) -> Outcome:
    """Train ``job`` under ``attack``; its seed is also that of the sites.

    The attackers' validation cases take part in the choice of the best round, as they do in a study.
    """
    sites = simulate_sites(setup.sizes, job.seed)
    chosen = ATTACKS[attack]
    averaged = federate(job, chosen.poisoned(sites, setup.attackers), chosen.meddle(setup.attackers, job.seed))
    honest = {name: data for name, data in sites.items() if name not in setup.attackers}
    return _judged(averaged, job, honest, setup.attackers if attack != NONE else ())


def _judged(averaged: Averaged, job: JobSpec, honest: Mapping[str, SiteData], liars: Collection[str]) -> Outcome:
    network = copy.deepcopy(job.network)
    load_weights(network, averaged.best.weights)
    network.eval()
    metrics = severity_metrics(
        pool_tables({name: evaluate_severity(network, data.test, PAPER_SCALE) for name, data in honest.items()})
    )
    return Outcome(
        accuracy=float(metrics.accuracy or 0.0),
        kappa=float(metrics.quadratic_kappa or 0.0),
        backdoor=_fooled(network, honest),
        lies_refused=_refused(averaged, liars),
        honest_refused=_refused(averaged, honest),
        best_round=averaged.best.round_number,
        stopped=averaged.stopped,
    )


def _fooled(network: torch.nn.Module, honest: Mapping[str, SiteData]) -> float:
    answers = []
    for data in honest.values():
        mild = data.test.take((data.test.grades(PAPER_SCALE) < Severity.SEVERE).nonzero().squeeze(1))
        answers.append(predict_severity(network, TRIGGER.stamp(mild.features), PAPER_SCALE).grades == Severity.SEVERE)
    return float(torch.cat(answers).float().mean())


def _refused(averaged: Averaged, names: Collection[str]) -> float:
    """Share of these sites' updates that were refused, by themselves or beside the others; NaN where there is none."""
    found = []
    for judged in averaged.oddities:
        for name in names:
            oddity = judged.get(name)
            found.append(name not in judged or (oddity is not None and bool(oddity.reason)))
    return float(np.mean(found)) if found else float("nan")
