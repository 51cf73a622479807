"""The mean over rounds: a hand-computed one, numpy's, and what a federation and a site alone keep of it."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_study import tiny_spec

from mhsev_flare.benchmark.averaging import federate, load_weights, start_weights, train_alone
from mhsev_flare.encrypted_job import check_encryptable, encrypted_spec
from mhsev_flare.final_phase import FinalPhase
from mhsev_flare.jobs import JOBS
from mhsev_flare.local_training import LocalTraining
from mhsev_flare.model_average import averaged_models, check_decay, is_kept
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.site_data import SiteData
from mhsev_flare.study_record import StudyRecord
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures, TrainingParameters

SPEC = tiny_spec(num_rounds=7, rule="mean", learning_rate=0.2)
"""Steps so long that the loss rises again at times, of the federation and of site a: then the average is kept."""


def cases(seed: int, n: int) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    counts = torch.tensor(rng.integers(0, 20, n), dtype=torch.float32)
    noise = torch.tensor(rng.normal(scale=0.5, size=(n, 3)), dtype=torch.float32)
    return LabelledFeatures(torch.log1p(counts)[:, None] + noise, counts)


SITES = {name: SiteData(cases(s, 24), cases(s + 10, 12), cases(s + 20, 4), excluded={}) for s, name in enumerate("abc")}


def running(models: list[dict[str, np.ndarray]], decay: float) -> dict[str, np.ndarray]:
    average: dict[str, np.ndarray] = {}
    for n, model in enumerate(models, start=1):
        average = averaged_models(average, model, decay, n)
    return average


def test_three_models_by_hand():
    models = [{"w": np.array([v], np.float32)} for v in (1, 2, 4)]
    # Weights of one, two and four sevenths: (1 + 4 + 16) / 7.
    assert running(models, 0.5)["w"].tolist() == pytest.approx([3.0], rel=1e-6)


@pytest.mark.parametrize("decay", [0.1, 0.8, 0.99])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_it_is_numpys_weighted_mean_over_all_models(decay, n):
    rng = np.random.default_rng(n)
    stacked = rng.normal(size=(n, 4, 3)).astype(np.float32)
    found = running([{"w": w} for w in stacked], decay)["w"]
    expected = np.average(stacked.astype(np.float64), axis=0, weights=decay ** np.arange(n)[::-1])
    # float32 is kept between rounds.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert found.dtype == np.float32


def test_a_model_that_does_not_change_is_its_own_average():
    model = {"w": np.array([0.1, -3.7e-5, 1e9], np.float32), "n": np.array(7.0, np.float32)}
    found = running([model] * 20, 0.8)
    assert all(np.array_equal(found[key], value) for key, value in model.items())


def test_the_average_holds_copies():
    model = {"w": np.zeros(2, np.float32)}
    found = running([model], 0.5)
    model["w"][:] = 9
    assert found["w"].tolist() == [0, 0]


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match=r"ema_decay must be at least 0, which is none, and below 1; got"):
        check_decay(decay)
    with pytest.raises(ValueError, match="ema_decay"):
        dataclasses.replace(SPEC, ema_decay=decay)


@pytest.mark.parametrize(
    ("average", "last", "kept"),
    [(0.5, 0.5, True), (0.4, 0.5, True), (0.6, 0.5, False), (0.6, None, True), (None, 0.5, False), (None, None, False)],
)
def test_it_is_kept_unless_the_last_model_is_better_or_it_has_no_loss(average, last, kept):
    assert is_kept(average, last) == kept


def test_a_federation_keeps_the_mean_of_the_models_that_its_rounds_ended_with(monkeypatch):
    import mhsev_flare.benchmark.averaging as module

    judged: list[dict[str, np.ndarray]] = []
    real = module._judged

    def noting(number, spec, network, weights, sites):
        judged.append(dict(weights))
        return real(number, spec, network, weights, sites)

    monkeypatch.setattr(module, "_judged", noting)
    found = federate(dataclasses.replace(SPEC, ema_decay=0.5), SITES).best
    # The untrained model and those after seven rounds are judged, and then the mean of the seven.
    assert len(judged) == 9
    shares = 0.5 ** np.arange(7)[::-1]
    for key, value in found.weights.items():
        models = np.stack([each[key] for each in judged[1:8]]).astype(np.float64)
        expected = np.average(models, axis=0, weights=shares)
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6, err_msg=key)
    assert found.round_number == 7


def test_a_site_alone_keeps_the_same_in_its_own_process_and_in_the_benchmark():
    spec = dataclasses.replace(SPEC, ema_decay=0.5)
    start = start_weights(spec, SITES)
    expected = train_alone(spec, "a", SITES["a"], start)
    network = copy.deepcopy(spec.network)
    load_weights(network, start)
    parameters = TrainingParameters(
        spec.epochs, spec.learning_rate, spec.weight_decay, spec.batch_size, spec.count_weight
    )
    found = LocalTraining(network, PAPER_SCALE, parameters, spec.seed, "a").train_alone(
        SITES["a"], spec.num_rounds, spec.ema_decay
    )
    without = train_alone(SPEC, "a", SITES["a"], start)
    assert found.round_number == expected.round_number
    assert all(np.array_equal(found.weights[key], value) for key, value in expected.weights.items())
    assert any(not np.array_equal(without.weights[key], value) for key, value in expected.weights.items())


def test_it_does_not_go_with_an_early_end():
    with pytest.raises(ValueError, match="with ema_decay, patience must be 0"):
        dataclasses.replace(SPEC, ema_decay=0.5, policy=RoundPolicy(patience=2))


@pytest.mark.parametrize("answering", [("a", "b"), ("a",)])
def test_it_is_kept_only_where_those_judge_it_that_judged_the_last_model(tmp_path, answering):
    """Its loss over the cases of fewer sites says nothing beside that of the last model over all."""
    record = StudyRecord(tmp_path / "run", tmp_path / "checkpoints", "job", "c", ema_decay=0.5)
    record.sent = {"w": np.zeros(1, np.float32)}
    validation = {"n": 4, "quadratic_kappa": 0.1, "balanced_accuracy": 0.5, "loss": 0.6}
    row = {"round": 0, "sites": {}, "refused": {}, "absent": [], "validation": validation}
    record.close_round(row, {"w": np.ones(1, np.float32)})
    record.close_last({**row, "round": 1})
    table = SeverityTable.from_predictions(np.eye(4), [0, 1, 5, 20], [0, 1, 5, 20], [0, 1, 2, 3])
    judge = SimpleNamespace(judge=lambda *_: (dict.fromkeys(answering, table), [(0.3, 4)]))
    phase = FinalPhase(lambda *_, **__: [], PAPER_SCALE, seed=1)
    phase.evaluation = judge
    entry = phase.average(record, {"a", "b"}, "samples")
    assert (entry["decay"], entry["models"]) == (0.5, 1)
    assert entry["validation"]["loss"] == 0.3
    assert entry["kept"] == (answering == ("a", "b"))
    assert record.best.round_number == (1 if entry["kept"] else 0)


def test_an_encrypted_job_averages_no_rounds():
    spec = encrypted_spec(JOBS["dsd_patches"])
    assert JOBS["dsd_patches"].ema_decay > 0
    assert spec.ema_decay == 0
    check_encryptable(spec)
    with pytest.raises(ValueError, match="ema_decay must be 0"):
        check_encryptable(dataclasses.replace(spec, ema_decay=0.5))
