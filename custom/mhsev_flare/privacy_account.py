"""What all jobs together have spent of the privacy of a site's cases, kept so that one lost folder forgets nothing.

The account lies twice: in the kit's state folder, which outlasts an emptied cache, and in the cache folder, which
outlasts a kit that is replaced. Two that differ are one of which the other is an earlier copy, or two that each spent
what the other knows nothing of, such as after a kit of before was put beside another cache: then both count. So that
the two can be told apart, where all jobs train alike, each time that something is spent has a mark of its own.

No FLARE.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from mhsev_flare.site_data import SiteError
from mhsev_monai.private_training import account_history

ACCOUNT_FILE = "privacy_account.json"
"""In the cache folder."""

STATE_FOLDER = "mhsev_state"
"""Of the kit, beside ``local`` with the policy; nothing else empties it."""


@dataclass(frozen=True)
class Spending:
    """What was spent, as one copy of an account tells it.

    Attributes:
        mechanism: how it is counted.
        history: noise multiplier, sample rate and number of steps, row by row.
        marks: one for each time that something was spent, in order; accounts of before have none.
    """

    mechanism: str
    history: tuple[tuple[float, float, int], ...]
    marks: tuple[str, ...] = ()

    @staticmethod
    def from_json(value: Any) -> Spending:
        """What ``to_json`` wrote, or an account without marks; raises ``ValueError`` for anything else."""
        history, marks = account_history(value), value.get("marks", [])
        if not isinstance(marks, list) or not all(isinstance(mark, str) for mark in marks):
            raise ValueError("marks must be a list of texts")
        return Spending(value["mechanism"], tuple(history), tuple(marks))

    def to_json(self) -> dict[str, Any]:
        """Plain lists, one entry for each attribute."""
        return {**self.state(), "marks": list(self.marks)}

    def state(self) -> dict[str, Any]:
        """As training with privacy takes it and returns it."""
        return {"mechanism": self.mechanism, "history": [list(row) for row in self.history]}

    def holds(self, other: Spending) -> bool:
        """Whether ``other`` is this account or an earlier state of it."""
        if other.marks:
            return other.marks[-1] in self.marks
        if not other.history:
            return True
        *before, last = other.history
        if len(self.history) < len(other.history) or self.history[: len(before)] != tuple(before):
            return False
        own = self.history[len(before)]
        return own[:2] == last[:2] and own[2] >= last[2]

    def beside(self, other: Spending) -> Spending:
        """Both together: one that holds the other, or all steps of both.

        What two that parted have in common is then counted twice, which allows too little rather than too much.
        """
        if self.holds(other):
            return self
        if other.holds(self):
            return other
        return Spending(self.mechanism, self.history + other.history, self.marks + other.marks)


@dataclass(frozen=True)
class PrivacyAccount:
    """The account of one site.

    Attributes:
        places: files that each hold all of it.
    """

    places: tuple[Path, ...]

    @staticmethod
    def of_site(site: str, kit: Path, cache_root: Path) -> PrivacyAccount:
        """The account of ``site``, whose name keeps sites apart that share a simulator's workspace."""
        return PrivacyAccount((kit / STATE_FOLDER / f"{site}_{ACCOUNT_FILE}", cache_root / ACCOUNT_FILE))

    def read(self) -> dict[str, Any] | None:
        """The account as training takes it; None where nothing was spent yet.

        Raises:
            SiteError: if a file cannot be read, or is no account.
        """
        spent = self._spent()
        return None if spent is None else spent.state()

    def write(self, account: Mapping[str, Any]) -> None:
        """Put ``account`` into every place, each file whole or not at all, also where the power fails.

        Args:
            account: what training made of that which was read under the same lock.

        Raises:
            SiteError: if one cannot be read or written: what leaves must have been written down before.
        """
        before = self._spent()
        marks = () if before is None else before.marks
        spent = Spending(account["mechanism"], tuple(account_history(account)), (*marks, secrets.token_hex(8)))
        try:
            for path in self.places:
                path.parent.mkdir(parents=True, exist_ok=True)
                _replace(path, json.dumps(spent.to_json()))
        except OSError as error:
            raise self._closed() from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other jobs on the same cases from writing what this one does not know.

        Raises:
            SiteError: if a folder cannot be written.
        """
        with ExitStack() as stack:
            try:
                for path in self.places:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    lock = stack.enter_context(path.with_suffix(".lock").open("w"))
                    fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise self._closed() from error
            yield

    def _spent(self) -> Spending | None:
        found = [self._read(path) for path in self.places if path.is_file()]
        return reduce(Spending.beside, found) if found else None

    def _read(self, path: Path) -> Spending:
        try:
            return Spending.from_json(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise self._damaged() from error

    @staticmethod
    def _damaged() -> SiteError:
        return SiteError(
            "the account of the privacy spent at this site cannot be read; put back the file from its other place or "
            "from a backup"
        )

    @staticmethod
    def _closed() -> SiteError:
        return SiteError(
            "this site cannot write its account of spent privacy; let its user write to the cache folder and to the "
            "state folder of the kit"
        )


def _replace(path: Path, text: str) -> None:
    """Write a file, on the disk before it takes its name."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Not every file system of a network can; the file is whole in any case.
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)
