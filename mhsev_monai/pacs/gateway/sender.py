"""Brings results to their destinations: what is due is sent, what failed waits its time, what is stored is confirmed.

One courier a destination, each in its own thread, so that a PACS that is down holds up nobody else. What is decided
stands in `delivery_rules`; what is remembered stands in the journal, so that a gateway that is killed sends the same
objects again, under the same UIDs, of which a PACS keeps one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mhsev_monai.pacs.gateway.audit import Audit
from mhsev_monai.pacs.gateway.commitment import Reference, new_transaction, request_commitment, settle_report
from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.config_sending import Destination
from mhsev_monai.pacs.gateway.cstore import Sent, send_files
from mhsev_monai.pacs.gateway.deliveries import Deliveries
from mhsev_monai.pacs.gateway.delivery_rules import Outcome, may_go, unwanted
from mhsev_monai.pacs.gateway.dicomweb import listed, stow_files, web_client
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import Delivery
from mhsev_monai.pacs.gateway.journal_schema import REQUESTED
from mhsev_monai.pacs.gateway.postponement import ask_again_or_bury, postpone_or_bury
from mhsev_monai.pacs.gateway.refusals import note_failures
from mhsev_monai.pacs.gateway.scu import PeerError, peer_of

logger = logging.getLogger(__name__)

# How often the journal is asked while there is nothing to do, and how much goes over one association.
POLL_S = 1.0
BATCH = 100
# An answer on the same association comes at once or not at all.
_REPORT_WAIT_S = 0.5
_STRAYS_S = 60.0
_UNANSWERED = "the PACS did not answer the request for storage commitment in time"
_UNKNOWN_NAME = "the configuration has no destination of that name; add it, start again, and run mhsev gateway retry"


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
        note_failures(self._deliveries, self._destination, judged, self._clock())
        counts = {outcome.value: sum(j.outcome is outcome for _, j in judged) for outcome in Outcome}
        self._audit.note("sent", destination=self._destination.name, **{k: n for k, n in counts.items() if n})
        for reason in sorted({j.reason for _, j in judged if j.outcome is not Outcome.STORED}):
            logger.warning("destination %s: %s", self._destination.name, reason)

    # Storage SCP

    def _dimse(self, own_aet: str, journal: Journal) -> Carrier:
        peer = peer_of(self._destination, own_aet)

        def confirm(awaiting: Sequence[Delivery]) -> None:
            now = self._clock()
            unanswered = [(item, _UNANSWERED) for item in awaiting if item.state == REQUESTED]
            ask_again_or_bury(self._deliveries, self._destination.backoff, unanswered, now)
            asking = [item for item in awaiting if item.state != REQUESTED]
            if not asking:
                return
            references = [Reference(item.sop_class, item.sop_uid) for item in asking]
            transaction = new_transaction()
            # Before it is asked for: the answer may be here before the request returns.
            asked_again_at = now + self._destination.commitment_s
            self._deliveries.requested([item.id for item in asking], transaction, asked_again_at)
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
                # It may have been answered before it failed.
                still = {item.id for item in self._deliveries.in_transaction(transaction)}
                failed = [(item, str(error)) for item in asking if item.id in still]
                ask_again_or_bury(self._deliveries, self._destination.backoff, failed, now)

        return Carrier(lambda paths: send_files(peer, paths), confirm)

    # DICOMweb server

    def _web(self) -> Carrier:
        client = web_client(self._destination.url, self._destination.tls, self._destination.timeout_s)

        def confirm(awaiting: Sequence[Delivery]) -> None:
            now = self._clock()
            found = listed(client, awaiting)
            if found is None:
                failed = [(item, "the server does not answer when it is asked what it lists") for item in awaiting]
                ask_again_or_bury(self._deliveries, self._destination.backoff, failed, now)
                return
            self._deliveries.confirmed([item.id for item in awaiting if item.sop_uid in found])
            lost = [(item, "the server does not list it") for item in awaiting if item.sop_uid not in found]
            postpone_or_bury(self._deliveries, self._destination.backoff, lost, now)

        return Carrier(lambda paths: stow_files(client, paths), confirm)


def run_courier(
    config: GatewayConfig, destination: Destination, journal: Journal, stop: threading.Event, audit: Audit
) -> None:
    """Deliver to one destination until ``stop`` is set.

    Raises:
        OSError: if its certificates cannot be read.
        Exception: whatever a fault of ours raises; a destination that is down, or answers nonsense, raises nothing.
    """
    courier = Courier(destination, config.receiver.ae_title, journal, config.folders.results, audit)
    while not stop.is_set():
        if not courier.step():
            stop.wait(POLL_S)


def give_up_strays(config: GatewayConfig, journal: Journal, stop: threading.Event, audit: Audit) -> None:
    """Give up what is for destinations that are no more, now and each minute, until ``stop`` is set."""
    names = {one.name for one in config.destinations}
    while not stop.is_set():
        bury_strays(journal.deliveries, names, audit)
        # Somebody may run `mhsev gateway retry` on them.
        stop.wait(_STRAYS_S)


def bury_strays(deliveries: Deliveries, names: Collection[str], audit: Audit) -> None:
    """Give up what is for destinations that the configuration does not name, so that its series end."""
    strays = deliveries.open_elsewhere(names)
    deliveries.bury({item.id: _UNKNOWN_NAME for item in strays})
    for name, n_results in Counter(item.destination for item in strays).items():
        audit.note("given up", destination=name, results=n_results, reason=_UNKNOWN_NAME)
        logger.warning("destination %s: %s", name, _UNKNOWN_NAME)
