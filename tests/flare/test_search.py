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
    marked: bool = False

    # The signature of the benchmark's cohorts, of which this stub needs the seed alone.
    def split(self, inputs, seed, scale, masks=False, twins=False):  # noqa: ARG002
        self.seeds.append(seed)
        return {f"site-{number}": site(seed, number, self.marked and masks) for number in (1, 2)}


def cases(rng, n, marked=False):
    features = rng.normal(size=(n, 12, N_DESCRIPTORS)).astype(np.float32)
    marks = torch.from_numpy((features[..., 0] > 0.5).astype(np.float32))
    return LabelledFeatures(torch.from_numpy(features), marks.sum(axis=1), marks if marked else None)


def site(seed, number, marked=False):
    rng = np.random.default_rng([seed, number])
    return SiteData(cases(rng, 12, marked), cases(rng, 6), cases(rng, 0), excluded={})


@pytest.mark.parametrize("name", list(JOBS))
def test_drawn_settings_come_from_the_space_and_reach_the_job(name):
    job, rng = JOBS[name], np.random.default_rng(0)
    space = space_of(job)
    for _ in range(10):
        settings = draw_settings(space, rng)
        assert all(settings[key] in values for key, values in space.items())
        changed = with_settings(job, settings)
        assert settings_of(changed, space) == settings
        assert (changed.inputs.fingerprint(), changed.num_rounds) == (job.inputs.fingerprint(), job.num_rounds)


@pytest.mark.parametrize("name", list(JOBS))
def test_every_job_can_be_given_the_same_effort_from_where_it_stands(name):
    """Some thousand combinations each, but for the network over volumes, whose trainings take an hour."""
    job = JOBS[name]
    n_combinations = np.prod([len(values) for values in space_of(job).values()])
    assert n_combinations >= (300 if name == "cnn3d" else 3000)
    own = settings_of(job, space_of(job))
    assert all(own[key] in values for key, values in space_of(job).items())


@pytest.mark.parametrize("name", ["dsd_mlp", "detector_count", "dsd_patches"])
def test_the_weight_of_masks_is_searched_where_there_are_masks_alone(name):
    job = JOBS[name]
    assert "mark_weight" not in space_of(job)
    assert space_of(job, masks=True).keys() - space_of(job).keys() == {"mark_weight"}
    changed = with_settings(job, {"mark_weight": 2.0})
    assert changed.network.mark_weight == 2.0
    assert settings_of(changed, space_of(job)) == settings_of(job, space_of(job))


def test_one_setting_is_searched_whole_and_once_with_the_masks_of_every_site():
    cohort, calls = SeedsAsked([], marked=True), []
    short = dataclasses.replace(JOB, num_rounds=1, epochs=1)
    trials = search_settings(
        short, cohort, 99, 1, 1, lambda done, total: calls.append((done, total)), masks=True, vary=["mark_weight"]
    )
    weights = sorted(trial.settings["mark_weight"] for trial in trials)
    assert weights == sorted(search.MASK_SPACE["mark_weight"])
    assert calls == [(number, len(weights)) for number in range(1, len(weights) + 1)]
    assert len({trial.rps for trial in trials}) == len(weights), "the weight reaches the training"


def test_masks_that_nobody_has_or_can_use_and_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="no site has lesion masks; leave --masks out"):
        search_settings(JOB, SeedsAsked([]), 2, 1, 1, masks=True)
    with pytest.raises(ValueError, match="radiomics_mlp does not judge candidates"):
        search_settings(JOBS["radiomics_mlp"], SeedsAsked([]), 2, 1, 1, masks=True)
    with pytest.raises(ValueError, match="dsd_mlp has no setting depth to vary; there are hidden_features, dropout"):
        search_settings(JOB, SeedsAsked([]), 2, 1, 1, vary=["depth"])


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
    assert settings_of(short, space_of(short)) in [trial.settings for trial in trials]


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
