"""A web server for one reader on one computer: loopback only, behind a random address, gone when nobody asks."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

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
        token, slash, name = path.removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.token.encode()):
            return None
        self.last_request = time.monotonic()
        return self.files.get(name)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a browser that went away in the middle, which is its right."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


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
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"})
        else:
            return True
        self.close_connection = True
        return False

    def do_GET(self) -> None:
        """Answer with a file, or say no more than that there is none."""
        found = self.server.find(self.path)
        if found is not None:
            self._answer(HTTPStatus.OK, found, {"Content-Type": found.content_type})
        elif self.server.find(f"{self.path}/") is not None:
            # The address of the page, its last letter lost in copying.
            self._answer(HTTPStatus.FOUND, headers={"Location": f"{self.path}/"})
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def _answer(
        self, status: HTTPStatus, file: ServedFile | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        body = file.body if file is not None else b""
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        """Every answer, those of the base class to broken requests too, has the same protection."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a log would hold the token."""
