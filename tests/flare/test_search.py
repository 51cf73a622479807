"""The hyper-parameter search: its space, its budget, and that it knows no test case."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mhsev_flare.benchmark import search
from mhsev_flare.benchmark.kept_scores import read_scores, write_scores
from mhsev_flare.benchmark.search import (
    draw_settings,
    search_settings,
    settings_of,
    space_of,
    with_settings,
)
from mhsev_flare.jobs import JOBS
from mhsev_flare.site_data import SiteData
from mhsev_monai.training import LabelledFeatures

JOB = JOBS["dsd_mlp"]
N_DESCRIPTORS = len(JOB.inputs.feature_names)


@dataclasses.dataclass
class SeedsAsked:
    """What the search needs of a cohort: splits by seed; each has cases to train and to validate on, and no other."""

    seeds: list

    # The signature of the benchmark's cohorts, of which this stub needs the seed alone.
    def split(self, inputs, seed, scale, masks=False, twins=False):  # noqa: ARG002
        self.seeds.append(seed)
        return {f"site-{number}": site(seed, number) for number in (1, 2)}


def cases(rng, n):
    features = rng.normal(size=(n, 12, N_DESCRIPTORS)).astype(np.float32)
    counts = (features[..., 0] > 0.5).sum(axis=1).astype(np.float32)
    return LabelledFeatures(torch.from_numpy(features), torch.from_numpy(counts))


def site(seed, number):
    rng = np.random.default_rng([seed, number])
    return SiteData(cases(rng, 12), cases(rng, 6), cases(rng, 0), excluded={})


@pytest.mark.parametrize("name", list(JOBS))
def test_drawn_settings_come_from_the_space_and_reach_the_job(name):
    job, rng = JOBS[name], np.random.default_rng(0)
    for _ in range(10):
        settings = draw_settings(job, rng)
        assert all(settings[key] in values for key, values in space_of(job).items())
        changed = with_settings(job, settings)
        assert settings_of(changed) == settings
        assert (changed.inputs.fingerprint(), changed.num_rounds) == (job.inputs.fingerprint(), job.num_rounds)


@pytest.mark.parametrize("name", list(JOBS))
def test_every_job_can_be_given_the_same_effort_from_where_it_stands(name):
    """Some thousand combinations each, but for the network over volumes, whose trainings take an hour."""
    job = JOBS[name]
    n_combinations = np.prod([len(values) for values in space_of(job).values()])
    assert n_combinations >= (300 if name == "cnn3d" else 3000)
    own = settings_of(job)
    assert all(own[key] in values for key, values in space_of(job).items())


def test_no_setting_of_the_detector_needs_masks_that_the_search_does_not_have():
    assert "mark_weight" not in space_of(JOBS["detector_count"])


def test_trials_are_sorted_by_score_within_the_budget_and_hold_the_job_itself():
    cohort, calls = SeedsAsked([]), []
    short = dataclasses.replace(JOB, num_rounds=1, epochs=1)
    trials = search_settings(short, cohort, 3, 5, 2, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert cohort.seeds == [1, 2] * 3
    scores = [trial.rps for trial in trials]
    assert scores == sorted(scores)
    assert len(set(scores)) == 3
    assert all(0 <= score <= 1 for score in scores)
    assert settings_of(short) in [trial.settings for trial in trials]


def test_a_search_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    cohort, short, trained = SeedsAsked([]), dataclasses.replace(JOB, num_rounds=1, epochs=1), []
    real = search.average_federated
    monkeypatch.setattr(search, "average_federated", lambda *args: trained.append(1) or real(*args))
    whole = search_settings(short, cohort, 3, 5, 1)
    assert len(trained) == 3
    search_settings(short, cohort, 2, 5, 1, kept=tmp_path)
    assert search_settings(short, cohort, 3, 5, 1, kept=tmp_path) == whole
    assert len(trained) == 3 + 2 + 1
    assert search_settings(dataclasses.replace(short, num_rounds=2), cohort, 1, 5, 1, kept=tmp_path) != whole[:1]
    assert len(trained) == 7, "other settings are another training"


@pytest.mark.parametrize("text", ["", "[]", '{"rps": 0.1}', '{"rps": "x", "quadratic_kappa": 1}'])
def test_damaged_scores_are_computed_again_and_said(tmp_path, text, caplog):
    write_scores(tmp_path, "k", (0.25, np.nan))
    rps, kappa = read_scores(tmp_path, "k")
    assert rps == 0.25
    assert np.isnan(kappa)
    assert read_scores(tmp_path, "other") is None
    (tmp_path / "k.json").write_text(text)
    assert read_scores(tmp_path, "k") is None
    assert "computed again" in caplog.text


def test_other_networks_and_empty_budgets_are_refused():
    with pytest.raises(ValueError, match=r"needs a job with one of CandidateMLP, .* got dsd_mlp with Linear"):
        search_settings(dataclasses.replace(JOB, network=torch.nn.Linear(2, 2)), SeedsAsked([]), 2, 1, 1)
    with pytest.raises(ValueError, match="got dsd_mlp with CandidateMLP, 0 and 1"):
        search_settings(JOB, SeedsAsked([]), 0, 1, 1)
