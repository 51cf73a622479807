"""What a destination did not take: it waits for another try, is skipped or given up, or another object takes its place.

A PACS that takes nothing at all of a series, after an upgrade perhaps, tells nothing about the kinds of object: so it
is treated as one that is down. Only one that takes a part of a series has shown which kinds it does not take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mhsev_monai.pacs.gateway.config_sending import Destination
from mhsev_monai.pacs.gateway.deliveries import Deliveries
from mhsev_monai.pacs.gateway.delivery_rules import Judgement, Outcome
from mhsev_monai.pacs.gateway.journal_rows import Delivery
from mhsev_monai.pacs.gateway.postponement import postpone_or_bury


def note_failures(
    deliveries: Deliveries, destination: Destination, judged: Sequence[tuple[Delivery, Judgement]], now: float
) -> None:
    """Write down what was not stored of a batch; what was stored must be noted before.

    Args:
        deliveries: of the journal.
        destination: where the batch went.
        judged: each delivery as it was before the try, and what became of it.
        now: seconds since 1970.
    """
    refused = [(item, j) for item, j in judged if j.outcome is Outcome.REFUSED]
    replaced = deliveries.stand_in({item.id: j.reason for item, j in refused if j.of_form})
    deliveries.bury({item.id: j.reason for item, j in refused if item.id not in replaced})

    failed = [(item, j.reason) for item, j in judged if j.outcome is Outcome.RETRY]
    failed += _not_accepted(deliveries, destination, judged)
    tries = destination.backoff.attempts
    last = {
        item.id: f"given up after {tries} tries: {j.reason}"
        for item, j in judged
        if j.outcome is Outcome.RETRY and j.of_form and item.attempts + 1 >= tries
    }
    replaced = _replace(deliveries, last)
    still = [(item, reason) for item, reason in failed if item.id not in replaced]
    postpone_or_bury(deliveries, destination.backoff, still, now)


def _not_accepted(
    deliveries: Deliveries, destination: Destination, judged: Sequence[tuple[Delivery, Judgement]]
) -> list[tuple[Delivery, str]]:
    """Close the deliveries of kinds that the destination does not accept; gives those to be tried again."""
    reasons = {item.id: j.reason for item, j in judged if j.outcome is Outcome.NOT_ACCEPTED}
    if not reasons:
        return []
    replaced, taken = _replace(deliveries, reasons), deliveries.beside_taken(reasons)
    close = deliveries.skip if destination.skip_refused else deliveries.bury
    close({number: reason for number, reason in reasons.items() if number in taken - replaced})
    untold = reasons.keys() - taken - replaced
    return [(item, reasons[item.id]) for item, _ in judged if item.id in untold]


def _replace(deliveries: Deliveries, reasons: Mapping[int, str]) -> set[int]:
    """Let stand-ins go where a destination took another part of the series, or is to get nothing but reports of it."""
    if not reasons:
        return set()
    shown = deliveries.beside_taken(reasons) | (reasons.keys() - deliveries.beside_waiting(reasons))
    return deliveries.stand_in({number: reason for number, reason in reasons.items() if number in shown})
