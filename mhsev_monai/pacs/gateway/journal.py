"""The journal: what came, what state each series is in, what is still to be delivered. It survives the process.

Every change is on disk when its method returns, so that a gateway that is killed at any moment goes on from the journal
alone. Its sides are this class (receiving and looking), `Journal.work` (the pipeline) and `Journal.deliveries`
(sending). The number of the revision keeps them apart: a slice that comes late raises it, and what was begun for an
older revision changes nothing any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection

from mhsev_monai.pacs.gateway.deliveries import Deliveries
from mhsev_monai.pacs.gateway.journal_database import Database, JournalError
from mhsev_monai.pacs.gateway.journal_rows import Arrival, Counts, ReceivedInstance, SeriesRow
from mhsev_monai.pacs.gateway.journal_schema import (
    COLLECTING,
    COMMITTED,
    DELIVERY_STATES,
    READY,
    SCHEMA_VERSION,
    SENDING,
    SERIES_STATES,
)
from mhsev_monai.pacs.gateway.series_states import UNGRADED, move, reopen
from mhsev_monai.pacs.gateway.work_queue import WorkQueue

__all__ = ["Journal", "JournalError", "OtherStudyError"]


class OtherStudyError(Exception):
    """A series UID came with the UID of another study than before."""


class Journal:
    """One gateway's journal; usable from several threads, and from `mhsev gateway status` beside it.

    Args:
        path: the SQLite file, made where absent.
        clock: seconds since 1970; tests pass their own.

    Raises:
        JournalError: if the file cannot be used.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(path, clock)
        self._clock = clock
        self.work = WorkQueue(self._database)
        self.deliveries = Deliveries(self._database)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add_instance(self, instance: ReceivedInstance) -> Arrival:
        """Note an instance that is on disk; a late one reopens its series, whatever became of that.

        Raises:
            OtherStudyError: if its series is known under another study.
        """
        with self._database.change() as rows:
            known = rows.execute(
                "SELECT series_id, digest FROM instances WHERE sop_uid = ?", (instance.sop_uid,)
            ).fetchone()
            if known is not None:
                changed = int(known["digest"] != instance.digest)
                rows.execute(
                    "UPDATE series SET n_repeats = n_repeats + 1, n_changed = n_changed + ? WHERE id = ?",
                    (changed, known["series_id"]),
                )
                return Arrival.CHANGED if changed else Arrival.REPEAT
            series_id, arrival = self._series_for(rows, instance)
            rows.execute(
                "INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(instance.sop_uid, series_id, instance.sop_class, instance.file),
                    *(instance.n_bytes, instance.digest, self._clock()),
                ),
            )
            return arrival

    def _series_for(self, rows: Connection, instance: ReceivedInstance) -> tuple[int, Arrival]:
        now = self._clock()
        row = rows.execute(
            "SELECT id, study_uid, state FROM series WHERE series_uid = ?", (instance.series_uid,)
        ).fetchone()
        if row is None:
            added = rows.execute(
                "INSERT INTO series (series_uid, study_uid, source, state, priority, n_instances, first_at, last_at, "
                "changed_at) VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?)",
                (
                    *(instance.series_uid, instance.study_uid, instance.source, COLLECTING),
                    *(instance.priority, now, now, now),
                ),
            )
            return int(added.lastrowid or 0), Arrival.NEW
        if row["study_uid"] != instance.study_uid:
            raise OtherStudyError(
                "a series that is known came with the UID of another study; send it under its own UID"
            )
        rows.execute(
            "UPDATE series SET n_instances = n_instances + 1, last_at = ?, priority = max(priority, ?) WHERE id = ?",
            (now, instance.priority, row["id"]),
        )
        if row["state"] == COLLECTING:
            return row["id"], Arrival.NEW
        reopen(rows, row["id"], now)
        return row["id"], Arrival.REOPENED

    def knows_instance(self, sop_uid: str) -> bool:
        """Whether the instance is on disk here."""
        return bool(self._database.rows("SELECT 1 FROM instances WHERE sop_uid = ?", sop_uid))

    def knows_series(self, series_uid: str) -> bool:
        """Whether anything of the series came, whatever became of it."""
        return bool(self._database.rows("SELECT 1 FROM series WHERE series_uid = ?", series_uid))

    def n_instances(self, series_uid: str) -> int:
        """How many instances of the series are on disk here."""
        found = self._database.rows("SELECT n_instances FROM series WHERE series_uid = ?", series_uid)
        return found[0]["n_instances"] if found else 0

    def make_ready(self, quiet_s: float) -> list[SeriesRow]:
        """Move the series for which nothing came for ``quiet_s`` seconds from collecting to ready."""
        with self._database.change() as rows:
            now = self._clock()
            # The clock was set back: without this, a series would wait until it has caught up.
            rows.execute("UPDATE series SET last_at = ? WHERE state = ? AND last_at > ?", (now, COLLECTING, now))
            quiet = rows.execute(
                "SELECT * FROM series WHERE state = ? AND last_at <= ?", (COLLECTING, now - quiet_s)
            ).fetchall()
            for row in quiet:
                move(rows, row["id"], READY, now)
        return [SeriesRow(**row) for row in quiet]

    def try_write(self) -> None:
        """Write a page that changes nothing, as any change does: with its lock, and to the disk.

        Raises:
            sqlite3.Error: if the journal cannot be written.
        """
        with self._database.change() as rows:
            rows.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    # Looking

    def series(self, state: str | None = None, limit: int = 1000) -> list[SeriesRow]:
        """Series, the last changed first."""
        found = self._database.rows(
            "SELECT * FROM series WHERE (? IS NULL OR state = ?) ORDER BY changed_at DESC, id DESC LIMIT ?",
            *(state, state, limit),
        )
        return [SeriesRow(**row) for row in found]

    def graded_in_part(self, limit: int = 1000) -> list[SeriesRow]:
        """Series of which a part has no result while the rest is on its way or delivered, the last changed first."""
        found = self._database.rows(
            "SELECT * FROM series WHERE state IN (?, ?) AND reason LIKE ? ORDER BY changed_at DESC, id DESC LIMIT ?",
            *(SENDING, COMMITTED, f"{UNGRADED}%", limit),
        )
        return [SeriesRow(**row) for row in found]

    def series_with_uid(self, series_uid: str) -> SeriesRow | None:
        """One series, or None if nothing of it came."""
        found = self._database.rows("SELECT * FROM series WHERE series_uid = ?", series_uid)
        return SeriesRow(**found[0]) if found else None

    def files(self) -> set[str]:
        """All instances' files, relative to the spool."""
        return {row["file"] for row in self._database.rows("SELECT file FROM instances")}

    def result_files(self) -> set[str]:
        """All results' files, relative to the folder of results."""
        return {row["file"] for row in self._database.rows("SELECT file FROM results")}

    def counts(self) -> Counts:
        """How many rows are in which state; holds no identifier."""
        series = dict.fromkeys(SERIES_STATES, 0)
        for row in self._database.rows("SELECT state, count(*) AS n FROM series GROUP BY state"):
            series[row["state"]] = row["n"]
        deliveries: dict[str, dict[str, int]] = {}
        for row in self._database.rows("SELECT destination, state, count(*) AS n FROM deliveries GROUP BY 1, 2"):
            of_one = deliveries.setdefault(row["destination"], dict.fromkeys(DELIVERY_STATES, 0))
            of_one[row["state"]] = row["n"]
        totals = self._database.rows(
            "SELECT coalesce(sum(n_instances), 0) AS n, coalesce(sum(n_repeats), 0) AS repeats, "
            "min(CASE state WHEN 'ready' THEN changed_at END) AS ready FROM series"
        )[0]
        pending = self._database.rows(
            "SELECT min(made_at) AS since FROM results JOIN deliveries ON result_id = results.id "
            "WHERE state IN ('pending', 'sent', 'requested')"
        )[0]["since"]
        return Counts(
            series, deliveries, self._age(totals["ready"]), self._age(pending), totals["n"], totals["repeats"]
        )

    def _age(self, since: float | None) -> float:
        return 0.0 if since is None else max(0.0, self._clock() - since)

    # Retention

    def finished_before(self, moment: float, states: tuple[str, ...], limit: int = 100) -> list[SeriesRow]:
        """Series in one of the states since before a moment, the oldest first."""
        marks = ", ".join("?" * len(states))
        found = self._database.rows(
            f"SELECT * FROM series WHERE state IN ({marks}) AND changed_at < ? ORDER BY changed_at LIMIT ?",
            *(*states, moment, limit),
        )
        return [SeriesRow(**row) for row in found]

    def forget(self, series: SeriesRow) -> bool:
        """Remove a series and all that belongs to it; False if it changed since it was looked at."""
        with self._database.change() as rows:
            gone = rows.execute(
                "DELETE FROM series WHERE id = ? AND revision = ? AND state = ?",
                (series.id, series.revision, series.state),
            )
            return gone.rowcount == 1
