"""Who must answer, how long is waited, and who was left out how often: pure rules, no FLARE.

Stock FedAvg either waits for every site without limit or, given a number of answers, closes the round with the fastest
ones, so that the slowest hospital is dropped each time. Here a quorum starts a period of grace, in which the others can
still answer, and what was left out is counted and said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

LOUD_AFTER = 2
"""A site left out of more rounds than this is warned about, loudly."""


@dataclass(frozen=True)
class RoundPolicy:
    """When a round may close, and when training ends.

    Attributes:
        min_sites: the quorum: fewest usable answers of a round; 0 means every site that passed the handshake.
        mandatory_sites: sites without whose answer no round counts.
        grace_seconds: how long the others may still answer after the quorum has.
        round_timeout: seconds after which a round closes with what there is; 0: as long as FLARE holds a site alive.
        patience: rounds without a better validation loss after which training ends; 0 always trains all rounds.
        least_improvement: what counts as better, relative to the best loss so far.

    Raises:
        ValueError: if a number is negative, or ``mandatory_sites`` is one text.
    """

    _always_serialize_args: ClassVar[tuple[str, ...]] = (
        "min_sites",
        "mandatory_sites",
        "grace_seconds",
        "round_timeout",
        "patience",
        "least_improvement",
    )

    min_sites: int = 0
    mandatory_sites: Sequence[str] = ()
    grace_seconds: float = 60.0
    round_timeout: float = 0.0
    patience: int = 0
    least_improvement: float = 0.0

    def __post_init__(self) -> None:
        for name in ("min_sites", "grace_seconds", "round_timeout", "patience", "least_improvement"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")

        if isinstance(self.mandatory_sites, str):
            raise ValueError(f"mandatory_sites must be a list of names, got the text {self.mandatory_sites!r}")

    def quorum(self, n_sites: int) -> int:
        """Fewest usable answers of ``n_sites`` asked ones."""
        return max(self.min_sites or n_sites, 1)

    def missing(self, answered: Iterable[str], n_sites: int) -> str:
        """Why a round with these usable answers does not count; empty where it does."""
        present = set(answered)
        absent = sorted(set(self.mandatory_sites) - present)
        if absent:
            return f"{', '.join(absent)} must take part and gave no usable answer"
        quorum = self.quorum(n_sites)
        return f"{len(present)} usable answers where {quorum} are needed" if len(present) < quorum else ""


@dataclass
class RoundClock:
    """Decides when the server stops waiting for one task's answers.

    Attributes:
        policy: see ``RoundPolicy``.
        expected: sites that were asked.
        started: time of the request, in seconds of any clock that does not go back.
        patient: no grace: every site is waited for, as in the handshake, where a site may still compute features.
    """

    policy: RoundPolicy
    expected: frozenset[str]
    started: float
    patient: bool = False
    answered: set[str] = field(default_factory=set)
    _complete_at: float | None = None

    def answer(self, site: str, now: float) -> None:
        """Note a usable answer."""
        self.answered.add(site)
        if self._complete_at is None and not self.policy.missing(self.answered, len(self.expected)):
            self._complete_at = now

    def must_close(self, now: float) -> bool:
        """Whether to go on without those that have not answered yet."""
        if self.policy.round_timeout and not self.patient and now - self.started >= self.policy.round_timeout:
            return True
        if self.patient or self._complete_at is None:
            return False
        return now - self._complete_at >= self.policy.grace_seconds


@dataclass
class Attendance:
    """How often each site was left out of a round, whether it was late, failed, or sent what was refused."""

    left_out: Counter[str] = field(default_factory=Counter)

    def note(self, left_out: Iterable[str]) -> tuple[str, ...]:
        """Count a round; returns the sites that have now been left out more often than ``LOUD_AFTER``, sorted."""
        absent = sorted(set(left_out))
        self.left_out.update(absent)
        return tuple(site for site in absent if self.left_out[site] > LOUD_AFTER)
