"""Decides when a series is whole: DICOM does not say, so when nothing of it came for a while.

A slice that comes later reopens the series in the journal, also a committed or failed one, and this sees it again.
"""

from __future__ import annotations

from mhsev_monai.pacs.gateway.audit import Audit
from mhsev_monai.pacs.gateway.journal import Journal


class Stabiliser:
    """Moves series from collecting to ready.

    Args:
        journal: of the gateway.
        audit: notes each series that is ready.
        quiet_s: how long nothing must have come, in seconds.
    """

    def __init__(self, journal: Journal, audit: Audit, quiet_s: float) -> None:
        self._journal = journal
        self._audit = audit
        self._quiet_s = quiet_s

    def tick(self) -> int:
        """Look once; returns how many series became ready."""
        ready = self._journal.make_ready(self._quiet_s)
        for series in ready:
            self._audit.note(
                "series ready",
                series=self._audit.pseudonyms.of(series.series_uid),
                source=series.source,
                instances=series.n_instances,
                revision=series.revision,
            )
        return len(ready)
