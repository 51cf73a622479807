"""A site's policy: its rules by themselves, in the executor, and in FLARE's own handling of privacy scopes."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.signal import Signal
from nvflare.apis.workspace import Workspace
from nvflare.app_common.app_constant import AppConstants
from nvflare.private.fed.app.fl_conf import create_privacy_manager
from nvflare.private.privacy_manager import PrivacyService
from small_site import context, executor, make_root

from mhsev_flare.encrypted_payload import PackUpdate
from mhsev_flare.entry_blocker import EntryBlocker
from mhsev_flare.handshake import SiteReport, site_refusal
from mhsev_flare.payload_forms import Sentence
from mhsev_flare.payload_guard import PayloadGuard
from mhsev_flare.payload_rules import REFUSAL_NAMES
from mhsev_flare.privacy_account import ACCOUNT_FILE, STATE_FOLDER
from mhsev_flare.protocol import Meta
from mhsev_flare.site_data import SiteError
from mhsev_flare.site_policy import BLOCKABLE, NEEDED_ENTRIES, PolicyError, PrivacyDemand, SitePolicy
from mhsev_flare.site_policy_file import filter_complaint, merged, policy_in_force, read_privacy_file, stored_policy
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.private_training import PrivacyParameters, epsilon, planned_account, train_severity_privately
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures, TrainingParameters

REQUIRED = PrivacyDemand("required", max_epsilon=8.0, max_delta=1e-3, least_noise=1.0)
PRIVATE = PrivacyParameters(noise_multiplier=1.5, max_grad_norm=1.0, delta=1e-3)


def policy(tmp_path, **changes):
    return SitePolicy(data_root=str(tmp_path / "data"), cache_root=str(tmp_path / "features"), **changes)


@pytest.fixture
def site(tmp_path):
    """Makes a started executor of a site with this policy in its privacy.json, as FLARE hands its scope over."""
    make_root(tmp_path / "data", 40, seed=0)
    local = tmp_path / "local"
    local.mkdir()

    def make(own: SitePolicy, scope: str = "", **changes):
        (local / "privacy.json").write_text(json.dumps(merged({}, own)))
        found = create_privacy_manager(Workspace(str(with_startup(tmp_path)), "site-1"), names_only=False).get_scope(
            scope
        )
        made, fl_ctx = executor(**changes), context("site-1", local)
        fl_ctx.set_prop(FLContextKey.SCOPE_PROPERTIES, found.props if found else None, private=True, sticky=False)
        made.handle_event(EventType.START_RUN, fl_ctx)
        return made, fl_ctx

    return make


def with_startup(folder):
    (folder / "startup").mkdir(exist_ok=True)
    return folder


def message(made, rounds=3, **meta):
    weights = {key: value.numpy().copy() for key, value in made.network.state_dict().items()}
    shareable = DXO(DataKind.WEIGHTS, data=weights, meta=meta).to_shareable()
    shareable.set_header(AppConstants.CURRENT_ROUND, 0)
    shareable.set_header(AppConstants.NUM_ROUNDS, rounds)
    return shareable


def handshake(made, fl_ctx, rounds=3):
    """The server's refusal of what the site answers; the answer must be able to leave."""
    reply = made.execute("standardise", message(made, rounds), fl_ctx, Signal())
    fl_ctx.set_prop(FLContextKey.TASK_NAME, "standardise", private=True, sticky=False)
    meta = from_shareable(PayloadGuard().process(reply, fl_ctx)).meta
    return site_refusal(meta, made.inputs.fingerprint(), SiteReport.of_this_machine("paper"))


def test_a_policy_is_the_same_after_it_was_stored(tmp_path):
    own = policy(tmp_path, least=7, base=3, blocked=(Meta.TRAIN_LOSS,), privacy=REQUIRED, lesion_masks="derivatives/l")
    stored = json.loads(json.dumps(merged({}, own)))
    assert stored_policy(stored) == own
    assert filter_complaint(stored) == ""


@pytest.mark.parametrize(
    ("demand", "privacy", "words"),
    [
        (PrivacyDemand(), None, ""),
        (PrivacyDemand(), PRIVATE, ""),
        (PrivacyDemand("forbidden"), None, ""),
        (PrivacyDemand("forbidden"), PRIVATE, "forbids training with differential privacy"),
        (REQUIRED, PRIVATE, ""),
        (REQUIRED, None, "requires differential privacy and the job trains without"),
        (REQUIRED, dataclasses.replace(PRIVATE, noise_multiplier=0.5), "requires a noise multiplier of 1.00 at least"),
        (PrivacyDemand("required", 8.0), dataclasses.replace(PRIVATE, noise_multiplier=0.0), "above 0"),
        (REQUIRED, dataclasses.replace(PRIVATE, delta=0.01), "allows a delta of 0.0010 at most"),
    ],
)
def test_a_job_that_trains_otherwise_than_a_site_demands_is_refused_in_words_that_may_leave(demand, privacy, words):
    own = SitePolicy(privacy=demand)
    if not words:
        own.check_job(privacy)
        return
    with pytest.raises(SiteError, match=words) as caught:
        own.check_job(privacy)
    assert Sentence(REFUSAL_NAMES)(str(caught.value)) == ""


@pytest.mark.parametrize("spent", [8.01, 123456.0, float("inf"), float("nan")])
def test_more_than_may_be_spent_is_refused_in_words_that_may_leave(spent):
    own = SitePolicy(privacy=REQUIRED)
    own.check_cost(8.0)
    with pytest.raises(SiteError, match=r"its policy allows 8\.00 at most") as caught:
        own.check_cost(spent)
    assert Sentence(REFUSAL_NAMES)(str(caught.value)) == ""
    SitePolicy().check_cost(spent)


@pytest.mark.parametrize("entry", NEEDED_ENTRIES)
def test_a_site_that_withholds_what_every_job_needs_says_so(entry):
    with pytest.raises(SiteError, match=f"withholds its {NEEDED_ENTRIES[entry]}") as caught:
        SitePolicy(blocked=(entry,)).check_job(None)
    assert Sentence(REFUSAL_NAMES)(str(caught.value)) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_root": "data"}, "data_root must be an absolute path"),
        ({"lesion_masks": "/masks"}, "relative to the data root"),
        ({"least": 4}, "least must be 0"),
        ({"least": True}, "least must be 0"),
        ({"base": 0}, "base must be 1"),
        ({"blocked": ("weights",)}, "there is no entry weights to block"),
    ],
)
def test_a_value_that_is_none_is_refused(changes, words):
    with pytest.raises(PolicyError, match=words):
        SitePolicy(**changes)


def test_the_planned_account_is_what_training_spends():
    generator = np.random.default_rng(1)
    import torch

    data = LabelledFeatures(
        torch.tensor(generator.normal(size=(30, 3)), dtype=torch.float32), torch.arange(30) % 20, None
    )
    network = SeverityMLP(in_features=3, hidden_features=[4], num_classes=4, dropout=0.0, max_deviation=8.0, seed=3)
    parameters = TrainingParameters(2, 1e-3, 0.0, 8, 1.0)
    state = None
    for _ in range(3):
        _, state = train_severity_privately(network, data, PAPER_SCALE, parameters, PRIVATE, 1, state)
    planned = planned_account(None, parameters, PRIVATE, 30, n_rounds=3)
    assert epsilon(planned, 1e-3) == pytest.approx(epsilon(state, 1e-3), rel=1e-12)
    further = planned_account(state, parameters, PRIVATE, 30)
    assert epsilon(further, 1e-3) > epsilon(state, 1e-3)


def test_a_job_without_privacy_is_refused_in_the_handshake_and_in_training_where_it_is_required(site, tmp_path):
    made, fl_ctx = site(policy(tmp_path, privacy=REQUIRED))
    assert "requires differential privacy and the job trains without" in handshake(made, fl_ctx)
    for task in ("train", "validate", "submit_model", "personalise"):
        reply = made.execute(task, message(made), fl_ctx, Signal())
        assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION, task
    assert not (tmp_path / "features").exists()


def test_all_rounds_of_a_job_must_fit_into_what_may_be_spent(site, tmp_path):
    made, fl_ctx = site(policy(tmp_path, privacy=REQUIRED), privacy=PRIVATE, batch_size=4)
    assert handshake(made, fl_ctx, rounds=3) == ""
    assert "its policy allows 8.00 at most" in handshake(made, fl_ctx, rounds=500)


def test_a_round_beyond_what_may_be_spent_is_not_trained_though_the_server_said_nothing_of_it(site, tmp_path):
    few = dataclasses.replace(REQUIRED, max_epsilon=2.5)
    made, fl_ctx = site(policy(tmp_path, privacy=few), privacy=PRIVATE, batch_size=4)
    path, codes = tmp_path / "features" / ACCOUNT_FILE, []
    for _ in range(40):
        codes.append(made.execute("train", message(made), fl_ctx, Signal()).get_return_code())
        if codes[-1] != ReturnCode.OK:
            break
    assert codes[0] == ReturnCode.OK
    assert codes[-1] == ReturnCode.EXECUTION_EXCEPTION
    assert 0 < epsilon(json.loads(path.read_text()), PRIVATE.delta) <= 2.5
    # Another job finds the same account, also where one of its two places was lost, and writes both again.
    beside_policy = tmp_path / STATE_FOLDER / f"site-1_{ACCOUNT_FILE}"
    assert beside_policy.read_text() == path.read_text()
    for lost in ((), (path.parent,), (beside_policy.parent,)):
        for folder in lost:
            shutil.rmtree(folder)
        made, fl_ctx = site(policy(tmp_path, privacy=few), privacy=PRIVATE, batch_size=4)
        assert "its policy allows 2.50 at most" in handshake(made, fl_ctx, rounds=1)
        allowed = dataclasses.replace(few, max_epsilon=100.0)
        made, fl_ctx = site(policy(tmp_path, privacy=allowed), privacy=PRIVATE, batch_size=4)
        assert made.execute("train", message(made), fl_ctx, Signal()).get_return_code() == ReturnCode.OK
        assert beside_policy.read_text() == path.read_text()


def test_no_table_of_the_training_cases_leaves_a_job_with_privacy(site, tmp_path):
    made, fl_ctx = site(policy(tmp_path), privacy=PRIVATE)
    asked = made.execute("validate", message(made, **{Meta.SPLIT: "train"}), fl_ctx, Signal())
    assert asked.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    asked = made.execute("validate", message(made, **{Meta.SPLIT: "validation"}), fl_ctx, Signal())
    assert asked.get_return_code() == ReturnCode.OK


def test_a_job_of_a_scope_that_the_policy_is_not_in_gets_nothing(site, tmp_path):
    made, fl_ctx = site(policy(tmp_path), scope="another")
    assert "names a privacy scope without the policy of this site" in handshake(made, fl_ctx)
    assert made.execute("train", message(made), fl_ctx, Signal()).get_return_code() == ReturnCode.EXECUTION_EXCEPTION


def test_flare_refuses_a_job_that_names_a_scope_which_the_site_lacks(site, tmp_path):
    site(policy(tmp_path))
    before = PrivacyService.get_manager()
    try:
        PrivacyService.initialize(create_privacy_manager(Workspace(str(tmp_path), "site-1"), names_only=True))
        assert PrivacyService.is_scope_allowed("")
        assert not PrivacyService.is_scope_allowed("another")
    finally:
        PrivacyService.initialize(before)


def test_nothing_is_done_under_a_policy_that_cannot_be_read(site, tmp_path):
    made, fl_ctx = site(policy(tmp_path))
    broken = dict(fl_ctx.get_prop(FLContextKey.SCOPE_PROPERTIES))
    broken["mhsev_policy"] = {**broken["mhsev_policy"], "privacy": {"rule": "perhaps"}}
    fl_ctx.set_prop(FLContextKey.SCOPE_PROPERTIES, broken, private=True, sticky=False)
    assert "the policy of this site cannot be read" in handshake(made, fl_ctx)


def test_a_site_without_a_policy_runs_as_before(tmp_path):
    assert policy_in_force(None, tmp_path) == SitePolicy(least=0)
    (tmp_path / "privacy.json").write_text(json.dumps({"scopes": [{"name": "a"}], "default_scope": "a"}))
    assert policy_in_force({"mhsev_data_root": "/data"}, tmp_path) == SitePolicy(least=0)


def test_a_blocked_entry_is_taken_out_and_the_rest_passes_the_guard(site, tmp_path):
    made, fl_ctx = site(policy(tmp_path))
    reply = made.execute("train", message(made), fl_ctx, Signal())
    assert Meta.TRAIN_LOSS in from_shareable(reply).meta
    fl_ctx.set_prop(FLContextKey.TASK_NAME, "train", private=True, sticky=False)
    sent = PayloadGuard().process(EntryBlocker([Meta.TRAIN_LOSS]).process(reply, fl_ctx), fl_ctx)
    meta = from_shareable(sent).meta
    assert Meta.TRAIN_LOSS not in meta
    assert Meta.VALIDATION_LOSS in meta
    assert set(from_shareable(sent).data) == set(from_shareable(reply).data)


def test_an_entry_that_is_none_cannot_be_blocked():
    for wrong in ([], ["weights"], [Meta.PROTOCOL]):
        with pytest.raises(ValueError, match="entries must be some of"):
            EntryBlocker(wrong)
    assert EntryBlocker(list(BLOCKABLE)).entries == list(BLOCKABLE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["task_result_filters"].pop(0), "hold 0 EntryBlocker"),
        (lambda s: s["task_result_filters"][0]["args"].update(entries=[]), "hold 1 EntryBlocker"),
        (lambda s: s["task_result_filters"].append({"path": "x.Y"}), "behind PayloadGuard"),
        (lambda s: s.pop("properties"), "holds no policy"),
        (lambda s: s["task_result_filters"][-1].update(disabled=True), "hold 0 PayloadGuard"),
        (lambda s: s["task_result_filters"][-1].update(direction=None), ""),
        (lambda s: s["task_result_filters"][-1].update(direction="IN"), "on what comes in"),
    ],
)
def test_filters_that_are_not_the_policy_s_are_told(tmp_path, change, words):
    stored = merged({}, policy(tmp_path, blocked=(Meta.TRAIN_LOSS,)))
    change(stored["scopes"][0])
    complaint = filter_complaint(stored)
    assert words in complaint
    assert bool(words) == bool(complaint)


def test_a_guard_that_flare_would_leave_out_is_written_anew(tmp_path):
    stored = merged({}, policy(tmp_path))
    stored["scopes"][0]["task_result_filters"][-1].update(disabled=True, args={"most_bytes": 7})
    (tmp_path / "local").mkdir()
    for content, expected in ((stored, ["SmallCellCleanser"]), (merged(stored, policy(tmp_path)), None)):
        (tmp_path / "local" / "privacy.json").write_text(json.dumps(content))
        workspace = Workspace(str(with_startup(tmp_path)), "site-1")
        scope = create_privacy_manager(workspace, names_only=False).get_scope("")
        names = [type(step).__name__ for step in scope.task_result_filters["out"]]
        assert names == (expected or ["SmallCellCleanser", "PayloadGuard"])
        assert bool(filter_complaint(content)) == bool(expected)


@pytest.mark.parametrize("key", ["task_data_filters", "task_result_filters"])
@pytest.mark.parametrize(
    "entry",
    [
        "a.Filter",
        None,
        {},
        {"name": "Filter"},
        {"path": 7},
        {"path": "a.Filter", "direction": 1},
        {"path": "a.Filter", "direction": ["out"]},
        {"path": "a.Filter", "direction": "sideways"},
    ],
)
def test_a_filter_that_is_none_is_a_policy_that_cannot_be_read(tmp_path, key, entry):
    path = tmp_path / "privacy.json"
    path.write_text(json.dumps({"scopes": [{"name": "default", key: [entry]}], "default_scope": "default"}))
    with pytest.raises(PolicyError, match=f"a filter in {key} of privacy.json is not an object with a path"):
        read_privacy_file(path)


def test_a_blocked_number_of_steps_is_told_anew_in_an_encrypted_job(site, tmp_path):
    """The limit that docs/site.md names: a job's filters run behind the site's."""
    made, fl_ctx = site(policy(tmp_path))
    reply = made.execute("train", message(made), fl_ctx, Signal())
    steps = MetaKey.NUM_STEPS_CURRENT_ROUND
    blocked = EntryBlocker([steps]).process(reply, fl_ctx)
    assert steps not in from_shareable(blocked).meta
    dxo = from_shareable(blocked)
    packed = PackUpdate(made.network, "samples").process_dxo(dxo, blocked, fl_ctx)
    assert packed.meta[steps] == dxo.meta[Meta.N_SAMPLES]
