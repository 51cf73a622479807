"""Deliveries that failed: each waits its own time, and is given up after its last try."""

from __future__ import annotations

from collections.abc import Iterable

from mhsev_monai.pacs.gateway.deliveries import Deliveries
from mhsev_monai.pacs.gateway.delivery_rules import Backoff
from mhsev_monai.pacs.gateway.journal_rows import Delivery


def postpone_or_bury(
    deliveries: Deliveries, backoff: Backoff, failed: Iterable[tuple[Delivery, str]], now: float
) -> None:
    """Write down failed tries with their reasons.

    Args:
        deliveries: of the journal.
        backoff: of the destination.
        failed: each delivery as it was before the try, and why it failed.
        now: seconds since 1970.
    """
    by_wait: dict[float | None, dict[int, str]] = {}
    for item, reason in failed:
        by_wait.setdefault(backoff.wait_s(item.attempts + 1), {})[item.id] = reason
    for wait_s, errors in by_wait.items():
        if wait_s is None:
            deliveries.bury(
                {number: f"given up after {backoff.attempts} tries: {error}" for number, error in errors.items()}
            )
        else:
            deliveries.postpone(errors, now + wait_s)
