"""Identifiers of results: the same for the same files and model, others for any other."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_KEY_DIGITS = 16
_BLANKS = " \0"


def series_key(series_uid: str) -> str:
    """16 hexadecimal digits that stand for a Series Instance UID in folder names and output."""
    return hashlib.sha256(series_uid.strip(_BLANKS).encode()).hexdigest()[:_KEY_DIGITS]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashed_uid(*parts: str) -> str:
    """A UID under 2.25 (PS3.5, B.2: a UUID as a whole number) that equal parts give again."""
    digest = bytearray(hashlib.sha256("\0".join(parts).encode()).digest()[:16])
    # RFC 9562: version 8, made from a hash of one's own choice.
    digest[6] = 0x80 | (digest[6] & 0x0F)
    digest[8] = 0x80 | (digest[8] & 0x3F)
    return f"2.25.{uuid.UUID(bytes=bytes(digest)).int}"


@dataclass(frozen=True)
class ResultIdentity:
    """What the UIDs of one set of results are made of.

    The images are part of it, since an archive that already holds a UID drops another object under it without a word:
    slices that come late must make new results.

    Attributes:
        source: hash over the series and its SOP Instance UIDs.
        model: SHA-256 of the model file.
        version: of mhsev.
    """

    source: str
    model: str
    version: str

    @classmethod
    def of(cls, series: str, instance_uids: Iterable[str], model: str, version: str) -> ResultIdentity:
        """The identity of results of a series.

        Args:
            series: what tells the series from others.
            instance_uids: of its images, in any order.
            model: SHA-256 of the model file.
            version: of mhsev.
        """
        uids = sorted({uid.strip(_BLANKS) for uid in instance_uids})
        return cls(hashlib.sha256("\0".join([series, *uids]).encode()).hexdigest(), model, version)

    @property
    def key(self) -> str:
        """16 hexadecimal digits for the name of the folder."""
        return hashlib.sha256("\0".join(self._parts()).encode()).hexdigest()[:_KEY_DIGITS]

    def uid(self, *what: object) -> str:
        """The UID of one thing of these results, such as ``("series", "sr")``."""
        return hashed_uid(*self._parts(), *map(str, what))

    def _parts(self) -> tuple[str, str, str]:
        return self.source, self.model, self.version
