"""The one door into the spool, for whatever way an instance came: checked, stored, noted, then acknowledged."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from mhsev_monai.pacs.gateway.audit import Audit
from mhsev_monai.pacs.gateway.config import LimitsConfig
from mhsev_monai.pacs.gateway.instance_header import (
    DOES_NOT_MATCH,
    OUT_OF_RESOURCES,
    SUCCESS,
    InstanceHeader,
    RefusedError,
    read_instance_header,
)
from mhsev_monai.pacs.gateway.journal import Journal, OtherStudyError
from mhsev_monai.pacs.gateway.journal_rows import Arrival, ReceivedInstance
from mhsev_monai.pacs.gateway.spool import Spool, is_out_of_space

_MB = 1 << 20
_CHUNK = 1 << 20
_NO_SPACE = "the gateway has no disk space left"


@dataclass(frozen=True)
class Taken:
    """What became of an instance.

    Attributes:
        status: of a C-STORE response, 0 for success.
        reason: why it was refused, empty on success.
        arrival: None if it was refused.
    """

    status: int
    reason: str = ""
    arrival: Arrival | None = None


class Intake:
    """Takes instances from incoming files into spool and journal."""

    def __init__(self, spool: Spool, journal: Journal, limits: LimitsConfig, audit: Audit) -> None:
        self.spool = spool
        self.max_bytes = limits.max_object_mb * _MB
        self._journal = journal
        self._max_instances = limits.max_instances
        self._audit = audit

    def new_file(self) -> Path:
        """A fresh path on the right disk, to write a Part 10 file to."""
        return self.spool.new_file()

    def accept(self, file: Path, source: str, priority: int = 0, claimed: tuple[str, str] | None = None) -> Taken:
        """Take one file; its path is free afterwards, whatever became of it.

        Args:
            file: a Part 10 file at a path from `new_file`.
            source: AE title of the sender, or the name of the DICOMweb source.
            priority: 0 routine, 1 high, 2 stat.
            claimed: SOP class and instance UID as the request named them; None where it named none.
        """
        try:
            header, arrival = self._accept(file, source, priority, claimed)
        except RefusedError as refused:
            self._audit.note("instance refused", source=source, status=f"0x{refused.status:04X}", reason=refused.reason)
            return Taken(refused.status, refused.reason)
        finally:
            file.unlink(missing_ok=True)
        if arrival is not Arrival.NEW:
            series = self._audit.pseudonyms.of(header.series_uid)
            self._audit.note(f"instance {arrival.value}", source=source, series=series)
        return Taken(SUCCESS, arrival=arrival)

    def _accept(
        self, file: Path, source: str, priority: int, claimed: tuple[str, str] | None
    ) -> tuple[InstanceHeader, Arrival]:
        n_bytes = file.stat().st_size
        if n_bytes > self.max_bytes:
            raise RefusedError(OUT_OF_RESOURCES, f"the instance is larger than {self.max_bytes // _MB} MB")
        if not self.spool.has_room():
            raise RefusedError(OUT_OF_RESOURCES, _NO_SPACE)
        header = read_instance_header(file)
        if claimed not in (None, (header.sop_class, header.sop_uid)):
            raise RefusedError(DOES_NOT_MATCH, "the data set's UIDs are not those of the request")
        is_known = self._journal.knows_instance(header.sop_uid)
        if not is_known and self._journal.n_instances(header.series_uid) >= self._max_instances:
            raise RefusedError(OUT_OF_RESOURCES, f"the series has more than {self._max_instances} instances")
        instance = ReceivedInstance(
            *(header.sop_uid, header.series_uid, header.study_uid, header.sop_class),
            file=self.spool.place(header.series_uid, header.sop_uid),
            n_bytes=n_bytes,
            digest=_digest(file, header.start),
            source=source,
            priority=priority,
        )
        return header, self._store(file, instance)

    def _store(self, file: Path, instance: ReceivedInstance) -> Arrival:
        with self.spool.lock:
            is_new_file = False
            try:
                # Of an instance that is there already, nothing needs writing.
                if not self._journal.knows_instance(instance.sop_uid):
                    is_new_file = self.spool.keep(file, instance.file)
                return self._journal.add_instance(instance)
            except BaseException as error:
                if is_new_file:
                    self.spool.remove(instance.file)
                refusal = _refusal(error)
                if refusal is None:
                    raise
                raise refusal from error


def _refusal(error: BaseException) -> RefusedError | None:
    """What the sender is told of what can be expected to go wrong."""
    if isinstance(error, OtherStudyError):
        return RefusedError(DOES_NOT_MATCH, "the series is known under another Study Instance UID")
    if isinstance(error, OSError):
        return RefusedError(OUT_OF_RESOURCES, _NO_SPACE if is_out_of_space(error) else "the gateway cannot store it")
    if isinstance(error, sqlite3.Error):
        return RefusedError(OUT_OF_RESOURCES, "the gateway cannot note it in its journal")
    return None


def _digest(file: Path, start: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        stream.seek(start)
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
