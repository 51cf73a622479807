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
        unreadable: DICOM files whose header could not, and files that cannot be opened.
        closed: how many folders cannot be opened.
        nifti: images, ``.nii`` or ``.nii.gz``.
        n_others: files that are neither.
    """

    root: Path
    dicom: tuple[DicomFile, ...]
    unreadable: tuple[Path, ...]
    closed: int
    nifti: tuple[Path, ...]
    n_others: int


def look_through(source: Path, skip: Path | None = None, progress: Progress = no_progress) -> Source:
    """Read the headers of all files below a folder, at any depth; each folder once, whatever links lead to it.

    Hidden files, and the ``derivatives`` of a BIDS root, are left alone.

    Args:
        source: a folder or one file.
        skip: a folder inside that is left alone, such as the BIDS root itself.
        progress: called with the number of files done and their total.

    Raises:
        ScanError: if there is no such file or folder, or it is the one to be left alone.
        ImportError: if there are DICOM files and the extra ``dicom`` is not installed.
    """
    source = Path(source)
    if not source.exists():
        raise ScanError("there is no such file or folder; check the name, and that the disk is mounted")
    if skip is not None and source.resolve().is_relative_to(skip.resolve()):
        raise ScanError("the source is the BIDS root, or lies inside it; name the folder that the scans come from")
    closed: list[OSError] = []
    files = [source] if source.is_file() else sorted(_files(source, skip, closed))
    dicom: list[DicomFile] = []
    kinds: dict[str, list[Path]] = {"unreadable": [], "nifti": [], "other": []}
    for done, path in enumerate(files, start=1):
        try:
            kind, header = _kind(path)
        except ScanError:
            kind, header = "unreadable", None
        dicom += [header] if header is not None else []
        if kind:
            kinds[kind].append(path)
        progress(done, len(files))
    root = source if source.is_dir() else source.parent
    unreadable, nifti = tuple(kinds["unreadable"]), tuple(kinds["nifti"])
    return Source(root, tuple(dicom), unreadable, len(closed), nifti, len(kinds["other"]))


def _kind(path: Path) -> tuple[str, DicomFile | None]:
    """What a file is, empty for what needs no word; and its header if it is a DICOM image.

    Raises:
        ScanError: if it is DICOM that cannot be read.
    """
    if not os.access(path, os.R_OK):
        return "unreadable", None
    if image_stem(path.name) is not None:
        return "nifti", None
    if looks_like_dicom(path):
        return "", _header(path)
    if path.suffix.lower() in _DICOM_ENDINGS:
        # It says that it is DICOM, and does not begin so.
        return "unreadable", None
    return ("" if path.suffix.lower() in _COMPANIONS else "other"), None


def _header(path: Path) -> DicomFile | None:
    from mhsev_monai.ingest.dicom.convert import converter

    converter()
    with quiet_parser():
        return read_header(path)


def _files(folder: Path, skip: Path | None, closed: list[OSError]) -> Iterator[Path]:
    """Files below a folder; errors of folders that cannot be listed are collected."""
    seen = {folder.resolve()} | ({skip.resolve()} if skip is not None else set())
    for parent, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        here = Path(parent)
        wanted = []
        for name in sorted(folders):
            # Links may lead back up, and to folders that were seen under another name.
            real = Path(os.path.realpath(here / name))
            if not name.startswith(".") and name != "derivatives" and real not in seen:
                seen.add(real)
                wanted.append(name)
        folders[:] = wanted
        # os.path answers False where pathlib raises, in a folder that may be listed and not entered.
        visible = [name for name in names if not name.startswith(".")]
        yield from (here / name for name in visible if os.path.isfile(here / name))  # noqa: PTH113
        closed += [PermissionError()] if visible and not os.access(here, os.X_OK) else []
