"""How the server's part of an analysis asks sites, whatever carries the questions. No FLARE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class AnalysisStoppedError(RuntimeError):
    """The analysis cannot go on; the message is for the result file and holds nothing private.

    Attributes:
        refused: whether too few sites can take part, and nothing went wrong.
    """

    def __init__(self, reason: str, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


@dataclass(frozen=True)
class Question:
    """What one site is asked.

    Attributes:
        arrays: of the message.
        beside: entries beside them.
    """

    arrays: Arrays
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What one site answered.

    Attributes:
        arrays: the entry of ``protocol.ANSWER_ENTRY``.
        beside: all entries beside a message's arrays.
    """

    arrays: Arrays
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """Of one task.

    Attributes:
        by_site: usable answers, in the order of the sites' names.
        missing: why the other sites that were asked gave none.
    """

    by_site: Mapping[str, Answer]
    missing: Mapping[str, str]


class AskSites(Protocol):
    """Asks sites at the same time, each its own question."""

    def __call__(self, task: str, questions: Mapping[str, Question]) -> Answers:
        """Ask, and wait; raises :class:`AnalysisStoppedError` where the run was stopped meanwhile."""
        ...


def too_few(taking_part: Sequence[str], missing: Mapping[str, str], min_sites: int) -> str:
    """Why an analysis cannot go on with these sites; empty where it can."""
    if len(taking_part) >= min_sites:
        return ""
    n_asked = len(taking_part) + len(missing)
    reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(missing.items()))
    return f"{len(taking_part)} of {n_asked} sites can take part, {min_sites} are needed ({reasons})"
