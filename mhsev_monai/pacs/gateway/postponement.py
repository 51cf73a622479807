"""Deliveries that failed: each waits its own time, and is given up after its last try."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mhsev_monai.pacs.gateway.deliveries import Deliveries
from mhsev_monai.pacs.gateway.delivery_rules import Backoff
from mhsev_monai.pacs.gateway.journal_rows import Delivery


def postpone_or_bury(
    deliveries: Deliveries, backoff: Backoff, failed: Iterable[tuple[Delivery, str]], now: float
) -> None:
    """Write down failed tries to send with their reasons.

    Args:
        deliveries: of the journal.
        backoff: of the destination.
        failed: each delivery as it was before the try, and why it failed.
        now: seconds since 1970.
    """
    _later_or_bury(deliveries, deliveries.postpone, backoff, failed, now)


def ask_again_or_bury(
    deliveries: Deliveries, backoff: Backoff, failed: Iterable[tuple[Delivery, str]], now: float
) -> None:
    """Write down requests for storage commitment that were refused, or are unanswered; arguments as above."""
    _later_or_bury(deliveries, deliveries.ask_again, backoff, failed, now)


def _later_or_bury(
    deliveries: Deliveries,
    later: Callable[[Mapping[int, str], float], None],
    backoff: Backoff,
    failed: Iterable[tuple[Delivery, str]],
    now: float,
) -> None:
    by_wait: dict[float | None, dict[int, str]] = {}
    for item, reason in failed:
        by_wait.setdefault(backoff.wait_s(item.attempts + 1), {})[item.id] = reason
    for wait_s, errors in by_wait.items():
        if wait_s is None:
            deliveries.bury(
                {number: f"given up after {backoff.attempts} tries: {error}" for number, error in errors.items()}
            )
        else:
            later(errors, now + wait_s)
