"""Takes ready series one by one through the pipeline, and its objects into the folder of results."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mhsev_monai.pacs.gateway.audit import Audit
from mhsev_monai.pacs.gateway.child import ChildEnd, ChildLine, run_child
from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import ResultFile, Work
from mhsev_monai.pacs.gateway.spool import Spool, hashed_name, sync

_log = logging.getLogger(__name__)
_IDLE_S = 0.5


class ResultError(Exception):
    """What the pipeline names as a result is none."""


class Worker:
    """Works until told to stop; several may work on one journal."""

    def __init__(
        self,
        config: GatewayConfig,
        journal: Journal,
        spool: Spool,
        audit: Audit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._journal = journal
        self._spool = spool
        self._audit = audit
        self._clock = clock
        self._held: Work | None = None

    def run(self, stop: threading.Event) -> None:
        """Work on what is ready until ``stop`` is set; the series in hand is given back then."""
        while not stop.is_set():
            if not self.work_once(stop):
                stop.wait(_IDLE_S)

    def work_once(self, stop: threading.Event) -> bool:
        """Work on one series; False if none is ready.

        Raises:
            sqlite3.Error: if what became of the series cannot be noted; it is given back at once or, where that cannot
                be noted either, at the next call.
        """
        self._give_back()
        self._held = work = self._journal.work.claim()
        if work is None:
            return False
        try:
            self._work_on(work, stop)
        except Exception:
            self._give_back()
            raise
        self._held = None
        return True

    def _give_back(self) -> None:
        """Release what an earlier call left running; without this it would run until the process starts again."""
        if self._held is not None:
            self._journal.work.release(self._held)
            self._note("series given back", self._held)
            self._held = None

    def _work_on(self, work: Work, stop: threading.Event) -> None:
        self._note("series running", work, attempt=work.attempts)
        folder: Path | None = None
        try:
            folder = Path(tempfile.mkdtemp(dir=self._config.folders.work))
            self._lay_in(work, folder)
            end = run_child(
                self._config.pipeline,
                self._config.model,
                folder,
                lambda: not stop.is_set() and self._journal.work.is_current(work),
            )
            self._conclude(work, folder, end)
        except Exception as error:
            # The edge of one series: a full disk, or a fault of ours, must not take the other series with it.
            _log.warning("a series could not be worked on", exc_info=True)
            self._try_again(work, f"the gateway failed with {type(error).__name__}")
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _lay_in(self, work: Work, folder: Path) -> None:
        """Put the instances of this revision, and no later ones, before the pipeline."""
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        for file in work.files:
            (folder / "in" / Path(file).name).hardlink_to(self._spool.path(file))

    def _conclude(self, work: Work, folder: Path, end: ChildEnd) -> None:
        if end.superseded:
            self._journal.work.release(work)
            self._note("series given back", work)
        elif end.fault:
            self._try_again(work, end.fault)
        elif any(line.status == "done" for line in end.lines):
            self._finish(work, folder, end.lines)
        elif any(line.status == "failed" for line in end.lines):
            self._try_again(work, _reasons(end.lines, "failed"))
        elif any(line.status == "refused" for line in end.lines):
            self._journal.work.fail(work, _reasons(end.lines, "refused"))
            self._note("series refused", work)
        else:
            self._journal.work.leave_out(work, _reasons(end.lines, "left out"))
            self._note("series left out", work)

    def _try_again(self, work: Work, reason: str) -> None:
        pipeline = self._config.pipeline
        if work.attempts >= pipeline.max_attempts:
            self._journal.work.fail(work, f"{reason}; {work.attempts} attempts were made")
            self._note("series failed", work, reason=reason)
        else:
            self._journal.work.postpone(work, self._clock() + pipeline.retry_s, reason)
            self._note("series postponed", work, reason=reason)

    def _finish(self, work: Work, folder: Path, lines: tuple[ChildLine, ...]) -> None:
        named = [name for line in lines if line.status == "done" for name in line.results]
        place = f"{hashed_name(work.series_uid)}-{work.revision}"
        try:
            results = keep_results(folder / "out", named, self._config.folders.results / place)
        except ResultError as error:
            self._try_again(work, str(error))
            return
        destinations = [destination.name for destination in self._config.destinations]
        # One Series UID may hold several acquisitions, of which one is graded and another is not.
        ungraded = _reasons(lines, "refused", "failed")
        if self._journal.work.finish(work, results, destinations, ungraded):
            told = {"ungraded": ungraded} if ungraded else {}
            self._note("series graded", work, results=len(results), **told)
        else:
            shutil.rmtree(self._config.folders.results / place, ignore_errors=True)
            self._note("series superseded", work)

    def _note(self, event: str, work: Work, **facts: object) -> None:
        self._audit.note(event, series=self._audit.pseudonyms.of(work.series_uid), revision=work.revision, **facts)


def _reasons(lines: tuple[ChildLine, ...], *statuses: str) -> str:
    found = [line.reason or "no reason given" for line in lines if line.status in statuses]
    return "; ".join(dict.fromkeys(found))


def keep_results(out: Path, named: list[str], place: Path) -> list[ResultFile]:
    """Move the objects that the pipeline named into their folder; durable on return.

    Args:
        out: the child's OUT.
        named: paths relative to it.
        place: becomes the folder of these results; what is there is from a run that was not finished.

    Returns:
        One entry an object, with its path relative to the folder above ``place``.

    Raises:
        ResultError: if a name is not that of a DICOM object below ``out``.
    """
    import pydicom

    fresh = place.with_name(f".{place.name}")
    for folder in (fresh, place):
        shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    results = []
    for number, name in enumerate(named):
        source = (out / name).resolve()
        if not source.is_relative_to(out.resolve()) or not source.is_file():
            raise ResultError("the pipeline names a result that is not there")
        try:
            header = pydicom.dcmread(source, specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
            sop_class, sop_uid = str(header.SOPClassUID), str(header.SOPInstanceUID)
        except Exception as error:
            raise ResultError("a result of the pipeline cannot be read as DICOM") from error
        file = f"{number:03d}-{source.name}"
        source.rename(fresh / file)
        sync(fresh / file)
        results.append(ResultFile(source.stem, sop_class, sop_uid, f"{place.name}/{file}"))
    sync(fresh)
    fresh.rename(place)
    sync(place.parent)
    return results
