"""Tables of participants and sessions of a BIDS data set (BIDS 1.10, "Tabular files").

Values stay at the site. Error messages tell rows by number and columns by name: a table whose columns are shifted
has names and dates where ids are expected.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mhsev_monai.errors import CohortError

COUNT_COLUMN = "microbleed_count"
"""Column with the number of microbleeds that a reader found."""

# BIDS: what is not known is written n/a; a spreadsheet leaves the cell empty.
_MISSING = ("n/a", "")
_LISTED = 5


@dataclass(frozen=True)
class TableRow:
    """What a table says of one participant or session.

    Attributes:
        count: number of microbleeds; None where it is not known.
        clinical: the other columns; numbers where they read as finite numbers, None where they are missing.
    """

    count: int | None = None
    clinical: Mapping[str, float | str | None] = field(default_factory=dict)


def read_table(path: Path, id_column: str, *, require_counts: bool) -> dict[str, TableRow]:
    """The rows of a tab-separated table by their id, such as ``sub-0001`` or ``ses-01``.

    Args:
        path: ``participants.tsv`` or ``sub-x_sessions.tsv``.
        id_column: ``participant_id`` or ``session_id``.
        require_counts: whether the column ``microbleed_count`` must be there.

    Raises:
        CohortError: if a column is missing or named twice, a row has another number of cells than the header, an id
            is malformed or there twice, or a count is not a whole number from 0 up.
    """
    header, rows = _cells(path)
    _check_header(header, [id_column, *([COUNT_COLUMN] if require_counts else [])], path.name)
    ids = [cells[header.index(id_column)] for _, cells in rows]
    prefix = id_column.removesuffix("_id").replace("participant", "sub").replace("session", "ses")
    for (number, _), row_id in zip(rows, ids, strict=True):
        if not is_bids_name(row_id, prefix):
            raise CohortError(
                f"row {number} of {path.name} has no id of the form {prefix}-<letters and digits>; mend it"
            )
    repeated = sorted(row_id for row_id, n in Counter(ids).items() if n > 1)
    if repeated:
        raise CohortError(f"{path.name} has several rows for {listed(repeated)}; one row each is accepted")
    table = {}
    for row_id, (_, cells) in zip(ids, rows, strict=True):
        record = dict(zip(header, cells, strict=True))
        count = _count(record.pop(COUNT_COLUMN, _MISSING[0]), row_id)
        table[row_id] = TableRow(count, {name: _value(text) for name, text in record.items() if name != id_column})
    return table


def is_bids_name(name: str, prefix: str) -> bool:
    """Whether a name is ``<prefix>-`` and a BIDS label."""
    return re.fullmatch(prefix + "-[0-9a-zA-Z+]+", name) is not None


def _check_header(header: list[str], required: list[str], name: str) -> None:
    """Refuse a header that lacks a required column or has one twice."""
    missing = [column for column in required if column not in header]
    if missing:
        hint = "; its cells are separated by commas, tabs are accepted" if "," in header[0] else ""
        raise CohortError(f"{name} lacks the column {' and the column '.join(missing)}{hint}; add what is missing")
    repeated = sorted(column for column, n in Counter(header).items() if n > 1)
    if repeated:
        raise CohortError(f"{name} has the column {repeated[0]} {header.count(repeated[0])} times; keep one")


def _cells(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the numbered rows, each cell without blanks around it."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CohortError(f"{path.name} is not text in UTF-8; save it as tab-separated UTF-8") from None
    except OSError:
        raise CohortError(f"{path.name} cannot be opened; check its permissions") from None
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    rows = [(number, [cell.strip() for cell in cells]) for number, cells in enumerate(lines, start=1) if any(cells)]
    if not rows:
        raise CohortError(f"{path.name} is empty; it needs a header and a row a participant")
    header = rows[0][1]
    for number, cells in rows[1:]:
        if len(cells) != len(header):
            raise CohortError(
                f"row {number} of {path.name} has {len(cells)} cells but the header {len(header)}; mend the row"
            )
    return header, rows[1:]


def _count(text: str, row_id: str) -> int | None:
    """A cell of the count column."""
    if text.lower() in _MISSING:
        return None
    try:
        number = float(text)
    except ValueError:
        # The text itself is kept out: it may be a neighbouring column's.
        raise CohortError(f"the {COUNT_COLUMN} of {row_id} is not a number; give a whole number or n/a") from None
    # Written as 3.0 by a spreadsheet that saw an n/a in the column.
    if not (number >= 0 and number.is_integer()):
        raise CohortError(f"the {COUNT_COLUMN} of {row_id} is not a whole number from 0; correct it, or give n/a")
    return int(number)


def _value(text: str) -> float | str | None:
    """A clinical cell: a number if it reads as a finite one, None if missing."""
    if text.lower() in _MISSING:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return number if abs(number) < float("inf") else None


def listed(ids: list[str]) -> str:
    """The first ids of a list and how many more there are."""
    more = len(ids) - _LISTED
    return ", ".join(ids[:_LISTED]) + (f" and {more} more" if more > 0 else "")
