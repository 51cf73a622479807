"""Random search over the settings of a job's network and training, judged by what a federation may know.

A trial is one federated training; its score is the ranked probability score of the pooled validation cases at its best
round, which means the same whatever loss was trained on. No test case is looked at, and no site sends more than it does
in any run. The budget is the number of trials, the job as it is included. Every kind of network has its space, of about
as many settings, so that all models can be given the same effort.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mhsev_flare.benchmark.averaging import average_federated, load_weights
from mhsev_flare.benchmark.kept import digest_sites, outcome_key
from mhsev_flare.benchmark.kept_scores import read_scores, write_scores
from mhsev_flare.benchmark.protocol import Cohort
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.result import pool_tables
from mhsev_flare.site_data import SiteData
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.described_patch_network import DescribedPatchNetwork
from mhsev_monai.evaluation import evaluate_severity
from mhsev_monai.metrics import severity_metrics
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.patch_network import CandidateCNN
from mhsev_monai.severity import SCALES
from mhsev_monai.volume_network import SeverityCNN3d

Space = Mapping[str, Sequence[Any]]
"""Each setting is drawn from its list with equal chances."""

_GROUPS = ["group", {"num_groups": 4}]
_RESNETS = tuple(
    # A first stride of 1 is not among them: every later layer has eight times as many voxels then, too many for a CPU.
    {"_target_": name, "widen_factor": width, "conv1_t_size": 3, "conv1_t_stride": 2, "norm": _GROUPS}
    for name, width in (("resnet10", 0.125), ("resnet10", 0.25), ("resnet10", 0.5), ("resnet18", 0.125))
)

NETWORK_SPACES: Mapping[type[nn.Module], Space] = {
    CandidateMLP: {
        "hidden_features": ([16], [24, 12], [32, 16], [48, 24]),
        "dropout": (0.0, 0.1, 0.2, 0.3),
        "noise": (0.0, 0.1, 0.3, 0.5),
        "grade_weight": (0.0, 0.5, 1.0, 2.0),
    },
    CandidateCNN: {
        "hidden_features": ([8, 16, 16], [12, 24, 24], [16, 32, 32], [24, 48, 48]),
        "dropout": (0.0, 0.1, 0.2, 0.3),
        "noise": (0.0, 0.1, 0.3, 0.5),
        "grade_weight": (0.0, 0.5, 1.0, 2.0),
    },
    DescribedPatchNetwork: {
        "convolutions": ([8, 16], [12, 24], [16, 32], [24, 48]),
        "embedding": (8, 16, 32),
        "hidden_features": ([16], [24, 12], [32, 16], [48, 24]),
        "dropout": (0.0, 0.1, 0.2, 0.3),
        "noise": (0.0, 0.1, 0.2, 0.3, 0.5),
        "grade_weight": (0.0, 0.5, 1.0, 2.0),
    },
    SeverityMLP: {
        "hidden_features": ([16], [32], [64, 32], [128, 64]),
        "dropout": (0.0, 0.1, 0.3, 0.5),
        "max_deviation": (2.0, 3.0, 5.0, 10.0),
    },
    SeverityCNN3d: {"backbone": _RESNETS},
}
"""Arguments of each kind of network."""

TRAINING_SPACES: Mapping[type[nn.Module], Space] = {
    CandidateMLP: {
        "learning_rate": (3e-3, 5e-3, 1e-2, 2e-2),
        "weight_decay": (1e-3, 1e-2, 3e-2, 1e-1),
        "batch_size": (8, 16, 32),
    },
    CandidateCNN: {
        "learning_rate": (1e-3, 3e-3, 5e-3, 1e-2),
        "weight_decay": (1e-3, 1e-2, 3e-2, 1e-1),
        "batch_size": (8, 16, 32),
    },
    DescribedPatchNetwork: {
        "learning_rate": (1e-3, 3e-3, 5e-3, 1e-2),
        "weight_decay": (1e-3, 1e-2, 3e-2, 1e-1),
        "batch_size": (8, 16, 32),
    },
    SeverityMLP: {
        "learning_rate": (3e-4, 1e-3, 3e-3, 1e-2),
        "weight_decay": (1e-3, 1e-2, 1e-1, 3e-1),
        "batch_size": (8, 16, 32),
        "count_weight": (0.5, 1.0, 3.0),
    },
    SeverityCNN3d: {
        "learning_rate": (3e-4, 1e-3, 3e-3),
        "weight_decay": (1e-3, 1e-2, 1e-1),
        "batch_size": (2, 4, 8),
        "count_weight": (0.5, 1.0, 3.0),
    },
}
"""Attributes of a row."""

MASK_SPACE: Space = {"mark_weight": (0.2, 0.5, 1.0, 2.0, 5.0)}
"""More arguments of networks that judge candidates, where sites have lesion masks; without them they decide nothing."""


@dataclass(frozen=True)
class Trial:
    """One federated training.

    Attributes:
        settings: what was drawn, by name; of the first trial, the job's own.
        rps: ranked probability score of the validation cases, 0 to 1, lower is better, mean over the splits; NaN where
            it is undefined.
        quadratic_kappa: of the validation cases, mean over the splits; NaN where it is undefined.
    """

    settings: dict[str, Any]
    rps: float
    quadratic_kappa: float


def search_settings(
    spec: JobSpec,
    cohort: Cohort,
    budget: int,
    seed: int,
    n_splits: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    kept: Path | None = None,
    masks: bool = False,
    vary: Sequence[str] = (),
) -> list[Trial]:
    """Trials in the order of their score, the best first.

    Args:
        spec: a job.
        cohort: with the features that the job reads.
        budget: trials, 1 or more; the first is ``spec`` as it is. No combination is tried twice: where fewer are
            left, there are fewer trials.
        seed: of the draws.
        n_splits: splits that each trial is trained on, seeds 1 to this.
        progress: called with trials done and the total.
        kept: folder where scores are kept, so that a search that was stopped goes on; None: they are not.
        masks: train also with the lesion masks of the simulation, whose weight is one more setting.
        vary: settings that are drawn, the others stay the job's; empty: all of them.

    Raises:
        ValueError: if the job's network has no space, cannot learn from masks or has no such setting, no site has
            masks, or the budget is below 1.
        OSError: if ``kept`` cannot be written.
    """
    if type(spec.network) not in NETWORK_SPACES or budget < 1 or n_splits < 1:
        raise ValueError(
            f"the search needs a job with one of {', '.join(kind.__name__ for kind in NETWORK_SPACES)}, a budget and "
            f"splits of 1 or more; got {spec.name} with {type(spec.network).__name__}, {budget} and {n_splits}"
        )
    space = _space(spec, masks, vary)
    combinations = _combinations(spec, space, budget, np.random.default_rng(seed))
    trials: list[Trial] = []
    for settings in combinations:
        trials.append(_try(spec, settings, cohort, n_splits, kept, masks))
        progress(len(trials), len(combinations))
    return sorted(trials, key=lambda trial: (np.isnan(trial.rps), trial.rps))


def space_of(spec: JobSpec, masks: bool = False) -> dict[str, Sequence[Any]]:
    """What may be drawn for a job, by name; ``masks``: where sites have lesion masks."""
    more = MASK_SPACE if masks else {}
    return {**NETWORK_SPACES[type(spec.network)], **TRAINING_SPACES[type(spec.network)], **more}


def draw_settings(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """A random combination."""
    return {name: values[int(rng.integers(len(values)))] for name, values in space.items()}


def with_settings(spec: JobSpec, settings: Mapping[str, Any]) -> JobSpec:
    """The job with other settings of its network and its training."""
    of_training = TRAINING_SPACES[type(spec.network)]
    changed = spec.with_network(**{name: value for name, value in settings.items() if name not in of_training})
    return replace(changed, **{name: value for name, value in settings.items() if name in of_training})


def settings_of(spec: JobSpec, space: Space) -> dict[str, Any]:
    """The job's own settings by the names of a space."""
    of_training = TRAINING_SPACES[type(spec.network)]
    return {name: copy.copy(getattr(spec if name in of_training else spec.network, name)) for name in space}


def _space(spec: JobSpec, masks: bool, vary: Sequence[str]) -> dict[str, Sequence[Any]]:
    if masks and not isinstance(spec.network, CandidateMLP):
        raise ValueError(
            f"{spec.name} does not judge candidates, so lesion masks teach it nothing; leave --masks out, or search a "
            "job that does"
        )
    space = space_of(spec, masks)
    if unknown := [name for name in vary if name not in space]:
        raise ValueError(f"{spec.name} has no setting {unknown[0]} to vary; there are {', '.join(space)}")
    return {name: space[name] for name in vary} if vary else space


def _combinations(spec: JobSpec, space: Space, budget: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The job's own settings, then random ones, each once."""
    own = settings_of(spec, space)
    n_others = math.prod(len(values) for values in space.values())
    n_others -= all(value in space[name] for name, value in own.items())
    found = [own]
    while len(found) < min(budget, 1 + n_others):
        drawn = draw_settings(space, rng)
        if drawn not in found:
            found.append(drawn)
    return found


def _try(
    spec: JobSpec, settings: dict[str, Any], cohort: Cohort, n_splits: int, kept: Path | None, masks: bool
) -> Trial:
    tried, scores = with_settings(spec, settings), []
    for split_seed in range(1, n_splits + 1):
        sites = cohort.split(spec.inputs, split_seed, SCALES[spec.scale], masks, spec.twins)
        if masks and all(site.train.marks is None for site in sites.values()):
            raise ValueError("no site has lesion masks; leave --masks out, or make a cohort with `mhsev cohort make`")
        scores.append(_kept_scores(replace(tried, seed=split_seed), sites, kept))
    rps, kappas = zip(*scores, strict=True)
    return Trial(settings, float(np.mean(rps)), float(np.mean(kappas)))


def _kept_scores(spec: JobSpec, sites: Mapping[str, SiteData], kept: Path | None) -> tuple[float, float]:
    if kept is None:
        return _score(spec, sites)
    key = outcome_key(spec, "search", digest_sites(sites), spec.scale)
    scores = read_scores(kept, key)
    if scores is None:
        scores = _score(spec, sites)
        write_scores(kept, key, scores)
    return scores


def _score(spec: JobSpec, sites: Mapping[str, SiteData]) -> tuple[float, float]:
    """Train federatedly; the pooled validation cases' ranked probability score and kappa, NaN where undefined."""
    network = copy.deepcopy(spec.network)
    load_weights(network, average_federated(spec, sites).weights)
    tables = {name: evaluate_severity(network, data.validation, SCALES[spec.scale]) for name, data in sites.items()}
    metrics = severity_metrics(pool_tables(tables))
    rps, kappa = (np.nan if score is None else score for score in (metrics.rps, metrics.quadratic_kappa))
    return float(rps), float(kappa)
