"""The SQLite file under the journal: one connection, one lock, every commit on disk before it returns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mhsev_monai.pacs.gateway.journal_schema import SCHEMA_VERSION, TABLES

# Another process (`mhsev gateway retry`) may hold the write lock for a moment.
BUSY_TIMEOUT_S = 30.0


class JournalError(Exception):
    """The journal cannot be used; the message says what to do."""


class Database:
    """One SQLite file in WAL mode with ``synchronous=FULL``, usable from several threads and processes."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._lock = threading.RLock()
        self.clock = clock
        self._depth = 0
        self._connection = sqlite3.connect(path, BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise JournalError(
                f"the journal {path.name} cannot be read ({error}); restore it, or move the gateway's state folder away"
            ) from error
        except JournalError:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise JournalError(
                f"the journal has version {version}, this program knows version {SCHEMA_VERSION}; "
                "use the program that wrote it until all series are committed, then start with a new state folder"
            )
        if version == 0:
            self._connection.executescript(f"BEGIN;{TABLES}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it on disk at the end, or none of it; may be nested, the outermost commits."""
        with self._lock:
            if self._depth:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield self._connection
            except BaseException:
                self._undo()
                raise
            else:
                self._commit()
            finally:
                self._depth = 0

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        # SQLite has already rolled back by itself where the disk was full.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in."""
        with self._lock:
            self._connection.close()
