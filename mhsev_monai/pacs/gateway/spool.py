"""The folder of acknowledged instances.

A file is there, whole, and its name is on disk before its sender is told so. Names are hashes of UIDs: nothing that a
sender chose becomes part of a path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import uuid
from pathlib import Path

from mhsev_monai.pacs.gateway.journal_rows import Folders

_MB = 1 << 20


def hashed_name(uid: str) -> str:
    """64 hexadecimal digits that stand for a UID in a path."""
    return hashlib.sha256(uid.encode()).hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_out_of_space(error: OSError) -> bool:
    """Whether the disk is full, or a quota used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class Spool:
    """Instances on disk, and how full the disk is.

    Attributes:
        lock: held while a file and its line in the journal are made or removed together.
    """

    def __init__(self, folders: Folders, refuse_at: float, reserve_mb: int) -> None:
        self._folders = folders
        self._refuse_at = refuse_at
        self._reserve = reserve_mb * _MB
        self.lock = threading.RLock()

    def used(self) -> float:
        """The part of the disk in use, from 0 to 1."""
        usage = shutil.disk_usage(self._folders.spool)
        return 1.0 - usage.free / usage.total if usage.total else 1.0

    def has_room(self) -> bool:
        """Whether another instance may be taken."""
        usage = shutil.disk_usage(self._folders.spool)
        used = 1.0 - usage.free / usage.total if usage.total else 1.0
        return used < self._refuse_at and usage.free > self._reserve

    def new_file(self) -> Path:
        """A path for an instance on its way in; nothing is there yet."""
        return self._folders.incoming / f"{uuid.uuid4().hex}.part"

    def path(self, file: str) -> Path:
        """Where a file of the journal is."""
        return self._folders.spool / file

    def place(self, series_uid: str, sop_uid: str) -> str:
        """The name of an instance, relative to the spool."""
        return f"{hashed_name(series_uid)}/{hashed_name(sop_uid)}.dcm"

    def keep(self, incoming: Path, file: str) -> bool:
        """Give an incoming file its place beside its name in ``incoming``; durable on return.

        Returns:
            False if another file was there, which stays.

        Raises:
            OSError: if the disk is full; nothing is left in the place then.
        """
        target = self.path(file)
        sync(incoming)
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            sync(self._folders.spool)
        try:
            os.link(incoming, target)
        except FileExistsError:
            return False
        try:
            sync(target.parent)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        return True

    def remove(self, file: str) -> None:
        """Remove an instance, and its folder if it was the last one there."""
        target = self.path(file)
        target.unlink(missing_ok=True)
        try:
            target.parent.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise

    def remove_series(self, series_uid: str) -> None:
        """Remove all instances of a series."""
        shutil.rmtree(self._folders.spool / hashed_name(series_uid), ignore_errors=True)

    def clear_incoming(self) -> int:
        """After a start: remove what was not received whole; returns how many files that were."""
        files = list(self._folders.incoming.iterdir())
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)

    def remove_unknown(self, known: set[str]) -> int:
        """After a start: remove what the journal does not know, and so nobody was told of; returns how many files."""
        n_removed = 0
        for file in list(self._folders.spool.glob("*/*")):
            name = str(file.relative_to(self._folders.spool))
            if name not in known:
                self.remove(name)
                n_removed += 1
        return n_removed
