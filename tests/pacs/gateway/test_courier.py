"""What is due reaches a real PACS, whatever happens on the way: the PACS is down, refuses a kind, or is asked twice."""

from __future__ import annotations

import itertools
import threading
from datetime import datetime
from functools import partial

import pytest
from journals import Clock, Notes, add_results, open_journal
from orthanc_server import AET, Modality, free_port, needs_orthanc, wait_until
from pydicom import dcmread
from pynetdicom import AE, evt
from result_objects import SOP_CLASSES, six_kinds, write_object

from mhsev_monai.pacs.gateway.config import Caller, GatewayConfig, ReceiverConfig
from mhsev_monai.pacs.gateway.config_sending import Destination, TlsConfig
from mhsev_monai.pacs.gateway.sender import Courier, give_up_strays, run_courier
from mhsev_monai.pacs.gateway.service import Part


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def destination(port: int, **changes) -> Destination:
    base = {"name": "pacs", "host": "127.0.0.1", "port": port, "ae_title": AET, "timeout_s": 5.0}
    return Destination(**base | changes)


def courier(state, port: int, clock: Clock, **changes):
    journal = open_journal(state, clock)
    return journal, Courier(destination(port, **changes), "MHSEV", journal, state / "results", Notes(), clock)


class RecordingPacs:
    """A storage SCP that notes what it was sent, and answers as it is told."""

    def __init__(self, port: int, sop_classes=None, answer=lambda data: 0x0000) -> None:
        self.sent: list[str] = []
        self._answer = answer
        application = AE(ae_title=AET)
        for sop_class in sop_classes or SOP_CLASSES.values():
            application.add_supported_context(sop_class)
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server = application.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def _store(self, event) -> int:
        self.sent.append(str(event.request.AffectedSOPInstanceUID))
        return self._answer(event.dataset)

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def recording():
    started = []

    def start(port: int, **arguments) -> RecordingPacs:
        started.append(RecordingPacs(port, **arguments))
        return started[-1]

    yield start
    for server in started:
        server.close()


@needs_orthanc
def test_results_wait_for_a_pacs_that_is_down_and_all_come_once_it_is_up(orthanc, state):
    server = orthanc(modalities={"mhsev": Modality("MHSEV", free_port())})
    server.kill()
    clock = Clock()
    journal, sender = courier(state, server.dicom_port, clock, retry_s=10, retry_most_s=40, timeout_s=2)
    paths = six_kinds(state / "results")
    add_results(journal, state, paths, ["pacs"])
    tried = []
    for _ in range(75):
        if sender.step():
            tried.append(clock.now)
        clock.now += 1
    # 10 s after the first failure, then 20, then 40 and no longer.
    assert [second - first for first, second in itertools.pairwise(tried)] == [10, 20, 40]
    assert {row.state for row in journal.series()} == {"sending"}
    assert "does not answer" in journal.deliveries._found("")[0].error
    server.start()
    clock.now += 40
    sender.step()
    assert set(server.instances()) == {dcmread(path).SOPInstanceUID for path in paths}
    assert [row.state for row in journal.series()] == ["committed"]


@needs_orthanc
def test_a_gateway_killed_before_it_noted_the_sending_sends_again_and_the_pacs_has_each_object_once(orthanc, state):
    server = orthanc(modalities={"mhsev": Modality("MHSEV", free_port())})
    clock = Clock()
    journal, sender = courier(state, server.dicom_port, clock)
    paths = six_kinds(state / "results")
    add_results(journal, state, paths, ["pacs"])

    class Killed(BaseException):
        pass

    def killed(*arguments):
        raise Killed

    sender._note = killed
    with pytest.raises(Killed):
        sender.step()
    assert len(server.instances()) == 6
    journal.close()
    journal, sender = courier(state, server.dicom_port, clock)
    assert sender.step() == 6
    assert len(server.instances()) == 6
    assert [row.state for row in journal.series()] == ["committed"]
    assert sender.step() == 0


def test_stat_goes_first_and_routine_waits_for_its_hours(recording, state):
    port = free_port()
    pacs = recording(port)
    noon = Clock(datetime(2026, 1, 5, 12).timestamp())
    journal, sender = courier(state, port, noon, routine_hours="20:00-06:00")
    uids = {}
    for name, priority in (("routine", 0), ("high", 1), ("stat", 2)):
        path = write_object(state / "results" / f"{name}.dcm", SOP_CLASSES["capture"], "capture")
        uids[name] = dcmread(path).SOPInstanceUID
        add_results(journal, state, [path], ["pacs"], priority)
    sender.step()
    assert pacs.sent == [uids["stat"], uids["high"]]
    noon.now += 9 * 3600
    sender.step()
    assert pacs.sent[2:] == [uids["routine"]]


def test_what_the_pacs_does_not_accept_is_given_up_with_the_reason_or_skipped_where_the_site_says_so(recording, state):
    port = free_port()
    recording(port, sop_classes=[uid for kind, uid in SOP_CLASSES.items() if kind != "sr"])
    clock = Clock()
    journal, sender = courier(state / "a", port, clock)
    add_results(journal, state / "a", six_kinds(state / "a" / "results"), ["pacs"])
    sender.step()
    (row,) = journal.series()
    assert row.state == "failed"
    assert "1 of 6" in row.reason
    assert "Comprehensive 3D SR Storage" in row.reason
    journal, sender = courier(state / "b", port, clock, skip_refused=True)
    add_results(journal, state / "b", six_kinds(state / "b" / "results"), ["pacs"])
    sender.step()
    assert [row.state for row in journal.series()] == ["committed"]


def test_a_destination_for_captures_alone_is_sent_no_more(recording, state):
    port = free_port()
    pacs = recording(port)
    journal, sender = courier(state, port, Clock(), only=("capture",))
    paths = six_kinds(state / "results")
    add_results(journal, state, paths, ["pacs"])
    sender.step()
    assert pacs.sent == [dcmread(path).SOPInstanceUID for path in paths if path.stem == "capture"]
    assert [row.state for row in journal.series()] == ["committed"]


def test_after_the_last_try_it_is_dead_and_a_retry_by_hand_sends_it(recording, state):
    port, full = free_port(), threading.Event()
    full.set()
    pacs = recording(port, answer=lambda data: 0xA700 if full.is_set() else 0x0000)
    clock = Clock()
    journal, sender = courier(state, port, clock, retry_s=1, max_attempts=3)
    series_uid = add_results(journal, state, six_kinds(state / "results"), ["pacs"])
    for _ in range(20):
        sender.step()
        clock.now += 1
    assert len(pacs.sent) == 3 * 6
    (row,) = journal.series()
    assert row.state == "failed"
    assert "given up after 3 tries" in row.reason
    assert "out of resources" in row.reason
    assert len(journal.deliveries.dead()) == 6
    full.clear()
    assert journal.work.retry(series_uid) == 1
    sender.step()
    assert [row.state for row in journal.series()] == ["committed"]
    assert pacs.sent[:6] == pacs.sent[-6:]


def test_a_result_whose_file_is_gone_is_given_up_and_the_others_go(recording, state):
    port = free_port()
    pacs = recording(port)
    journal, sender = courier(state, port, Clock())
    paths = six_kinds(state / "results")
    add_results(journal, state, paths, ["pacs"])
    paths[0].unlink()
    sender.step()
    assert len(pacs.sent) == 5
    (row,) = journal.series()
    assert row.state == "failed"
    assert "file is gone" in row.reason


class RunningSender:
    """The sending half of a gateway, for some destinations."""

    def __init__(self, state, journal, audit, *destinations: Destination) -> None:
        receiver = ReceiverConfig((Caller(AET, ("127.0.0.1",)),), "MHSEV")
        config = GatewayConfig(state, state / "model.pt", receiver, destinations)
        self._stop = threading.Event()
        loops = [partial(give_up_strays, config), *(partial(run_courier, config, one) for one in destinations)]
        self._parts = [Part("sender", partial(loop, journal, audit=audit)) for loop in loops]

    def __enter__(self) -> None:
        for part in self._parts:
            part.start(self._stop)

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for part in self._parts:
            part.thread.join(20)


def test_what_is_for_a_destination_that_was_renamed_is_given_up_with_the_reason_and_not_left_sending(recording, state):
    journal, audit, pacs = open_journal(state, Clock()), Notes(), recording(port := free_port())
    series_uid = add_results(journal, state, six_kinds(state / "results"), ["old", "pacs"])
    first, second, *_ = journal.deliveries.due("old")
    journal.deliveries.sent([first.id, second.id], commitment=True)
    journal.deliveries.requested([second.id], "2.25.1", 2e9)
    with RunningSender(state, journal, audit, destination(port)):
        wait_until(lambda: [row.state for row in journal.series()] != ["sending"], what="the end of the series")
    (row,) = journal.series()
    assert row.state == "failed"
    assert (
        "6 of 12 results could not be delivered to old: the configuration has no destination of that name" in row.reason
    )
    assert len(pacs.sent) == 6
    (told,) = [facts for event, facts in audit if event == "given up"]
    assert (told["destination"], told["results"]) == ("old", 6)
    # Named so again, and retried, they go.
    assert journal.work.retry(series_uid) == 1
    with RunningSender(state, journal, audit, destination(port, name="old"), destination(free_port())):
        wait_until(lambda: [row.state for row in journal.series()] == ["committed"], what="the old destination")


def test_a_retry_of_what_is_for_nobody_ends_too(recording, state, monkeypatch):
    monkeypatch.setattr("mhsev_monai.pacs.gateway.sender._STRAYS_S", 0.05)
    journal = open_journal(state, Clock())
    with RunningSender(state, journal, Notes(), destination(free_port())):
        add_results(journal, state, six_kinds(state / "results"), ["old"])
        wait_until(lambda: [row.state for row in journal.series()] == ["failed"], what="the end of the series")


def test_a_destination_whose_certificates_cannot_be_read_keeps_no_other_from_its_results(recording, state):
    journal, pacs = open_journal(state, Clock()), recording(port := free_port())
    add_results(journal, state, six_kinds(state / "results"), ["absent", "pacs"])
    absent = destination(port, name="absent", tls=TlsConfig(*[state / "absent.pem"] * 3))
    with RunningSender(state, journal, Notes(), absent, destination(port)):
        wait_until(lambda: len(pacs.sent) == 6, what="the results at the other")
    assert {item.destination for item in journal.deliveries.due("absent")} == {"absent"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"retry_s": 100, "retry_most_s": 10}, "below retry_s"),
        ({"only": ("pictures",)}, "got pictures"),
        ({"routine_hours": "at night"}, "20:00-06:00"),
        ({"port": 0}, "needs host and port"),
        ({"ae_title": "x" * 17}, "AE title"),
    ],
)
def test_a_wrong_destination_is_refused_in_words(changes, told):
    with pytest.raises(ValueError, match=told):
        destination(**{"port": 104} | changes)
