"""Associations that the gateway opens to a PACS: bounded in time, quick, and without pynetdicom's lost responses.

pynetdicom 3.0.4 has a thread that reads messages (the reactor) and pauses it for each request. The pause is a flag that
the reactor sets before it waits; a request that is sent between the flag and the wait may have its response read, and
dropped, by the reactor. That was seen once in some 3,000 requests, each of which hung until its timeout. `Checkpoint`
takes the place of the event behind the flag, a private attribute: its `clear` returns when the reactor truly waits.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from mhsev_monai.pacs.gateway.config_sending import Destination
from mhsev_monai.pacs.gateway.guards import GuardedReceive

# Identifiers of patients are in queries and answers; the log must not hold them.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
# Files are sent from the disk as they are, whatever their size.
_config.STORE_SEND_CHUNKED_DATASET = True

# We ask for PDUs of 64 KB; pynetdicom itself reads what is announced, up to 4 GB.
_MOST_PDU_BYTES, _PDU_S = 1 << 20, 60.0

# Results of a presentation context, PS3.8 table 9-18: the class, or its transfer syntaxes, are not supported.
_UNSUPPORTED = {3, 4}


class PeerError(Exception):
    """A PACS that cannot be reached, or does not talk to us; worth another try later."""


class NothingAcceptedError(PeerError):
    """A PACS that answers, and takes none of what was proposed since it does not support it."""


@dataclass(frozen=True)
class Peer:
    """A DICOM application that the gateway calls.

    Attributes:
        aet: its title, and ``own_aet`` the one that the gateway calls itself.
        tls: None for plain DICOM; see `client_tls`.
        timeout_s: for the connection, the negotiation, and each response.
    """

    host: str
    port: int
    aet: str
    own_aet: str
    tls: ssl.SSLContext | None = None
    timeout_s: float = 30.0


def client_tls(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """TLS 1.2 or later with both ends certified: the peer must show a certificate of ``authority`` for its host name.

    Raises:
        OSError: if a file cannot be read, or is no PEM file (as `ssl.SSLError`).
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(str(certificate), str(key))
    return context


def peer_of(destination: Destination, own_aet: str) -> Peer:
    """Whom to call for a destination.

    Raises:
        OSError: if the files of its TLS cannot be read.
    """
    tls = destination.tls
    return Peer(
        destination.host,
        destination.port,
        destination.ae_title,
        destination.called_by or own_aet,
        None if tls is None else client_tls(tls.certificate, tls.key, tls.ca),
        destination.timeout_s,
    )


class Checkpoint:
    """In place of the event that pauses a reactor; `clear` returns when the reactor waits, or is no more."""

    def __init__(self, reactor: threading.Thread) -> None:
        self._reactor = reactor
        self._changed = threading.Condition()
        self._open = True
        self._waiting = False

    def is_set(self) -> bool:
        """Whether the reactor may run."""
        return self._open

    def set(self) -> None:
        """Let the reactor run."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Called by the reactor: wait until it may run."""
        with self._changed:
            self._waiting = True
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._open, timeout)
            finally:
                self._waiting = False

    def clear(self) -> None:
        """Pause the reactor; it waits when this returns, so that it reads nothing until `set`."""
        with self._changed:
            self._open = False
            # A handler that the reactor itself runs may send too.
            while not self._waiting and self._reactor.is_alive() and threading.current_thread() is not self._reactor:
                self._changed.wait(0.05)


def prepare_connection(event: evt.Event) -> None:
    """Handler of ``EVT_CONN_OPEN``: small packets are not delayed (6 times faster), and the guards are put in place."""
    association: Any = event.assoc
    association.dul.socket.recv = GuardedReceive(association, _MOST_PDU_BYTES, _PDU_S)
    association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    association._reactor_checkpoint = Checkpoint(association)


def associate(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    handlers: Sequence[tuple[Any, ...]] = (),
    roles: Sequence[Any] = (),
) -> Association:
    """An established association; the caller ends it with `release`.

    Args:
        peer: whom to call.
        contexts: what to propose; at most 128.
        handlers: of pynetdicom's events.
        roles: role selections to negotiate.

    Raises:
        NothingAcceptedError: if the peer supports none of the contexts.
        PeerError: if it is not there, rejects the association, or accepts none of the contexts for another reason.
    """
    application = AE(ae_title=peer.own_aet)
    application.connection_timeout = peer.timeout_s
    application.acse_timeout = peer.timeout_s
    application.dimse_timeout = peer.timeout_s
    application.network_timeout = max(60.0, 2 * peer.timeout_s)
    association = application.associate(
        peer.host,
        peer.port,
        contexts=list(contexts),
        ae_title=peer.aet,
        max_pdu=65536,
        ext_neg=list(roles) or None,
        tls_args=None if peer.tls is None else (peer.tls, peer.host),
        evt_handlers=[(evt.EVT_CONN_OPEN, prepare_connection), *handlers],
    )
    if not association.is_established:
        results = {context.result for context in association.rejected_contexts}
        nothing = bool(results) and results <= _UNSUPPORTED and not association.accepted_contexts
        raise (NothingAcceptedError if nothing else PeerError)(_why_not(association, peer))
    return association


def release(association: Association) -> None:
    """End an association in the way that its state allows."""
    if association.is_established:
        association.release()
    end = time.monotonic() + 5
    while association.is_alive() and time.monotonic() < end:
        association.join(0.05)


def _why_not(association: Association, peer: Peer) -> str:
    who = f"{peer.aet} at {peer.host}:{peer.port}"
    if association.is_rejected:
        primitive = association.acceptor.primitive
        reason = getattr(primitive, "reason_str", "") or "no reason"
        return f"{who} rejected the association as {peer.own_aet} ({reason}); make the title known to the PACS"
    if association.rejected_contexts and not association.accepted_contexts:
        return f"{who} accepts none of the kinds of object that were proposed; allow them at the PACS"
    secured = "" if peer.tls is None else ", or does not trust the certificate, or has one that is not trusted here"
    return f"{who} does not answer{secured}; check that the PACS runs and its address is right"
