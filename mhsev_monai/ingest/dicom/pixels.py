"""The pixels of DICOM files as they are stored, to check a conversion against them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom import tags

if TYPE_CHECKING:
    from mhsev_monai.ingest.dicom.headers import DicomFile

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "")
_AGAIN = "export the series again"


def is_native(file: DicomFile) -> bool:
    """Whether the pixels are stored without compression."""
    return file.transfer_syntax in _NATIVE


class PixelDigest(NamedTuple):
    """What tells the pixels of two files apart.

    Attributes:
        digest: SHA-256 over their bytes.
        blank: whether all of them are equal: scanners that mask the air store many such slices.
    """

    digest: bytes
    blank: bool


def pixel_digest(file: DicomFile) -> PixelDigest:
    """A digest over the bytes of a file's pixels, after a check that none are missing.

    Raises:
        ScanError: if there are none, or fewer than its rows, columns and frames need.
    """
    data = _pixel_data(file.path)
    if is_native(file):
        needed = file.rows * file.columns * file.samples * file.n_frames * (file.bits_allocated // 8)
        if needed == 0:
            raise ScanError(f"a header says the image has no pixels (rows, columns or bits are 0); {_AGAIN}")
        if len(data) < needed:
            raise ScanError(f"the pixel data of a file are cut off: {len(data)} of {needed} bytes; {_AGAIN}")
    blank = is_native(file) and data.count(data[:1]) == len(data)
    return PixelDigest(hashlib.sha256(data).digest(), blank)


def stored_frames(file: DicomFile) -> NDArray[Any]:
    """``(frames, rows, columns)`` stored values.

    Raises:
        ScanError: if the pixels cannot be read, or no decoder for their compression is installed.
    """
    shape = (file.n_frames, file.rows, file.columns)
    if not is_native(file):
        return _decoded(file.path, shape)
    if file.samples != 1 or file.bits_allocated not in (8, 16, 32):
        raise ScanError(
            f"{file.bits_allocated} bits and {file.samples} values a pixel came; 8, 16 or 32 bits of one value "
            f"are accepted; {_AGAIN}"
        )
    order = ">" if file.transfer_syntax == _NATIVE[2] else "<"
    kind = np.dtype(f"{order}{'i' if file.signed else 'u'}{file.bits_allocated // 8}")
    return np.frombuffer(_pixel_data(file.path), kind, count=int(np.prod(shape))).reshape(shape)


def _pixel_data(path: Path) -> bytes:
    import pydicom

    try:
        dataset = pydicom.dcmread(path, specific_tags=[tags.PIXEL_DATA], force=True)
        data = dataset[tags.PIXEL_DATA].value
    except KeyError:
        raise ScanError(f"a file of the series holds no pixel data; {_AGAIN}") from None
    except Exception:
        # See headers.read_header: the parser can raise anything.
        raise ScanError(f"the pixel data of a file cannot be read to their end; {_AGAIN}") from None
    if not isinstance(data, bytes) or not data:
        raise ScanError(f"a file of the series holds no pixel data; {_AGAIN}")
    return data


def _decoded(path: Path, shape: tuple[int, int, int]) -> NDArray[Any]:
    import pydicom

    try:
        pixels = pydicom.dcmread(path, force=True).pixel_array
    except Exception:
        # No decoder for this compression is installed, or it refuses the stream.
        raise ScanError(
            "the compressed pixels of a file cannot be decoded, so the conversion could not be checked; "
            "export the series uncompressed, or install pip install 'mhsev[dicom]'"
        ) from None
    if pixels.size != int(np.prod(shape)):
        raise ScanError(f"the compressed pixels of a file are not of the announced size; {_AGAIN}")
    return np.asarray(pixels).reshape(shape)
