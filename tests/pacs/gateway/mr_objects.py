"""Small MR images to send, and ways to spoil them."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

MR = "1.2.840.10008.5.1.4.1.1.4"
CT = "1.2.840.10008.5.1.4.1.1.2"
POISON = "POISON^JANE"


def mr_image(series: str = "1.2.3.4", number: int = 1, **elements: object) -> Dataset:
    """One image of 8 by 8 pixels; every free text of it names the patient."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = MR, f"{series}.{number}"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", series
    image.PatientName, image.PatientID, image.PatientBirthDate = POISON, "POISON-17", "19500203"
    image.StudyDate, image.SeriesDescription, image.ProtocolName = "20200101", f"dwi {POISON}", POISON
    image.InstitutionName, image.StationName, image.PatientComments = POISON, "POISON1", POISON
    image.Modality, image.Manufacturer, image.InstanceNumber = "MR", "SIEMENS", number
    image.Rows = image.Columns = 8
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = bytes(128)
    image.private_block(0x0029, "POISON CREATOR", create=True).add_new(0x10, "LO", POISON)
    for name, value in elements.items():
        setattr(image, name, value)
    return with_meta(image)


def with_meta(image: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """The image with file meta information that fits it."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


def encoded(image: Dataset) -> bytes:
    """The data set alone, in Implicit VR Little Endian, as it goes over the wire."""
    written = encode(image, is_implicit_vr=True, is_little_endian=True)
    assert written is not None
    return written


def written(image: Dataset, path: Path) -> Path:
    """The image as a Part 10 file."""
    image.save_as(path, enforce_file_format=True)
    return path


def nested(depth: int) -> bytes:
    """An encoded image that begins with sequences within sequences, of undefined length."""
    opening = struct.pack("<HHLHHL", 0x0008, 0x1140, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return opening * depth + closing * depth + encoded(mr_image("1.8", 1))
