"""The frames of enhanced images as classic slices, numbered volume by volume, for what the converter cannot sort.

dcm2niix orders the frames of an enhanced image by its dimension indices, its stacks or its temporal positions, whatever
it finds; where a writer leaves them out or numbers otherwise, volumes come out mixed or end to end. The places and
b-values of the frames tell the volumes all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom.frames import Frame
from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.pixels import stored_frames
from mhsev_monai.ingest.dicom.positions import heights, places
from mhsev_monai.ingest.dicom.preflight import SeriesPlan, is_derived

_NO_MAGNITUDE = ("PHASE", "REAL", "IMAGINARY", "MIXED")


class _Placed(NamedTuple):
    """A frame, its file and the number of that in the plan, and its stored values ``(rows, columns)``."""

    n_file: int
    file: DicomFile
    frame: Frame
    stored: NDArray[Any]

    @property
    def order(self) -> tuple[bool, float, int, int, int, int]:
        """Where it stands among those of its place: originals first, by b-value, then as they were acquired."""
        file, frame = self.file, self.frame
        acquired = (file.acquisition or 0, file.instance or 0, self.n_file, frame.number)
        return (is_derived(frame), frame.b_value or 0.0, *acquired)


def single_frame_copies(plan: SeriesPlan, folder: Path) -> list[Path] | None:
    """The frames of a plan's enhanced files as files of their own; None where they make no equal volumes.

    Volumes must follow each other in the same way at every place, or nothing would tell which slices belong together;
    and all frames but maps must be magnitudes of one kind. Only what a volume is made of is written, under new
    identifiers: geometry, and pixels as stored, not rescaled. The converter parts volumes by what it takes b-values and
    directions for, so they stay away; those of the plan's frames count. GE's files are left alone: its EPI of reversed
    polarity lies upside down under its header, and only the converter knows from private elements.

    Args:
        plan: of a series that passed its checks.
        folder: empty; receives the copies.

    Raises:
        ScanError: if pixels cannot be read.
    """
    enhanced = any(len(file.frames) > 1 for file in plan.files)
    if not enhanced or any(file.mosaic or file.vendor == "GE" for file in plan.files):
        return None
    originals = {(f.component, f.image_type) for file in plan.files for f in file.frames if not is_derived(f)}
    if len(originals) > 1 or any(component in _NO_MAGNITUDE for component, _ in originals):
        return None
    volumes = _by_place(plan)
    if len({_steps(items) for items in volumes}) > 1:
        return None
    copies = []
    for place, items in enumerate(volumes):
        for volume, item in enumerate(items):
            number = volume * len(volumes) + place + 1
            copies.append(_write(item, number, volume + 1, folder / f"{number:06d}.dcm"))
    return copies


def _by_place(plan: SeriesPlan) -> list[list[_Placed]]:
    """The frames of each place, in the order of their volumes."""
    frames = [_Placed(n, file, *pair) for n, file in enumerate(plan.files) for pair in _with_pixels(file)]
    where, index = places(heights([item.frame for item in frames]))
    found: list[list[_Placed]] = [[] for _ in where]
    for place, item in zip(index.tolist(), frames, strict=True):
        found[place].append(item)
    return [sorted(items, key=lambda item: item.order) for items in found]


def _steps(items: Sequence[_Placed]) -> tuple[tuple[int, int], ...]:
    """Of the frames of one place, the file of each and how far it is from the file's first one here."""
    first: dict[int, int] = {}
    for item in items:
        first.setdefault(item.n_file, item.frame.number)
    return tuple((item.n_file, item.frame.number - first[item.n_file]) for item in items)


def _with_pixels(file: DicomFile) -> list[tuple[Frame, NDArray[Any]]]:
    stored = stored_frames(file)
    if len(stored) != len(file.frames):
        raise ScanError(f"a file holds {len(stored)} frames and describes {len(file.frames)}; export it again")
    return list(zip(file.frames, stored, strict=True))


def _write(item: _Placed, instance: int, acquisition: int, path: Path) -> Path:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    file, frame = item.file, item.frame
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    # One series for all; the copies do not leave the folder of this conversion.
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.Modality, dataset.SeriesNumber, dataset.ImageType = "MR", 1, ["ORIGINAL", "PRIMARY"]
    dataset.StudyDate, dataset.StudyTime, dataset.PatientPosition = "20000101", "000000", "HFS"
    dataset.InstanceNumber, dataset.AcquisitionNumber = instance, acquisition
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(frame.position), list(frame.orientation)
    dataset.PixelSpacing = list(frame.spacing)
    if file.slice_steps:
        dataset.SliceThickness = file.slice_steps[-1]
    if frame.echo_time is not None:
        dataset.EchoTime = frame.echo_time
    _add_pixels(dataset, item)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _add_pixels(dataset: Any, item: _Placed) -> None:
    bits = item.stored.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = item.stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(item.file.signed)
    dataset.PixelData = item.stored.astype(item.stored.dtype.newbyteorder("<")).tobytes()
