"""pynetdicom's association server behind a gate: who may connect is decided before anything is read."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from mhsev_monai.pacs.gateway.guards import GuardedMessages, GuardedReceive, IncomingFiles

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.association import Association

_log = logging.getLogger(__name__)
_TOLD_S = 3600.0
_MOST_TOLD = 1000


@dataclass(frozen=True)
class Gate:
    """What connections and associations are held to.

    Attributes:
        admits: whether an address may connect.
        association_s: for the TLS handshake.
        idle_s: for one PDU to come whole.
        max_connections: at one time, associations that are being refused among them.
        max_object_bytes: of one data set.
        new_path: gives the path for an incoming data set.
        files: gets the incoming files.
    """

    admits: Callable[[str], bool]
    association_s: float
    idle_s: float
    max_connections: int
    max_pdu_bytes: int
    max_object_bytes: int
    new_path: Callable[[], Path]
    files: IncomingFiles


class GuardedRequestHandler(RequestHandler):
    """Makes each association with its guards on."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        gate: Gate = self.server.gate  # type: ignore[attr-defined]
        connection = association.dul.socket
        assert connection is not None
        connection.recv = GuardedReceive(association, gate.max_pdu_bytes, gate.idle_s)  # type: ignore[assignment]
        association.dimse.receive_primitive = GuardedMessages(  # type: ignore[method-assign]
            association, gate.new_path, gate.max_object_bytes, gate.files
        )
        return association


class GuardedServer(ThreadedAssociationServer):
    """A server that drops strangers unread and shakes hands in the connection's own thread."""

    daemon_threads = True

    def __init__(self, *arguments: Any, gate: Gate, **named: Any) -> None:
        named["request_handler"] = GuardedRequestHandler
        self.gate = gate
        self._lock = threading.Lock()
        self._n_beginning = 0
        self._told: dict[str, float] = {}
        super().__init__(*arguments, **named)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; its TLS handshake is not done yet."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(self.gate.association_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context is not None and self.gate.admits(address[0]):
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Whether the connection may stay."""
        if not self.gate.admits(client_address[0]):
            self._tell(client_address[0], "no caller of the configuration sends from there")
            return False
        with self._lock:
            n_open = len(self.active_associations) + self._n_beginning
            if n_open >= self.gate.max_connections:
                self._tell(client_address[0], f"{n_open} are open")
                return False
            self._n_beginning += 1
        return True

    def _tell(self, address: str, why: str) -> None:
        """Log a dropped connection, once an hour and address: a scanner of ports must not fill the disk."""
        now = time.monotonic()
        if len(self._told) > _MOST_TOLD:
            self._told.clear()
        if now - self._told.get(address, -_TOLD_S) >= _TOLD_S:
            self._told[address] = now
            _log.warning("dropped a connection from %s: %s; further ones are not told for an hour", address, why)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Begin an association, in a thread of its own."""
        try:
            if isinstance(request, ssl.SSLSocket):
                request.do_handshake()
            request.settimeout(self.gate.idle_s)
            self.finish_request(request, client_address)
        except Exception as error:
            _log.warning("a connection from %s ended with %s", client_address[0], type(error).__name__)
            self.shutdown_request(request)
        finally:
            with self._lock:
                self._n_beginning -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Of what went wrong in accepting, tell the kind alone."""
        _log.warning("a connection from %s could not be served", client_address[0], exc_info=True)
