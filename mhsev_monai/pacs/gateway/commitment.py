"""Storage commitment (PS3.4 annex J): a PACS says in so many words that it keeps what it was sent.

The gateway asks (N-ACTION) and the PACS answers (N-EVENT-REPORT), on the same association or, as most do, later on one
that the PACS opens. `event_handler` serves both: on the association that asks, and on the gateway's own server, which
takes `supported_context` up among its contexts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance  # type: ignore[attr-defined]

from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.config_sending import Destination
from mhsev_monai.pacs.gateway.delivery_rules import Judgement, Outcome
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.postponement import postpone_or_bury
from mhsev_monai.pacs.gateway.scu import Peer, PeerError, associate, release

logger = logging.getLogger(__name__)

_REQUEST = 1
_ALL_KEPT, _SOME_FAILED = 1, 2
SUCCESS, PROCESSING_FAILURE = 0x0000, 0x0110


@dataclass(frozen=True)
class Reference:
    """One object, as commitments speak of it."""

    sop_class: str
    sop_uid: str


@dataclass(frozen=True)
class CommitmentReport:
    """The answer of a PACS.

    Attributes:
        transaction_uid: of the request that is answered.
        kept: instance UIDs for which the PACS takes responsibility.
        failed: failure reason by instance UID, as PS3.3 C.14.1.1 has them.
        sender: AE title that answered.
    """

    transaction_uid: str
    kept: tuple[str, ...]
    failed: dict[str, int]
    sender: str = ""


OnReport = Callable[[CommitmentReport], None]


def new_transaction() -> str:
    """A UID for a request; it tells nothing about anything."""
    return str(generate_uid(prefix=None))


def request_commitment(
    peer: Peer, references: Sequence[Reference], transaction_uid: str, on_report: OnReport, wait_s: float = 0.0
) -> None:
    """Ask a PACS to keep objects that it was sent.

    Args:
        peer: the PACS.
        references: the objects.
        transaction_uid: see `new_transaction`; the caller keeps it, since the answer may come after a restart.
        on_report: called with an answer that comes on this association.
        wait_s: how long the association stays open for that; PACS that answer on their own one need none.

    Raises:
        PeerError: if the PACS is not there, has no storage commitment, or refuses the request.
    """
    reported, answered = threading.Event(), threading.Event()

    def note(report: CommitmentReport) -> None:
        on_report(report)
        reported.set()

    def sent(_: evt.Event) -> None:
        # The report is served in a thread of its own: the association must last until our status is on its way.
        if reported.is_set():
            answered.set()

    context = build_context(StorageCommitmentPushModel, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    association = associate(peer, [context], [event_handler(note), (evt.EVT_PDU_SENT, sent)])
    try:
        _ask(association, peer, _request(references, transaction_uid))
        end = time.monotonic() + wait_s
        while not answered.wait(0.02) and association.is_established and time.monotonic() < end:
            pass
    finally:
        release(association)


def _ask(association: Association, peer: Peer, request: Dataset) -> None:
    try:
        response, _ = association.send_n_action(
            request, _REQUEST, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except (RuntimeError, ValueError) as error:
        raise PeerError(f"{peer.aet} ended the association when it was asked for storage commitment") from error
    if "Status" not in response:
        raise PeerError(f"{peer.aet} did not answer the request for storage commitment")
    if response.Status != SUCCESS:
        raise PeerError(f"{peer.aet} refused the request for storage commitment (status {response.Status:04X})")


def _request(references: Sequence[Reference], transaction_uid: str) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = DicomSequence()
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class
        item.ReferencedSOPInstanceUID = reference.sop_uid
        request.ReferencedSOPSequence.append(item)
    return request


def supported_context() -> PresentationContext:
    """For the gateway's own server: the PACS opens an association in the role of the provider of commitment."""
    context = build_context(StorageCommitmentPushModel, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    # Both roles of the requestor: PACS that negotiate no role at all are taken too.
    context.scu_role = True
    context.scp_role = True
    return context


def event_handler(on_report: OnReport) -> tuple[Any, ...]:
    """The handler of ``EVT_N_EVENT_REPORT``, for an association or a server."""

    def handle(event: evt.Event) -> tuple[int, Dataset | None]:
        try:
            on_report(read_report(event.event_type, event.event_information, _title(event)))
        except Exception as error:
            # The edge to the network: whatever came, the PACS gets a status, and the gateway asks again in time.
            logger.warning("an answer about storage commitment could not be used: %s", type(error).__name__)
            return PROCESSING_FAILURE, None
        return SUCCESS, None

    return (evt.EVT_N_EVENT_REPORT, handle)


def _title(event: evt.Event) -> str:
    association = event.assoc
    peer = association.acceptor if association.is_requestor else association.requestor
    return str(peer.ae_title).strip()


def read_report(event_type: int | None, information: Dataset, sender: str = "") -> CommitmentReport:
    """Read an N-EVENT-REPORT.

    Raises:
        ValueError: if it is no answer about storage commitment.
        AttributeError: if a part is missing.
    """
    if event_type not in (_ALL_KEPT, _SOME_FAILED):
        raise ValueError(f"event type must be 1 or 2, got {event_type}")
    kept = tuple(str(UID(item.ReferencedSOPInstanceUID)) for item in information.get("ReferencedSOPSequence") or ())
    failed = {
        str(UID(item.ReferencedSOPInstanceUID)): int(item.FailureReason)
        for item in information.get("FailedSOPSequence") or ()
    }
    return CommitmentReport(str(information.TransactionUID), kept, failed, sender)


# PS3.3 C.14.1.1. What is not there is sent again; what cannot be kept is not.
_REASONS = {
    0x0110: "the PACS failed to look after it",
    0x0112: "the PACS does not have it",
    0x0119: "the PACS has it under another SOP class",
    0x0122: "the PACS does not support its SOP class",
    0x0131: "the PACS knows the transaction from before",
    0x0213: "the PACS is out of resources",
}
_FOR_GOOD = (0x0119, 0x0122)


def judge_failure(reason: int) -> Judgement:
    """What a failure reason means for the delivery: send again, or give up."""
    told = _REASONS.get(reason, "the PACS gives no known reason")
    outcome = Outcome.REFUSED if reason in _FOR_GOOD else Outcome.RETRY
    return Judgement(outcome, f"storage commitment failed: {told} (reason {reason:04X})")


def settle_report(report: CommitmentReport, destinations: Sequence[Destination], journal: Journal, now: float) -> None:
    """Write down what a PACS answered: what it keeps is committed, what it has not is sent again.

    An answer that comes again changes nothing, and neither does one about objects that were sent again since. One to an
    earlier request counts as long as none was answered.

    Raises:
        ValueError: if the transaction is not one that the sender was asked in.
    """
    # Titles are padded with spaces, which mean nothing (PS3.5, 6.2).
    by_name = {one.name: one for one in destinations if one.ae_title.strip() == report.sender.strip()}
    if not journal.deliveries.asked_in(report.transaction_uid) & set(by_name):
        raise ValueError("nothing was asked of this PACS in such a transaction")
    asked = journal.deliveries.in_transaction(report.transaction_uid)
    mine = [item for item in asked if item.destination in by_name]
    journal.deliveries.confirmed([item.id for item in mine if item.sop_uid in report.kept])
    judged = [(item, judge_failure(report.failed[item.sop_uid])) for item in mine if item.sop_uid in report.failed]
    refused = {item.id: j.reason for item, j in judged if j.outcome is Outcome.REFUSED}
    replaced = journal.deliveries.stand_in(refused)
    journal.deliveries.bury({number: reason for number, reason in refused.items() if number not in replaced})
    for name, destination in by_name.items():
        failed = [(item, j.reason) for item, j in judged if j.outcome is Outcome.RETRY and item.destination == name]
        postpone_or_bury(journal.deliveries, destination.backoff, failed, now)


def report_handlers(config: GatewayConfig, journal: Journal) -> tuple[list[PresentationContext], list[tuple[Any, ...]]]:
    """Contexts and handlers of the gateway's own server, for answers that a PACS gives on its own association."""
    asking = [one for one in config.destinations if one.kind == "dimse" and one.commitment]
    if not asking:
        return [], []
    handler = event_handler(lambda report: settle_report(report, asking, journal, time.time()))
    return [supported_context()], [handler]
