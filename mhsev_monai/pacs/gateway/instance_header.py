"""The few facts that decide whether an instance is taken, read without trust in the file."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
ACCEPTED_CLASSES = (MR_IMAGE, ENHANCED_MR_IMAGE)

CANNOT_UNDERSTAND = 0xC000
DOES_NOT_MATCH = 0xA900
OUT_OF_RESOURCES = 0xA700
NOT_SUPPORTED = 0x0122
SUCCESS = 0x0000

# PS3.5, 9.1: components without leading zeros, 64 characters at most.
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", re.ASCII)
_LONGEST = 64
_CLASS, _INSTANCE, _MODALITY, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x00080060, 0x0020000D, 0x0020000E
# Silencing the parser is a setting of the whole process.
_QUIET = threading.Lock()
_NAMES = {
    _CLASS: "SOP Class UID",
    _INSTANCE: "SOP Instance UID",
    _MODALITY: "Modality",
    _STUDY: "Study Instance UID",
    _SERIES: "Series Instance UID",
}


class RefusedError(Exception):
    """An instance is not taken.

    Attributes:
        status: of the C-STORE response.
        reason: at most 64 characters in the gateway's own words, as they go into the response's Error Comment.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class InstanceHeader:
    """What an instance says that it is; all UIDs are valid.

    Attributes:
        start: where in the file the data set begins, after the file meta information.
    """

    sop_class: str
    sop_uid: str
    study_uid: str
    series_uid: str
    start: int


def is_uid(text: str) -> bool:
    """Whether this is a UID as PS3.5 has it."""
    return len(text) <= _LONGEST and _UID.fullmatch(text) is not None


def read_instance_header(path: Path) -> InstanceHeader:
    """The facts of a Part 10 file.

    Raises:
        RefusedError: if it cannot be read, lacks a UID, or is no MR image.
    """
    try:
        texts, start = _read(path)
    except RefusedError:
        raise
    except Exception as error:
        # A parser fed from the network: whatever it stumbles over, nested sequences above all, is the sender's.
        raise RefusedError(CANNOT_UNDERSTAND, "the data set cannot be read") from error
    for tag in (_INSTANCE, _STUDY, _SERIES, _CLASS):
        if not is_uid(texts[tag]):
            raise RefusedError(CANNOT_UNDERSTAND, f"{_NAMES[tag]} is absent or not a UID")
    if texts[_CLASS] not in ACCEPTED_CLASSES:
        raise RefusedError(DOES_NOT_MATCH, "the data set is not an MR or Enhanced MR image")
    if texts[_MODALITY] != "MR":
        raise RefusedError(DOES_NOT_MATCH, "Modality is not MR")
    return InstanceHeader(texts[_CLASS], texts[_INSTANCE], texts[_STUDY], texts[_SERIES], start)


def _read(path: Path) -> tuple[dict[int, str], int]:
    import pydicom

    with _quiet_parser():
        # Elements above 4 KiB stay on disk; a UID of that length is refused unread.
        dataset = pydicom.dcmread(path, defer_size=4096, stop_before_pixels=True, specific_tags=list(_NAMES))
        length = int(dataset.file_meta.FileMetaInformationGroupLength)
        return {tag: _text(dataset, tag) for tag in _NAMES}, 132 + 12 + length


@contextmanager
def _quiet_parser() -> Iterator[None]:
    """Keep pydicom from logging or warning about values, which it quotes.

    As `mhsev_monai.ingest.dicom.headers.quiet_parser`, whose package loads torch: 400 MB that a gateway has no use for.
    """
    import pydicom

    logger, settings = logging.getLogger("pydicom"), pydicom.config.settings
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level, mode = logger.level, settings.reading_validation_mode
        logger.setLevel(logging.CRITICAL + 1)
        settings.reading_validation_mode = pydicom.config.IGNORE
        try:
            yield
        finally:
            logger.setLevel(level)
            settings.reading_validation_mode = mode


def _text(dataset: Dataset, tag: int) -> str:
    if tag not in dataset:
        return ""
    raw = dataset.get_item(tag)
    value = getattr(raw, "value", None)
    if isinstance(value, bytes) and len(value) <= _LONGEST + 2:
        return value.decode("ascii", "replace").rstrip("\0 ")
    return str(value) if isinstance(value, str) else ""
