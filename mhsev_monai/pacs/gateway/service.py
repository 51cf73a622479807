"""The process that stays: ties receiver, stabiliser, workers, sender and monitor together."""

from __future__ import annotations

import logging
import math
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mhsev_monai.pacs.gateway.audit import Audit, Pseudonyms
from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.intake import Intake
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import Counts
from mhsev_monai.pacs.gateway.monitor import Monitor, Snapshot, start_monitor
from mhsev_monai.pacs.gateway.receiver import Receiver
from mhsev_monai.pacs.gateway.recovery import StateLock, recover
from mhsev_monai.pacs.gateway.retention import Retention
from mhsev_monai.pacs.gateway.spool import Spool
from mhsev_monai.pacs.gateway.stabiliser import Stabiliser
from mhsev_monai.pacs.gateway.worker import Worker

_log = logging.getLogger(__name__)
_TICK_S = 0.5
_RETENTION_S = 60.0
_FAULT_S = 60.0
_JOIN_S = 15.0
# How often it is looked whether a signal came.
_SIGNAL_S = 0.2


@dataclass
class Part:
    """One loop of the gateway in its own thread; begun again some time after it failed.

    Attributes:
        check: the name that `/health` tells it under; its own where none is given.
        fault_s: how long it waits after it failed, and must then work to count as well again.
    """

    name: str
    loop: Callable[[threading.Event], None]
    check: str = ""
    fault_s: float = _FAULT_S
    thread: threading.Thread = field(init=False)
    _well_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.check = self.check or self.name

    @property
    def failing(self) -> bool:
        """Whether it failed, and has not worked for ``fault_s`` since it began again."""
        return time.monotonic() < self._well_at

    @property
    def works(self) -> bool:
        """Whether it runs, and does not fail again and again."""
        return self.thread.is_alive() and not self.failing

    def start(self, stop: threading.Event) -> None:
        """Begin."""
        self.thread = threading.Thread(target=self._run, args=(stop,), name=self.name, daemon=True)
        self.thread.start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.loop(stop)
                return
            except Exception:
                # The edge of a thread: one part that fails must not end the others.
                self._well_at = math.inf
                _log.error("the %s failed; it begins again in %g s", self.name, self.fault_s, exc_info=True)
                stop.wait(self.fault_s)
                self._well_at = time.monotonic() + self.fault_s


class Service:
    """One gateway.

    Raises:
        AlreadyRunningError: if another one works with the same state folder.
        JournalError: if the journal cannot be used.
        OSError: if a folder cannot be made or the address not listened on.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.stop = threading.Event()
        folders = config.folders
        folders.make()
        self._lock = StateLock(folders.state)
        self._started_at = time.time()
        self.journal = Journal(folders.journal)
        self.audit = Audit(folders.audit, Pseudonyms.from_file(folders.key))
        self.spool = Spool(folders, config.limits.refuse_at, config.limits.reserve_mb)
        recover(config, self.journal, self.spool)
        self.intake = Intake(self.spool, self.journal, config.limits, self.audit)
        self.receiver = self._receiver()
        self._stabiliser = Stabiliser(self.journal, self.audit, config.receiver.quiet_s)
        self._retention = Retention(config, self.journal, self.spool, self.audit)
        self._parts = self._make_parts()
        self._monitor: Monitor | None = None

    def start(self) -> None:
        """Listen and work; returns at once."""
        self.receiver.start()
        for part in self._parts:
            part.start(self.stop)
        if self.config.monitor is not None:
            self._monitor = start_monitor(self.config.monitor, self.snapshot)
        self.audit.note("gateway started", ae_title=self.config.receiver.ae_title, port=self.receiver.port)

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then end in order."""
        asked: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            # It does not set the event: this thread may be holding its lock just then, and would wait for itself.
            signal.signal(number, lambda number, _: asked.append(number))
        self.start()
        try:
            # A signal that comes right before a wait, or to another thread, does not end the wait.
            while not asked and not self.stop.wait(_SIGNAL_S):
                pass
        finally:
            self.close()

    def close(self) -> None:
        """End: no more associations, children killed, their series given back."""
        self.stop.set()
        self.receiver.stop()
        end = time.monotonic() + _JOIN_S
        for part in self._parts:
            part.thread.join(max(0.0, end - time.monotonic()))
        if self._monitor is not None:
            self._monitor.close()
        self.audit.note("gateway ended")
        self.audit.close()
        self.journal.close()
        self._lock.release()

    def snapshot(self) -> Snapshot:
        """How it does now, for monitoring."""
        parts: dict[str, bool] = {}
        for part in self._parts:
            parts[part.check] = parts.get(part.check, True) and part.works
        try:
            self.journal.try_write()
            counts, journal_ok = self.journal.counts(), True
        except sqlite3.Error:
            counts, journal_ok = Counts(), False
        return Snapshot(
            counts=counts,
            disk_used=self.spool.used(),
            accepting=self.spool.has_room(),
            receiver_alive=self.receiver.is_listening,
            parts=parts,
            journal_ok=journal_ok,
            started_at=self._started_at,
        )

    def _receiver(self) -> Receiver:
        contexts: list[Any] = []
        handlers: list[tuple[Any, ...]] = []
        if any(destination.commitment for destination in self.config.destinations):
            from mhsev_monai.pacs.gateway.commitment import report_handlers

            contexts, handlers = report_handlers(self.config, self.journal)
        return Receiver(self.config, self.intake, self.audit, contexts, handlers)

    def _make_parts(self) -> list[Part]:
        config, journal, audit = self.config, self.journal, self.audit
        parts = [Part("keeper", self._keep)]
        for number in range(config.pipeline.n_workers):
            parts.append(Part(f"worker {number + 1}", Worker(config, journal, self.spool, audit).run, "workers"))
        from mhsev_monai.pacs.gateway.sender import give_up_strays, run_courier

        # Without destinations, too: what is still to go to a former one must end.
        parts.append(Part("sender", lambda stop: give_up_strays(config, journal, stop, audit)))
        for one in config.destinations:
            courier = partial(run_courier, config, one, journal, audit=audit)
            parts.append(Part(f"sender to {one.name}", courier, "sender"))
        if config.sources or config.reconcile is not None:
            from mhsev_monai.pacs.gateway.reconcile import run_polling, run_reconcile

            if config.sources:
                parts.append(Part("polling", lambda stop: run_polling(config, journal, self.intake, stop, audit)))
            if config.reconcile is not None:
                parts.append(Part("reconcile", lambda stop: run_reconcile(config, journal, self.intake, stop, audit)))
        if config.training_store is not None:
            from mhsev_monai.pacs.gateway.training_store import run_training_store

            parts.append(Part("training store", lambda stop: run_training_store(config, journal, stop, audit)))
        return parts

    def _keep(self, stop: threading.Event) -> None:
        """What is to be looked at again and again: quiet series, broken-off files, age."""
        purge_at = 0.0
        while not stop.wait(_TICK_S):
            self.receiver.tick()
            self._stabiliser.tick()
            if time.monotonic() >= purge_at:
                self._retention.tick()
                purge_at = time.monotonic() + _RETENTION_S
