"""A web server for one reader on one computer: loopback only, behind a random address, gone when nobody asks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 32
_POLL_SECONDS = 0.5
_SLOWEST_CLIENT_SECONDS = 10

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""With every answer, refusals too: no script but the page's own, no other address, nothing kept on disk."""


class ServedFile(NamedTuple):
    """What the server answers with."""

    content_type: str
    body: bytes


class ViewerServer(ThreadingHTTPServer):
    """Serves a few files from memory until nobody has asked for any for a while.

    Whoever has no token gets nothing: other users of the computer can reach its loopback addresses, too. A foreign name
    in ``Host`` is refused, so that no page from elsewhere can reach the server under a name of its own (DNS rebinding).

    Args:
        files: by name; ``""`` is the page.
        port: 0: one that is free.
        idle_seconds: the server ends when this time has passed without a request that had the token.

    Raises:
        OSError: if the port is taken.
    """

    daemon_threads = True
    # A port in use is a mistake to be told, not to be shared.
    allow_reuse_address = False
    timeout = _POLL_SECONDS

    def __init__(self, files: Mapping[str, ServedFile], port: int, idle_seconds: float) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.files = dict(files)
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.host = f"{LOOPBACK}:{self.server_address[1]}"
        self.idle_seconds = idle_seconds
        self.last_request = time.monotonic()

    @property
    def address(self) -> str:
        """Of the page; who knows it may see the scan."""
        return f"http://{self.host}/{self.token}/"

    def serve_until_idle(self) -> None:
        """Answer requests; returns when nobody has asked for a while."""
        self.last_request = time.monotonic()
        while time.monotonic() - self.last_request < self.idle_seconds:
            self.handle_request()

    def find(self, path: str) -> ServedFile | None:
        """What stands at a path; None without the token, and for names that there are not."""
        token, _, name = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return None
        self.last_request = time.monotonic()
        return self.files.get(name)


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer
    server_version = "mhsev"
    sys_version = ""
    timeout = _SLOWEST_CLIENT_SECONDS

    def parse_request(self) -> bool:
        """Refuse foreign names and methods before anything else is looked at."""
        if not super().parse_request():
            return False
        if self.headers.get_all("Host") != [self.server.host]:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.command != "GET":
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED)
        else:
            return True
        self.close_connection = True
        return False

    def do_GET(self) -> None:
        """Answer with a file, or say no more than that there is none."""
        found = self.server.find(self.path)
        self._answer(HTTPStatus.NOT_FOUND if found is None else HTTPStatus.OK, found)

    def _answer(self, status: HTTPStatus, file: ServedFile | None = None) -> None:
        body = file.body if file is not None else b""
        self.send_response(status)
        if file is not None:
            self.send_header("Content-Type", file.content_type)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        """Every answer, those of the base class to broken requests too, has the same protection."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a log would hold the token."""
