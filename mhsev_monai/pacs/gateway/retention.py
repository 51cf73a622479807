"""Removes what is done: by age, and before its time when the disk fills."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from mhsev_monai.pacs.gateway.audit import Audit
from mhsev_monai.pacs.gateway.config import DAY_S, GatewayConfig
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import SeriesRow
from mhsev_monai.pacs.gateway.journal_schema import COMMITTED, FAILED, LEFT_OUT
from mhsev_monai.pacs.gateway.spool import Spool, hashed_name

_AT_ONCE = 50


class Retention:
    """Purges series with their instances and results; none that is still to be worked on or sent."""

    def __init__(
        self,
        config: GatewayConfig,
        journal: Journal,
        spool: Spool,
        audit: Audit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config.retention
        self._folders = config.folders
        self._journal = journal
        self._spool = spool
        self._audit = audit
        self._clock = clock

    def tick(self) -> int:
        """Purge what is due; returns how many series that were."""
        now = self._clock()
        ages = {(COMMITTED, LEFT_OUT): self._config.committed_days, (FAILED,): self._config.failed_days}
        n_purged = 0
        for states, days in ages.items():
            due = self._journal.finished_before(now - days * DAY_S, states, _AT_ONCE)
            n_purged += sum(self._purge(series, "age") for series in due)
        return n_purged + self._relieve(now)

    def _relieve(self, now: float) -> int:
        """Purge the oldest until the disk is below the watermark: what was delivered first, then what failed."""
        n_purged = 0
        for states in ((COMMITTED, LEFT_OUT), (FAILED,)):
            for series in self._journal.finished_before(now + DAY_S, states, _AT_ONCE):
                if self._spool.used() < self._config.purge_at:
                    return n_purged
                n_purged += self._purge(series, "disk")
        return n_purged

    def _purge(self, series: SeriesRow, why: str) -> bool:
        # Under the lock no slice of it can come between the journal and the files.
        with self._spool.lock:
            if not self._journal.forget(series):
                return False
            self._spool.remove_series(series.series_uid)
            for folder in self._folders.results.glob(f"{hashed_name(series.series_uid)}-*"):
                shutil.rmtree(folder, ignore_errors=True)
        self._audit.note(
            "series purged", series=self._audit.pseudonyms.of(series.series_uid), state=series.state, why=why
        )
        return True
