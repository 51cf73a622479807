"""The journal's side of sending: what is to be delivered where, and what became of it.

A series is committed once none of its deliveries is open, and failed if one was given up; each method here that closes
a delivery looks after that. All times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from sqlite3 import Connection

from mhsev_monai.pacs.gateway.delivery_rules import STAND_INS
from mhsev_monai.pacs.gateway.journal_database import Database
from mhsev_monai.pacs.gateway.journal_rows import Delivery
from mhsev_monai.pacs.gateway.journal_schema import DEAD, PENDING, REQUESTED, SENT, TRANSACTIONS
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
        for statement in TRANSACTIONS:
            database.rows(statement)

    def due(self, destination: str, limit: int = 100) -> list[Delivery]:
        """Pending deliveries whose time has come: high priority first, then series by series in the order made."""
        return self._found(
            "WHERE destination = ? AND deliveries.state = 'pending' AND deliveries.next_try <= ? "
            "ORDER BY priority DESC, made_at, series_id, deliveries.id LIMIT ?",
            *(destination, self._clock(), limit),
        )

    def awaiting(self, destination: str, limit: int = 1000) -> list[Delivery]:
        """Stored there, storage commitment to be asked for now (``sent``), or asked and unanswered (``requested``)."""
        return self._found(
            "WHERE destination = ? AND deliveries.state IN ('sent', 'requested') AND deliveries.next_try <= ? "
            "ORDER BY deliveries.id LIMIT ?",
            *(destination, self._clock(), limit),
        )

    def in_transaction(self, transaction_uid: str) -> list[Delivery]:
        """What this transaction asked for and no answer has settled, also where it was asked for again since."""
        return self._found(
            "WHERE deliveries.state IN ('sent', 'requested') AND (deliveries.id IN (SELECT delivery_id "
            "FROM transactions WHERE transactions.transaction_uid = ? AND is_open) "
            # Of a request that was made before the journal had that table.
            "OR (deliveries.transaction_uid = ? AND deliveries.state = 'requested'))",
            *(transaction_uid, transaction_uid),
        )

    def asked_in(self, transaction_uid: str) -> set[str]:
        """The destinations that were asked in this transaction, answered or not."""
        found = self._database.rows(
            "SELECT DISTINCT destination FROM deliveries WHERE transaction_uid = ? OR id IN "
            "(SELECT delivery_id FROM transactions WHERE transactions.transaction_uid = ?)",
            *(transaction_uid, transaction_uid),
        )
        return {row["destination"] for row in found}

    def open_elsewhere(self, names: Collection[str]) -> list[Delivery]:
        """What is not done yet, for destinations of other names than these."""
        marks = ", ".join("?" * len(names))
        return self._found(
            f"WHERE destination NOT IN ({marks}) AND deliveries.state IN ('pending', 'sent', 'requested')", *names
        )

    def dead(self, limit: int = 1000) -> list[Delivery]:
        """What was given up."""
        return self._found("WHERE deliveries.state = 'dead' ORDER BY deliveries.id LIMIT ?", limit)

    def beside_taken(self, ids: Collection[int]) -> set[int]:
        """Those of whose series, in its revision, their destination has taken something."""
        return self._beside(ids, "deliveries.state IN ('sent', 'requested', 'committed')")

    def beside_waiting(self, ids: Collection[int]) -> set[int]:
        """Those of whose series something is pending there for which nothing stands in; maybe they themselves."""
        kinds = ", ".join(f"'{kind}'" for kind in STAND_INS.values())
        return self._beside(ids, f"deliveries.state = 'pending' AND results.kind NOT IN ({kinds})")

    def sent(self, ids: Iterable[int], commitment: bool) -> None:
        """Stored at the destination; without ``commitment`` that is all that is asked of it."""
        self._set(ids, "sent" if commitment else "committed")

    def requested(self, ids: Iterable[int], transaction_uid: str, ask_again_at: float) -> None:
        """Storage commitment is asked for; an answer to an earlier transaction is still taken."""
        with self._database.change() as rows:
            for number in list(ids):
                self._set_one(rows, number, REQUESTED, None, transaction_uid, ask_again_at)
                rows.execute(
                    "INSERT OR IGNORE INTO transactions (delivery_id, transaction_uid) "
                    "SELECT id, ? FROM deliveries WHERE id = ?",
                    (transaction_uid, number),
                )

    def confirmed(self, ids: Iterable[int]) -> None:
        """The destination has committed itself to keep them."""
        self._set(ids, "committed")

    def postpone(self, errors: Mapping[int, str], next_try: float) -> None:
        """Send again at a time (also after a storage commitment that was refused); counts an attempt."""
        self._try_again(errors, PENDING, next_try)

    def ask_again(self, errors: Mapping[int, str], next_try: float) -> None:
        """It is stored there, and the storage commitment is to be asked for again at a time; counts an attempt."""
        self._try_again(errors, SENT, next_try)

    def skip(self, errors: Mapping[int, str]) -> None:
        """Not to be delivered, since the destination cannot take this kind and its configuration allows that."""
        self._close(errors, "skipped")

    def stand_in(self, errors: Mapping[int, str]) -> set[int]:
        """Skip what a destination refuses and that has a stand-in, which becomes due there; which those were.

        None of a revision that a late image has replaced: its report must not come after all.
        """
        with self._database.change() as rows:
            return {number for number, error in errors.items() if self._replace(rows, number, error)}

    def bury(self, errors: Mapping[int, str]) -> None:
        """Give up until somebody retries; the series is failed once nothing else of it is open."""
        self._close(errors, DEAD)

    def _found(self, condition: str, *values: object) -> list[Delivery]:
        return [Delivery(**row) for row in self._database.rows(_COLUMNS + condition, *values)]

    def _beside(self, ids: Collection[int], condition: str) -> set[int]:
        marks = ", ".join("?" * len(ids))
        found = self._database.rows(
            "SELECT DISTINCT mine.id FROM deliveries AS mine JOIN results AS own ON own.id = mine.result_id "
            "JOIN results ON results.series_id = own.series_id AND results.revision = own.revision "
            "JOIN deliveries ON deliveries.result_id = results.id AND deliveries.destination = mine.destination "
            f"WHERE mine.id IN ({marks}) AND {condition}",
            *ids,
        )
        return {row["id"] for row in found}

    def _set(self, ids: Iterable[int], state: str) -> None:
        with self._database.change() as rows:
            for number in list(ids):
                self._set_one(rows, number, state, None, None, 0.0)

    def _try_again(self, errors: Mapping[int, str], state: str, next_try: float) -> None:
        with self._database.change() as rows:
            rows.executemany(
                "UPDATE deliveries SET attempts = attempts + 1 WHERE id = ?", [(number,) for number in errors]
            )
            for number, error in errors.items():
                self._set_one(rows, number, state, error, None, next_try)

    def _replace(self, rows: Connection, number: int, error: str) -> bool:
        refused = rows.execute(
            "SELECT result_id, series_id, results.revision, kind FROM deliveries "
            "JOIN results ON result_id = results.id JOIN series ON series_id = series.id "
            "WHERE deliveries.id = ? AND results.revision = series.revision",
            (number,),
        ).fetchone()
        kinds = [] if refused is None else [kind for kind, of in STAND_INS.items() if of == refused["kind"]]
        for kind in kinds:
            # A series of two acquisitions has two of each kind; a stand-in is noted after what it stands in for.
            found = rows.execute(
                "SELECT id FROM results WHERE series_id = ? AND revision = ? AND kind = ? AND id > ? ORDER BY id",
                (refused["series_id"], refused["revision"], kind, refused["result_id"]),
            ).fetchone()
            if found is not None:
                # First: with nothing open, the series would be taken for delivered.
                rows.execute(
                    "INSERT OR IGNORE INTO deliveries (result_id, destination, state, changed_at) "
                    "SELECT ?, destination, 'pending', ? FROM deliveries WHERE id = ?",
                    (found["id"], self._clock(), number),
                )
                self._set_one(rows, number, "skipped", f"{error}; {kind} goes in its place", None, 0.0)
                return True
        return False

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
        if state not in (SENT, REQUESTED):
            # What is sent again is another matter: an answer about the first sending must not settle the second.
            rows.execute("UPDATE transactions SET is_open = 0 WHERE delivery_id = ?", (number,))
        if state in (PENDING, DEAD):
            # As in `reopen`: of an older revision nothing is sent any more, and nobody is to look after it.
            rows.execute(
                "DELETE FROM deliveries WHERE id = ? AND (SELECT results.revision < series.revision "
                "FROM results JOIN series ON series_id = series.id WHERE results.id = result_id)",
                (number,),
            )
        found = rows.execute(
            "SELECT series_id FROM results JOIN deliveries ON result_id = results.id WHERE deliveries.id = ?", (number,)
        ).fetchone()
        if found is not None:
            settle(rows, found["series_id"], now)
