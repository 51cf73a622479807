"""The DICOM elements that are read, and their values as plain Python, whatever the file says about their type.

Nothing outside this list is ever held, so nothing else can reach a log, a message or an output.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PER_FRAME = 0x52009230
SHARED = 0x52009229
PIXEL_DATA = 0x7FE00010

SIEMENS_B = 0x0019100C
SIEMENS_TILES = 0x0019100A
SIEMENS_DIRECTION = 0x0019100E
SIEMENS_CSA = 0x00291010
GE_B = 0x00431039
GE_SLICES = 0x0021104F
PHILIPS_B = 0x20011003
PHILIPS_SLICES = 0x20011018
PHILIPS_DIRECTION = 0x20011004
PHILIPS_EPI = 0x20011013
PHILIPS_NESTED = 0x2005140F
CONVERTED = 0x00209171
UIH_B = 0x00651009
UIH_TILES = 0x00651050

_STANDARD = (
    0x00080008,  # Image Type
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x00080020,  # Study Date, for the age alone
    0x00080060,  # Modality
    0x00080070,  # Manufacturer
    0x0008103E,  # Series Description, for its words alone
    0x00089208,  # Complex Image Component
    0x00089209,  # Acquisition Contrast
    0x00100020,  # Patient ID
    0x00100021,  # Issuer of Patient ID
    0x00100030,  # Patient's Birth Date, for the age alone
    0x00100040,  # Patient's Sex
    0x00101010,  # Patient's Age
    0x00180015,  # Body Part Examined
    0x00180020,  # Scanning Sequence
    0x00180021,  # Sequence Variant
    0x00180024,  # Sequence Name
    0x00180050,  # Slice Thickness
    0x00180080,  # Repetition Time
    0x00180081,  # Echo Time
    0x00180082,  # Inversion Time
    0x00180088,  # Spacing Between Slices
    0x00181030,  # Protocol Name, for its words alone
    0x00189005,  # Pulse Sequence Name
    0x00189018,  # Echo Planar Pulse Sequence
    0x00189008,  # Echo Pulse Sequence
    0x00189075,  # Diffusion Directionality
    0x00189087,  # Diffusion b-value
    0x00189089,  # Diffusion Gradient Orientation
    0x0020000D,  # Study Instance UID
    0x0020000E,  # Series Instance UID
    0x00200011,  # Series Number
    0x00200012,  # Acquisition Number
    0x00200013,  # Instance Number
    0x00200032,  # Image Position (Patient)
    0x00200037,  # Image Orientation (Patient)
    0x00200105,  # Number of Temporal Positions
    0x00209057,  # In-Stack Position Number
    0x00280002,  # Samples per Pixel
    0x00280004,  # Photometric Interpretation
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # Pixel Spacing
    0x00280100,  # Bits Allocated
    0x00280103,  # Pixel Representation
    0x00281052,  # Rescale Intercept
    0x00281053,  # Rescale Slope
    0x00282110,  # Lossy Image Compression
    0x00540081,  # Number of Slices
)
# The first element of a private block names its owner; a block is believed only under the right name.
_PRIVATE_OWNERS = (0x00190010, 0x00210010, 0x00290010, 0x00430010, 0x00650010, 0x20010010, 0x20050014)
_PRIVATE = (
    SIEMENS_B,
    SIEMENS_TILES,
    SIEMENS_DIRECTION,
    SIEMENS_CSA,
    GE_B,
    GE_SLICES,
    PHILIPS_B,
    PHILIPS_SLICES,
    PHILIPS_DIRECTION,
    PHILIPS_EPI,
    PHILIPS_NESTED,
    UIH_B,
    UIH_TILES,
)
READ = (*_STANDARD, *_PRIVATE_OWNERS, *_PRIVATE, SHARED, PER_FRAME, CONVERTED)
"""Every element that is read from a file, beside its pixels."""

_OWNERS = {
    SIEMENS_B: "SIEMENS MR HEADER",
    SIEMENS_TILES: "SIEMENS MR HEADER",
    SIEMENS_DIRECTION: "SIEMENS MR HEADER",
    SIEMENS_CSA: "SIEMENS CSA HEADER",
    GE_B: "GEMS_PARM_01",
    GE_SLICES: "GEMS_RELA_01",
    PHILIPS_B: "Philips Imaging DD 001",
    PHILIPS_SLICES: "Philips Imaging DD 001",
    PHILIPS_DIRECTION: "Philips Imaging DD 001",
    PHILIPS_EPI: "Philips Imaging DD 001",
    PHILIPS_NESTED: "Philips MR Imaging DD 005",
    UIH_B: "Image Private Header",
    UIH_TILES: "Image Private Header",
}
# How a private value is packed where the file does not say its type (implicit VR, or UN).
_PACKED = {
    SIEMENS_TILES: "<H",
    SIEMENS_DIRECTION: "<3d",
    GE_SLICES: "<h",
    PHILIPS_B: "<f",
    PHILIPS_SLICES: "<i",
    PHILIPS_EPI: "<i",
    UIH_B: "<d",
}


def raw_value(dataset: Dataset, tag: int) -> Any:
    """The value of an element as pydicom gives it; None where it is absent, damaged, or in another vendor's block."""
    try:
        if tag in _OWNERS:
            owner = dataset[(tag & 0xFFFF0000) | ((tag & 0xFF00) >> 8)].value
            owner = owner.decode("ascii", "replace") if isinstance(owner, bytes) else str(owner)
            if owner.strip("\0 ").upper() != _OWNERS[tag].upper():
                return None
        return dataset[tag].value
    except Exception:
        # A ruined element can raise anything from KeyError to struct.error; to us it is absent, and checks tell later.
        return None


def numbers(dataset: Dataset, tag: int) -> tuple[float, ...]:
    """The finite numbers of an element; empty where it is absent or does not hold numbers."""
    value = raw_value(dataset, tag)
    if value is None:
        return ()
    try:
        if isinstance(value, bytes):
            found = _unpacked(value, tag)
        elif isinstance(value, str):
            found = [float(part) for part in value.split("\\")]
        else:
            found = [float(part) for part in (value if isinstance(value, Sequence | list) else [value])]
    except (ValueError, TypeError, OverflowError, struct.error):
        return ()
    return tuple(found) if all(map(math.isfinite, found)) else ()


def _unpacked(value: bytes, tag: int) -> list[float]:
    packed = _PACKED.get(tag)
    if packed is not None and len(value) == struct.calcsize(packed):
        return [float(part) for part in struct.unpack(packed, value)]
    return [float(part) for part in value.decode("ascii").strip("\0 ").split("\\")]


def number(dataset: Dataset, tag: int) -> float | None:
    """The first number of an element, or None."""
    found = numbers(dataset, tag)
    return found[0] if found else None


def whole(dataset: Dataset, tag: int) -> int | None:
    """The first number of an element if it is whole, or None."""
    found = number(dataset, tag)
    return int(found) if found is not None and found.is_integer() and abs(found) < 2**53 else None


def words(dataset: Dataset, tag: int) -> tuple[str, ...]:
    """The parts of a text element in upper case; empty where it is absent. For comparing, never for showing."""
    value = raw_value(dataset, tag)
    if value is None:
        return ()
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    parts = value.split("\\") if isinstance(value, str) else value if isinstance(value, Sequence | list) else [value]
    return tuple(str(part).strip("\0 ").upper() for part in parts)


def text(dataset: Dataset, tag: int) -> str:
    """A text element as written, without blanks around it; empty where it is absent."""
    value = raw_value(dataset, tag)
    if value is None:
        return ""
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value)).strip("\0 ")
