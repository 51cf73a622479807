"""What became of each series that a site has brought in; it stays at the site and names nobody."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mhsev_monai.errors import CohortError

LEDGER = Path("derivatives", "mhsev", "ingest.json")
"""Where a BIDS root keeps it."""

Outcome = Literal["accepted", "left out", "refused"]
_SCHEMA = 1
_SAVE_EVERY = 5.0


@dataclass(frozen=True)
class LedgerEntry:
    """One series and its fate.

    Attributes:
        subject: ``sub-<key>``; empty where the files do not tell a patient.
        session: ``ses-<key>``, or empty.
        series: what tells series of one session apart, a short keyed hash or the number of a file.
        kind: what the series is, such as ``diffusion``, ``ADC map`` or ``localiser``.
        n_files: files that belong to it.
        outcome: ``accepted``; ``left out``, since it is of no use here; ``refused``, since something is wrong with it.
        reason: why, one sentence without names, dates and paths; empty if accepted.
        scan: the image's name in the BIDS root without folder and ending; empty if there is none.
        warnings: what is odd about an accepted series, one sentence each.
    """

    subject: str
    session: str
    series: str
    kind: str
    n_files: int
    outcome: Outcome
    reason: str = ""
    scan: str = ""
    warnings: tuple[str, ...] = ()


def read_ledger(root: Path) -> tuple[LedgerEntry, ...]:
    """The entries of a BIDS root in the order of its series; none where nothing was brought in by ``mhsev ingest``.

    Raises:
        CohortError: if the file is damaged.
    """
    path = Path(root) / LEDGER
    if not path.is_file():
        return ()
    try:
        stored = json.loads(path.read_text())
        return tuple(LedgerEntry(**{**row, "warnings": tuple(row["warnings"])}) for row in stored["series"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CohortError(
            "the record of what was ingested (derivatives/mhsev/ingest.json) is damaged; delete it and ingest again"
        ) from None


class Ledger:
    """The record of a root, written to disk as it grows.

    Args:
        root: the BIDS root.

    Raises:
        CohortError: if what is there is damaged.
    """

    def __init__(self, root: Path) -> None:
        self._path = Path(root) / LEDGER
        self._known = {(entry.subject, entry.session, entry.series): entry for entry in read_ledger(root)}
        self._saved, self._unsaved = time.monotonic(), False

    def find(self, entry: LedgerEntry) -> LedgerEntry | None:
        """The entry of the same series, if it was there before."""
        return self._known.get((entry.subject, entry.session, entry.series))

    def is_claimed(self, scan: str) -> bool:
        """Whether a scan of this name belongs to a series."""
        return any(entry.scan == scan for entry in self._known.values())

    def add(self, entry: LedgerEntry) -> None:
        """Enter a series; the record is written every few seconds, and by ``save``.

        A series that comes again takes the place of its old entry, unless the old one was accepted and the new one is
        not: the scan is still there then.
        """
        before = self.find(entry)
        if before is not None and before.outcome == "accepted" and entry.outcome != "accepted":
            return
        self._known[entry.subject, entry.session, entry.series] = entry
        self._unsaved = True
        # A record of thousands of series is not written anew for each of them.
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the record, if anything was entered since it was written last."""
        if not self._unsaved:
            return
        rows = [asdict(self._known[key]) for key in sorted(self._known)]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed: an interrupted run leaves the old record whole.
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"schema": _SCHEMA, "series": rows}, indent=1) + "\n")
        temporary.replace(self._path)
        self._saved, self._unsaved = time.monotonic(), False
