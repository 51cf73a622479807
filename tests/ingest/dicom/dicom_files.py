"""DICOM series put together by hand: small, complete, and open to any damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

ROWS, COLUMNS, N_SLICES = 12, 10, 6
SPACING, STEP = 2.0, 4.0
B_VALUES = (0.0, 1000.0, 1000.0)
COSINES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def pixels(volume: int, place: int) -> np.ndarray:
    """The stored values of one slice, different in every slice and without symmetry."""
    rng = np.random.default_rng((volume, place))
    return rng.integers(1, 2000, (ROWS, COLUMNS)).astype(np.uint16)


def slice_dataset(volume: int, place: int, instance: int, b_value: float | None, **elements: object) -> Dataset:
    """One classic MR image."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid(entropy_srcs=[f"{volume} {place}"])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
    dataset.PatientID, dataset.PatientName, dataset.PatientSex = "PID-17", "Roe^Jane", "F"
    dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = "19500203", "20200101", "120000"
    dataset.Modality, dataset.Manufacturer = "MR", "SIEMENS"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.MRAcquisitionType = ["EP", "SE"], "NONE", "2D"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 3, instance, volume + 1
    dataset.EchoTime, dataset.RepetitionTime, dataset.MagneticFieldStrength = 80.0, 4000.0, 3.0
    dataset.SliceThickness = dataset.SpacingBetweenSlices = STEP
    dataset.Rows, dataset.Columns, dataset.PixelSpacing = ROWS, COLUMNS, [SPACING, SPACING]
    dataset.ImageOrientationPatient = list(COSINES)
    dataset.ImagePositionPatient = [-10.0, -12.0, -20.0 + STEP * place]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    if b_value is not None:
        dataset.DiffusionBValue = b_value
    dataset.PixelData = pixels(volume, place).tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    """Write one image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    b_values: Sequence[float | None] = B_VALUES,
    n_slices: int = N_SLICES,
    change: Callable[[Dataset], Dataset | None] = lambda dataset: dataset,
    **elements: object,
) -> list[Path]:
    """A classic series, volume after volume; ``change`` may alter a slice, or leave it out with None."""
    written = []
    for volume, b_value in enumerate(b_values):
        for place in range(n_slices):
            instance = volume * n_slices + place + 1
            dataset = change(slice_dataset(volume, place, instance, b_value, **elements))
            if dataset is not None:
                written.append(save(dataset, folder / f"{instance:04d}.dcm"))
    return written


def write_enhanced(folder: Path, b_values: Sequence[float] = B_VALUES, n_slices: int = N_SLICES) -> Path:
    """The same volumes as one enhanced multi-frame image."""
    dataset = slice_dataset(0, 0, 1, None)
    dataset.SOPClassUID = pydicom.uid.EnhancedMRImageStorage
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["enhanced"]), "1.2.3.4.6"
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, name)
    dataset.AcquisitionContrast, dataset.ComplexImageComponent = "DIFFUSION", "MAGNITUDE"
    frames, stored = [], []
    for volume, b_value in enumerate(b_values):
        for place in range(n_slices):
            frames.append(_functional_groups(volume, place, b_value))
            stored.append(pixels(volume, place))
    dataset.NumberOfFrames = len(frames)
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    dataset.PixelData = np.stack(stored).tobytes()
    return save(dataset, folder / "enhanced.dcm")


def _functional_groups(volume: int, place: int, b_value: float) -> Dataset:
    groups = Dataset()
    position, orientation, measures, content, diffusion = (Dataset() for _ in range(5))
    position.ImagePositionPatient = [-10.0, -12.0, -20.0 + STEP * place]
    orientation.ImageOrientationPatient = list(COSINES)
    measures.PixelSpacing, measures.SliceThickness = [SPACING, SPACING], STEP
    content.InStackPositionNumber, content.StackID, content.TemporalPositionIndex = place + 1, "1", volume + 1
    content.DimensionIndexValues = [1, place + 1, volume + 1]
    diffusion.DiffusionBValue = b_value
    diffusion.DiffusionDirectionality = "DIRECTIONAL" if b_value else "NONE"
    groups.PlanePositionSequence, groups.PlaneOrientationSequence = Items([position]), Items([orientation])
    groups.PixelMeasuresSequence, groups.FrameContentSequence = Items([measures]), Items([content])
    groups.MRDiffusionSequence = Items([diffusion])
    return groups


def truth(b_values: Sequence[float | None] = B_VALUES, n_slices: int = N_SLICES) -> np.ndarray:
    """``(columns, rows, slices, volumes)`` in the order of the header: first pixel first."""
    volumes = [[pixels(volume, place).T for place in range(n_slices)] for volume in range(len(b_values))]
    return np.stack([np.stack(volume, axis=-1) for volume in volumes], axis=-1)
