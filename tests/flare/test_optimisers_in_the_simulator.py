"""FedProx, FedOpt, SCAFFOLD, further training at the sites, and privacy, in FLARE's own simulator."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch
from tiny_study import SITES, make_sites, simulate, tiny_spec

from mhsev_flare.job_spec import OPTIMISERS
from mhsev_flare.participation import RoundPolicy
from mhsev_monai.private_training import PrivacyParameters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_sites(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory, cohort):
    return simulate(tmp_path_factory.mktemp("plain"), cohort, tiny_spec())


def weights(path):
    return torch.load(path, weights_only=True)["weights"]


def lengths(ledger):
    return [row["anomalies"]["site-1"]["norm"] for row in ledger[:-1]]


def test_fedprox_keeps_the_sites_nearer_to_the_global_model(cohort, plain, tmp_path):
    strong = dataclasses.replace(OPTIMISERS["fedprox"], fedprox_mu=50.0)
    result, ledger, _ = simulate(tmp_path, cohort, tiny_spec(optimiser=strong))
    assert result["status"] == "completed", result["reason"]
    assert all(near < far for near, far in zip(lengths(ledger), lengths(plain[1]), strict=True))


def test_fedopt_without_momentum_is_fedavg_and_with_it_goes_further(cohort, plain, tmp_path):
    without = dataclasses.replace(OPTIMISERS["fedopt"], server_arguments={"lr": 1.0})
    result, _, model = simulate(tmp_path / "a", cohort, tiny_spec(optimiser=without))
    assert result["status"] == "completed", result["reason"]
    for key, value in weights(plain[2]).items():
        torch.testing.assert_close(value, weights(model)[key], rtol=0, atol=1e-6)
    result, ledger, _ = simulate(tmp_path / "b", cohort, tiny_spec(optimiser=OPTIMISERS["fedopt"]))
    assert result["status"] == "completed", result["reason"]
    # The loss still falls in a straight line here, along which momentum goes faster.
    assert ledger[-1]["validation"]["loss"] < plain[1][-1]["validation"]["loss"]


def test_scaffold_begins_as_fedavg_and_then_corrects_the_sites(cohort, plain, tmp_path):
    spec = tiny_spec(optimiser=OPTIMISERS["scaffold"])
    result, ledger, _ = simulate(tmp_path, cohort, spec)
    assert result["status"] == "completed", result["reason"]
    assert ledger[0] == plain[1][0]
    assert ledger[1]["validation"] == plain[1][1]["validation"]
    assert ledger[2]["validation"] != plain[1][2]["validation"]

    # Corrected steps of different sites point more the same way.
    def cosine(rows):
        return np.mean([a["nearest_cosine"] for row in rows[1:-1] for a in row["anomalies"].values()])

    assert cosine(ledger) > cosine(plain[1])


def test_training_ends_when_it_no_longer_helps_and_each_site_keeps_a_model_of_its_own(cohort, tmp_path):
    policy = RoundPolicy(min_sites=2, grace_seconds=5.0, patience=1, least_improvement=0.5)
    spec = tiny_spec(policy=policy, num_rounds=20, personalise=True)
    result, ledger, _ = simulate(tmp_path, cohort, spec)
    assert result["status"] == "completed", result["reason"]
    assert result["converged_at_round"] == 2
    assert len(ledger) == 3
    assert set(result["personalised"]) == set(SITES)
    for site in SITES:
        own = result["personalised"][site]["table"]["n"]
        assert own == result["test"]["sites"][site]["table"]["n"]
        assert len(list((tmp_path / "workspace" / site).rglob("personal.pt"))) == 1
    assert not list((tmp_path / "workspace" / "server").rglob("personal.pt"))


@pytest.mark.skipif(importlib.util.find_spec("opacus") is None, reason="opacus (extra dp) is not installed")
def test_what_privacy_costs_is_counted_over_rounds_and_jobs(cohort, tmp_path):
    private = PrivacyParameters(noise_multiplier=2.0, max_grad_norm=1.0, delta=1e-3)
    spec = tiny_spec(privacy=private, num_rounds=2, batch_size=8)
    result, ledger, _ = simulate(tmp_path / "first", cohort, spec)
    assert result["status"] == "completed", result["reason"]
    assert ledger[0]["sites"]["site-1"]["train_loss"] is None
    spent = [row["anomalies"]["site-1"]["epsilon"] for row in ledger[:2]]
    assert 0 < spent[0] < spent[1] == result["epsilon"]["site-1"]
    result, _, _ = simulate(tmp_path / "second", cohort, spec)
    assert result["epsilon"]["site-1"] > spent[1]
