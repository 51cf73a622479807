"""Results go by STOW-RS and are looked up by QIDO-RS, at a real server and at one that answers badly."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from journals import Clock, Notes, add_results, open_journal
from orthanc_server import make_tls, needs_orthanc
from pydicom import dcmread
from result_objects import SOP_CLASSES, six_kinds, write_object

from mhsev_monai.pacs.gateway.config_sending import Destination, TlsConfig
from mhsev_monai.pacs.gateway.delivery_rules import Outcome
from mhsev_monai.pacs.gateway.dicomweb import _pages, judge_http, stow_files, web_client
from mhsev_monai.pacs.gateway.guards import server_tls
from mhsev_monai.pacs.gateway.sender import Courier


@needs_orthanc
def test_results_are_stored_looked_up_and_doubled_by_nothing(orthanc, tmp_path):
    server, clock = orthanc(), Clock()
    journal = open_journal(tmp_path, clock)
    paths = six_kinds(tmp_path / "results")
    add_results(journal, tmp_path, paths, ["web"])
    web = Destination("web", kind="dicomweb", url=server.dicomweb_url, commitment=True)
    sender = Courier(web, "MHSEV", journal, tmp_path / "results", Notes(), clock)

    # One is noted as stored, and the server has it not.
    lost, *_ = journal.deliveries.due("web")
    journal.deliveries.sent([lost.id], commitment=True)
    sender.step()
    held = {item.id: item for item in journal.deliveries._found("")}
    assert [item.state for item in held.values() if item.id != lost.id] == ["committed"] * 5
    assert held[lost.id].state == "pending"
    assert "does not list it" in held[lost.id].error
    clock.now += 60
    sender.step()
    assert [row.state for row in journal.series()] == ["committed"]
    client = web_client(server.dicomweb_url, None, 10)
    assert [sent.judgement.outcome for sent in stow_files(client, paths)] == [Outcome.STORED] * 6
    assert set(server.instances()) == {dcmread(path).SOPInstanceUID for path in paths}


@needs_orthanc
def test_a_server_that_is_down_or_cannot_be_trusted_is_tried_again(orthanc, tmp_path):
    path = write_object(tmp_path / "a.dcm", SOP_CLASSES["capture"], "capture")
    server = orthanc()
    client = web_client(server.dicomweb_url.replace("http:", "https:"), None, 5)
    assert stow_files(client, [path])[0].judgement.outcome is Outcome.RETRY
    server.kill()
    (sent,) = stow_files(web_client(server.dicomweb_url, None, 2), [path])
    assert sent.judgement.outcome is Outcome.RETRY
    assert "does not answer" in sent.judgement.reason
    assert str(server.http_port) not in sent.judgement.reason


@pytest.mark.parametrize(
    ("status", "failure", "outcome"),
    [
        (409, 0x0122, Outcome.REFUSED),
        (409, 0xA700, Outcome.RETRY),
        (409, 0x0111, Outcome.STORED),
        (409, None, Outcome.REFUSED),
        (400, None, Outcome.REFUSED),
        (413, None, Outcome.REFUSED),
        (415, None, Outcome.REFUSED),
        (401, None, Outcome.RETRY),
        (403, None, Outcome.RETRY),
        (429, None, Outcome.RETRY),
        (500, None, Outcome.RETRY),
        (503, None, Outcome.RETRY),
    ],
)
def test_what_a_refusal_over_http_means(status, failure, outcome):
    assert judge_http(status, failure).outcome is outcome


@pytest.mark.parametrize(
    ("status", "failure", "of_form"),
    [
        *[(409, failure, True) for failure in (0x0122, 0xA900, 0xC000)],
        (400, 0x0122, True),
        (409, 0x0124, False),
        *[(status, None, False) for status in (400, 404, 409, 413, 415)],
        (503, 0x0122, False),
    ],
)
def test_only_a_failure_reason_says_that_another_kind_of_report_may_be_taken(status, failure, of_form):
    assert judge_http(status, failure).of_form is of_form


@contextlib.contextmanager
def answering(
    status: int, body: str, context: ssl.SSLContext | None = None, content_type: str | None = "application/dicom+json"
):
    """A server that gives one answer to each request; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            if "Content-Length" in self.headers:
                self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            if content_type is not None:
                self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self):
            self.do_POST()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def stored(uid: str) -> str:
    """The answer that says so."""
    return json.dumps({"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}}]}})


NO_REASON = '{"00081198":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["1.3"]}}]}}'
REASON_0 = '{"00081198":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[0]}}]}}'
DUPLICATE = '{"00081198":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[273]}}]}}'


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (409, '{"00081198":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[42752]}}]}}', Outcome.RETRY),
        (409, "<html>Canary^Patricia</html>", Outcome.REFUSED),
        (503, "", Outcome.RETRY),
        (200, "no JSON at all", Outcome.RETRY),
        (200, "", Outcome.RETRY),
        (200, "<html>Canary^Patricia</html>", Outcome.RETRY),
        (200, '["Canary^Patricia"]', Outcome.RETRY),
        (200, '{"00081199":{"vr":"Canary^Patricia"}}', Outcome.RETRY),
        (200, '{"00081199":{"vr":"SQ"}}', Outcome.RETRY),
        (200, stored("1.2.3"), Outcome.RETRY),
        (200, NO_REASON, Outcome.RETRY),
        (200, REASON_0, Outcome.RETRY),
        (409, REASON_0, Outcome.RETRY),
        (200, DUPLICATE, Outcome.STORED),
        (200, '{"00081198":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[290]}}]}}', Outcome.REFUSED),
    ],
)
def test_whatever_a_server_answers_becomes_an_outcome_that_quotes_nothing(tmp_path, status, body, outcome):
    path = write_object(tmp_path / "a.dcm", SOP_CLASSES["capture"], "capture")
    with answering(status, body) as port:
        (sent,) = stow_files(web_client(f"http://127.0.0.1:{port}/dicom-web", None, 5), [path])
    assert sent.judgement.outcome is outcome
    assert "Canary" not in sent.judgement.reason


FAILED = '{"00081198":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[272]}}]}}'


@pytest.mark.parametrize(
    "content_type", ["application/dicom+json; charset=utf-8", "application/json;charset=UTF-8", "text/html", None]
)
def test_what_an_answer_says_counts_and_not_how_its_type_is_written(tmp_path, content_type):
    path = write_object(tmp_path / "a.dcm", SOP_CLASSES["capture"], "capture")
    for body, outcome in ((FAILED, Outcome.RETRY), (stored(dcmread(path).SOPInstanceUID), Outcome.STORED)):
        with answering(202, body, content_type=content_type) as port:
            (sent,) = stow_files(web_client(f"http://127.0.0.1:{port}/dicom-web/", None, 5), [path])
        assert sent.judgement.outcome is outcome


def test_an_answer_that_is_none_counts_as_a_try_so_that_it_ends(tmp_path):
    clock = Clock()
    journal = open_journal(tmp_path, clock)
    add_results(journal, tmp_path, six_kinds(tmp_path / "results"), ["web"])
    with answering(200, "<a", content_type="application/dicom+xml") as port:
        web = Destination("web", kind="dicomweb", url=f"http://127.0.0.1:{port}", retry_s=1, max_attempts=2)
        sender = Courier(web, "MHSEV", journal, tmp_path / "results", Notes(), clock)
        for _ in range(3):
            sender.step()
            clock.now += 10
    (row,) = journal.series()
    assert row.state == "failed"
    assert "given up after 2 tries" in row.reason


@pytest.mark.parametrize("body", ["[{}]", "<html>", "[3]"])
def test_a_server_that_lists_nonsense_is_asked_again_and_given_up_in_the_end(tmp_path, body):
    clock = Clock()
    journal = open_journal(tmp_path, clock)
    add_results(journal, tmp_path, six_kinds(tmp_path / "results"), ["web"])
    journal.deliveries.sent([item.id for item in journal.deliveries.due("web")], commitment=True)
    with answering(200, body) as port:
        url = f"http://127.0.0.1:{port}"
        web = Destination("web", kind="dicomweb", url=url, commitment=True, retry_s=1, max_attempts=2)
        sender = Courier(web, "MHSEV", journal, tmp_path / "results", Notes(), clock)
        assert (sender.step(), sender.step()) == (6, 0)
        clock.now += 10
        sender.step()
    (row,) = journal.series()
    assert row.state == "failed"
    assert "does not answer when it is asked what it lists" in row.reason


def answers(*uids: str) -> list[dict]:
    return [{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in uids]


@pytest.mark.parametrize("knows_offset", [True, False])
def test_pages_end_also_at_a_server_that_knows_no_offset(monkeypatch, knows_offset):
    monkeypatch.setattr("mhsev_monai.pacs.gateway.dicomweb._PAGE", 2)
    held, asked = ["1.1", "1.2", "1.3"], []

    def search(limit: int, offset: int) -> list[dict]:
        asked.append(offset)
        return answers(*(held[offset : offset + limit] if knows_offset else held))

    found = [str(one.StudyInstanceUID) for one in _pages(search, "StudyInstanceUID")]
    assert found == held
    assert asked == ([0, 2] if knows_offset else [0, 3])


def test_certificates_are_looked_at_by_both_ends(tmp_path):
    ends = make_tls(tmp_path / "tls", "pacs", "gateway")
    foreign = make_tls(tmp_path / "foreign", "gateway")["gateway"]
    path = write_object(tmp_path / "a.dcm", SOP_CLASSES["capture"], "capture")
    own, pacs = ends["gateway"], ends["pacs"]
    tries = {
        "all is well": TlsConfig(own.certificate, own.key, own.authority),
        "a certificate of another authority": TlsConfig(foreign.certificate, foreign.key, own.authority),
        "a server of another authority": TlsConfig(own.certificate, own.key, foreign.authority),
        "a file that is not there": TlsConfig(tmp_path / "none.pem", own.key, own.authority),
        "no certificate": None,
    }
    body = stored(dcmread(path).SOPInstanceUID)
    with answering(200, body, server_tls(pacs.certificate, pacs.key, pacs.authority)) as port:
        outcomes = {
            name: stow_files(web_client(f"https://127.0.0.1:{port}/dicom-web", tls, 5), [path])[0].judgement.outcome
            for name, tls in tries.items()
        }
    assert outcomes.pop("all is well") is Outcome.STORED
    assert set(outcomes.values()) == {Outcome.RETRY}
