"""What pynetdicom 3.0 leaves open to whoever can connect, closed.

Found by reading and by trying: it reads a PDU of any announced length before there is an association (one client made a
gateway take 3.4 GB); a socket has no time-out, so that one byte a minute holds a thread for ever; TLS handshakes run in
the thread that accepts connections, so that one silent client stops them all; command sets, and data sets of messages
other than C-STORE, grow in memory without end; a data set received in chunks stays on disk when its association ends
before it is whole, and a full disk ends the association without an answer. The version is pinned, and
tests/pacs/gateway hold each of these.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from mhsev_monai.pacs.gateway.spool import is_out_of_space

if TYPE_CHECKING:
    from pynetdicom.association import Association

_log = logging.getLogger(__name__)
_READ_BYTES = 1 << 18
_MOST_MESSAGE_BYTES = 4 << 20
_MOST_OPEN_FILES = 4
_OPENER = threading.local()


class PduTooLongError(OSError):
    """A PDU was announced that is longer than allowed; pynetdicom ends a connection on an OSError."""


class GuardedReceive:
    """Takes the place of an association socket's ``recv``: bounded in length and in time."""

    def __init__(self, association: Association, max_bytes: int, seconds: float) -> None:
        self._association = association
        self._max_bytes = max_bytes
        self._seconds = seconds

    def __call__(self, n_bytes: int) -> bytearray:
        """Read so many bytes, fewer only if the other side closed.

        Raises:
            PduTooLongError: if more than allowed were asked for.
            TimeoutError: if they did not come in time.
        """
        if n_bytes > self._max_bytes:
            raise PduTooLongError(f"a PDU of {n_bytes} bytes was announced; up to {self._max_bytes} are read")
        held = self._association.dul.socket
        connection = held.socket if held is not None else None
        if connection is None:
            raise OSError("the connection is closed")
        got = bytearray()
        end = time.monotonic() + self._seconds
        try:
            while len(got) < n_bytes:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError("a PDU did not come whole in time")
                connection.settimeout(left)
                read = connection.recv(min(_READ_BYTES, n_bytes - len(got)))
                if not read:
                    break
                got += read
        finally:
            connection.settimeout(self._seconds)
        return got


class IncomingFile:
    """Takes the place of the temporary file that pynetdicom writes a data set to: a fault is kept, and not raised.

    Raised in pynetdicom's thread, it would end the association without an answer. What was written is cut off, so
    that a too large instance, or the last free block of a full disk, is not held until the answer is sent.

    Attributes:
        name: its path, as pynetdicom asks for it.
        fault: why it is not whole, None while it is.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.name = str(path)
        self.fault: str | None = None
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._stream: Any = None
        try:
            self._stream = path.open("xb", buffering=0)
        except OSError as error:
            self.fault = _told(error)

    @property
    def file(self) -> IncomingFile:
        """What pynetdicom calls ``flush`` of."""
        return self

    def write(self, data: bytes) -> int:
        """Append; without effect after a fault."""
        if self.fault is not None:
            return len(data)
        self._n_bytes += len(data)
        if self._n_bytes > self._max_bytes:
            return self._give_up(f"the instance is larger than {self._max_bytes >> 20} MB", len(data))
        view = memoryview(data)
        try:
            while view:
                view = view[self._stream.write(view) :]
        except OSError as error:
            return self._give_up(_told(error), len(data))
        return len(data)

    def _give_up(self, fault: str, n_bytes: int) -> int:
        self.fault = fault
        try:
            self._stream.truncate(0)
        except OSError:
            _log.warning("an incoming file could not be cut off")
        return n_bytes

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Close the file; it stays where it is."""
        if self._stream is not None:
            self._stream.close()


def _told(error: OSError) -> str:
    return "the gateway has no disk space left" if is_out_of_space(error) else "the gateway cannot store it"


class GuardedMessages:
    """Takes the place of a DIMSE provider's ``receive_primitive``: bounds what a message may take.

    Args:
        association: whose provider it is.
        new_path: gives the path for an incoming data set.
        max_bytes: of a data set.
        files: gets each incoming file, for whoever clears up.
    """

    def __init__(
        self, association: Association, new_path: Callable[[], Path], max_bytes: int, files: IncomingFiles
    ) -> None:
        self._association = association
        self._receive = association.dimse.receive_primitive
        self._new_path = new_path
        self._max_bytes = max_bytes
        self._files = files
        self._in_memory = 0

    def __call__(self, primitive: Any) -> None:
        """Hand one P-DATA primitive on, or end the association."""
        message = self._association.dimse.message
        is_storing = message is not None and message._data_set_file is not None
        for _, value in primitive.presentation_data_value_list:
            is_command = bool(value[:1]) and bool(value[0] & 1)
            if is_command or not is_storing:
                self._in_memory += len(value)
        try:
            if self._in_memory > _MOST_MESSAGE_BYTES:
                raise MemoryError("a message takes too much memory")
            with _opener(self._open):
                self._receive(primitive)
        except Exception as error:
            _log.warning("an association is ended: %s while a message was received", type(error).__name__)
            self._association.dul.event_queue.put("Evt19")
        if self._association.dimse.message is None:
            self._in_memory = 0

    def _open(self) -> IncomingFile:
        if self._files.n_open(self._association) >= _MOST_OPEN_FILES:
            raise MemoryError("more data sets are sent than answers waited for")
        file = IncomingFile(self._new_path(), self._max_bytes)
        self._files.add(self._association, file)
        return file


class IncomingFiles:
    """Which incoming file belongs to which association, so that none outlives it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[tuple[Association, IncomingFile]] = []

    def add(self, association: Association, file: IncomingFile) -> None:
        """A file was opened."""
        with self._lock:
            self._held.append((association, file))

    def done(self, file: IncomingFile) -> None:
        """A file was taken away or removed."""
        file.close()
        file.path.unlink(missing_ok=True)
        with self._lock:
            self._held = [held for held in self._held if held[1] is not file]

    def n_open(self, association: Association) -> int:
        """How many files of an association are there."""
        with self._lock:
            return sum(owner is association for owner, _ in self._held)

    def sweep(self) -> None:
        """Remove the files of associations that ended."""
        with self._lock:
            left = [file for association, file in self._held if not association.is_alive()]
        for file in left:
            self.done(file)


@contextmanager
def _opener(opener: Callable[[], IncomingFile]) -> Iterator[None]:
    _OPENER.current = opener
    try:
        yield
    finally:
        _OPENER.current = None


def _named_temporary_file(*arguments: Any, **named: Any) -> Any:
    opener = getattr(_OPENER, "current", None)
    return opener() if opener is not None else NamedTemporaryFile(*arguments, **named)


def install() -> None:
    """Set pynetdicom's options for the whole process: receive in chunks, into our files, and quote no data set."""
    import pynetdicom
    from pynetdicom import dimse_messages

    pynetdicom._config.STORE_RECV_CHUNKED_DATASET = True
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
    pynetdicom._config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom._config.LOG_RESPONSE_IDENTIFIERS = False
    dimse_messages.NamedTemporaryFile = _named_temporary_file


def server_tls(certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """TLS 1.2 or later, with a certificate of the client that one of ours has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    return context
