"""Random search over the settings of the candidate network, judged by what a federation may know.

A trial is one federated training; its score is the validation loss, pooled over the sites, of its best round. No test
case is looked at, and no site sends more than it does in any run. The budget is the number of trials, the job as it is
included.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mhsev_flare.benchmark.averaging import average_federated, validation_of
from mhsev_flare.benchmark.protocol import Cohort
from mhsev_flare.jobs import JobSpec
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.model_file import class_config
from mhsev_monai.severity import SCALES

NETWORK_SPACE: dict[str, Sequence[Any]] = {
    "hidden_features": ([16], [24, 12], [32, 16], [48, 24]),
    "dropout": (0.0, 0.1, 0.2, 0.3),
    "noise": (0.0, 0.1, 0.3, 0.5),
    "grade_weight": (0.0, 0.5, 1.0, 2.0),
}
TRAINING_SPACE: dict[str, Sequence[Any]] = {
    "learning_rate": (3e-3, 5e-3, 1e-2, 2e-2),
    "weight_decay": (1e-3, 1e-2, 3e-2, 1e-1),
    "batch_size": (8, 16, 32),
}
"""Each setting is drawn from its list with equal chances; 12288 combinations."""


@dataclass(frozen=True)
class Trial:
    """One federated training.

    Attributes:
        settings: what was drawn, by name; of the first trial, the job's own.
        loss: validation loss, mean over the splits.
        quadratic_kappa: of the validation cases, mean over the splits; NaN where it is undefined.
    """

    settings: dict[str, Any]
    loss: float
    quadratic_kappa: float


def search_settings(
    spec: JobSpec,
    cohort: Cohort,
    budget: int,
    seed: int,
    n_splits: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Trial]:
    """Trials in the order of their validation loss, the best first.

    Args:
        spec: a job with a ``CandidateMLP``.
        cohort: with the features that the job reads.
        budget: trials, 1 or more; the first is ``spec`` as it is.
        seed: of the draws.
        n_splits: splits that each trial is trained on, seeds 1 to this.
        progress: called with trials done and the total.

    Raises:
        ValueError: if the job has another network, or the budget is below 1.
    """
    if not isinstance(spec.network, CandidateMLP) or budget < 1 or n_splits < 1:
        raise ValueError(
            f"the search needs a job with a CandidateMLP, a budget and splits of 1 or more; got {spec.name}, {budget} "
            f"and {n_splits}"
        )
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(budget):
        tried = spec if number == 0 else with_settings(spec, draw_settings(rng))
        trials.append(_try(tried, cohort, n_splits))
        progress(number + 1, budget)
    return sorted(trials, key=lambda trial: trial.loss)


def draw_settings(rng: np.random.Generator) -> dict[str, Any]:
    """A random combination."""
    space = {**NETWORK_SPACE, **TRAINING_SPACE}
    return {name: values[int(rng.integers(len(values)))] for name, values in space.items()}


def with_settings(spec: JobSpec, settings: dict[str, Any]) -> JobSpec:
    """The job with other settings of its network and its training."""
    arguments = {**class_config(spec.network)["args"], **{name: settings[name] for name in NETWORK_SPACE}}
    network = type(spec.network)(**arguments)
    return replace(spec, network=network, **{name: settings[name] for name in TRAINING_SPACE})


def settings_of(spec: JobSpec) -> dict[str, Any]:
    """The job's own settings by the names of the space."""
    network = {name: copy.copy(getattr(spec.network, name)) for name in NETWORK_SPACE}
    return {**network, **{name: getattr(spec, name) for name in TRAINING_SPACE}}


def _try(spec: JobSpec, cohort: Cohort, n_splits: int) -> Trial:
    losses, kappas = [], []
    for split_seed in range(1, n_splits + 1):
        seeded = replace(spec, seed=split_seed)
        sites = cohort.split(spec.inputs, split_seed, SCALES[spec.scale])
        validation = validation_of(seeded, average_federated(seeded, sites).weights, sites)
        losses.append(validation["loss"])
        kappas.append(np.nan if validation["quadratic_kappa"] is None else validation["quadratic_kappa"])
    return Trial(settings_of(spec), float(np.mean(losses)), float(np.mean(kappas)))
