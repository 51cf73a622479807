"""The hyper-parameter search: its space, its budget, and that it knows no test case."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mhsev_flare.benchmark.search import (
    NETWORK_SPACE,
    TRAINING_SPACE,
    draw_settings,
    search_settings,
    settings_of,
    with_settings,
)
from mhsev_flare.jobs import JOBS
from mhsev_flare.site import SiteData
from mhsev_monai.training import LabelledFeatures

JOB = JOBS["dsd_mlp"]
N_DESCRIPTORS = len(JOB.inputs.feature_names)


@dataclasses.dataclass
class SeedsAsked:
    """What the search needs of a cohort: splits by seed; each has cases to train and to validate on, and no other."""

    seeds: list

    # The signature of the benchmark's cohorts, of which this stub needs the seed alone.
    def split(self, inputs, seed, scale, masks=False):  # noqa: ARG002
        self.seeds.append(seed)
        return {f"site-{number}": site(seed, number) for number in (1, 2)}


def cases(rng, n):
    features = rng.normal(size=(n, 12, N_DESCRIPTORS)).astype(np.float32)
    counts = (features[..., 0] > 0.5).sum(axis=1).astype(np.float32)
    return LabelledFeatures(torch.from_numpy(features), torch.from_numpy(counts))


def site(seed, number):
    rng = np.random.default_rng([seed, number])
    return SiteData(cases(rng, 12), cases(rng, 6), cases(rng, 0), excluded={})


def test_drawn_settings_come_from_the_space_and_reach_the_job():
    rng = np.random.default_rng(0)
    for _ in range(20):
        settings = draw_settings(rng)
        assert all(settings[name] in values for name, values in {**NETWORK_SPACE, **TRAINING_SPACE}.items())
        job = with_settings(JOB, settings)
        assert settings_of(job) == settings
        assert (job.network.members, job.num_rounds) == (JOB.network.members, JOB.num_rounds)


def test_trials_are_sorted_by_loss_within_the_budget_and_hold_the_job_itself():
    cohort, calls = SeedsAsked([]), []
    short = dataclasses.replace(JOB, num_rounds=1, epochs=1)
    trials = search_settings(short, cohort, 3, 5, 2, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert cohort.seeds == [1, 2] * 3
    losses = [trial.loss for trial in trials]
    assert losses == sorted(losses)
    assert len(set(losses)) == 3
    assert settings_of(short) in [trial.settings for trial in trials]


def test_other_networks_and_empty_budgets_are_refused():
    with pytest.raises(ValueError, match="needs a job with a CandidateMLP"):
        search_settings(JOBS["dsd_mlp_literal"], SeedsAsked([]), 2, 1, 1)
    with pytest.raises(ValueError, match="got dsd_mlp, 0 and 1"):
        search_settings(JOB, SeedsAsked([]), 0, 1, 1)
