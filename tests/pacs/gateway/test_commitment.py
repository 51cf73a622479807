"""A PACS says that it keeps what it was sent: on its own association, on ours, or that it does not."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest
from journals import Clock, Notes, add_results, open_journal
from orthanc_server import AET, Modality, free_port, needs_orthanc, wait_until
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from result_objects import six_kinds

from mhsev_monai.pacs.gateway.commitment import (
    CommitmentReport,
    Reference,
    event_handler,
    judge_failure,
    new_transaction,
    read_report,
    report_handlers,
    request_commitment,
    settle_report,
    supported_context,
)
from mhsev_monai.pacs.gateway.config import Caller, GatewayConfig, ReceiverConfig
from mhsev_monai.pacs.gateway.config_sending import Destination
from mhsev_monai.pacs.gateway.delivery_rules import Outcome
from mhsev_monai.pacs.gateway.scu import Peer, PeerError
from mhsev_monai.pacs.gateway.sender import Courier


def destination(port: int, **changes) -> Destination:
    base = {"name": "pacs", "host": "127.0.0.1", "port": port, "ae_title": AET, "timeout_s": 5.0, "commitment": True}
    return Destination(**base | changes)


def config(state, port: int, pacs: Destination) -> GatewayConfig:
    receiver = ReceiverConfig((Caller(AET, ("127.0.0.1",)),), "MHSEV", port=port)
    return GatewayConfig(state, state / "model.pt", receiver, (pacs,))


@pytest.fixture
def gateway_server():
    """Starts a server with the contexts and handlers that the gateway's own server gets."""
    started = []

    def start(port: int, contexts, handlers):
        application = AE(ae_title="MHSEV")
        application.supported_contexts = contexts
        started.append(application.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers))

    yield start
    for server in started:
        server.shutdown()


@needs_orthanc
def test_a_real_pacs_commits_itself_on_its_own_association_and_what_it_lost_is_sent_again(
    orthanc, gateway_server, tmp_path
):
    port, clock = free_port(), Clock()
    server = orthanc(modalities={"mhsev": Modality("MHSEV", port)})
    journal = open_journal(tmp_path, clock)
    pacs = destination(server.dicom_port)
    gateway_server(port, *report_handlers(config(tmp_path, port, pacs), journal))
    sender = Courier(pacs, "MHSEV", journal, tmp_path / "results", Notes(), clock)
    add_results(journal, tmp_path, six_kinds(tmp_path / "results"), ["pacs"])

    # One object is noted as stored, and the PACS has it not.
    lost, *_ = journal.deliveries.due("pacs")
    journal.deliveries.sent([lost.id], commitment=True)
    assert sender.step() == 5 + 6
    # The answer may need another association, and with it a moment.
    wait_until(lambda: [d for d in journal.deliveries._found("") if d.error], what="the answer of the PACS")
    held = {d.id: d for d in journal.deliveries._found("")}
    assert [d.state for d in held.values() if d.id != lost.id] == ["committed"] * 5
    assert held[lost.id].state == "pending"
    assert "does not have it (reason 0112)" in held[lost.id].error
    assert [row.state for row in journal.series()] == ["sending"]

    clock.now += 3600
    assert sender.step() == 2
    wait_until(lambda: [row.state for row in journal.series()] == ["committed"], what="the second answer")
    assert len(server.instances()) == 6


def test_an_answer_on_the_association_that_asked_is_taken():
    port, statuses, reports = free_port(), [], []
    application = AE(ae_title=AET)
    application.add_supported_context(StorageCommitmentPushModel)

    def answer(association, told):
        time.sleep(0.2)
        arguments = (told, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        statuses.append(association.send_n_event_report(*arguments)[0].Status)

    def asked(event):
        told = Dataset()
        told.TransactionUID = event.action_information.TransactionUID
        told.ReferencedSOPSequence = event.action_information.ReferencedSOPSequence
        threading.Thread(target=answer, args=(event.assoc, told), daemon=True).start()
        return 0x0000, None

    server = application.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_ACTION, asked)])
    try:
        transaction = new_transaction()
        peer = Peer("127.0.0.1", port, AET, "MHSEV", timeout_s=5)
        request_commitment(peer, [Reference("1.2.840.10008.5.1.4.1.1.7", "1.2.3")], transaction, reports.append, 10)
        wait_until(lambda: statuses, 5, "our status")
    finally:
        server.shutdown()
    assert reports == [CommitmentReport(transaction, ("1.2.3",), {}, AET)]
    assert statuses == [0x0000]


@needs_orthanc
def test_a_pacs_without_storage_commitment_or_that_is_down_is_asked_again_later(orthanc, tmp_path):
    application = AE(ae_title=AET)
    application.add_supported_context("1.2.840.10008.5.1.4.1.1.7")
    port = free_port()
    server = application.start_server(("127.0.0.1", port), block=False)
    peer = Peer("127.0.0.1", port, AET, "MHSEV", timeout_s=2)
    try:
        with pytest.raises(PeerError, match="accepts none"):
            request_commitment(peer, [], new_transaction(), lambda report: None)
    finally:
        server.shutdown()
    clock = Clock()
    journal = open_journal(tmp_path, clock)
    add_results(journal, tmp_path, six_kinds(tmp_path / "results"), ["pacs"])
    journal.deliveries.sent([item.id for item in journal.deliveries.due("pacs")], commitment=True)
    sender = Courier(destination(port, retry_s=30), "MHSEV", journal, tmp_path / "results", Notes(), clock)
    assert sender.step() == 6
    assert sender.step() == 0
    clock.now += 31
    assert sender.step() == 6


def reported(journal, transaction: str, sender: str = AET, **failed: int) -> CommitmentReport:
    uids = [item.sop_uid for item in journal.deliveries.in_transaction(transaction)]
    broken = {uids[int(place[1:])]: reason for place, reason in failed.items()}
    return CommitmentReport(transaction, tuple(uid for uid in uids if uid not in broken), broken, sender)


@pytest.fixture
def asked(tmp_path):
    journal = open_journal(tmp_path, Clock())
    add_results(journal, tmp_path, six_kinds(tmp_path / "results"), ["pacs"])
    ids = [item.id for item in journal.deliveries.due("pacs")]
    journal.deliveries.sent(ids, commitment=True)
    journal.deliveries.requested(ids, "2.25.1", 2e9)
    return journal


def states(journal) -> list[str]:
    return [item.state for item in journal.deliveries._found("ORDER BY deliveries.id")]


def test_each_failure_reason_has_its_consequence(asked):
    settle_report(reported(asked, "2.25.1", _0=0x0112, _1=0x0122, _2=0x0213), [destination(104)], asked, 1.8e9)
    assert states(asked) == ["pending", "dead", "pending", "committed", "committed", "committed"]
    assert judge_failure(0x0119).outcome is Outcome.REFUSED
    assert judge_failure(0x9999).outcome is Outcome.RETRY


@pytest.mark.parametrize("changes", [{"transaction_uid": "2.25.2"}, {"sender": "STRANGER"}])
def test_an_answer_to_nothing_or_from_somebody_else_changes_nothing(asked, changes):
    report = dataclasses.replace(reported(asked, "2.25.1"), **changes)
    with pytest.raises(ValueError, match="nothing was asked"):
        settle_report(report, [destination(104)], asked, 1.8e9)
    assert states(asked) == ["requested"] * 6


def test_an_answer_comes_twice_without_harm(asked):
    report = reported(asked, "2.25.1")
    for _ in range(2):
        # A PACS that is told of a failure would send it again and again.
        settle_report(report, [destination(104)], asked, 1.8e9)
        assert states(asked) == ["committed"] * 6


def test_an_answer_that_comes_after_it_was_asked_again_counts(asked):
    report, ids = reported(asked, "2.25.1", _0=0x0122), [item.id for item in asked.deliveries._found("")]
    asked.deliveries.ask_again(dict.fromkeys(ids, "no answer"), 0.0)
    asked.deliveries.requested(ids, "2.25.2", 2e9)
    later = reported(asked, "2.25.2")
    settle_report(report, [destination(104)], asked, 1.8e9)
    assert states(asked) == ["dead"] + ["committed"] * 5
    settle_report(later, [destination(104)], asked, 1.8e9)
    assert states(asked) == ["dead"] + ["committed"] * 5


def test_an_answer_about_what_was_sent_again_since_does_not_settle_the_second_sending(asked):
    report = reported(asked, "2.25.1", _0=0x0112)
    settle_report(report, [destination(104)], asked, 1.8e9)
    (again,) = [item for item in asked.deliveries._found("") if item.state == "pending"]
    asked.deliveries.sent([again.id], commitment=True)
    asked.deliveries.requested([again.id], "2.25.2", 2e9)
    settle_report(report, [destination(104)], asked, 1.8e9)
    assert states(asked) == ["requested"] + ["committed"] * 5
    assert asked.deliveries._found("")[0].attempts == 1


def test_spaces_around_a_title_mean_nothing(asked):
    settle_report(reported(asked, "2.25.1"), [destination(104, ae_title=f" {AET}")], asked, 1.8e9)
    assert states(asked) == ["committed"] * 6


def test_a_journal_of_before_takes_the_answer_to_its_last_request(tmp_path, asked):
    report = reported(asked, "2.25.1")
    with asked._database.change() as rows:
        rows.execute("DROP TABLE transactions")
    asked.close()
    asked = open_journal(tmp_path, Clock())
    settle_report(report, [destination(104)], asked, 1.8e9)
    assert states(asked) == ["committed"] * 6


class CommittingPacs:
    """A PACS that takes requests for storage commitment, answers with a status, and reports when it is told to."""

    def __init__(self, status: int) -> None:
        self.port, self.transactions = free_port(), []
        self._status = status
        application = AE(ae_title=AET)
        application.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_N_ACTION, self._asked)]
        self.server = application.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _asked(self, event):
        self.transactions.append(event.action_information.TransactionUID)
        return self._status, None


@pytest.mark.parametrize(
    ("status", "told"), [(0x0000, "did not answer the request"), (0x0110, "refused the request"), (None, "not answer")]
)
def test_a_commitment_that_never_comes_is_given_up_with_the_reason(tmp_path, monkeypatch, status, told):
    monkeypatch.setattr("mhsev_monai.pacs.gateway.sender._REPORT_WAIT_S", 0.0)
    clock, pacs = Clock(), CommittingPacs(status or 0x0000)
    if status is None:
        pacs.server.shutdown()
    journal = open_journal(tmp_path, clock)
    add_results(journal, tmp_path, six_kinds(tmp_path / "results"), ["pacs"])
    journal.deliveries.sent([item.id for item in journal.deliveries.due("pacs")], commitment=True)
    to = destination(pacs.port, retry_s=1, commitment_s=60, max_attempts=3, timeout_s=2)
    sender = Courier(to, "MHSEV", journal, tmp_path / "results", Notes(), clock)
    try:
        for _ in range(20):
            sender.step()
            clock.now += 20
    finally:
        if status is not None:
            pacs.server.shutdown()
    (row,) = journal.series()
    assert row.state == "failed"
    assert "given up after 3 tries" in row.reason
    assert told in row.reason
    assert len(set(pacs.transactions)) == len(pacs.transactions) == (0 if status is None else 3)


def test_a_pacs_that_always_answers_later_than_it_is_waited_for_gets_through(tmp_path, monkeypatch):
    monkeypatch.setattr("mhsev_monai.pacs.gateway.sender._REPORT_WAIT_S", 0.0)
    clock, pacs = Clock(), CommittingPacs(0x0000)
    journal = open_journal(tmp_path, clock)
    add_results(journal, tmp_path, six_kinds(tmp_path / "results"), ["pacs"])
    journal.deliveries.sent([item.id for item in journal.deliveries.due("pacs")], commitment=True)
    to = destination(pacs.port, retry_s=1, commitment_s=60)
    sender = Courier(to, "MHSEV", journal, tmp_path / "results", Notes(), clock)
    uids = tuple(item.sop_uid for item in journal.deliveries._found(""))
    try:
        while len(pacs.transactions) < 2:
            sender.step()
            clock.now += 20
    finally:
        pacs.server.shutdown()
    settle_report(CommitmentReport(pacs.transactions[0], uids, {}, AET), [to], journal, clock.now)
    assert [row.state for row in journal.series()] == ["committed"]


def test_an_answer_that_is_none_gets_a_failure_status_and_is_not_told_in_the_log(gateway_server, caplog):
    port, reports = free_port(), []
    gateway_server(port, [supported_context()], [event_handler(reports.append)])
    application = AE(ae_title="STRANGER")
    association = application.associate("127.0.0.1", port, contexts=[supported_context()], ae_title="MHSEV")
    assert association.is_established
    nonsense = Dataset()
    nonsense.PatientName = "Canary^Patricia"
    try:
        for event_type in (1, 7):
            status, _ = association.send_n_event_report(
                nonsense, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            assert status.Status == 0x0110
    finally:
        association.release()
    assert reports == []
    assert "could not be used" in caplog.text
    assert "Canary" not in caplog.text


def test_a_report_is_read_part_by_part():
    told, kept, failed = Dataset(), Dataset(), Dataset()
    kept.ReferencedSOPInstanceUID, failed.ReferencedSOPInstanceUID, failed.FailureReason = "1.2", "1.3", 0x0112
    told.TransactionUID, told.ReferencedSOPSequence, told.FailedSOPSequence = "2.25.9", [kept], [failed]
    assert read_report(2, told, AET) == CommitmentReport("2.25.9", ("1.2",), {"1.3": 0x0112}, AET)
    with pytest.raises(ValueError, match="event type"):
        read_report(3, told)
