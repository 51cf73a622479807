"""A journal in which a series was received and graded, as the receiving half leaves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import dcmread

from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import Folders, ReceivedInstance, ResultFile


class Clock:
    """Seconds since 1970 that pass when a test says so."""

    def __init__(self, now: float = 1.8e9) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Notes(list):
    """An audit log that can be looked at."""

    def note(self, event: str, **facts: object) -> None:
        self.append((event, facts))


def open_journal(state: Path, clock: Callable[[], float]) -> Journal:
    folders = Folders(state)
    folders.make()
    return Journal(folders.journal, clock)


def add_results(
    journal: Journal, state: Path, paths: Sequence[Path], destinations: Sequence[str], priority: int = 0
) -> str:
    """Note one received series with these results; gives its UID.

    Args:
        journal: of the folder ``state``.
        state: results must lie below its ``results``.
        paths: result objects, all of one study.
        destinations: where they are to go.
        priority: of the series.
    """
    heads = [dcmread(path, stop_before_pixels=True) for path in paths]
    series_uid = f"{heads[0].SOPInstanceUID}.1"
    mr = "1.2.840.10008.5.1.4.1.1.4"
    identity = (f"{series_uid}.1", series_uid, str(heads[0].StudyInstanceUID), mr)
    journal.add_instance(ReceivedInstance(*identity, "a", 1, "00", "MODALITY", priority))
    journal.make_ready(0)
    work = journal.work.claim()
    assert work is not None
    results = [
        ResultFile(path.stem, str(head.SOPClassUID), str(head.SOPInstanceUID), str(path.relative_to(state / "results")))
        for path, head in zip(paths, heads, strict=True)
    ]
    assert journal.work.finish(work, results, destinations)
    return series_uid
