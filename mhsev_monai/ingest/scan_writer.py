"""A scan into a BIDS root: image with a fresh header, b-values, directions and sidecar, all or nothing."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError

_GZIP_LEVEL = 6


@dataclass(frozen=True, eq=False)
class NewScan:
    """A scan that is to be written.

    Attributes:
        stored: ``(X, Y, Z, N)`` or ``(X, Y, Z)`` values as stored.
        affine: ``(4, 4)`` to RAS+ mm.
        slope, intercept: from stored to real values.
        oriented: whether the affine tells left from right; if not, the header says so too.
        b_values: ``(N,)`` s/mm^2; None where no volume is diffusion-weighted and none is needed.
        directions: ``(3, N)`` as FSL has them; None where unknown.
        sidecar: facts that may be kept, see ``sidecar``.
    """

    stored: NDArray[Any]
    affine: NDArray[np.float64]
    slope: float = 1.0
    intercept: float = 0.0
    oriented: bool = True
    b_values: NDArray[np.float64] | None = None
    directions: NDArray[np.float64] | None = None
    sidecar: Mapping[str, Any] = field(default_factory=dict)


def scan_from_nifti(image: Any, volumes: tuple[int, ...] | None = None) -> NewScan:
    """The stored values and the grid of a nibabel image; nothing else of its header.

    Raises:
        ScanError: if its voxels cannot be read.
    """
    try:
        proxy = image.dataobj
        stored = np.asarray(proxy.get_unscaled())
        slope, intercept = float(proxy.slope), float(proxy.inter)
    except (OSError, EOFError, ValueError):
        raise ScanError("the voxels of the image cannot be read to their end; copy or convert it again") from None
    if volumes is not None and stored.ndim == 4 and volumes != tuple(range(stored.shape[3])):
        stored = stored[..., list(volumes)]
    oriented = bool(image.header["sform_code"] or image.header["qform_code"])
    return NewScan(stored, np.asarray(image.affine, dtype=np.float64), slope, intercept, oriented)


def with_scales(scan: NewScan, scales: NDArray[np.float64]) -> NewScan:
    """The scan under the rescale slopes and intercepts of its slices: kept beside the values if they are all equal.

    Args:
        scan: its stored values ``(X, Y, Z, N)`` or ``(X, Y, Z)``.
        scales: ``(Z, N, 2)``, slope and intercept.
    """
    slope, intercept = scales[0, 0].tolist()
    if (scales == scales[0, 0]).all():
        return replace(scan, slope=slope, intercept=intercept)
    each = scales.reshape(*scan.stored.shape[2:], 2)
    real = scan.stored * each[..., 0] + each[..., 1]
    return replace(scan, stored=real.astype(np.float32), slope=1.0, intercept=0.0)


def write_scan(scan: NewScan, folder: Path, name: str) -> Path:
    """Write ``name.nii.gz`` and what belongs to it into a folder; returns the image's path.

    Equal scans give equal bytes: no time or name enters the compressed stream.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = np.asarray(scan.stored)
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    with (folder / f"{name}.nii.gz").open("wb") as file, gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as stream:
        stream.write(_header(replace(scan, stored=stored)).binaryblock + bytes(4))
        # By volume: the first axis runs fastest, as the transposed array lies in memory.
        for volume in np.moveaxis(stored, -1, 0) if stored.ndim == 4 else [stored]:
            stream.write(np.ascontiguousarray(volume.T).data)
    if scan.b_values is not None:
        (folder / f"{name}.bval").write_text(" ".join(f"{value:.10g}" for value in scan.b_values) + "\n")
    if scan.directions is not None:
        rows = (" ".join(f"{value:.8g}" for value in row) for row in scan.directions)
        (folder / f"{name}.bvec").write_text("\n".join(rows) + "\n")
    if scan.sidecar:
        (folder / f"{name}.json").write_text(json.dumps(dict(scan.sidecar), indent=1, sort_keys=True) + "\n")
    return folder / f"{name}.nii.gz"


def move_scan(image: Path, folder: Path, name: str) -> Path:
    """Move an image and its companions into a folder under a name, the image last: a scan that is there is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = image.name.removesuffix(".nii.gz")
    for ending in (".bval", ".bvec", ".json", ".nii.gz"):
        source, target = image.with_name(stem + ending), folder / (name + ending)
        if not source.is_file():
            target.unlink(missing_ok=True)
            continue
        # Copied beside and renamed, since the folders may lie on different disks.
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    return folder / f"{name}.nii.gz"


def _header(scan: NewScan) -> Any:
    header = nib.Nifti1Header()
    header.set_data_dtype(scan.stored.dtype)
    header.set_data_shape(scan.stored.shape)
    header.set_data_offset(352)
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    header.set_zooms((*spacing.tolist(), *(1.0,) * (scan.stored.ndim - 3)))
    header.set_sform(scan.affine, code=1 if scan.oriented else 0)
    header.set_qform(scan.affine, code=1 if scan.oriented else 0, strip_shears=True)
    header.set_xyzt_units("mm", "sec")
    if (scan.slope, scan.intercept) != (1.0, 0.0):
        header.set_slope_inter(scan.slope, scan.intercept)
    return header
