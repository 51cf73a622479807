"""What all jobs together have spent of the privacy of a site's cases, kept so that one lost folder forgets nothing.

The account lies twice: in the kit's state folder, which outlasts an emptied cache, and in the cache folder, which
outlasts a kit that is replaced. Of two that differ the one that has spent more counts. No FLARE.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhsev_flare.site_data import SiteError
from mhsev_monai.private_training import epsilon

ACCOUNT_FILE = "privacy_account.json"
"""In the cache folder."""

STATE_FOLDER = "mhsev_state"
"""Of the kit, beside ``local`` with the policy; nothing else empties it."""


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

    def read(self, delta: float) -> dict[str, Any] | None:
        """The account; None where nothing was spent yet.

        Args:
            delta: at which accounts that differ are compared.

        Raises:
            SiteError: if a file cannot be read, or is no account.
            ImportError: if two differ and opacus is not installed.
        """
        found = [self._read(path) for path in self.places if path.is_file()]
        if not found:
            return None
        if all(account == found[0] for account in found):
            return found[0]
        try:
            return max(found, key=lambda account: epsilon(account, delta))
        except ValueError as error:
            raise self._damaged() from error

    def write(self, account: Mapping[str, Any]) -> None:
        """Put ``account`` into every place, each file whole or not at all.

        Raises:
            SiteError: if one cannot be written: what leaves must have been written down before.
        """
        try:
            for path in self.places:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".tmp")
                temporary.write_text(json.dumps(account))
                temporary.replace(path)
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

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            account = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise self._damaged() from error
        if not isinstance(account, dict):
            raise self._damaged()
        return account

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
