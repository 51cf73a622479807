"""What a start does after an end of any kind: the journal is believed, and what it does not know is removed."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from pathlib import Path

from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.spool import Spool

_log = logging.getLogger(__name__)


class AlreadyRunningError(Exception):
    """Another gateway works with the same state folder."""


class StateLock:
    """Held while a gateway works; released by the system however it ends."""

    def __init__(self, state: Path) -> None:
        self._descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise AlreadyRunningError(
                "another gateway works with this state folder; stop it, or give this one a state folder of its own"
            ) from error

    def release(self) -> None:
        """Let another gateway have the folder."""
        os.close(self._descriptor)


def recover(config: GatewayConfig, journal: Journal, spool: Spool) -> None:
    """Make files and journal agree; what ran is ready again, and what was half sent is still pending."""
    folders = config.folders
    n_parts = spool.clear_incoming()
    n_orphans = spool.remove_unknown(journal.files())
    for folder in list(folders.work.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
    known = {Path(file).parts[0] for file in journal.result_files()}
    for folder in list(folders.results.iterdir()):
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
    n_ready, n_given_up = journal.work.recover(config.pipeline.max_attempts)
    if n_parts or n_orphans or n_ready or n_given_up:
        _log.info(
            "after an unclean end: %d unfinished and %d unacknowledged files removed, %d series run again, %d given up",
            *(n_parts, n_orphans, n_ready, n_given_up),
        )
