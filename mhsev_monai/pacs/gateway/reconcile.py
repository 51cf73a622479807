"""The regular look for series that should have come and did not: routing that failed is not tried again by a PACS.

The same pass serves as the way in for sites whose PACS sends nothing: a DICOMweb source that is asked often.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import TypeVar

from mhsev_monai.pacs.gateway.audit import Audit
from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.config_sending import Destination, ReconcileConfig, WebSource, reconcile_target
from mhsev_monai.pacs.gateway.dicomweb import fetch_web_series, find_web_series, web_client
from mhsev_monai.pacs.gateway.found_series import FoundSeries, NotTakenError, to_fetch
from mhsev_monai.pacs.gateway.intake import Intake
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.query import fetch_series, find_series, move_series
from mhsev_monai.pacs.gateway.scu import PeerError, peer_of

logger = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
_MOST_FAILURES = 3
T = TypeVar("T")


@dataclass
class Memory:
    """What the passes through one PACS have seen since the start of the process.

    Attributes:
        had: by series UID, how many instances the PACS listed when the series was here, or was fetched to its end. It
            is not fetched again while that is so: what was not taken will not be, and what was purged is done.
        failures: by series UID, how often it could not be fetched.
    """

    had: dict[str, int | None] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def in_order(self, found: list[FoundSeries], n_known: Callable[[str], int]) -> list[FoundSeries]:
        """What is to be fetched: first what never failed, so that nothing stays for ever behind what always fails."""
        listed = {one.series_uid for one in found}
        self.had = {uid: n for uid, n in self.had.items() if uid in listed}
        self.failures = {uid: n for uid, n in self.failures.items() if uid in listed}
        for one in found:
            if n_known(one.series_uid) >= (one.n_instances or 1):
                self.had[one.series_uid] = one.n_instances
        wanted = [one for one in to_fetch(found, n_known) if not self._is_done(one)]
        return sorted(wanted, key=lambda one: self.failures.get(one.series_uid, 0))

    def _is_done(self, one: FoundSeries) -> bool:
        return one.series_uid in self.had and self.had[one.series_uid] == one.n_instances

    def fetched(self, one: FoundSeries) -> None:
        """Note that the PACS gave all of a series, whatever was taken of it."""
        self.had[one.series_uid] = one.n_instances
        self.failures.pop(one.series_uid, None)

    def failed(self, one: FoundSeries) -> None:
        """Note that a series could not be fetched."""
        self.failures[one.series_uid] = self.failures.get(one.series_uid, 0) + 1


@dataclass(frozen=True)
class Source:
    """A PACS to look at, as functions.

    Attributes:
        name: in log and audit.
        find: the series of the studies from one day to another.
        fetch: brings one series here; the number of instances.
        days: how far back a pass looks.
        interval_s: from the end of a pass to the begin of the next.
        memory: changes from pass to pass.
    """

    name: str
    find: Callable[[date, date], Iterable[FoundSeries]]
    fetch: Callable[[FoundSeries], int]
    days: int
    interval_s: float
    memory: Memory = field(default_factory=Memory)


def reconcile(source: Source, journal: Journal, audit: Audit, today: date) -> int:
    """One pass: fetch what is there and not here; the number of series that were fetched.

    A PACS that does not answer ends the pass with a line in the log; the next pass begins anew. A series that cannot be
    fetched holds up no other, unless several in a row cannot; these come last in the next pass.
    """
    # A day more, for studies that were begun before a midnight, or in a time zone ahead.
    found = _tried(source, lambda: list(source.find(today - timedelta(days=source.days), today + timedelta(days=1))))
    if found is None:
        return 0
    n_fetched = n_failed = 0
    for one in source.memory.in_order(found, journal.n_instances):
        n_instances = _tried(source, partial(source.fetch, one))
        if n_instances is None:
            source.memory.failed(one)
            n_failed += 1
            if n_failed == _MOST_FAILURES:
                break
            continue
        source.memory.fetched(one)
        n_fetched, n_failed = n_fetched + 1, 0
        series = audit.pseudonyms.of(one.series_uid)
        audit.note("series fetched", source=source.name, series=series, instances=n_instances)
    return n_fetched


def _tried(source: Source, ask: Callable[[], T]) -> T | None:
    """What the PACS answers; None, and a line in the log, where it does not."""
    try:
        return ask()
    except (PeerError, NotTakenError) as error:
        logger.warning("%s: %s", source.name, error)
    except Exception as error:
        # The edge to the network: whatever the server sent, one series must not end the passes.
        logger.warning("%s: the server did not answer as it should (%s)", source.name, type(error).__name__)
    return None


def run_reconcile(config: GatewayConfig, journal: Journal, intake: Intake, stop: threading.Event, audit: Audit) -> None:
    """Pass after pass through the configured PACS until ``stop`` is set; returns at once where none is configured."""
    if config.reconcile is not None:
        _run([source_of(config.reconcile, config, intake)], journal, stop, audit)


def run_polling(config: GatewayConfig, journal: Journal, intake: Intake, stop: threading.Event, audit: Audit) -> None:
    """Pass after pass through every DICOMweb source until ``stop`` is set; returns at once where none is configured."""
    _run([web_source(one, intake) for one in config.sources], journal, stop, audit)


def _run(sources: list[Source], journal: Journal, stop: threading.Event, audit: Audit) -> None:
    due = {source.name: 0.0 for source in sources}
    while sources and not stop.is_set():
        for source in sources:
            if time.monotonic() >= due[source.name] and not stop.is_set():
                reconcile(source, journal, audit, date.today())
                due[source.name] = time.monotonic() + source.interval_s
        stop.wait(max(0.05, min(due.values()) - time.monotonic()))


def web_source(source: WebSource, intake: Intake) -> Source:
    """A DICOMweb server that is asked for new series."""
    client = web_client(source.url, source.tls, _TIMEOUT_S)
    return Source(
        source.name,
        lambda first, last: find_web_series(client, first, last),
        lambda series: fetch_web_series(client, series, intake, source.name),
        source.days,
        source.interval_s,
    )


def source_of(settings: ReconcileConfig, config: GatewayConfig, intake: Intake) -> Source:
    """The PACS of the configuration's ``reconcile``.

    Raises:
        OSError: if the files of its TLS cannot be read.
        ValueError: if ``through`` names nothing, or something of the wrong kind.
    """
    target = reconcile_target(settings, config.destinations, config.sources)
    if settings.by == "dicomweb":
        web = WebSource(target.name, target.url, settings.interval_s, settings.days, target.tls)
        return web_source(web, intake)
    assert isinstance(target, Destination)
    peer = peer_of(target, config.receiver.ae_title)

    def fetch(series: FoundSeries) -> int:
        if settings.by == "c-move":
            return move_series(peer, series, config.receiver.ae_title)
        return fetch_series(peer, series, intake)

    return Source(
        target.name, lambda first, last: find_series(peer, first, last), fetch, settings.days, settings.interval_s
    )
