"""Small NIfTI files, sound or put together by hand, that the tests of this room share."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (12, 10, 4, 3)
BVALS = "0 1000 1000\n"
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
PATIENT = "Roe^Jane"


def voxels(shape: tuple[int, ...] = SHAPE, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(5).integers(1, 2000, shape).astype(dtype)


def save(path: Path, data: np.ndarray | None = None, affine: np.ndarray = AFFINE, bvals: str | None = BVALS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = voxels() if data is None else data
    nib.save(nib.Nifti1Image(data, affine, dtype=data.dtype), path)
    if bvals is not None:
        path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".bval").write_text(bvals)
    return path


def scan(folder: Path, *args, **kwargs) -> Path:
    return save(folder / f"{PATIENT}.nii.gz", *args, **kwargs)


def with_bytes(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def coded(folder: Path, sform: np.ndarray | None, qform: np.ndarray | None = None) -> Path:
    """An image put together by hand: nibabel mends or refuses odd orientations when it saves."""
    header = nib.Nifti1Image(voxels(), AFFINE).header
    header.set_data_offset(352)
    header.set_qform(qform, code=0 if qform is None else 1)
    if sform is None:
        header["sform_code"] = 0
    else:
        header["srow_x"], header["srow_y"], header["srow_z"], header["sform_code"] = *sform[:3], 1
    (folder / "x.bval").write_text(BVALS)
    return with_bytes(folder, "x.nii", header.binaryblock + bytes(4) + voxels().tobytes(order="F"))
