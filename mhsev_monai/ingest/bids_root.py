"""The BIDS root that ingest fills: names of scans, the table of participants, and the root's own description."""

from __future__ import annotations

import fcntl
import filecmp
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mhsev_monai.errors import CohortError
from mhsev_monai.ingest.ledger import Ledger, LedgerEntry
from mhsev_monai.participants import COUNT_COLUMN
from mhsev_monai.scan_contrast import ScanContrast

_MISSING = "n/a"
_COLUMNS = ("participant_id", "sex", "age_group", COUNT_COLUMN)


@contextmanager
def open_root(root: Path) -> Iterator[Ledger]:
    """The record of a root that is made if it is absent, while no other process brings scans into it.

    Raises:
        CohortError: if the folder cannot be made or written, is in use, or its record is damaged.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        path = root / "dataset_description.json"
        if not path.exists():
            described = {"Name": "Scans brought in by mhsev ingest", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
            path.write_text(json.dumps(described, indent=1) + "\n")
        descriptor = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise CohortError(
            f"the BIDS root cannot be written ({type(error).__name__}); name another folder, or mend its permissions"
        ) from None
    try:
        # The lock ends with the process, however that ends.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        check_participants(root)
        ledger = Ledger(root)
        try:
            yield ledger
        finally:
            ledger.save()
    except BlockingIOError:
        raise CohortError("another mhsev ingest is writing into this BIDS root; wait until it has ended") from None
    finally:
        os.close(descriptor)


def scan_folder(root: Path, subject: str, session: str, contrast: ScanContrast) -> Path:
    """The folder for a subject's scans; session may be empty."""
    return root.joinpath(*filter(None, (subject, session)), contrast.folder)


def scan_name(folder: Path, entry: LedgerEntry, contrast: ScanContrast, ledger: Ledger, new: Path) -> str:
    """A scan's name: the one it got before, else that of an equal image, else the first run that is free.

    Args:
        folder: where it will lie.
        entry: its subject, session and series.
        contrast: gives suffix and acquisition.
        ledger: knows the series that were there before.
        new: the image, written elsewhere.
    """
    earlier = ledger.find(entry)
    if earlier is not None and earlier.scan and contrast.matches(earlier.scan):
        return earlier.scan
    acquisition = f"acq-{contrast.acquisition}" if contrast.acquisition else ""
    run = 1
    while True:
        label = f"run-{run}" if run > 1 else ""
        name = "_".join(filter(None, (entry.subject, entry.session, acquisition, label, contrast.suffix)))
        there = folder / f"{name}.nii.gz"
        # One that nobody claims and that is equal was brought in by a run that was ended before it could say so.
        if not (there.exists() or there.with_suffix("").exists()):
            return name
        if not ledger.is_claimed(name) and _equal(there, new):
            return name
        run += 1


def _equal(first: Path, second: Path) -> bool:
    return first.exists() and filecmp.cmp(first, second, shallow=False)


def check_participants(root: Path) -> None:
    """Refuse a table of participants that cannot be added to, before anything is written.

    Raises:
        CohortError: if it cannot be read or has no column ``participant_id``.
    """
    _participants(root)


def _participants(root: Path) -> list[str]:
    """The lines of the table, a header at least."""
    path = root / "participants.tsv"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else ["\t".join(_COLUMNS)]
    except (OSError, UnicodeDecodeError) as error:
        raise CohortError(
            f"participants.tsv cannot be read ({type(error).__name__}); save it as tab-separated UTF-8"
        ) from None
    if not lines or "participant_id" not in lines[0].split("\t"):
        raise CohortError("participants.tsv has no column participant_id; mend its header, or move it away")
    return lines


def add_participant(root: Path, subject: str, sex: str, age_group: str) -> None:
    """Give a subject a row in ``participants.tsv``; a row that is there stays as it is, counts and all.

    Raises:
        CohortError: if the table that is there has no column ``participant_id``.
    """
    path = root / "participants.tsv"
    lines = _participants(root)
    header = lines[0].split("\t")
    place = header.index("participant_id")
    if any(line.split("\t")[place : place + 1] == [subject] for line in lines[1:]):
        return
    values = {"participant_id": subject, "sex": sex or _MISSING, "age_group": age_group}
    lines.append("\t".join(values.get(column, _MISSING) for column in header))
    temporary = path.with_name(f".participants.{os.getpid()}.tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(path)
