"""The server of the page: who gets nothing, what stands with every answer, and when it ends."""

from __future__ import annotations

import http.client
import socket
import threading
import time

import pytest

from mhsev_monai.viewer.server import HEADERS, ServedFile, ViewerServer

FILES = {"": ServedFile("text/html", b"<p>page"), "b0.nii": ServedFile("application/octet-stream", b"\x01\x02")}


@pytest.fixture(scope="module")
def server():
    with ViewerServer(FILES, port=0, idle_seconds=60) as made:
        thread = threading.Thread(target=made.serve_until_idle)
        thread.start()
        yield made
        made.idle_seconds = 0
        thread.join(timeout=10)
        assert not thread.is_alive()


def ask(server, path, method="GET", host=None, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", server.host if host is None else host)
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


def test_who_has_the_address_gets_the_files(server):
    assert server.address == f"http://{server.host}/{server.token}/"
    for name, file in FILES.items():
        status, body, headers = ask(server, f"/{server.token}/{name}")
        assert (status, body, headers["Content-Type"]) == (200, file.body, file.content_type)


def test_an_address_that_lost_its_last_letter_leads_to_the_page(server):
    status, body, headers = ask(server, f"/{server.token}")
    assert (status, body, headers["Location"]) == (302, b"", f"/{server.token}/")
    assert ask(server, f"/{server.token[:-1]}")[0] == 404


def test_it_listens_on_loopback_alone(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_addresses_are_new_each_time_and_long():
    with ViewerServer(FILES, 0, 1) as one, ViewerServer(FILES, 0, 1) as other:
        assert one.token != other.token
        assert len(one.token) >= 43  # 32 bytes


@pytest.mark.parametrize("path", ["/", "/b0.nii", "/wrong/", "//", "/../etc/passwd"])
def test_without_the_token_there_is_nothing(server, path):
    assert ask(server, path)[:2] == (404, b"")


def test_bytes_that_are_no_address_are_nothing(server):
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10) as client:
        client.sendall(b"GET /\xe9\xff/ HTTP/1.1\r\nHost: " + server.host.encode() + b"\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.0 404 ")


def test_a_name_that_there_is_not_is_nothing(server):
    for name in ("none.nii", "../cli.py", "page.html.jinja", "b0.nii?x=1"):
        assert ask(server, f"/{server.token}/{name}")[:2] == (404, b"")


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1", ""])
def test_a_foreign_host_is_refused(server, host):
    assert ask(server, f"/{server.token}/", host=host)[:2] == (421, b"")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"])
def test_another_method_is_refused(server, method):
    status, body, headers = ask(server, f"/{server.token}/", method=method)
    assert (status, body, headers["Allow"]) == (405, b"", "GET")


def test_every_answer_is_protected_and_says_little(server):
    answers = [
        ask(server, f"/{server.token}/"),
        ask(server, "/"),
        ask(server, "/", host="evil.example"),
        ask(server, "/", method="POST"),
        ask(server, f"/{'x' * 70000}"),
    ]
    assert [status for status, _, _ in answers] == [200, 404, 421, 405, 414]
    for _, _, headers in answers:
        assert {name: headers[name] for name in HEADERS} == HEADERS
        assert headers["Server"].strip() == "mhsev"
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert HEADERS["Cache-Control"] == "no-store"


def test_nothing_is_logged(server, capfd):
    ask(server, f"/{server.token}/")
    ask(server, "/wrong/")
    assert capfd.readouterr() == ("", "")


def test_it_ends_by_itself_and_only_those_with_the_address_keep_it_going():
    with ViewerServer(FILES, port=0, idle_seconds=2.0) as server:
        thread = threading.Thread(target=server.serve_until_idle)
        started = time.monotonic()
        thread.start()
        time.sleep(1.0)
        ask(server, f"/{server.token}/")
        while thread.is_alive() and time.monotonic() - started < 30:
            ask(server, "/wrong/")
            time.sleep(0.2)
        lasted = time.monotonic() - started
        assert 3.0 <= lasted < 30  # two seconds after the one good request; the rest is a busy machine


def test_a_port_in_use_is_an_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            ViewerServer(FILES, taken.getsockname()[1], 1)


def test_a_client_that_goes_away_is_no_fault(capfd):
    with ViewerServer({"": ServedFile("text/html", bytes(50_000_000))}, port=0, idle_seconds=3) as server:
        thread = threading.Thread(target=server.serve_until_idle)
        thread.start()
        with socket.create_connection(("127.0.0.1", server.server_address[1])) as client:
            client.sendall(f"GET /{server.token}/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
            assert client.recv(10)
        thread.join(timeout=30)
    assert capfd.readouterr() == ("", "")


def test_a_client_that_never_finishes_does_not_hold_up_others(server):
    with socket.create_connection(("127.0.0.1", server.server_address[1])) as slow:
        slow.sendall(b"GET /")
        assert ask(server, f"/{server.token}/")[0] == 200
