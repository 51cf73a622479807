"""What is decided about deliveries: when the next try is, what a status means, which kinds of object go. No sockets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, time
from enum import Enum

STAT, HIGH, ROUTINE = 2, 1, 0


class Outcome(Enum):
    """What became of one object at one destination."""

    STORED = "stored"
    REFUSED = "refused"
    """For good: the same object will be refused again until somebody changes something."""
    NOT_ACCEPTED = "not accepted"
    """For good, since the destination does not take this kind of object at all."""
    RETRY = "retry"
    """Not now: out of resources, connection lost, no answer."""


@dataclass(frozen=True)
class Judgement:
    """An outcome and, unless all is well, one sentence about it.

    Attributes:
        of_form: the answer is about the object's class or content, so that the same findings as an object of another
            class may be taken. A wrong address or a missing right is no such answer, and neither is a full disk.
    """

    outcome: Outcome
    reason: str = ""
    of_form: bool = False


@dataclass(frozen=True)
class Backoff:
    """How long to wait after each failed try.

    Attributes:
        first_s: after the first.
        factor: between one wait and the next, 1 or more.
        longest_s: no wait is longer.
        attempts: tries in all; then the delivery is given up and waits for somebody.
    """

    first_s: float = 30.0
    factor: float = 2.0
    longest_s: float = 3600.0
    attempts: int = 20

    def __post_init__(self) -> None:
        if not (self.first_s > 0 and self.longest_s >= self.first_s and self.factor >= 1 and self.attempts >= 1):
            raise ValueError(
                "a backoff needs 0 < first_s <= longest_s, factor >= 1 and attempts >= 1, got "
                f"first_s {self.first_s}, longest_s {self.longest_s}, factor {self.factor}, attempts {self.attempts}"
            )

    def wait_s(self, failed: int) -> float | None:
        """Seconds to wait after the ``failed``-th failed try (from 1); None if there is no further try."""
        if failed >= self.attempts:
            return None
        # The power overflows long after the cap is reached.
        return min(self.longest_s, self.first_s * self.factor ** min(failed - 1, 64))


# PS3.4 table B.2-1 and PS3.7 annex C. 0111 is a PACS that has the instance already, which is what a second send wants.
_STORED = {0x0000: "", 0xB000: "elements were coerced", 0xB006: "elements were discarded", 0xB007: "not of its class"}
_REFUSED = {
    0x0117: "the instance UID is invalid",
    0x0122: "the SOP class is not supported",
    0x0124: "the gateway is not authorised",
}


def judge_status(status: int | None) -> Judgement:
    """What the status of a C-STORE response means for the delivery.

    Args:
        status: as the PACS gave it; None where no response came.
    """
    if status is None:
        return Judgement(Outcome.RETRY, "the PACS did not answer")
    code = f"status {status:04X}"
    if status in _STORED:
        return Judgement(Outcome.STORED, _STORED[status] and f"stored, but {_STORED[status]} ({code})")
    if status == 0x0111:
        return Judgement(Outcome.STORED, f"the PACS has it already ({code})")
    if status & 0xFF00 == 0xA700:
        return Judgement(Outcome.RETRY, f"the PACS is out of resources ({code})")
    if status & 0xFF00 == 0xA900:
        return Judgement(Outcome.REFUSED, f"the PACS finds that the object does not match its class ({code})", True)
    if status & 0xF000 == 0xC000:
        return Judgement(Outcome.REFUSED, f"the PACS cannot understand the object ({code})", True)
    if status in _REFUSED:
        return Judgement(Outcome.REFUSED, f"the PACS refused it: {_REFUSED[status]} ({code})", status == 0x0122)
    # Some PACS answer 0110 to what they cannot store, as well as to what failed by chance.
    return Judgement(Outcome.RETRY, f"the PACS failed to store it ({code})", True)


# What a series may have as results, by the kind's name in the configuration.
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
KINDS = {
    COMPREHENSIVE_3D_SR: "sr",
    ENHANCED_SR: "sr",
    "1.2.840.10008.5.1.4.1.1.66.4": "seg",
    "1.2.840.10008.5.1.4.1.1.30": "map",
    "1.2.840.10008.5.1.4.1.1.11.1": "marks",
    "1.2.840.10008.5.1.4.1.1.7": "capture",
    "1.2.840.10008.5.1.4.1.1.104.1": "report",
}
KIND_NAMES = tuple(dict.fromkeys(KINDS.values()))
# Results that are sent in another's place where that is refused, by the names of their files.
STAND_INS = {"sr-enhanced": "sr"}


def not_accepted(sop_class: str, name: str) -> str:
    """The sentence about a kind of object that a PACS does not accept."""
    way_out = "allow it at the PACS, or leave the kind out with only or skip_refused"
    if sop_class == COMPREHENSIVE_3D_SR:
        way_out = "set pipeline.report to both, enhanced or none, or allow it at the PACS"
    return f"the PACS does not accept {name} ({sop_class}); {way_out}"


def unwanted(sop_class: str, only: Collection[str]) -> str:
    """Why objects of a class do not go to a destination; empty if they do.

    Args:
        sop_class: of the object.
        only: the kinds that the destination gets; empty for all.
    """
    kind = KINDS.get(sop_class, "other")
    return f"the configuration has no {kind} for this destination" if only and kind not in only else ""


@dataclass(frozen=True)
class Hours:
    """A part of each day, local time; ``Hours(time(20), time(6))`` goes over midnight, equal ends mean all day."""

    begin: time
    end: time

    def holds(self, now: datetime) -> bool:
        """Whether the moment lies in it."""
        clock = now.time()
        if self.begin < self.end:
            return self.begin <= clock < self.end
        return clock >= self.begin or clock < self.end


def may_go(priority: int, off_peak: Hours | None, now: datetime) -> bool:
    """Whether something of a priority may go now: routine work waits for the off-peak hours, if there are any."""
    return off_peak is None or priority > ROUTINE or off_peak.holds(now)
