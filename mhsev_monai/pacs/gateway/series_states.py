"""Steps between states that several sides of the journal take; each inside a transaction of its caller."""

from __future__ import annotations

from sqlite3 import Connection

from mhsev_monai.pacs.gateway.journal_rows import Work
from mhsev_monai.pacs.gateway.journal_schema import COLLECTING, COMMITTED, FAILED, RUNNING, SENDING

# Begins what the reason of a series says of a part of it that was not graded, while the rest was.
UNGRADED = "a part was not graded: "


def remark_of(reason: str | None) -> str | None:
    """What a reason says of a part that was not graded; None where it says nothing of it."""
    start = -1 if reason is None else reason.find(UNGRADED)
    return None if reason is None or start < 0 else reason[start:]


def move(rows: Connection, series_id: int, state: str, now: float, reason: str | None = None) -> None:
    """Put a series into a state."""
    rows.execute(
        "UPDATE series SET state = ?, reason = ?, changed_at = ? WHERE id = ?", (state, reason, now, series_id)
    )


def reopen(rows: Connection, series_id: int, now: float) -> None:
    """Begin a new revision of a series; results of the old one that no destination has yet are not sent any more."""
    rows.execute(
        "DELETE FROM deliveries WHERE state IN ('pending', 'dead') "
        "AND result_id IN (SELECT id FROM results WHERE series_id = ?)",
        (series_id,),
    )
    rows.execute(
        "UPDATE series SET revision = revision + 1, attempts = 0, next_try = 0 WHERE id = ?",
        (series_id,),
    )
    move(rows, series_id, COLLECTING, now)


def holds(rows: Connection, work: Work) -> bool:
    """Whether the series still runs in the revision that was claimed."""
    row = rows.execute("SELECT state, revision FROM series WHERE id = ?", (work.series_id,)).fetchone()
    return row is not None and row["state"] == RUNNING and row["revision"] == work.revision


def revive(rows: Connection, series_id: int, revision: int, now: float) -> None:
    """Let the given-up deliveries of a revision be tried again at once."""
    rows.execute(
        "UPDATE deliveries SET state = 'pending', attempts = 0, next_try = 0, error = NULL, changed_at = ? "
        "WHERE state = 'dead' AND result_id IN (SELECT id FROM results WHERE series_id = ? AND revision = ?)",
        (now, series_id, revision),
    )


def settle(rows: Connection, series_id: int, now: float) -> None:
    """End the sending of a series once none of its deliveries is open."""
    series = rows.execute("SELECT state, revision, reason FROM series WHERE id = ?", (series_id,)).fetchone()
    if series is None or series["state"] != SENDING:
        return
    found = rows.execute(
        "SELECT deliveries.state, destination, error FROM deliveries JOIN results ON result_id = results.id "
        "WHERE series_id = ? AND revision = ?",
        (series_id, series["revision"]),
    ).fetchall()
    if any(row["state"] in ("pending", "sent", "requested") for row in found):
        return
    remark = remark_of(series["reason"])
    dead = [row for row in found if row["state"] == "dead"]
    if dead:
        where = ", ".join(sorted({row["destination"] for row in dead}))
        reason = f"{len(dead)} of {len(found)} results could not be delivered to {where}: {dead[0]['error']}"
        move(rows, series_id, FAILED, now, "; ".join(filter(None, (reason, remark))))
    else:
        move(rows, series_id, COMMITTED, now, remark)
