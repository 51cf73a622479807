"""Brings results to their destinations: what is due is sent, what failed waits its time, what is stored is confirmed.

One thread a destination, so that a PACS that is down holds up nobody else. What is decided stands in `delivery_rules`;
what is remembered stands in the journal, so that a gateway that is killed sends the same objects again, under the same
UIDs, of which a PACS keeps one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mhsev_monai.pacs.gateway.audit import Audit
from mhsev_monai.pacs.gateway.commitment import Reference, new_transaction, request_commitment, settle_report
from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.config_sending import Destination
from mhsev_monai.pacs.gateway.cstore import Sent, send_files
from mhsev_monai.pacs.gateway.delivery_rules import Outcome, may_go, unwanted
from mhsev_monai.pacs.gateway.dicomweb import listed, stow_files, web_client
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import Delivery
from mhsev_monai.pacs.gateway.postponement import postpone_or_bury
from mhsev_monai.pacs.gateway.scu import PeerError, peer_of

logger = logging.getLogger(__name__)

# How often the journal is asked while there is nothing to do, and how much goes over one association.
POLL_S = 1.0
BATCH = 100
# An answer on the same association comes at once or not at all.
_REPORT_WAIT_S = 0.5
_FAULT_S = 60.0


@dataclass(frozen=True)
class Carrier:
    """One way of sending, as functions.

    Attributes:
        send: files to what became of each.
        confirm: asks the destination to confirm what it was sent; gets the deliveries.
    """

    send: Callable[[Sequence[Path]], list[Sent]]
    confirm: Callable[[Sequence[Delivery]], None]


class Courier:
    """Delivers to one destination.

    Args:
        destination: where to.
        own_aet: the gateway's AE title, unless the destination names another.
        journal: what is due.
        results: the folder that the deliveries' files lie below.
        audit: gets a line for each batch.
        clock: seconds since 1970; tests pass their own.
    """

    def __init__(
        self,
        destination: Destination,
        own_aet: str,
        journal: Journal,
        results: Path,
        audit: Audit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._destination = destination
        self._deliveries = journal.deliveries
        self._results = results
        self._audit = audit
        self._clock = clock
        self._carrier = self._dimse(own_aet, journal) if destination.kind == "dimse" else self._web()

    @property
    def name(self) -> str:
        """Of the destination."""
        return self._destination.name

    def step(self) -> int:
        """Send what is due now, and ask for the confirmations that are due; how many deliveries changed."""
        due = self._deliveries.due(self._destination.name, BATCH)
        now = datetime.fromtimestamp(self._clock())
        due = [item for item in due if may_go(item.priority, self._destination.off_peak, now)]
        reasons = {item.id: unwanted(item.sop_class, self._destination.only) for item in due}
        skipped = {number: reason for number, reason in reasons.items() if reason}
        self._deliveries.skip(skipped)
        going = [item for item in due if item.id not in skipped]
        if going:
            sent = self._carrier.send([self._results / item.file for item in going])
            self._note(going, sent)
        awaiting = self._deliveries.awaiting(self._destination.name, BATCH)
        if awaiting:
            self._carrier.confirm(awaiting)
        return len(due) + len(awaiting)

    def _note(self, going: Sequence[Delivery], sent: Sequence[Sent]) -> None:
        """Write down what became of a batch."""
        judged = [(item, one.judgement) for item, one in zip(going, sent, strict=True)]
        stored = [item.id for item, judgement in judged if judgement.outcome is Outcome.STORED]
        self._deliveries.sent(stored, self._destination.commitment)
        not_accepted = {item.id: j.reason for item, j in judged if j.outcome is Outcome.NOT_ACCEPTED}
        if self._destination.skip_refused:
            self._deliveries.skip(not_accepted)
        else:
            self._deliveries.bury(not_accepted)
        self._deliveries.bury({item.id: j.reason for item, j in judged if j.outcome is Outcome.REFUSED})
        failed = [(item, j.reason) for item, j in judged if j.outcome is Outcome.RETRY]
        postpone_or_bury(self._deliveries, self._destination.backoff, failed, self._clock())
        counts = {outcome.value: sum(j.outcome is outcome for _, j in judged) for outcome in Outcome}
        self._audit.note("sent", destination=self._destination.name, **{k: n for k, n in counts.items() if n})
        for reason in sorted({j.reason for _, j in judged if j.outcome is not Outcome.STORED}):
            logger.warning("destination %s: %s", self._destination.name, reason)

    # Storage SCP

    def _dimse(self, own_aet: str, journal: Journal) -> Carrier:
        peer = peer_of(self._destination, own_aet)

        def confirm(awaiting: Sequence[Delivery]) -> None:
            references = [Reference(item.sop_class, item.sop_uid) for item in awaiting]
            transaction, ids = new_transaction(), [item.id for item in awaiting]
            now = self._clock()
            # Before it is asked for: the answer may be here before the request returns.
            self._deliveries.requested(ids, transaction, now + self._destination.commitment_s)
            try:
                request_commitment(
                    peer,
                    references,
                    transaction,
                    lambda report: settle_report(report, [self._destination], journal, self._clock()),
                    _REPORT_WAIT_S,
                )
            except PeerError as error:
                logger.warning("destination %s: %s", self._destination.name, error)
                self._deliveries.requested(ids, transaction, now + self._destination.retry_s)

        return Carrier(lambda paths: send_files(peer, paths), confirm)

    # DICOMweb server

    def _web(self) -> Carrier:
        client = web_client(self._destination.url, self._destination.tls, self._destination.timeout_s)

        def confirm(awaiting: Sequence[Delivery]) -> None:
            now = self._clock()
            found = listed(client, awaiting)
            if found is None:
                self._deliveries.requested([item.id for item in awaiting], "", now + self._destination.retry_s)
                return
            self._deliveries.confirmed([item.id for item in awaiting if item.sop_uid in found])
            lost = [(item, "the server does not list it") for item in awaiting if item.sop_uid not in found]
            postpone_or_bury(self._deliveries, self._destination.backoff, lost, now)

        return Carrier(lambda paths: stow_files(client, paths), confirm)


def run_sender(config: GatewayConfig, journal: Journal, stop: threading.Event, audit: Audit) -> None:
    """Deliver to every destination until ``stop`` is set."""
    couriers = [
        Courier(one, config.receiver.ae_title, journal, config.folders.results, audit) for one in config.destinations
    ]
    threads = [threading.Thread(target=_deliver, args=(one, stop), name="courier", daemon=True) for one in couriers]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(10)


def _deliver(courier: Courier, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            pause = 0.0 if courier.step() else POLL_S
        except Exception as error:
            # The edge of a thread: a fault of ours at one destination must end neither it nor the others.
            logger.error("destination %s: %s; it is tried again in a minute", courier.name, type(error).__name__)
            pause = _FAULT_S
        stop.wait(pause)
