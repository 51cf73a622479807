"""Sites that fail or lie, in FLARE's own simulator with a process a site; result files are read, not exit statuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_study import SITES, make_sites, simulate, tiny_spec

from mhsev_flare.participation import RoundPolicy

pytestmark = pytest.mark.slow

CANARY = "DOE^JANE"

# One fault a round, of one site, and what the ledger must say of it.
REFUSED = (
    ("nan", "not finite"),
    ("inf", "not finite"),
    ("shape", "has shape"),
    ("extra key", "keys that differ from the model's: 1 are not of the model"),
    ("fingerprint", "features of another schema"),
    ("huge", "times as long as the median"),
    ("samples", "training cases where it had"),
    ("stale", "an update of round"),
    ("claims", "an evaluation table of 10000000 cases"),
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_sites(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory, cohort):
    return simulate(tmp_path_factory.mktemp("clean"), cohort, tiny_spec())


def weights(path):
    return torch.load(path, weights_only=True)["weights"]


def test_what_one_of_three_sends_is_refused_by_name_and_the_others_go_on(tmp_path, cohort):
    faults = [{"kind": kind, "at": number} for number, (kind, _) in enumerate(REFUSED)]
    faults.append({"kind": "exception", "at": len(REFUSED)})
    n_rounds_with_faults = len(faults)
    faults.append({"kind": "claims", "at": "test"})
    spec = tiny_spec(num_rounds=n_rounds_with_faults + 1)
    result, ledger, model = simulate(tmp_path, cohort, spec, {"site-3": faults})
    assert result["status"] == "completed", result["reason"]
    for (kind, words), row in zip(REFUSED, ledger, strict=False):
        assert words in row["refused"]["site-3"], kind
        assert row["anomalies"]["site-3"]["accepted"] is False
        assert set(row["sites"]) == {"site-1", "site-2"}, kind
    assert ledger[len(REFUSED)]["absent"] == ["site-3"]
    assert set(ledger[len(REFUSED) + 1]["sites"]) == set(SITES)
    assert all(np.isfinite(row["validation"]["loss"]) for row in ledger)
    assert all(bool(torch.isfinite(value).all()) for value in weights(model).values())
    assert result["left_out"] == {"site-3": n_rounds_with_faults}
    assert set(result["test"]["sites"]) == {"site-1", "site-2"}
    assert result["absent"]["validate test"] == ["site-3"]
    assert "an evaluation table of 10000000 cases" in result["unusable"]["validate test"]["site-3"]
    log = (tmp_path / "workspace-simulator.log").read_text()
    assert f"site-3 WAS LEFT OUT OF {n_rounds_with_faults} ROUNDS" in log
    server = tmp_path / "workspace" / "server"
    assert not [f for f in server.rglob("*") if f.is_file() and CANARY.encode() in f.read_bytes()]


def test_when_all_updates_are_bad_the_run_fails_loudly_and_resume_ends_as_if_nothing_had_been(tmp_path, cohort, clean):
    bad = {site: [{"kind": "nan", "at": 2}] for site in SITES}
    result, ledger, model = simulate(tmp_path, cohort, tiny_spec(), bad)
    assert result["status"] == "failed"
    assert "0 acceptable updates in this round are too few" in result["reason"]
    assert "site-2: layers.0.bias holds values that are not finite" in result["reason"]
    assert [row["round"] for row in ledger] == [0, 1]
    assert not model.exists()
    result, ledger, model = simulate(tmp_path, cohort, tiny_spec(resume=True))
    assert result["status"] == "completed", result["reason"]
    assert result["resumed"]["round"] == 2
    assert ledger == clean[1]
    for key, value in weights(clean[2]).items():
        assert torch.equal(value, weights(model)[key]), key
    # What is finished cannot be resumed again.
    result, _, _ = simulate(tmp_path, cohort, tiny_spec(resume=True))
    assert result["status"] == "failed"
    assert "no unfinished run of this study" in result["reason"]


def test_a_slow_site_within_the_grace_is_waited_for_and_changes_nothing(tmp_path, cohort, clean):
    slow = {"site-1": [{"kind": "slow", "at": 1, "seconds": 3.0}]}
    policy = RoundPolicy(min_sites=2, grace_seconds=60.0)
    result, ledger, model = simulate(tmp_path, cohort, tiny_spec(policy=policy), slow)
    assert result["status"] == "completed", result["reason"]
    assert ledger == clean[1]
    for key, value in weights(clean[2]).items():
        assert torch.equal(value, weights(model)[key]), key


def test_a_site_that_is_slower_than_the_grace_is_left_out_by_name(tmp_path, cohort):
    slow = {"site-1": [{"kind": "slow", "at": 1, "seconds": 12.0}]}
    policy = RoundPolicy(min_sites=2, grace_seconds=3.0)
    result, ledger, _ = simulate(tmp_path, cohort, tiny_spec(policy=policy), slow)
    assert result["status"] == "completed", result["reason"]
    assert ledger[1]["absent"] == ["site-1"]
    assert result["left_out"]["site-1"] >= 1


def test_a_mandatory_site_is_not_gone_on_without(tmp_path, cohort):
    policy = RoundPolicy(min_sites=2, mandatory_sites=("site-1",), grace_seconds=1.0)
    bad = {"site-1": [{"kind": "nan", "at": 1}]}
    result, ledger, _ = simulate(tmp_path, cohort, tiny_spec(policy=policy), bad)
    assert result["status"] == "failed"
    assert "site-1 must take part and gave no usable answer" in result["reason"]
    assert len(ledger) == 1
