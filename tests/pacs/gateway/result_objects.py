"""Small objects of the six kinds that a series may have as results, with the least that a PACS needs to file them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SOP_CLASSES = {
    "sr": "1.2.840.10008.5.1.4.1.1.88.34",
    "seg": "1.2.840.10008.5.1.4.1.1.66.4",
    "map": "1.2.840.10008.5.1.4.1.1.30",
    "marks": "1.2.840.10008.5.1.4.1.1.11.1",
    "capture": "1.2.840.10008.5.1.4.1.1.7",
    "report": "1.2.840.10008.5.1.4.1.1.104.1",
}
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
MR = "1.2.840.10008.5.1.4.1.1.4"
_MODALITIES = {"sr": "SR", "seg": "SEG", "map": "OT", "marks": "PR", "capture": "OT", "report": "DOC", "mr": "MR"}


def write_object(
    path: Path,
    sop_class: str,
    kind: str = "mr",
    *,
    study: str | None = None,
    series: str | None = None,
    name: str = "Canary^Patricia",
    date: str = "20260101",
    description: str | None = None,
    n_pixels: int = 0,
) -> Path:
    """One object at ``path``; each call makes a new instance UID."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = sop_class
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = study or generate_uid()
    data.SeriesInstanceUID = series or generate_uid()
    data.PatientName, data.PatientID, data.StudyID = name, "CANARY-4711", "1"
    data.PatientBirthDate, data.PatientSex, data.AccessionNumber, data.ReferringPhysicianName = "", "", "", ""
    data.StudyDate, data.StudyTime = date, "120000"
    data.Modality = _MODALITIES[kind]
    data.SeriesDescription = description or f"{kind} RESEARCH USE ONLY"
    data.SeriesNumber = 1 if kind == "mr" else 9001 + list(_MODALITIES).index(kind)
    data.InstanceNumber = 1
    if n_pixels:
        _add_pixels(data, n_pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def _add_pixels(data: Dataset, side: int) -> None:
    data.Rows = data.Columns = side
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = np.zeros((side, side), np.uint16).tobytes()


def six_kinds(folder: Path, study: str | None = None) -> list[Path]:
    """One object of each kind, in one study, a series each."""
    study = study or str(generate_uid())
    return [
        write_object(folder / f"{kind}.dcm", sop_class, kind, study=study, n_pixels=8 if kind == "capture" else 0)
        for kind, sop_class in SOP_CLASSES.items()
    ]
