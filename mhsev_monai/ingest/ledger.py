"""What became of each series that a site has brought in; it stays at the site and names nobody."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mhsev_monai.errors import CohortError

LEDGER = Path("derivatives", "mhsev", "ingest.json")
"""Where a BIDS root keeps it."""

Outcome = Literal["accepted", "left out", "refused"]
_SCHEMA = 1


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


def write_ledger(root: Path, entries: Sequence[LedgerEntry]) -> None:
    """Put entries into the record of a root.

    A series that comes again takes the place of its old entry, unless the old one was accepted and the new one is not:
    the scan is still there then.
    """
    known = {(entry.subject, entry.session, entry.series): entry for entry in read_ledger(root)}
    for entry in entries:
        key = (entry.subject, entry.session, entry.series)
        if entry.outcome == "accepted" or key not in known or known[key].outcome != "accepted":
            known[key] = entry
    path = Path(root) / LEDGER
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(known[key]) for key in sorted(known)]
    # Written beside and renamed: an interrupted run leaves the old record whole.
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"schema": _SCHEMA, "series": rows}, indent=1) + "\n")
    temporary.replace(path)
