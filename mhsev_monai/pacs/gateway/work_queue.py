"""The journal's side of the pipeline: which series is next, what became of it."""

from __future__ import annotations

from collections.abc import Sequence

from mhsev_monai.pacs.gateway.delivery_rules import STAND_INS
from mhsev_monai.pacs.gateway.journal_database import Database
from mhsev_monai.pacs.gateway.journal_rows import ResultFile, Work
from mhsev_monai.pacs.gateway.journal_schema import COMMITTED, FAILED, LEFT_OUT, READY, RUNNING, SENDING
from mhsev_monai.pacs.gateway.series_states import UNGRADED, holds, move, remark_of, revive


class WorkQueue:
    """Series that are ready, running, or were given up."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = database.clock

    def claim(self) -> Work | None:
        """Take the ready series with the highest priority, the longest waiting first; it is running from then on."""
        with self._database.change() as rows:
            now = self._clock()
            row = rows.execute(
                "SELECT * FROM series WHERE state = ? AND next_try <= ? ORDER BY priority DESC, last_at, id LIMIT 1",
                (READY, now),
            ).fetchone()
            if row is None:
                return None
            rows.execute("UPDATE series SET attempts = attempts + 1 WHERE id = ?", (row["id"],))
            move(rows, row["id"], RUNNING, now)
            files = rows.execute("SELECT file FROM instances WHERE series_id = ? ORDER BY file", (row["id"],))
            return Work(
                *(row["id"], row["series_uid"], row["study_uid"], row["revision"], row["attempts"] + 1),
                files=tuple(file for (file,) in files),
            )

    def is_current(self, work: Work) -> bool:
        """Whether the series still waits for this piece of work: no slice came since it was claimed."""
        found = self._database.rows("SELECT state, revision FROM series WHERE id = ?", work.series_id)
        return bool(found) and found[0]["state"] == RUNNING and found[0]["revision"] == work.revision

    def finish(
        self, work: Work, results: Sequence[ResultFile], destinations: Sequence[str], ungraded: str = ""
    ) -> bool:
        """Note the results, each for every destination; False, and nothing noted, if slices came meanwhile.

        What stands in for another result waits for `Deliveries.stand_in`.

        Args:
            work: what was claimed.
            results: objects on disk.
            destinations: names of those that get them.
            ungraded: why a part of the series has no result; kept as the reason also when all is delivered.
        """
        with self._database.change() as rows:
            if not holds(rows, work):
                return False
            now = self._clock()
            kinds = {result.kind for result in results}
            for result in results:
                added = rows.execute(
                    "INSERT INTO results (series_id, revision, kind, sop_class, sop_uid, file, made_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(work.series_id, work.revision, result.kind, result.sop_class),
                        *(result.sop_uid, result.file, now),
                    ),
                )
                if STAND_INS.get(result.kind) in kinds:
                    continue
                rows.executemany(
                    "INSERT INTO deliveries (result_id, destination, state, changed_at) VALUES (?, ?, 'pending', ?)",
                    [(added.lastrowid, destination, now) for destination in destinations],
                )
            reason = f"{UNGRADED}{ungraded}" if ungraded else None
            move(rows, work.series_id, SENDING if results and destinations else COMMITTED, now, reason)
            return True

    def fail(self, work: Work, reason: str) -> bool:
        """Give the series up with a reason; False if slices came meanwhile, which give it another chance."""
        return self._end(work, FAILED, reason, 0.0)

    def leave_out(self, work: Work, reason: str) -> bool:
        """End with a series of a kind that is not graded; False if slices came meanwhile."""
        return self._end(work, LEFT_OUT, reason, 0.0)

    def postpone(self, work: Work, next_try: float, reason: str) -> bool:
        """Let the pipeline try again at a time; False if slices came meanwhile."""
        return self._end(work, READY, reason, next_try)

    def release(self, work: Work) -> None:
        """Give back what was claimed and not finished, since the gateway ends; the attempt does not count."""
        with self._database.change() as rows:
            if holds(rows, work):
                rows.execute("UPDATE series SET attempts = attempts - 1 WHERE id = ?", (work.series_id,))
                move(rows, work.series_id, READY, self._clock())

    def _end(self, work: Work, state: str, reason: str, next_try: float) -> bool:
        with self._database.change() as rows:
            if not holds(rows, work):
                return False
            rows.execute("UPDATE series SET next_try = ? WHERE id = ?", (next_try, work.series_id))
            move(rows, work.series_id, state, self._clock(), reason)
            return True

    def recover(self, max_attempts: int) -> tuple[int, int]:
        """After a start: what was running is ready again, unless it ended the gateway ``max_attempts`` times.

        Returns:
            How many series are ready again, and how many were given up.
        """
        with self._database.change() as rows:
            now = self._clock()
            running = rows.execute("SELECT id, attempts FROM series WHERE state = ?", (RUNNING,)).fetchall()
            given_up = [row["id"] for row in running if row["attempts"] >= max_attempts]
            for row in running:
                if row["id"] in given_up:
                    reason = f"the gateway ended {row['attempts']} times while it worked on this series"
                    move(rows, row["id"], FAILED, now, reason)
                else:
                    move(rows, row["id"], READY, now)
            return len(running) - len(given_up), len(given_up)

    def retry(self, series_uid: str | None = None) -> int:
        """Give failed series (one, or all) another chance: those with results are sent again, others run again.

        Returns:
            The number of series that were set going.
        """
        with self._database.change() as rows:
            now = self._clock()
            failed = rows.execute(
                "SELECT id, revision, reason, EXISTS (SELECT 1 FROM results WHERE series_id = series.id "
                "AND revision = series.revision) AS has_results FROM series "
                "WHERE state = 'failed' AND (? IS NULL OR series_uid = ?)",
                (series_uid, series_uid),
            ).fetchall()
            for row in failed:
                rows.execute("UPDATE series SET attempts = 0, next_try = 0 WHERE id = ?", (row["id"],))
                if row["has_results"]:
                    revive(rows, row["id"], row["revision"], now)
                    move(rows, row["id"], SENDING, now, remark_of(row["reason"]))
                else:
                    move(rows, row["id"], READY, now)
            return len(failed)
