"""The way of received series into this site's own training scans, for patients who consented. Off unless configured.

What is written is what `mhsev ingest` writes, and it is that which runs, in a child process: voxels under a fresh
header, b-values, an allow-list of coded facts, sex and a decade of age; never DICOM. A patient is known there by a
subject key, an HMAC-SHA-256 of the Patient ID under the site's secret, and by such keys the file of consents names
patients: it holds no identifier, and neither does anything that this writes into the log or the audit.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from pydicom import dcmread

from mhsev_monai.pacs.gateway.audit import Audit
from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.config_sending import TrainingStoreConfig
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import SeriesRow
from mhsev_monai.pacs.gateway.spool import hashed_name, sync

logger = logging.getLogger(__name__)

_KEY = re.compile(r"sub-[0-9a-f]{16}")
_LIMITS = ["-m", "mhsev_monai.pacs.gateway.limited"]
_INGEST = ["-m", "mhsev_flare.cli", "ingest"]
_MB = 1 << 20
# `mhsev ingest`: something was accepted; the data say no. Anything else is a fault, and tried again after a restart.
_ACCEPTED, _SAYS_NO = 0, 1
_MOST_SERIES = 100_000


class ConsentError(Exception):
    """The file of consents cannot be used; nobody counts as having consented then."""


def subject_key(secret: bytes, patient_id: str) -> str:
    """The key of a patient: the one that `mhsev ingest` writes, without entering it into the table of subject keys."""
    return (
        "sub-" + hmac.new(secret, f"patient\0{patient_id}".encode("utf-8", "surrogateescape"), sha256).hexdigest()[:16]
    )


def read_consents(path: Path) -> frozenset[str]:
    """The keys in a file, one a line; blank lines and those that begin with ``#`` are passed over.

    Raises:
        ConsentError: if the file cannot be read, or a line is no key: a file that is damaged must not be half obeyed.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConsentError(f"the file of consents cannot be read ({type(error).__name__})") from error
    keys = set()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            if not _KEY.fullmatch(text):
                raise ConsentError(f"line {number} of the file of consents is no subject key; write sub- and 16 digits")
            keys.add(text)
    return frozenset(keys)


class TrainingStore:
    """Looks for series of consenting patients that are graded, and brings them in once for each revision.

    Args:
        settings: where to, and who consented.
        config: of the gateway.
        journal: which series there are.
        audit: gets a line for each series that was brought in or refused.
    """

    def __init__(self, settings: TrainingStoreConfig, config: GatewayConfig, journal: Journal, audit: Audit) -> None:
        self._settings = settings
        self._config = config
        self._journal = journal
        self._audit = audit
        self._done_file = config.folders.state / "training_store.txt"
        self._done = set(self._done_file.read_text().split("\n")) if self._done_file.is_file() else set()
        self._faulty: set[str] = set()
        self._keys: dict[str, str] = {}

    def look(self) -> int:
        """One look at all series; the number that were brought in."""
        try:
            consents = read_consents(self._settings.consents)
            secret = bytes.fromhex((self._settings.site_folder / "secret").read_text().strip())
        except (ConsentError, OSError, ValueError) as error:
            told = str(error) if isinstance(error, ConsentError) else "the site's secret cannot be read"
            logger.warning("training store: %s; no scan is stored", told)
            return 0
        n_stored = 0
        for row in self._journal.series("committed", _MOST_SERIES) if consents else []:
            mark = f"{self._audit.pseudonyms.of(row.series_uid)} {row.revision}"
            if mark not in self._done | self._faulty and self._key(row, secret) in consents:
                n_stored += self._store(row, mark)
        return n_stored

    def _key(self, row: SeriesRow, secret: bytes) -> str:
        """The subject key of a series' patient; empty where no Patient ID can be read."""
        if row.series_uid not in self._keys:
            self._keys[row.series_uid] = ""
            for path in self._files(row)[:1]:
                try:
                    patient = str(dcmread(path, specific_tags=["PatientID"], stop_before_pixels=True).PatientID)
                except Exception:
                    # A header that cannot be read, in whatever way: the series is nobody's.
                    continue
                self._keys[row.series_uid] = subject_key(secret, patient.strip()) if patient.strip() else ""
        return self._keys[row.series_uid]

    def _files(self, row: SeriesRow) -> list[Path]:
        return sorted((self._config.folders.spool / hashed_name(row.series_uid)).glob("*.dcm"))

    def _store(self, row: SeriesRow, mark: str) -> bool:
        """Bring one series in; whether it was accepted."""
        with tempfile.TemporaryDirectory(dir=self._config.folders.work) as folder:
            source = Path(folder) / "in"
            source.mkdir()
            for path in self._files(row):
                (source / path.name).hardlink_to(path)
            status = self._ingest(source, Path(folder))
        if status not in (_ACCEPTED, _SAYS_NO):
            self._faulty.add(mark)
            logger.warning("training store: a series could not be brought in (status %s)", status)
            return False
        self._note_done(mark)
        outcome = "stored" if status == _ACCEPTED else "refused"
        self._audit.note(f"training scan {outcome}", series=mark.split()[0], revision=row.revision)
        return status == _ACCEPTED

    def _ingest(self, source: Path, folder: Path) -> int | None:
        """The exit status of `mhsev ingest`; None where it did not end in time."""
        limits = self._config.pipeline
        arguments = [str(source), str(self._settings.folder), "--site-folder", str(self._settings.site_folder)]
        memory, size = str(limits.memory_mb * _MB), str(limits.file_mb * _MB)
        command: Sequence[str] = [sys.executable, *_LIMITS, memory, size, str(os.getpid()), "--", sys.executable]
        try:
            done = subprocess.run(
                [*command, *_INGEST, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": str(folder)},
                timeout=limits.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        return done.returncode

    def _note_done(self, mark: str) -> None:
        self._done.add(mark)
        with self._done_file.open("a") as stream:
            stream.write(mark + "\n")
        sync(self._done_file)


def run_training_store(config: GatewayConfig, journal: Journal, stop: threading.Event, audit: Audit) -> None:
    """Look again and again until ``stop`` is set; returns at once where no store is configured."""
    if config.training_store is None:
        return
    store = TrainingStore(config.training_store, config, journal, audit)
    while not stop.is_set():
        store.look()
        stop.wait(config.training_store.interval_s)
