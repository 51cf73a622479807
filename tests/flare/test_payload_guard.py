"""What leaves a site: every real reply, and nothing that is not on the list."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.private.fed.client.client_engine_executor_spec import TaskAssignment
from nvflare.private.fed.client.client_runner import ClientRunner, ClientRunnerConfig, TaskRouter
from small_site import NumbersInFile, OneFolderEngine
from test_executor import message, weights_of

from mhsev_flare.payload_guard import PayloadGuard
from mhsev_flare.payload_rules import MOST_BYTES
from mhsev_flare.protocol import Meta
from mhsev_flare.small_cell_cleanser import SmallCellCleanser

CANARY = "DOE^JANE_19500101"
TASKS = ("standardise", "train", "validate", "submit_model", "personalise")


class HashedNumbers(NumbersInFile):
    """The inputs of the small site with a fingerprint such as real ones have."""

    def fingerprint(self) -> str:
        return "0123456789abcdef" * 4


def with_task(fl_ctx: FLContext, task: str) -> FLContext:
    fl_ctx.set_prop(FLContextKey.TASK_NAME, task, private=True, sticky=False)
    return fl_ctx


@pytest.fixture
def reply(site):
    """Makes the real reply to a task, and the context in which FLARE would filter it."""

    def make(task: str, name: str = "site-1") -> tuple[Shareable, FLContext]:
        made, fl_ctx = site(name, inputs=HashedNumbers())
        asked = message(weights_of(made), **{Meta.SPLIT: "test"})
        found = made.execute(task, asked, fl_ctx, Signal())
        if found.get_return_code() == ReturnCode.TASK_UNKNOWN:
            pytest.skip(f"this executor has no task {task}")
        assert found.get_return_code() == ReturnCode.OK
        return found, with_task(fl_ctx, task)

    return make


@pytest.mark.parametrize("task", TASKS)
def test_every_real_reply_leaves_as_it_is(reply, task, monkeypatch):
    monkeypatch.setattr(OneFolderEngine, "get_workspace", _workspace_with_runs(OneFolderEngine.get_workspace))
    found, fl_ctx = reply(task)
    before = json.dumps(found, default=repr)
    assert PayloadGuard().process(found, fl_ctx) is found
    assert json.dumps(found, default=repr) == before


def _workspace_with_runs(usual: Callable) -> Callable:
    def get_workspace(engine):
        workspace = usual(engine)
        workspace.get_run_dir = lambda job_id: str(engine.workspace.local / "run")
        return workspace

    return get_workspace


def test_a_cleansed_handshake_leaves(reply):
    found, fl_ctx = reply("standardise")
    cleansed = SmallCellCleanser(least=5, base=5).process(found, fl_ctx)
    assert cleansed["DXO"]["meta"][MetaKey.FILTER_HISTORY] == ["SmallCellCleanser"]
    assert PayloadGuard().process(cleansed, fl_ctx) is cleansed


def test_a_real_refusal_leaves(site, tmp_path):
    made, fl_ctx = site("Klinik_Nord", inputs=HashedNumbers())
    for image in (tmp_path / "Klinik_Nord" / "data").rglob("*.nii.gz"):
        image.write_text("")
    found = made.execute("standardise", message({"protocol": np.array([1])}), fl_ctx, Signal())
    assert found["DXO"]["meta"][Meta.REFUSAL]
    assert PayloadGuard().process(found, with_task(fl_ctx, "standardise")) is found


def data(change: Callable[[dict[str, Any]], Any]) -> Callable[[Shareable], Any]:
    return lambda found: change(found["DXO"]["data"])


def meta(change: Callable[[dict[str, Any]], Any]) -> Callable[[Shareable], Any]:
    return lambda found: change(found["DXO"]["meta"])


class Named(float):
    """A number that carries something."""


BLOCKED = {
    "a name as key of an array": data(lambda d: d.update({CANARY: np.zeros(3, dtype=np.float32)})),
    "a key that ends like a weight": data(lambda d: d.update({f"{CANARY}.weight": np.zeros(3, dtype=np.float32)})),
    "a key that is no text": data(lambda d: d.update({(CANARY,): np.zeros(3, dtype=np.float32)})),
    "the model's buffers": data(lambda d: d.update({"feature_mean": np.zeros(3, dtype=np.float32)})),
    "an array of texts": data(lambda d: d.update({"layers.0.weight": np.array([CANARY])})),
    "an array of objects": data(lambda d: d.update({"layers.0.weight": np.array([CANARY, None], dtype=object)})),
    "an array of records": data(lambda d: d.update({"layers.0.weight": np.zeros(2, dtype=[(CANARY, "f4")])})),
    "a type with notes": data(
        lambda d: d.update({"layers.0.weight": np.zeros(2, dtype=np.dtype("f4", metadata={"who": CANARY}))})
    ),
    "bytes": data(lambda d: d.update({"layers.0.weight": np.frombuffer(CANARY.encode(), dtype=np.uint8)})),
    "a text instead of an array": data(lambda d: d.update({"layers.0.weight": CANARY})),
    "too much": data(lambda d: d.update({"layers.9.weight": np.zeros(MOST_BYTES // 4, dtype=np.float32)})),
    "a name as key beside": meta(lambda m: m.update({CANARY: 1})),
    "a new key beside": meta(lambda m: m.update({"mhsev_patient": CANARY})),
    "a text for a number": meta(lambda m: m.update({Meta.TRAIN_LOSS: CANARY})),
    "a text for a count": meta(lambda m: m.update({Meta.N_SAMPLES: CANARY})),
    "a text as a long number": meta(lambda m: m.update({Meta.N_SAMPLES: int.from_bytes(CANARY.encode())})),
    "a fraction for a count": meta(lambda m: m.update({Meta.N_SAMPLES: 19500101.5})),
    "a truth value for a count": meta(lambda m: m.update({Meta.N_SAMPLES: True})),
    "a number of a class of its own": meta(lambda m: m.update({Meta.TRAIN_LOSS: Named(1.0)})),
    "a name for the fingerprint": meta(lambda m: m.update({Meta.FINGERPRINT: CANARY})),
    "a longer fingerprint": meta(lambda m: m.update({Meta.FINGERPRINT: "0" * 65})),
    "a name in the table": meta(lambda m: m[Meta.TABLE].update({CANARY: 1})),
    "a text in the table": meta(lambda m: m[Meta.TABLE].update({"confusion": [[CANARY]]})),
    "an unknown filter": meta(lambda m: m.update({MetaKey.FILTER_HISTORY: [CANARY]})),
    "a refusal, which belongs to the handshake": meta(lambda m: m.update({Meta.REFUSAL: "no cases"})),
    "an entry beside the message": lambda found: found.update({CANARY: 1}),
    "an entry in the message": lambda found: found["DXO"].update({CANARY: 1}),
    "a header": lambda found: found.set_header("who", CANARY),
    "a return code of its own": lambda found: found.set_header(ReservedHeaderKey.RC, CANARY),
    "another kind": lambda found: found["DXO"].update(kind=DataKind.METRICS),
    "a kind of its own": lambda found: found["DXO"].update(kind=CANARY),
    "no message": lambda found: found.pop("DXO"),
}


@pytest.mark.parametrize("change", BLOCKED.values(), ids=BLOCKED.keys())
def test_what_is_not_on_the_list_is_blocked_and_not_told(reply, caplog, change):
    found, fl_ctx = reply("train")
    change(found)
    with caplog.at_level(logging.DEBUG), pytest.raises(ContentBlockedException) as blocked:
        PayloadGuard().process(found, fl_ctx)
    assert "a result was blocked at this site" in caplog.text
    for told in (caplog.text, str(blocked.value), repr(blocked.value.__context__)):
        assert CANARY not in told
        assert "DOE" not in told


def test_what_cannot_be_checked_is_blocked_and_not_told(reply, caplog):
    class Trap(dict):
        def get(self, *_):
            raise RuntimeError(CANARY)

    found, fl_ctx = reply("train")
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(ContentBlockedException, match="could not be checked") as blocked,
    ):
        PayloadGuard().process(Trap(found), fl_ctx)
    assert blocked.value.__context__ is None
    assert CANARY not in caplog.text


@pytest.mark.parametrize("task", [None, "dream", 7])
def test_a_reply_to_an_unknown_task_is_blocked(reply, task):
    found, fl_ctx = reply("train")
    with pytest.raises(ContentBlockedException, match="a task that is not on the list"):
        PayloadGuard().process(found, with_task(fl_ctx, task))


def test_of_an_error_reply_only_the_return_code_leaves(site):
    _, fl_ctx = site("site-1")
    error = make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={"why": CANARY})
    error[CANARY] = CANARY
    assert PayloadGuard().process(error, with_task(fl_ctx, "train")) == make_reply(ReturnCode.EXECUTION_EXCEPTION)


@pytest.mark.parametrize(
    "refusal",
    [
        CANARY,
        "the scan of DOE^JANE cannot be read",
        "the scan of Jane cannot be read",
        "/data/doe-jane/scan.nii.gz cannot be read",
        "sub-001 of 19500101 cannot be read",
        "sub-001 of 1950-01-01 cannot be read",
        "sub-DOEJANE cannot be read",
        "the UID 1.2.840.113619.2.1 cannot be read",
        "no case " * 60,
    ],
)
def test_a_refusal_with_a_name_a_path_or_a_date_is_blocked(reply, refusal):
    found, fl_ctx = reply("standardise")
    found["DXO"]["meta"][Meta.REFUSAL] = refusal
    with pytest.raises(ContentBlockedException):
        PayloadGuard().process(found, fl_ctx)


def test_a_site_can_name_the_weights_and_set_the_size(reply):
    found, fl_ctx = reply("train")
    names = [f"{layer}.{part}" for layer in (r"layers\.0", r"layers\.3") for part in ("weight", "bias")]
    PayloadGuard(weight_keys=names).process(found, fl_ctx)
    for guard in (PayloadGuard(weight_keys=names[1:]), PayloadGuard(most_bytes=100)):
        with pytest.raises(ContentBlockedException):
            guard.process(found, fl_ctx)


@pytest.mark.parametrize("wrong", [{"most_bytes": 0}, {"weight_keys": []}])
def test_a_guard_without_a_limit_or_a_name_is_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        PayloadGuard(**wrong)


class QuietEngine(OneFolderEngine):
    """An engine for FLARE's own client runner, which asks it for little when it does one task."""

    def register_aux_message_handler(self, topic: str, message_handle_func: Any) -> None:
        """No messages come."""


def run_through_flare(made, local: Path, task: str, asked: Shareable, filters: list) -> Shareable:
    """What FLARE's client would send for a task: its own code from the executor to the message."""
    engine = QuietEngine(local)
    manager = FLContextManager(
        engine=engine, identity_name="site-1", job_id="job", public_stickers={}, private_stickers={}
    )
    fl_ctx, peer = manager.new_context(), FLContext()
    peer.set_prop(FLContextKey.CURRENT_RUN, "job", private=False)
    fl_ctx.set_peer_context(peer)
    router = TaskRouter()
    router.add_executor([task], made)
    table = {task + FilterKey.DELIMITER + FilterKey.OUT: filters}
    runner = ClientRunner({}, ClientRunnerConfig(router, {}, table), "job", engine)
    made.handle_event(EventType.START_RUN, fl_ctx)
    return runner._process_task(TaskAssignment(task, "id", asked), fl_ctx)


@pytest.mark.parametrize("blocked", [False, True])
def test_flare_sends_nothing_of_a_blocked_reply(site, tmp_path, caplog, blocked):
    made, _ = site("site-1", inputs=HashedNumbers())
    asked = message(weights_of(made))
    usual = made.execute

    def execute(*arguments):
        found = usual(*arguments)
        if blocked:
            found["DXO"]["data"][CANARY] = np.frombuffer(CANARY.encode(), dtype=np.uint8)
        return found

    made.execute = execute
    with caplog.at_level(logging.DEBUG):
        sent = run_through_flare(made, tmp_path / "site-1" / "local", "train", asked, [PayloadGuard()])
    code = ReturnCode.TASK_RESULT_FILTER_ERROR if blocked else ReturnCode.OK
    assert sent.get_return_code() == code
    assert CANARY not in caplog.text
    if blocked:
        assert set(sent) == {ReservedHeaderKey.HEADERS}
        assert CANARY.encode() not in sent.to_bytes()
