"""Results are stored at a real PACS; what it refuses is told; what it has is not doubled."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from orthanc_server import AET, Modality, free_port, make_tls, needs_orthanc
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from result_objects import ENHANCED_SR, SOP_CLASSES, six_kinds, write_object
from selective_pacs import SelectivePacs, needs_storescp

from mhsev_monai.pacs.gateway.cstore import Outgoing, _send, send_files
from mhsev_monai.pacs.gateway.delivery_rules import Judgement, Outcome
from mhsev_monai.pacs.gateway.scu import Peer, client_tls


def peer_of(server, **changes) -> Peer:
    return Peer(**{"host": "127.0.0.1", "port": server.dicom_port, "aet": AET, "own_aet": "MHSEV"} | changes)


@pytest.fixture
def pacs(orthanc):
    return orthanc(modalities={"mhsev": Modality("MHSEV", free_port())})


@needs_orthanc
def test_all_six_kinds_are_stored_and_a_second_send_doubles_nothing(pacs, tmp_path):
    paths = six_kinds(tmp_path)
    for _ in range(2):
        assert [sent.judgement.outcome for sent in send_files(peer_of(pacs), paths)] == [Outcome.STORED] * 6
        stored = pacs.instances()
        assert sorted(tags["SOPClassUID"] for tags in stored.values()) == sorted(SOP_CLASSES.values())
        assert set(stored) == {dcmread(path).SOPInstanceUID for path in paths}
    assert len(pacs.get("/studies")) == 1


@needs_orthanc
def test_a_pacs_that_does_not_know_the_gateway_or_is_down_is_a_reason_to_try_again(pacs, tmp_path):
    path = write_object(tmp_path / "a.dcm", SOP_CLASSES["capture"], "capture")
    (sent,) = send_files(peer_of(pacs, own_aet="STRANGER"), [path])
    assert sent.judgement.outcome is Outcome.RETRY
    assert "STRANGER" in sent.judgement.reason
    pacs.kill()
    (sent,) = send_files(peer_of(pacs, timeout_s=3), [path])
    assert sent.judgement.outcome is Outcome.RETRY
    assert "does not answer" in sent.judgement.reason


def test_a_file_that_is_gone_or_broken_is_refused_without_a_connection_and_told_without_its_path(tmp_path):
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 200)
    peer = Peer("127.0.0.1", free_port(), AET, "MHSEV", timeout_s=1)
    for sent in send_files(peer, [tmp_path / "broken.dcm", tmp_path / "gone.dcm"]):
        assert sent.judgement.outcome is Outcome.REFUSED
        assert str(tmp_path) not in sent.judgement.reason


def test_a_file_that_is_damaged_past_its_head_is_judged_for_itself_and_the_others_go(tmp_path):
    port, got = free_port(), []
    application = AE(ae_title=AET)
    # Alone in the syntax that the files are not in, so that they are read to be written anew.
    application.add_supported_context(SOP_CLASSES["capture"], ImplicitVRLittleEndian)

    def store(event) -> int:
        got.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    server = application.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    paths = [write_object(tmp_path / f"{n}.dcm", SOP_CLASSES["capture"], "capture") for n in "abc"]
    whole = [dcmread(path).SOPInstanceUID for path in paths]
    content = paths[0].read_bytes()
    # A sequence of undefined length that ends in its first item.
    begin = content.find(b"\x08\x00\x16\x00UI")
    paths[0].write_bytes(content[:begin] + b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff")
    try:
        sent = send_files(Peer("127.0.0.1", port, AET, "MHSEV", timeout_s=5), paths)
    finally:
        server.shutdown()
    assert [one.judgement.outcome for one in sent] == [Outcome.REFUSED, Outcome.STORED, Outcome.STORED]
    assert got == whole[1:]


def test_whatever_reading_a_file_raises_is_a_try_of_that_file(monkeypatch):
    def broken(path):
        raise struct.error("unpack requires a buffer")

    monkeypatch.setattr("mhsev_monai.pacs.gateway.cstore.dcmread", broken)
    context = SimpleNamespace(abstract_syntax=UID("1.2"), transfer_syntax=[ImplicitVRLittleEndian])
    association = SimpleNamespace(is_established=True, accepted_contexts=[context])
    judged = _send(association, Outgoing(Path("a"), UID("1.2"), UID("1.3"), ExplicitVRLittleEndian), 1)
    assert judged == Judgement(Outcome.RETRY, "it cannot be sent (error)")


@pytest.fixture
def old_pacs(tmp_path):
    """Starts a storescp that takes two kinds of object in one syntax."""
    started = []

    def start(syntax: str) -> SelectivePacs:
        started.append(SelectivePacs(tmp_path / "old", [ENHANCED_SR, SOP_CLASSES["capture"]], syntax))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@needs_storescp
@pytest.mark.parametrize("syntax", ["LittleEndianExplicit", "LittleEndianImplicit"])
def test_a_pacs_that_refuses_a_kind_gets_the_others_and_the_reason_names_the_kind(old_pacs, tmp_path, syntax):
    pacs = old_pacs(syntax)
    peer = Peer("127.0.0.1", pacs.port, AET, "MHSEV", timeout_s=5)
    sent = {item.path.stem: item.judgement for item in send_files(peer, six_kinds(tmp_path / "results"))}
    assert {kind: judged.outcome for kind, judged in sent.items()} == {
        kind: Outcome.STORED if kind == "capture" else Outcome.NOT_ACCEPTED for kind in SOP_CLASSES
    }
    assert "Comprehensive 3D SR Storage" in sent["sr"].reason
    assert "to both, enhanced or none" in sent["sr"].reason
    enhanced = write_object(tmp_path / "enhanced.dcm", ENHANCED_SR, "sr")
    assert send_files(peer, [enhanced])[0].judgement.outcome is Outcome.STORED
    assert pacs.got().keys() >= {dcmread(enhanced).SOPInstanceUID}
    assert len(pacs.got()) == 2
    # Alone, so that the PACS accepts nothing of what is proposed: that is no PACS that does not answer.
    (alone,) = send_files(peer, [tmp_path / "results" / "sr.dcm"])
    assert alone.judgement == sent["sr"]


@needs_orthanc
def test_mutual_tls_is_needed_at_both_ends(orthanc, tmp_path):
    ends = make_tls(tmp_path / "tls", "pacs", "gateway")
    foreign = make_tls(tmp_path / "foreign", "gateway")["gateway"]
    server = orthanc(modalities={"mhsev": Modality("MHSEV", free_port(), tls=True)}, tls=ends["pacs"])
    path = write_object(tmp_path / "a.dcm", SOP_CLASSES["capture"], "capture")

    def outcome(tls):
        return send_files(peer_of(server, tls=tls, timeout_s=5), [path])[0].judgement.outcome

    own = ends["gateway"]
    no_certificate = client_tls(own.certificate, own.key, own.authority)
    no_certificate = type(no_certificate)(no_certificate.protocol)
    no_certificate.load_verify_locations(own.authority)
    refused = {
        "plain": None,
        "no certificate": no_certificate,
        "a certificate of another authority": client_tls(foreign.certificate, foreign.key, own.authority),
        "a PACS of another authority": client_tls(own.certificate, own.key, foreign.authority),
    }
    assert {name: outcome(tls) for name, tls in refused.items()} == dict.fromkeys(refused, Outcome.RETRY)
    assert server.instances() == {}
    assert outcome(client_tls(own.certificate, own.key, own.authority)) is Outcome.STORED
    assert len(server.instances()) == 1


def test_a_peer_that_announces_gigabytes_is_let_go(tmp_path):
    path = write_object(tmp_path / "a.dcm", SOP_CLASSES["capture"], "capture")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def announce() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                # An A-ASSOCIATE-AC of 4 GB, as fast as it is taken.
                connection.sendall(b"\x02\x00\xff\xff\xff\xff")
                with contextlib.suppress(OSError):
                    while True:
                        connection.sendall(bytes(1 << 20))

        threading.Thread(target=announce, daemon=True).start()
        before = psutil.Process().memory_info().rss
        peer = Peer("127.0.0.1", server.getsockname()[1], AET, "MHSEV", timeout_s=5)
        begin = time.monotonic()
        (sent,) = send_files(peer, [path])
    assert sent.judgement.outcome is Outcome.RETRY
    assert time.monotonic() - begin < 5
    assert psutil.Process().memory_info().rss - before < 100e6
