"""Small heads with one known dark spot as DICOM series of several forms and orientations, and a model that finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from small_heads import SPACING, head

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.inputs import DSDCandidateInputs
from mhsev_monai.model_file import save_model

SPOT = (24, 17, 15)
"""Column, row and slice of the spot, one voxel."""
B_VALUES = (0.0, 1000.0)
_TURN = np.deg2rad(18.0)
ORIENTATIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "oblique": (*(np.cos(_TURN), np.sin(_TURN), 0.0), *(-np.sin(_TURN) * 0.8, np.cos(_TURN) * 0.8, -0.6)),
}
FIRST = (-75.5, -88.25, -61.75)

Change = Callable[[Dataset], Dataset]


def as_it_is(dataset: Dataset) -> Dataset:
    """No change."""
    return dataset


@dataclass(frozen=True)
class HeadSeries:
    """A series on disk and the truth about it.

    Attributes:
        folder: of the files.
        orientation: directions of rows and columns.
        step: mm from slice to slice along the normal, with its sign.
        volume: ``(columns, rows, slices)`` stored values of b = 0.
    """

    folder: Path
    orientation: tuple[float, ...]
    step: float
    volume: np.ndarray

    def point(self, voxel: tuple[float, float, float] = SPOT) -> np.ndarray:
        """LPS mm of a voxel, from the header alone."""
        along, down = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        column, row, number = voxel
        across = np.cross(along, down) * self.step
        return np.array(FIRST) + column * SPACING * along + row * SPACING * down + number * across


def volumes(spot: bool = True) -> np.ndarray:
    """``(columns, rows, slices, 2)`` of whole numbers; the spot is a voxel of almost no signal."""
    found = head()
    if spot:
        found[SPOT] = 0.1 * found[SPOT]
    return np.rint(found).astype(np.uint16)


def write_head(
    folder: Path,
    orientation: str = "axial",
    form: str = "classic",
    flipped: bool = False,
    spot: bool = True,
    change: Change = as_it_is,
) -> HeadSeries:
    """A series of a head.

    Args:
        folder: gets the files.
        orientation: of ``ORIENTATIONS``.
        form: ``classic`` or ``enhanced``.
        flipped: the slices run against their normal.
        spot: whether it holds the dark spot.
        change: applied to each data set before it is written.
    """
    data = volumes(spot)
    series = HeadSeries(folder, ORIENTATIONS[orientation], -SPACING if flipped else SPACING, data[..., 0])
    folder.mkdir(parents=True, exist_ok=True)
    write = _write_classic if form == "classic" else _write_enhanced
    write(series, data, change)
    return series


def _common(sop_class: str, name: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid(entropy_srcs=[sop_class, name])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.5.1", f"1.2.826.0.1.5.{len(sop_class)}"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = "1.2.826.0.1.5.9", ""
    dataset.PatientID, dataset.PatientName, dataset.PatientSex = "PID-17", "Roe^Jane", "F"
    dataset.IssuerOfPatientID, dataset.PatientAge, dataset.PatientWeight = "HOSPITAL", "070Y", "61"
    dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = "19500203", "20200101", "120000"
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "77", "ACC-1", "Doe^John"
    dataset.StudyDescription, dataset.SeriesDescription = "MR HEAD", "DWI"
    dataset.Modality, dataset.Manufacturer, dataset.BodyPartExamined = "MR", "SIEMENS", "HEAD"
    dataset.ManufacturerModelName, dataset.SoftwareVersions, dataset.DeviceSerialNumber = "Model", "1", "123"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.MRAcquisitionType = ["EP", "SE"], "NONE", "2D"
    dataset.ScanOptions, dataset.EchoTrainLength, dataset.SeriesNumber = "", 1, 3
    dataset.EchoTime, dataset.RepetitionTime, dataset.MagneticFieldStrength = 80.0, 4000.0, 3.0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    return dataset


def _save(dataset: Dataset, path: Path) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def _position(series: HeadSeries, number: int) -> list[float]:
    return [round(float(x), 6) for x in series.point((0, 0, number))]


def _cosines(series: HeadSeries) -> list[float]:
    return [round(float(x), 9) for x in series.orientation]


def _write_classic(series: HeadSeries, data: np.ndarray, change: Change) -> None:
    n_slices = data.shape[2]
    for volume, b_value in enumerate(B_VALUES):
        for number in range(n_slices):
            instance = volume * n_slices + number + 1
            dataset = _common(MRImageStorage, f"{series.orientation} {series.step} {instance}")
            dataset.InstanceNumber, dataset.AcquisitionNumber = instance, volume + 1
            dataset.SliceThickness = dataset.SpacingBetweenSlices = SPACING
            dataset.Rows, dataset.Columns, dataset.PixelSpacing = data.shape[1], data.shape[0], [SPACING, SPACING]
            dataset.ImageOrientationPatient, dataset.ImagePositionPatient = _cosines(series), _position(series, number)
            dataset.DiffusionBValue = b_value
            dataset.PixelData = np.ascontiguousarray(data[:, :, number, volume].T).tobytes()
            _save(change(dataset), series.folder / f"{7919 * instance % 10007:05d}.dcm")


def _write_enhanced(series: HeadSeries, data: np.ndarray, change: Change) -> None:
    dataset = _common(EnhancedMRImageStorage, f"{series.orientation} {series.step}")
    dataset.InstanceNumber, dataset.AcquisitionContrast = 1, "DIFFUSION"
    dataset.ComplexImageComponent = "MAGNITUDE"
    dataset.Rows, dataset.Columns = data.shape[1], data.shape[0]
    frames, stored = [], []
    # The weighted volume first, so that the first frame at a place is not the one to be marked.
    for time, volume in enumerate(reversed(range(len(B_VALUES))), start=1):
        for number in range(data.shape[2]):
            frames.append(_functional_groups(series, number, B_VALUES[volume], time))
            stored.append(data[:, :, number, volume].T)
    dataset.NumberOfFrames = len(frames)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.SharedFunctionalGroupsSequence = [Dataset()]
    dataset.PixelData = np.ascontiguousarray(np.stack(stored)).tobytes()
    _save(change(dataset), series.folder / "enhanced.dcm")


def _functional_groups(series: HeadSeries, number: int, b_value: float, time: int) -> Dataset:
    groups = Dataset()
    position, orientation, measures, content, diffusion = (Dataset() for _ in range(5))
    position.ImagePositionPatient, orientation.ImageOrientationPatient = _position(series, number), _cosines(series)
    measures.PixelSpacing = [SPACING, SPACING]
    measures.SliceThickness = measures.SpacingBetweenSlices = SPACING
    content.InStackPositionNumber, content.StackID, content.TemporalPositionIndex = number + 1, "1", time
    content.DimensionIndexValues = [1, number + 1, time]
    diffusion.DiffusionBValue, diffusion.DiffusionDirectionality = b_value, "DIRECTIONAL" if b_value else "NONE"
    groups.PlanePositionSequence, groups.PlaneOrientationSequence = [position], [orientation]
    groups.PixelMeasuresSequence, groups.FrameContentSequence = [measures], [content]
    groups.MRDiffusionSequence = [diffusion]
    return groups


def write_model(path: Path, deepest: float = 0.3, seed: int = 1) -> Path:
    """A model that calls a candidate a bleed if it is deeper than a threshold; ``seed`` changes its file alone."""
    inputs = DSDCandidateInputs(features=["cleared_depth"])
    network = CandidateMLP(
        in_features=1,
        hidden_features=[],
        members=1,
        num_classes=4,
        lower_bounds=[1, 6, 11],
        dropout=0.0,
        noise=0.0,
        grade_weight=1.0,
        mark_weight=1.0,
        yardstick="federation",
        context_features=[],
        max_deviation=8.0,
        seed=seed,
    )
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    weights["scorers.0.0.weight"] = torch.tensor([[40.0]])
    weights["scorers.0.0.bias"] = torch.tensor([-40.0 * deepest])
    save_model(path, network, inputs, "paper", weights, {})
    return path


def read_all(folder: Path) -> dict[str, Dataset]:
    """The objects of a folder by the names of their files."""
    return {path.stem: pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))}
