"""The executor's tasks, called as FLARE calls them."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from small_site import executor

from mhsev_flare.aggregator import SeverityAggregator
from mhsev_flare.gates import ExpectedUpdate
from mhsev_flare.jobs import JOBS
from mhsev_flare.payload_forms import Sentence
from mhsev_flare.payload_rules import REFUSAL_NAMES
from mhsev_flare.protocol import BUFFERS, Meta, Moments
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.private_training import PrivacyParameters
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import FeatureMoments, LabelledFeatures, TrainingParameters, train_severity


def weights_of(made) -> dict[str, np.ndarray]:
    return {key: value.numpy().copy() for key, value in made.network.state_dict().items()}


def message(weights, round_number: int = 0, **meta):
    shareable = DXO(DataKind.WEIGHTS, data=weights, meta=meta).to_shareable()
    shareable.set_header(AppConstants.CURRENT_ROUND, round_number)
    shareable.set_header(AppConstants.NUM_ROUNDS, 3)
    return shareable


def ask(made, fl_ctx, task, shareable):
    reply = made.execute(task, shareable, fl_ctx, Signal())
    assert reply.get_return_code() == ReturnCode.OK
    return from_shareable(reply)


def test_standardise_sends_the_moments_of_the_training_cases(site):
    made, fl_ctx = site("site-1")
    reply = ask(made, fl_ctx, "standardise", message({"protocol": np.array([1])}))
    train = made._site_data(fl_ctx).train
    expected = FeatureMoments.of(train.features)
    assert reply.data[Moments.N].tolist() == [len(train)]
    np.testing.assert_allclose(reply.data[Moments.MEAN], expected.mean)
    assert reply.data[Moments.CLASS_COUNTS].sum() == len(train)
    summary = reply.meta[Meta.SITE_SUMMARY]
    assert sum(summary["cases"].values()) == 40
    assert [sum(summary["grades"][s]) for s in ("train", "validation", "test")] == list(summary["cases"].values())


def test_train_returns_the_difference_that_training_makes_and_no_buffers(site):
    made, fl_ctx = site("site-1")
    start = weights_of(made)
    reply = ask(made, fl_ctx, "train", message(start))
    after = made.network.state_dict()
    assert reply.data_kind == DataKind.WEIGHT_DIFF
    assert set(reply.data) == set(start) - set(BUFFERS)
    for key, difference in reply.data.items():
        np.testing.assert_allclose(start[key] + difference, after[key].numpy(), atol=1e-6)
    assert max(np.abs(difference).max() for difference in reply.data.values()) > 0


def test_the_table_that_comes_with_an_update_describes_the_model_that_was_sent(site):
    made, fl_ctx = site("site-1", epochs=200)
    start = weights_of(made)
    trained = ask(made, fl_ctx, "train", message(start))
    judged = ask(made, fl_ctx, "validate", message(start, **{Meta.SPLIT: "validation"}))
    assert trained.meta[Meta.TABLE] == judged.meta[Meta.TABLE]
    assert trained.meta[Meta.VALIDATION_LOSS] == judged.data["loss"]
    moved = {key: value + trained.data.get(key, 0) for key, value in start.items()}
    after = ask(made, fl_ctx, "validate", message(moved, **{Meta.SPLIT: "validation"}))
    assert after.data["loss"] != judged.data["loss"]


def test_a_second_executor_continues_as_the_first_would(site, tmp_path):
    """With few simulator threads each task runs in a new process: nothing may depend on memory."""
    made, fl_ctx = site("site-1", epochs=3, batch_size=8)
    start = weights_of(made)
    ask(made, fl_ctx, "train", message(start, 0))
    second_round = ask(made, fl_ctx, "train", message(start, 1))
    fresh = executor(epochs=3, batch_size=8)
    fresh.handle_event(EventType.START_RUN, fl_ctx)
    again = ask(fresh, fl_ctx, "train", message(start, 1))
    for key in second_round.data:
        assert np.array_equal(second_round.data[key], again.data[key])


def test_rounds_and_sites_shuffle_differently(site):
    made, fl_ctx = site("site-1", epochs=3, batch_size=8)
    start = weights_of(made)
    first, second = (ask(made, fl_ctx, "train", message(start, r)).data for r in (0, 1))
    assert any(not np.array_equal(first[key], second[key]) for key in first)


def test_one_full_batch_step_of_all_sites_is_the_mean_of_their_steps(site):
    """Federated averaging by hand: start + sum of N_i / N times the update that plain training makes at site i."""
    sites = [site(f"site-{i}", n=30 + 10 * i, seed=i) for i in range(3)]
    start = weights_of(sites[0][0])
    aggregator = SeverityAggregator(weighting="samples")
    aggregator.expect(ExpectedUpdate(ExpectedUpdate.shapes_of(start), sites[0][0].inputs.fingerprint()))
    parameters = TrainingParameters(1, 1e-2, 0.0, 1000, 1.0)
    total, expected = 0, {key: np.zeros_like(value, dtype=np.float64) for key, value in start.items()}
    for made, fl_ctx in sites:
        model = FLModelUtils.from_shareable(made.execute("train", message(start), fl_ctx, Signal()))
        model.meta["client_name"] = fl_ctx.get_identity_name()
        aggregator.accept_model(model)
        data: LabelledFeatures = made._site_data(fl_ctx).train
        made.network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in start.items()})
        train_severity(made.network, data, PAPER_SCALE, parameters, seed=99)
        for key, value in made.network.state_dict().items():
            expected[key] += len(data) * (value.numpy() - start[key])
        total += len(data)
    result = aggregator.aggregate_model().params
    for key, value in result.items():
        # Another order of the cases in the one full batch: sums differ in their last bits, which Adam can enlarge.
        np.testing.assert_allclose(value, expected[key] / total, atol=1e-5)


def test_submit_model_trains_on_the_sites_own_cases_from_the_model_sent(site):
    made, fl_ctx = site("site-1", epochs=5)
    start = weights_of(made)
    alone = ask(made, fl_ctx, "submit_model", message(start))
    again = ask(made, fl_ctx, "submit_model", message(start))
    assert all(np.array_equal(alone.data[key], again.data[key]) for key in alone.data)
    before = ask(made, fl_ctx, "validate", message(start, **{Meta.SPLIT: "train"})).data["loss"]
    after = ask(made, fl_ctx, "validate", message(alone.data, **{Meta.SPLIT: "train"})).data["loss"]
    assert after < before


def test_validate_counts_every_case_of_the_split(site):
    made, fl_ctx = site("site-1")
    reply = ask(made, fl_ctx, "validate", message(weights_of(made), **{Meta.SPLIT: "test"}))
    table = SeverityTable.from_json(reply.meta[Meta.TABLE])
    assert table.n == len(made._site_data(fl_ctx).test)


def test_an_abort_ends_training_with_its_own_return_code(site):
    made, fl_ctx = site("site-1", epochs=10_000)
    signal = Signal()
    signal.trigger(True)
    reply = made.execute("train", message(weights_of(made)), fl_ctx, signal)
    assert reply.get_return_code() == ReturnCode.TASK_ABORTED


def test_an_unknown_task_is_said_to_be_unknown(site):
    made, fl_ctx = site("site-1")
    assert made.execute("dream", message({}), fl_ctx, Signal()).get_return_code() == ReturnCode.TASK_UNKNOWN


def test_another_networks_weights_are_refused(site):
    made, fl_ctx = site("site-1")
    reply = made.execute("train", message({"other": np.zeros(3)}), fl_ctx, Signal())
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION


def test_a_site_without_scans_refuses_with_the_reason(site, tmp_path):
    made, fl_ctx = site("site-1")
    for image in (tmp_path / "site-1" / "data").rglob("*.nii.gz"):
        image.write_text("")
    reply = ask(made, fl_ctx, "standardise", message({"protocol": np.array([1])}))
    assert "0 training, 0 validation and 0 test cases" in reply.meta[Meta.REFUSAL]
    assert "the file is empty" in reply.meta[Meta.REFUSAL]
    assert str(tmp_path) not in reply.meta[Meta.REFUSAL]


def test_a_refusal_tells_no_small_number_of_cases(site, tmp_path):
    made, fl_ctx = site("site-1")
    for image in sorted((tmp_path / "site-1" / "data").rglob("*.nii.gz"))[5:]:
        image.write_text("")
    refusal = ask(made, fl_ctx, "standardise", message({"protocol": np.array([1])})).meta[Meta.REFUSAL]
    assert "site-1 has fewer than 5 training" in refusal
    assert not re.search(r"\b[1-4] (training|validation|test)\b", refusal)
    assert Sentence(REFUSAL_NAMES)(refusal) == ""


def test_an_unforeseen_failure_leaves_no_text_of_its_exception(site, tmp_path, caplog):
    """The text of an exception may hold anything, and FLARE can send logs to the server."""
    made, fl_ctx = site("site-1")
    data = tmp_path / "site-1" / "data"
    (data / "sub-000" / "dwi" / "sub-000_dwi.nii.gz").write_text('{"DOE": "JANE"}')
    with caplog.at_level(logging.INFO):
        reply = made.execute("train", message(weights_of(made)), fl_ctx, Signal())
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert "failed unexpectedly with" in caplog.text
    for secret in ("DOE", "JANE", str(tmp_path)):
        assert secret not in caplog.text


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale must be one of"):
        executor(scale="stars")


@pytest.mark.parametrize("task", ["submit_model", "personalise"])
def test_with_privacy_no_model_is_trained_without(site, task, caplog):
    privacy = PrivacyParameters(noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-3)
    made, fl_ctx = site("site-1", privacy=privacy)
    with caplog.at_level(logging.ERROR):
        reply = made.execute(task, message(weights_of(made)), fl_ctx, Signal())
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert "send the job without" in caplog.text


def test_a_job_with_privacy_cannot_ask_for_further_training():
    spec = replace(JOBS["dsd_mlp_literal"], site_models=False)
    privacy = PrivacyParameters(noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-3)
    assert replace(spec, privacy=privacy).privacy == privacy
    with pytest.raises(ValueError, match="personalise"):
        replace(spec, privacy=privacy, personalise=True)
