"""What goes into the journal and comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


@dataclass(frozen=True)
class ReceivedInstance:
    """One instance that is on disk.

    Attributes:
        file: relative to the spool.
        digest: SHA-256 of the data set in hexadecimal.
        source: AE title of the sender, or the name of the DICOMweb source.
        priority: 0 routine, 1 high, 2 stat; a series has the highest of its instances.
    """

    sop_uid: str
    series_uid: str
    study_uid: str
    sop_class: str
    file: str
    n_bytes: int
    digest: str
    source: str
    priority: int = 0


class Arrival(Enum):
    """What an instance was to the journal."""

    NEW = "new"
    REPEAT = "repeat"
    """Known, with the same content: no new work."""
    CHANGED = "changed"
    """Known, with another content; the first is kept."""
    REOPENED = "reopened"
    """New, for a series that was already past collecting: it is processed once more."""


@dataclass(frozen=True)
class SeriesRow:
    """One series as the journal has it; the fields are columns of the table."""

    id: int
    series_uid: str
    study_uid: str
    source: str
    state: str
    revision: int
    priority: int
    n_instances: int
    n_repeats: int
    n_changed: int
    attempts: int
    next_try: float
    reason: str | None
    first_at: float
    last_at: float
    changed_at: float


@dataclass(frozen=True)
class Work:
    """A series claimed for the pipeline; ``files`` are relative to the spool."""

    series_id: int
    series_uid: str
    study_uid: str
    revision: int
    attempts: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class ResultFile:
    """One object that the pipeline made; ``file`` is relative to the folder of results."""

    kind: str
    sop_class: str
    sop_uid: str
    file: str


@dataclass(frozen=True)
class Delivery:
    """One result for one destination.

    Attributes:
        file: relative to the folder of results.
        attempts: how often sending was tried before.
        source: AE title that the series came from.
        made_at: when the result was made, seconds since 1970.
    """

    id: int
    series_id: int
    series_uid: str
    study_uid: str
    source: str
    destination: str
    kind: str
    sop_class: str
    sop_uid: str
    file: str
    state: str
    attempts: int
    next_try: float
    priority: int
    transaction_uid: str | None
    error: str | None
    made_at: float


@dataclass(frozen=True)
class Counts:
    """How many rows are in which state; no identifier, for monitoring."""

    series: dict[str, int] = field(default_factory=dict)
    deliveries: dict[str, dict[str, int]] = field(default_factory=dict)
    """By destination, then by state."""
    oldest_waiting_s: float = 0.0
    """Age in seconds of the oldest series in ready, 0 if none is."""
    oldest_pending_s: float = 0.0
    """Age in seconds of the oldest result that is not at its destination, 0 if none is."""
    n_instances: int = 0
    n_repeats: int = 0


@dataclass(frozen=True)
class Folders:
    """Where a gateway keeps what; all on one file system, so that a rename moves a file at once."""

    state: Path

    @property
    def journal(self) -> Path:
        """The SQLite file."""
        return self.state / "journal.sqlite"

    @property
    def incoming(self) -> Path:
        """Instances that are being received."""
        return self.state / "incoming"

    @property
    def spool(self) -> Path:
        """Instances that were acknowledged."""
        return self.state / "spool"

    @property
    def work(self) -> Path:
        """What children are working on."""
        return self.state / "work"

    @property
    def results(self) -> Path:
        """Result objects, one folder per series and revision."""
        return self.state / "results"

    @property
    def key(self) -> Path:
        """The secret of the pseudonyms in log and audit."""
        return self.state / "pseudonym.key"

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.state / "audit.jsonl"

    def make(self) -> None:
        """Create what is absent, closed to other users."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.incoming, self.spool, self.work, self.results):
            folder.mkdir(mode=0o700, exist_ok=True)
