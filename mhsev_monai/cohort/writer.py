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
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mhsev_monai._version import __version__
from mhsev_monai.cohort.hospitals import Hospital
from mhsev_monai.cohort.subject import Record, SimulatedSubject
from mhsev_monai.participants import COUNT_COLUMN

_BIDS_VERSION = "1.10.0"
_PARTIAL = ".partial-"
_COMPRESSION = 1

_PARTICIPANT_COLUMNS: dict[str, dict[str, Any]] = {
    "age": {"Description": "Age at the scan; simulated", "Units": "year"},
    "sex": {"Description": "Sex; simulated", "Levels": {"F": "female", "M": "male"}},
    "hypertension": {"Description": "Hypertension; simulated", "Levels": {"0": "no", "1": "yes"}},
    "anticoagulant": {"Description": "Takes an anticoagulant; simulated", "Levels": {"0": "no", "1": "yes"}},
    COUNT_COLUMN: {"Description": "Number of microbleeds planted in the scan; a whole number from 0"},
}

_README = """Simulated hospital {name}
{underline}

Nobody was scanned: heads, microbleeds and signals are made by mhsev (package mhsev_monai.cohort), from the ICBM152
template, published relaxation times, and random numbers. Counts are of what was planted, at sizes that are easier to
see than on a real b = 0 image. Nothing here says how well a method works on patients.

participants.tsv        clinical variables and the number of microbleeds, described in participants.json
sub-*/dwi               one b = 0 volume and three orthogonal directions
derivatives/truth       label volumes: voxel = number of the microbleed; for evaluation, not for prediction
"""


def subject_id(index: int) -> str:
    """``sub-0001`` for 1."""
    return f"sub-{index:04d}"


def is_written(root: Path, index: int) -> bool:
    """Whether all files of a subject are there."""
    return (root / subject_id(index)).is_dir()


def write_subject(root: Path, index: int, hospital: Hospital, subject: SimulatedSubject) -> None:
    """Put a subject's scan under ``sub-<index>/dwi`` and its truth under ``derivatives/truth``; truth first.

    Args:
        root: of the hospital.
        index: number of the subject, from 1.
        hospital: whose protocol it was scanned with.
        subject: in RAS order.
    """
    name = subject_id(index)
    truth, flips = root / "derivatives" / "truth", stored_axes(hospital.orientation)
    affine = stored_affine(hospital)
    with _Folder(truth / name) as folder:
        (folder / "dwi").mkdir()
        labels = _nifti(subject.labels[flips], affine, None)
        (folder / "dwi" / f"{name}_desc-microbleeds_mask.nii.gz").write_bytes(labels)
    with _Folder(root / name) as folder:
        stem = folder / "dwi" / f"{name}_dwi"
        stem.parent.mkdir()
        stem.with_suffix(".nii.gz").write_bytes(_nifti(subject.images[flips], affine, hospital.tr_ms / 1000))
        stem.with_suffix(".bval").write_text(" ".join(f"{b:g}" for b in hospital.b_values) + "\n")
        rows = gradient_directions(hospital)
        stem.with_suffix(".bvec").write_text("".join(" ".join(f"{v:g}" for v in row) + "\n" for row in rows))
        stem.with_suffix(".json").write_text(_json(_sidecar(hospital)))


def write_hospital(root: Path, hospital: Hospital, records: Sequence[Record]) -> None:
    """Put what describes a hospital as a whole into its root: description, read-me, and the table of participants."""
    generator = {"Name": "mhsev", "Version": __version__}
    description = {"Name": f"Simulated hospital {hospital.name}", "BIDSVersion": _BIDS_VERSION, "DatasetType": "raw"}
    truth = {**description, "Name": f"Microbleeds planted at {hospital.name}", "DatasetType": "derivative"}
    write_text(root / "dataset_description.json", _json({**description, "GeneratedBy": [generator]}))
    write_text(root / "derivatives/truth/dataset_description.json", _json({**truth, "GeneratedBy": [generator]}))
    write_text(root / "README", _README.format(name=hospital.name, underline="=" * (19 + len(hospital.name))))
    write_text(root / "participants.json", _json(_PARTICIPANT_COLUMNS))
    lines = ["\t".join(("participant_id", *_PARTICIPANT_COLUMNS))]
    for index, (clinical, n_microbleeds) in enumerate(records, start=1):
        flags = (int(clinical.hypertension), int(clinical.anticoagulant))
        cells = (subject_id(index), clinical.age, clinical.sex, *flags, n_microbleeds)
        lines.append("\t".join(str(cell) for cell in cells))
    write_text(root / "participants.tsv", "\n".join(lines) + "\n")


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


def stored_affine(hospital: Hospital) -> NDArray[np.float64]:
    """``(4, 4)``, from stored voxel indices to RAS+ mm."""
    affine = np.eye(4)
    for axis, code in enumerate(hospital.orientation):
        positions = hospital.grid.axis(axis)
        sign = 1 if code in "RAS" else -1
        affine[axis, axis] = sign * hospital.spacing[axis]
        affine[axis, 3] = positions[0] if sign > 0 else positions[-1]
    return affine


def gradient_directions(hospital: Hospital) -> NDArray[np.float64]:
    """``(3, N)`` unit vectors in FSL's convention: along the stored axes, the first turned where they are right-handed.

    The diffusion-weighted volumes take X, Y and Z of the world in turn; b = 0 volumes have no direction.
    """
    signs = np.array([1.0 if code in "RAS" else -1.0 for code in hospital.orientation])
    if signs.prod() > 0:
        signs[0] *= -1
    rows = np.zeros((3, len(hospital.b_values)))
    weighted = [volume for volume, b in enumerate(hospital.b_values) if b > 50]
    for number, volume in enumerate(weighted):
        rows[number % 3, volume] = signs[number % 3]
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


def _sidecar(hospital: Hospital) -> dict[str, Any]:
    """What BIDS asks of a diffusion series, and the noise it was made with."""
    return {
        "Modality": "MR",
        "MagneticFieldStrength": 3,
        "Manufacturer": hospital.manufacturer,
        "ManufacturersModelName": f"mhsev {hospital.name}",
        "PulseSequenceType": "Spin-echo diffusion",
        "EchoTime": hospital.te_ms / 1000,
        "RepetitionTime": hospital.tr_ms / 1000,
        "SliceThickness": hospital.spacing[2],
        "ConversionSoftware": "mhsev",
        "ConversionSoftwareVersion": __version__,
    }


def _json(values: Any) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
