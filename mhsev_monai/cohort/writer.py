"""Files of a simulated hospital: a BIDS root, and beside its subjects a derivative with the truth.

A subject's files are made in a folder of another name that is renamed last; a subject's folder that is there is
complete. The bytes depend on the subject alone: no time, no name and no place is written.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mhsev_monai._version import __version__
from mhsev_monai.cohort.disease import label_bleeds
from mhsev_monai.cohort.hospitals import Hospital
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.subject import SimulatedSubject
from mhsev_monai.cohort.tables import (
    LESION_COLUMNS,
    PARTICIPANT_COLUMNS,
    READER_COLUMNS,
    README,
    Participant,
    dataset_descriptions,
    lesions_table,
    participants_table,
    readers_table,
)
from mhsev_monai.scan_contrast import ScanContrast

_PARTIAL = ".partial-"
_COMPRESSION = 1


def subject_id(index: int) -> str:
    """``sub-0001`` for 1."""
    return f"sub-{index:04d}"


def is_written(root: Path, index: int) -> bool:
    """Whether all files of a subject are there."""
    return (root / subject_id(index)).is_dir()


def truth_folder(root: Path, index: int, contrast: str = "dwi") -> Path:
    """Where a subject's masks and its table of bleeds lie, under the root of a hospital."""
    return root / "derivatives" / "truth" / subject_id(index) / ScanContrast(contrast).folder


def lesions_path(root: Path, index: int, contrast: str = "dwi") -> Path:
    """A subject's table of bleeds."""
    return truth_folder(root, index, contrast) / f"{subject_id(index)}_desc-microbleeds_lesions.tsv"


def write_subject(root: Path, index: int, hospital: Hospital, subject: SimulatedSubject, contrast: str = "dwi") -> None:
    """Put a subject's scan under ``sub-<index>`` and its truth under ``derivatives/truth``; truth first.

    Args:
        root: of the hospital.
        index: number of the subject, from 1.
        hospital: whose protocol it was scanned with.
        subject: in RAS order.
        contrast: ``dwi`` or ``swi``.
    """
    name, kind = subject_id(index), ScanContrast(contrast)
    protocol, flips = as_scanned(hospital, subject), stored_axes(hospital.orientation)
    affine = stored_affine(hospital, subject)
    grid = subject_grid(subject)
    with _Folder(root / "derivatives" / "truth" / name) as folder:
        inside = folder / kind.folder
        inside.mkdir()
        masks = {"microbleeds": subject.labels, "occult": label_bleeds(subject.bleeds, grid, counted=False)}
        for label, mask in masks.items():
            (inside / f"{name}_desc-{label}_mask.nii.gz").write_bytes(_nifti(mask[flips], affine, None))
        table = lesions_table(subject.bleeds, _world_positions(subject, grid))
        (inside / lesions_path(root, index, contrast).name).write_text(table, encoding="utf-8")
    with _Folder(root / name) as folder:
        entities = (name, f"acq-{kind.acquisition}") if kind.acquisition else (name,)
        stem = folder / kind.folder / "_".join((*entities, kind.suffix))
        stem.parent.mkdir()
        _write_scan(stem, subject.images[flips], affine, protocol, kind)


def _write_scan(
    stem: Path, images: NDArray[np.int16], affine: NDArray[np.float64], protocol: Hospital, kind: ScanContrast
) -> None:
    """The image and what lies beside it, under one name."""
    repetition_time = None if kind.b0_only else protocol.tr_ms / 1000
    stored = images[..., 0] if kind.b0_only else images
    stem.with_suffix(".nii.gz").write_bytes(_nifti(stored, affine, repetition_time))
    stem.with_suffix(".json").write_text(_json(_sidecar(protocol, kind)))
    if kind.b0_only:
        return
    stem.with_suffix(".bval").write_text(" ".join(f"{b:g}" for b in protocol.b_values) + "\n")
    rows = gradient_directions(protocol)
    stem.with_suffix(".bvec").write_text("".join(" ".join(f"{v:g}" for v in row) + "\n" for row in rows))


def as_scanned(hospital: Hospital, subject: SimulatedSubject) -> Hospital:
    """The hospital with the matrix, the b-values and the times that this subject was scanned with."""
    grid = subject_grid(subject)
    return replace(
        hospital,
        shape=grid.shape,
        spacing=grid.spacing,
        acquired=grid.shape[:2],
        b_values=subject.b_values,
        te_ms=subject.te_ms,
        tr_ms=subject.tr_ms,
    )


def subject_grid(subject: SimulatedSubject) -> VoxelGrid:
    """The voxels of a subject's scan along its own axes, in whose coordinates its bleeds lie."""
    n_x, n_y, n_z = subject.labels.shape
    x, y, z = (round(float(length), 9) for length in np.linalg.norm(subject.affine[:3, :3], axis=0))
    middle = subject.affine @ np.array([(n_x - 1) / 2, (n_y - 1) / 2, (n_z - 1) / 2, 1.0])
    return VoxelGrid((n_x, n_y, n_z), (x, y, z), (float(middle[0]), float(middle[1]), float(middle[2])))


def _world_positions(subject: SimulatedSubject, grid: VoxelGrid) -> NDArray[np.float64]:
    """``(n, 3)`` middles of the bleeds, world mm."""
    centres = np.array([bleed.body.centre for bleed in subject.bleeds]).reshape(-1, 3)
    first = np.array([grid.axis(axis)[0] for axis in range(3)])
    voxels = (centres - first) / np.array(grid.spacing)
    positions: NDArray[np.float64] = voxels @ subject.affine[:3, :3].T + subject.affine[:3, 3]
    return positions


def write_hospital(root: Path, hospital: Hospital, participants: Sequence[Participant]) -> None:
    """Put what describes a hospital as a whole into its root: descriptions, read-me, and the table of participants.

    Args:
        root: of the hospital.
        hospital: whose name it bears.
        participants: of the subjects from 1.
    """
    raw, truth = dataset_descriptions(hospital.name)
    write_text(root / "dataset_description.json", _json(raw))
    write_text(root / "README", README.format(name=hospital.name, underline="=" * (19 + len(hospital.name))))
    write_text(root / "participants.json", _json(PARTICIPANT_COLUMNS))
    rows = [(subject_id(index), participant) for index, participant in enumerate(participants, start=1)]
    write_text(root / "participants.tsv", participants_table(rows))
    derivative = root / "derivatives" / "truth"
    write_text(derivative / "dataset_description.json", _json(truth))
    write_text(derivative / "desc-microbleeds_lesions.json", _json(LESION_COLUMNS))
    # BIDS has no suffix for a table of lesions.
    write_text(derivative / "readers.tsv", readers_table(rows))
    write_text(derivative / "readers.json", _json(READER_COLUMNS))
    write_text(derivative / ".bidsignore", "*_lesions.tsv\n*_lesions.json\nreaders.*\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def remove_partial(root: Path) -> None:
    """Remove what an interrupted run left under another name."""
    for folder in (root, root / "derivatives" / "truth"):
        for path in folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def stored_axes(orientation: str) -> tuple[slice, slice, slice]:
    """How an array in RAS order is turned into the stored order; turns back too."""
    x, y, z = (slice(None, None, 1 if code in "RAS" else -1) for code in orientation)
    return x, y, z


def stored_affine(hospital: Hospital, subject: SimulatedSubject | None = None) -> NDArray[np.float64]:
    """``(4, 4)``, from stored voxel indices to RAS+ mm.

    Args:
        hospital: whose orientation.
        subject: whose matrix and obliquity; by default the hospital's own.
    """
    shape = hospital.shape if subject is None else subject.labels.shape
    stored = (hospital.affine if subject is None else subject.affine).copy()
    for axis, code in enumerate(hospital.orientation):
        if code not in "RAS":
            stored[:3, 3] += (shape[axis] - 1) * stored[:3, axis]
            stored[:3, axis] *= -1
    return stored


def gradient_directions(hospital: Hospital) -> NDArray[np.float64]:
    """``(3, N)`` unit vectors in FSL's convention: along the stored axes, the first turned where they are right-handed.

    b = 0 volumes have no direction.
    """
    signs = np.array([1.0 if code in "RAS" else -1.0 for code in hospital.orientation])
    if signs.prod() > 0:
        signs[0] *= -1
    # Adding 0 makes no difference but for -0.
    rows: NDArray[np.float64] = signs[:, None] * np.array(hospital.directions).T + 0.0
    return rows


class _Folder:
    """A folder that appears under its name once its block has ended well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")

    def __enter__(self) -> Path:
        self.partial.mkdir(parents=True)
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
            return
        if self.path.exists():
            shutil.rmtree(self.path)
        self.partial.rename(self.path)


def _nifti(data: NDArray[Any], affine: NDArray[np.float64], repetition_time: float | None) -> bytes:
    """A compressed NIfTI file without a time stamp."""
    image = nib.Nifti1Image(np.ascontiguousarray(data), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    if repetition_time is not None:
        image.header["pixdim"][4] = repetition_time
    return gzip.compress(image.to_bytes(), compresslevel=_COMPRESSION, mtime=0)


def _sidecar(protocol: Hospital, kind: ScanContrast) -> dict[str, Any]:
    """What BIDS asks of a scan."""
    return {
        "Modality": "MR",
        "MagneticFieldStrength": 3,
        "Manufacturer": protocol.manufacturer,
        "ManufacturersModelName": f"mhsev {protocol.name}",
        "PulseSequenceType": "Gradient echo" if kind is ScanContrast.SWI else "Spin-echo diffusion",
        "EchoTime": protocol.te_ms / 1000,
        "RepetitionTime": protocol.tr_ms / 1000,
        "SliceThickness": protocol.spacing[2],
        "ConversionSoftware": "mhsev",
        "ConversionSoftwareVersion": __version__,
    }


def _json(values: Any) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
