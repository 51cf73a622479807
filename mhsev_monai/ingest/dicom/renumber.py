"""Copies of a classic series under instance numbers that run volume by volume, as the converter needs them.

dcm2niix sorts by instance number. Some archives number slice by slice, anew in each volume, or not at all; sound series
then come out with volumes mixed, without geometry, or as several images.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.positions import heights, places
from mhsev_monai.ingest.dicom.preflight import SeriesPlan


def renumbered_copies(plan: SeriesPlan, folder: Path) -> list[Path] | None:
    """Copies of a plan's files in a folder; None where headers do not tell the volumes, or cannot be copied.

    Slices of one place belong to volumes in the order of b-value, acquisition and instance number.

    Args:
        plan: of a series that passed its checks.
        folder: empty; receives the copies.
    """
    if any(file.mosaic or len(file.frames) != 1 for file in plan.files):
        return None
    _, index = places(heights([file.frames[0] for file in plan.files]))
    by_place: dict[int, list[DicomFile]] = defaultdict(list)
    for place, file in zip(index.tolist(), plan.files, strict=True):
        by_place[place].append(file)
    volumes = {place: sorted(files, key=_order) for place, files in by_place.items()}
    if any(len({_order(file) for file in files}) < len(files) for files in volumes.values()):
        return None
    # Numbers that follow any plan rise by the same amount from volume to volume at every place.
    rises = {tuple((file.instance or 0) - (files[0].instance or 0) for file in files) for files in volumes.values()}
    if len(rises) > 1:
        return None
    copies = []
    for place, files in volumes.items():
        for volume, file in enumerate(files):
            number = volume * plan.n_slices + place + 1
            try:
                copies.append(_copy(file, number, volume + 1, folder / f"{number:06d}.dcm"))
            except Exception:
                # What the parser read it may refuse to write, in as many ways.
                return None
    return copies


def _order(file: DicomFile) -> tuple[float, int, int]:
    return (file.frames[0].b_value or 0.0, file.acquisition or 0, file.instance or 0)


def _copy(file: DicomFile, instance: int, acquisition: int, path: Path) -> Path:
    import pydicom

    dataset = pydicom.dcmread(file.path, force=True)
    dataset.InstanceNumber, dataset.AcquisitionNumber = instance, acquisition
    # The converter keeps studies of different times apart, and archives have written their own.
    dataset.StudyDate, dataset.StudyTime = "20000101", "000000"
    dataset.save_as(path)
    return path
