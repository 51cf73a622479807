"""Headers of source files as highdicom needs them: of one form, whatever the vendor left out or wrote elsewhere.

highdicom reads geometry at fixed places, stops where orientations differ in the eighth digit (GE) or where pixel sizes
stand in each frame (Siemens XA), and refers to every frame at a place, of whichever b-value.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy

import pydicom
from pydicom.dataset import Dataset

from mhsev_monai.ingest.dicom.frames import Frame
from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.positions import normal
from mhsev_monai.pacs.patient_study import plain_identity

# The equipment goes into Contributing Equipment; the rest is asked for when references are made.
_COPIED = (
    *("Manufacturer", "ManufacturerModelName", "InstitutionName", "InstitutionAddress"),
    *("InstitutionalDepartmentName", "StationName", "DeviceSerialNumber", "SoftwareVersions"),
    *("PositionReferenceIndicator", "BodyPartExamined", "LossyImageCompression", "LossyImageCompressionRatio"),
    *("LossyImageCompressionMethod", "SliceThickness", "SpacingBetweenSlices"),
)
_FAR_MM = 1e5


def reference_header(file: DicomFile, marked: Collection[int], frame_of_reference: str) -> Dataset:
    """The header of one file.

    Args:
        file: its facts.
        marked: numbers of its frames from 0 that results refer to.
        frame_of_reference: UID.
    """
    source = pydicom.dcmread(file.path, stop_before_pixels=True, force=True)
    header = plain_identity(source)
    for name in _COPIED:
        try:
            if name in source:
                header[name] = deepcopy(source[name])
        except Exception:
            # A ruined element is left out, see ingest.dicom.tags.raw_value.
            continue
    header.SOPClassUID, header.SOPInstanceUID = file.sop_class, file.instance_uid
    header.StudyInstanceUID, header.SeriesInstanceUID = file.study, file.series
    header.Modality, header.FrameOfReferenceUID = "MR", frame_of_reference
    header.Rows, header.Columns, header.SamplesPerPixel = file.rows, file.columns, 1
    _add_geometry(header, file, marked)
    return header


def _add_geometry(header: Dataset, file: DicomFile, marked: Collection[int]) -> None:
    frame = file.frames[0]
    spacing = list(frame.spacing)
    if "SliceThickness" not in header:
        header.SliceThickness = file.slice_steps[0] if file.slice_steps else min(spacing)
    if len(file.frames) == 1 and not _is_multi_frame(file):
        header.ImagePositionPatient, header.ImageOrientationPatient = list(frame.position), list(frame.orientation)
        header.PixelSpacing = spacing
        return
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = spacing, header.SliceThickness
    orientation.ImageOrientationPatient = list(frame.orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.NumberOfFrames = len(file.frames)
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = [_position(each, each.number in marked) for each in file.frames]


def _is_multi_frame(file: DicomFile) -> bool:
    return file.sop_class != str(pydicom.uid.MRImageStorage)


def _position(frame: Frame, is_marked: bool) -> Dataset:
    """The place of a frame; those that results do not refer to are put where nothing meets them."""
    place = frame.position if is_marked else tuple(normal(frame.orientation) * _FAR_MM * (1 + frame.number))
    position, groups = Dataset(), Dataset()
    position.ImagePositionPatient = list(place)
    groups.PlanePositionSequence = [position]
    return groups
