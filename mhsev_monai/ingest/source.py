"""What lies in a folder that somebody gives: DICOM files, NIfTI images, and the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bvals import image_stem
from mhsev_monai.ingest.dicom.headers import DicomFile, looks_like_dicom, quiet_parser, read_header

# They belong to an image, which is counted.
_COMPANIONS = (".bval", ".bvec", ".json")
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Source:
    """The files of a source.

    Attributes:
        root: the folder, or the folder of the one file.
        dicom: files whose header could be read.
        unreadable: DICOM files whose header could not.
        nifti: images, ``.nii`` or ``.nii.gz``.
        n_others: files that are neither.
    """

    root: Path
    dicom: tuple[DicomFile, ...]
    unreadable: int
    nifti: tuple[Path, ...]
    n_others: int


def look_through(source: Path, skip: Path | None = None, progress: Progress = no_progress) -> Source:
    """Read the headers of all files below a folder, at any depth; links are not followed into folders.

    Args:
        source: a folder or one file.
        skip: a folder inside that is left alone, such as the BIDS root itself.
        progress: called with the number of files done and their total.

    Raises:
        ScanError: if there is no such file or folder.
        ImportError: if there are DICOM files and the extra ``dicom`` is not installed.
    """
    source = Path(source)
    if not source.exists():
        raise ScanError("there is no such file or folder; check the name, and that the disk is mounted")
    files = [source] if source.is_file() else sorted(_files(source, skip))
    dicom: list[DicomFile] = []
    nifti: list[Path] = []
    unreadable = others = 0
    for done, path in enumerate(files, start=1):
        if image_stem(path.name) is not None:
            nifti.append(path)
        elif looks_like_dicom(path):
            try:
                header = _header(path)
            except ScanError:
                unreadable += 1
            else:
                dicom += [header] if header is not None else []
        elif path.suffix.lower() in _DICOM_ENDINGS:
            # It says that it is DICOM, and does not begin so.
            unreadable += 1
        elif path.suffix.lower() not in _COMPANIONS:
            others += 1
        progress(done, len(files))
    return Source(source if source.is_dir() else source.parent, tuple(dicom), unreadable, tuple(nifti), others)


def _header(path: Path) -> DicomFile | None:
    from mhsev_monai.ingest.dicom.convert import converter

    converter()
    with quiet_parser():
        return read_header(path)


def _files(folder: Path, skip: Path | None) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and (skip is None or (here / name).resolve() != skip.resolve())
        ]
        yield from (here / name for name in names if not name.startswith(".") and (here / name).is_file())
