"""Who did what when, without saying to whom: an audit log under pseudonyms, and a log that quotes no one's data.

A pseudonym is a keyed hash of a UID. The key is made on the first start and stays in the state folder, so that the
hospital can tell from a UID which lines are about it, and nobody else can.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from mhsev_monai.pacs.gateway.spool import sync

_DIGITS = 16
_KEY_BYTES = 32
_FILE_BYTES = 16 << 20
_N_FILES = 20


class PseudonymKeyError(OSError):
    """The file of the key holds none; what to do stands in ``strerror``."""


class Pseudonyms:
    """Stand-ins for UIDs in log and audit."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> Pseudonyms:
        """The pseudonyms of the key in a file, which is made, closed to other users, where it is absent.

        Raises:
            PseudonymKeyError: if the file holds anything but 32 bytes in hexadecimal.
            OSError: if it cannot be read or made.
        """
        if not path.exists():
            _make_key(path)
        try:
            key = bytes.fromhex(path.read_text().strip())
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            told = (
                f"{path.name} is damaged: it must hold {_KEY_BYTES} bytes in hexadecimal; restore it from a backup, or "
                "remove it: a new one is made then, under which the pseudonyms of earlier lines are found no more"
            )
            raise PseudonymKeyError(errno.EINVAL, told)
        return cls(key)

    def of(self, uid: str) -> str:
        """16 hexadecimal digits."""
        return hmac.new(self._key, uid.encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def _make_key(path: Path) -> None:
    # Written beside and linked: after a crash there is a whole key or none, and of two processes that start together
    # one wins.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_bytes(_KEY_BYTES).hex() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink()
    sync(path.parent)


class _OwnersFile(RotatingFileHandler):
    """Files that other users cannot read, each new one too, whatever the umask is."""

    def _open(self) -> TextIOWrapper:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags, 0o600)

        return open(self.baseFilename, "a", encoding=self.encoding, opener=opener)


class Audit:
    """One JSON object a line, the oldest files dropped: 20 of 16 MB are kept.

    What may stand in a line: pseudonyms, AE titles that the configuration names, addresses, states, counts, and reasons
    in the gateway's own words.
    """

    def __init__(self, path: Path, pseudonyms: Pseudonyms, clock: Callable[[], float] = time.time) -> None:
        self.pseudonyms = pseudonyms
        self._clock = clock
        # Not under the root logger: the lines are for this file alone.
        self._handler = _OwnersFile(path, maxBytes=_FILE_BYTES, backupCount=_N_FILES - 1, encoding="utf-8")
        for file in path.parent.glob(f"{path.name}*"):
            file.chmod(0o600)

    def note(self, event: str, **facts: object) -> None:
        """Append one line."""
        moment = self._clock()
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment * 1000) % 1000:03d}Z"
        line = json.dumps({"time": when, "event": event, **facts}, ensure_ascii=True, default=str)
        self._handler.emit(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class QuotelessFormatter(logging.Formatter):
    """Own messages in full; of other packages' messages only where they come from.

    pynetdicom and pydicom quote what they were sent: a patient's name in the place of a UID, an AE title, a file name.
    Of an exception, the type is told and not its text, for the same reason.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        if not record.name.startswith("mhsev_monai"):
            record = logging.makeLogRecord(record.__dict__)
            record.msg, record.args = f"line {record.lineno} of {record.module}", None
        if record.exc_info:
            kind = record.exc_info[0]
            record = logging.makeLogRecord(record.__dict__)
            record.msg = f"{record.getMessage()} ({kind.__name__ if kind else 'exception'})"
            record.args, record.exc_info, record.exc_text = None, None, None
        return super().format(record)


def set_up_log() -> None:
    """Send the process's log to stderr, without quotations."""
    handler = logging.StreamHandler()
    handler.setFormatter(QuotelessFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("mhsev_monai").setLevel(logging.INFO)
    # pynetdicom gives itself a level and, with its debug switch, handlers.
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.captureWarnings(True)
