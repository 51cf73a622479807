"""Curves of the rounds: the ledger's numbers, at the server, and nothing that a site would have to send."""

from __future__ import annotations

import json

import pytest
from tiny_study import make_sites, simulate, tiny_spec

from mhsev_flare.jobs import export_job
from mhsev_flare.rounds import round_scalars

ROW = {
    "round": 3,
    "sites": {"a": {"n_samples": 4, "train_loss": 0.5}, "b": {"n_samples": 4, "train_loss": None}},
    "refused": {"c": "too long"},
    "absent": ["d", "e"],
    "validation": {"n": 9, "loss": 1.25, "quadratic_kappa": None, "balanced_accuracy": 0.75},
}


def test_a_row_becomes_named_numbers_without_what_is_undefined():
    assert round_scalars(ROW) == {
        "validation/loss": 1.25,
        "validation/balanced_accuracy": 0.75,
        "train_loss/a": 0.5,
        "sites/taken": 2.0,
        "sites/left_out": 3.0,
    }


def receivers(job) -> list[dict]:
    config = json.loads((job / "app" / "config" / "config_fed_server.json").read_text())
    return [c for c in config["components"] if c["path"].endswith("TBAnalyticsReceiver")]


def test_the_receiver_is_in_the_job_on_demand_and_hears_the_server_alone(tmp_path):
    pytest.importorskip("tensorboard")
    (receiver,) = receivers(export_job(tiny_spec(tensorboard=True), tmp_path / "with"))
    assert receiver["args"]["events"] == ["analytix_log_stats"]
    assert receivers(export_job(tiny_spec(), tmp_path / "without")) == []


@pytest.mark.slow
def test_the_curves_hold_what_the_ledger_says(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, ledger, _ = simulate(tmp_path, make_sites(tmp_path / "cohort"), tiny_spec(tensorboard=True))
    assert result["status"] == "completed"
    (events,) = tmp_path.rglob("*tfevents*")
    read = EventAccumulator(str(events)).Reload()
    curves = {tag: {e.step: e.value for e in read.Scalars(tag)} for tag in read.Tags()["scalars"]}
    assert curves["validation/loss"] == pytest.approx({r["round"]: r["validation"]["loss"] for r in ledger})
    for site in ("site-1", "site-2", "site-3"):
        trained = {r["round"]: r["sites"][site]["train_loss"] for r in ledger if r["sites"]}
        assert curves[f"train_loss/{site}"] == pytest.approx(trained)
