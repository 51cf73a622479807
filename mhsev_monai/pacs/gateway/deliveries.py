"""The journal's side of sending: what is to be delivered where, and what became of it.

A series is committed once none of its deliveries is open, and failed if one was given up; each method here that closes
a delivery looks after that. All times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sqlite3 import Connection

from mhsev_monai.pacs.gateway.journal_database import Database
from mhsev_monai.pacs.gateway.journal_rows import Delivery
from mhsev_monai.pacs.gateway.series_states import settle

_COLUMNS = (
    "SELECT deliveries.id, series_id, series_uid, study_uid, source, destination, kind, sop_class, sop_uid, file, "
    "deliveries.state, deliveries.attempts, deliveries.next_try, priority, transaction_uid, error, made_at "
    "FROM deliveries JOIN results ON result_id = results.id JOIN series ON series_id = series.id "
)


class Deliveries:
    """Results on their way."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = database.clock

    def due(self, destination: str, limit: int = 100) -> list[Delivery]:
        """Pending deliveries whose time has come: high priority first, then series by series in the order made."""
        return self._found(
            "WHERE destination = ? AND deliveries.state = 'pending' AND deliveries.next_try <= ? "
            "ORDER BY priority DESC, made_at, series_id, deliveries.id LIMIT ?",
            *(destination, self._clock(), limit),
        )

    def awaiting(self, destination: str, limit: int = 1000) -> list[Delivery]:
        """Stored there, storage commitment not asked for yet, or asked and not answered in time."""
        return self._found(
            "WHERE destination = ? AND (deliveries.state = 'sent' "
            "OR (deliveries.state = 'requested' AND deliveries.next_try <= ?)) ORDER BY deliveries.id LIMIT ?",
            *(destination, self._clock(), limit),
        )

    def in_transaction(self, transaction_uid: str) -> list[Delivery]:
        """What a storage commitment was asked for, and is not answered yet."""
        return self._found("WHERE transaction_uid = ? AND deliveries.state = 'requested'", transaction_uid)

    def dead(self, limit: int = 1000) -> list[Delivery]:
        """What was given up."""
        return self._found("WHERE deliveries.state = 'dead' ORDER BY deliveries.id LIMIT ?", limit)

    def sent(self, ids: Iterable[int], commitment: bool) -> None:
        """Stored at the destination; without ``commitment`` that is all that is asked of it."""
        self._set(ids, "sent" if commitment else "committed")

    def requested(self, ids: Iterable[int], transaction_uid: str, ask_again_at: float) -> None:
        """Storage commitment was asked for."""
        self._set(ids, "requested", transaction_uid=transaction_uid, next_try=ask_again_at)

    def confirmed(self, ids: Iterable[int]) -> None:
        """The destination has committed itself to keep them."""
        self._set(ids, "committed")

    def postpone(self, errors: Mapping[int, str], next_try: float) -> None:
        """Send again at a time (also after a storage commitment that was refused); counts an attempt."""
        with self._database.change() as rows:
            rows.executemany(
                "UPDATE deliveries SET attempts = attempts + 1 WHERE id = ?", [(number,) for number in errors]
            )
            for number, error in errors.items():
                self._set_one(rows, number, "pending", error, None, next_try)

    def skip(self, errors: Mapping[int, str]) -> None:
        """Not to be delivered, since the destination cannot take this kind and its configuration allows that."""
        self._close(errors, "skipped")

    def bury(self, errors: Mapping[int, str]) -> None:
        """Give up until somebody retries; the series is failed once nothing else of it is open."""
        self._close(errors, "dead")

    def _found(self, condition: str, *values: object) -> list[Delivery]:
        return [Delivery(**row) for row in self._database.rows(_COLUMNS + condition, *values)]

    def _set(self, ids: Iterable[int], state: str, transaction_uid: str | None = None, next_try: float = 0.0) -> None:
        with self._database.change() as rows:
            for number in list(ids):
                self._set_one(rows, number, state, None, transaction_uid, next_try)

    def _close(self, errors: Mapping[int, str], state: str) -> None:
        with self._database.change() as rows:
            for number, error in errors.items():
                self._set_one(rows, number, state, error, None, 0.0)

    def _set_one(
        self, rows: Connection, number: int, state: str, error: str | None, transaction_uid: str | None, next_try: float
    ) -> None:
        now = self._clock()
        rows.execute(
            "UPDATE deliveries SET state = ?, error = ?, transaction_uid = coalesce(?, transaction_uid), "
            "next_try = ?, changed_at = ? WHERE id = ?",
            (state, error, transaction_uid, next_try, now, number),
        )
        found = rows.execute(
            "SELECT series_id FROM results JOIN deliveries ON result_id = results.id WHERE deliveries.id = ?", (number,)
        ).fetchone()
        if found is not None:
            settle(rows, found["series_id"], now)
