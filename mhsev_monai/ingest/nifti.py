"""Diffusion series from NIfTI files, checked once, here, so that no later room meets a broken scan.

Whatever is wrong with a file becomes one :class:`~mhsev_monai.errors.ScanError` sentence without the file's name. Free
text of the header (``descrip``, ``aux_file``, ``intent_name``, extensions) is never read: converters put acquisition
times, comments and sometimes names there.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bvals import B0_MAX, check_bvals, find_bvals, image_stem, read_bvals
from mhsev_monai.ingest.geometry import checked_geometry

# 4 GiB as float32, room for 288 volumes of 145 x 174 x 145.
_MAX_VOXELS = 2**30
_MIN_IN_PLANE = 8
_MIN_SLICES = 2
_MAX_NOT_FINITE = 0.01
_HEADER_CLASSES = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
_GZIP_MAGIC = b"\x1f\x8b"
_DAMAGED = (EOFError, OSError, zlib.error)
_CONVERT = "convert the DICOM series with dcm2niix"


@dataclass(frozen=True, eq=False)
class DWISeries:
    """A diffusion series that passed every check.

    Attributes:
        data: ``(X, Y, Z, N)`` float32, finite, scaled as the header says, in storage order.
        affine: ``(4, 4)`` from voxel indices to RAS+ world coordinates in mm.
        bvals: ``(N,)`` b-values, s/mm^2, as acquired.
        spacing: voxel size along X, Y and Z, mm.
        warnings: what is odd about the scan yet can be worked with, one sentence each.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    bvals: NDArray[np.float64]
    spacing: tuple[float, float, float]
    warnings: tuple[str, ...]


def read_dwi(image: Path, bvals: Path | None = None, *, b0_only: bool = False) -> DWISeries:
    """A checked diffusion series from a ``.nii`` or ``.nii.gz`` file.

    Args:
        image: the NIfTI file, 4-D, or 3-D for a single volume.
        bvals: its ``.bval`` file; searched beside the image, and higher up for BIDS names, where not given.
        b0_only: every volume is b = 0, no ``.bval`` needed (spin-echo EPI without diffusion, T2*-GRE). A ``.bval``
            that is there all the same must agree.

    Returns:
        The series. Voxels that are not finite are 0 (with a warning), volumes of a single value are left out (with a
        warning).

    Raises:
        ScanError: if the scan cannot be used: one sentence with what came, what is accepted and the remedy.
    """
    nifti = open_nifti(Path(image))
    shape = _checked_shape(nifti)
    geometry = checked_geometry(nifti.header)
    values = _b_values(Path(image), bvals, n_volumes=shape[3], b0_only=b0_only)
    b_warnings = check_bvals(values, n_volumes=shape[3])
    data, data_warnings = _finite_voxels(nifti, shape)
    kept, left_out = _informative(data)
    if not (values[kept] <= B0_MAX).any():
        raise ScanError(f"every b = 0 volume holds a single value; {_CONVERT} again")
    warnings = (*geometry.warnings, *b_warnings, *data_warnings, *left_out)
    return DWISeries(data if kept.all() else data[..., kept], geometry.affine, values[kept], geometry.spacing, warnings)


def open_nifti(path: Path) -> Any:
    """The nibabel image of a file, its bytes in memory and its checksum verified.

    Raises:
        ScanError: if the file is no NIfTI, or cut off or damaged.
    """
    compressed = _is_compressed(path)
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            return _parse(stream)
    except ScanError:
        raise
    except _DAMAGED:
        raise ScanError("the file is cut off or damaged: it ends too early; copy or convert it again") from None
    except (HeaderDataError, ImageFileError, ValueError, TypeError, OverflowError):
        raise ScanError(f"the header is damaged and cannot be read; copy the file again, or {_CONVERT}") from None


def _is_compressed(path: Path) -> bool:
    """Whether the file is gzip; its name, its content and its kind are checked on the way."""
    if not path.exists():
        if path.is_symlink():
            raise ScanError(
                "the file is a link to content that is not here; fetch it, with `git annex get` for example"
            )
        raise ScanError("there is no such file; check the name, and that the disk is mounted")
    if not path.is_file():
        raise ScanError("a folder came where one .nii or .nii.gz file is accepted; give the file")
    try:
        with path.open("rb") as stream:
            start = stream.read(540)
    except OSError:
        raise ScanError("the file cannot be opened; check its permissions") from None
    if not start:
        raise ScanError("the file is empty, 0 bytes; copy or convert it again")
    if start[128:132] == b"DICM":
        raise ScanError(f"a DICOM file came where .nii or .nii.gz is accepted; {_CONVERT}")
    compressed, named_gz = start.startswith(_GZIP_MAGIC), path.name.lower().endswith(".gz")
    if image_stem(path.name) is None or not (compressed or _image_class(start)):
        raise ScanError(f"this is not a NIfTI file; .nii and .nii.gz are accepted; {_CONVERT}")
    if compressed != named_gz:
        content, ending = ("gzip-compressed", ".nii.gz") if compressed else ("not compressed", ".nii")
        raise ScanError(f"the content is {content} but the name says otherwise; rename it to end in {ending}")
    return compressed


def _image_class(start: bytes) -> Any:
    """The nibabel class for a file that starts so, or None: the first integer of a NIfTI file is its header's size."""
    for order in "<>":
        image_class = _HEADER_CLASSES.get(int(np.frombuffer(start[:4], order + "i4")[0])) if len(start) >= 4 else None
        if image_class is not None:
            return image_class
    return None


def _parse(stream: gzip.GzipFile | BufferedReader) -> Any:
    """The image in a stream of NIfTI bytes, read to its end so that gzip compares the checksum."""
    image_class = _image_class(stream.read(4))
    if image_class is None:
        raise ScanError(f"what is compressed in the file is not NIfTI; .nii.gz is accepted; {_CONVERT}")
    stream.seek(0)
    header = image_class.header_class(_exactly(stream, image_class.header_class.sizeof_hdr))
    n_voxels = math.prod(header.get_data_shape())
    if n_voxels > _MAX_VOXELS:
        raise ScanError(f"the image holds {n_voxels} voxels; up to {_MAX_VOXELS} are accepted; split the series")
    size = header.get_data_offset() + n_voxels * header.get_data_dtype().itemsize
    stream.seek(0)
    content = _exactly(stream, size)
    while stream.read(2**20):
        pass
    return image_class.from_bytes(content)


def _exactly(stream: gzip.GzipFile | BufferedReader, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _checked_shape(nifti: Any) -> tuple[int, int, int, int]:
    """The shape as ``(X, Y, Z, N)``, of an image whose voxels are real numbers."""
    dtype = nifti.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        kind = "complex numbers" if dtype.kind == "c" else "colours"
        raise ScanError(f"the voxels are {kind}; real numbers are accepted; give the magnitude images of the series")
    shape = tuple(nifti.shape)
    size = " x ".join(map(str, shape))
    # Some writers append axes of length 1; any other fifth axis could be time, directions or vector components.
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4):
        raise ScanError(f"the image is {len(shape)}-D ({size}); 3-D and 4-D are accepted, volumes on the fourth axis")
    if min(shape[:2]) < _MIN_IN_PLANE or shape[2] < _MIN_SLICES or min(shape) < 1:
        raise ScanError(
            f"the image is {size} voxels; at least {_MIN_IN_PLANE} x {_MIN_IN_PLANE} voxels in {_MIN_SLICES} slices "
            "are accepted; give the whole series"
        )
    return (shape[0], shape[1], shape[2], shape[3] if len(shape) == 4 else 1)


def _b_values(image: Path, bvals: Path | None, *, n_volumes: int, b0_only: bool) -> NDArray[np.float64]:
    """The b-values of the image's volumes."""
    path = find_bvals(image) if bvals is None else Path(bvals)
    if path is None:
        if b0_only:
            return np.zeros(n_volumes)
        raise ScanError(
            "no .bval file with the b-values was found; put it beside the image under the same name, "
            "or, if no volume is diffusion-weighted, pass --b0-only (to ingest: --contrast se-epi, t2star or swi)"
        )
    values = read_bvals(path)
    if b0_only and values.max() > B0_MAX:
        raise ScanError(
            f"the scan was announced as b = 0 only but its .bval file goes up to {values.max():g} s/mm^2; "
            "leave out --b0-only"
        )
    return values


def _finite_voxels(nifti: Any, shape: tuple[int, int, int, int]) -> tuple[NDArray[np.float32], list[str]]:
    """The scaled voxels as float32 with 0 for the few that are not finite, and the warnings about them."""
    # A value beyond float32 becomes infinite, and is counted as such below.
    with np.errstate(over="ignore", invalid="ignore"):
        data = nifti.get_fdata(caching="unchanged", dtype=np.float32).reshape(shape, order="F")
    bad = ~np.isfinite(data)
    if not bad.any():
        return data, []
    # Counted in the worst volume: one ruined volume of many would pass a mean over the series, and spoil the trace.
    share = bad.mean(axis=(0, 1, 2)).max()
    if share > _MAX_NOT_FINITE:
        raise ScanError(
            f"{share:.1%} of the voxels of a volume are NaN or infinite; up to {_MAX_NOT_FINITE:.0%} is accepted; "
            "convert the series again, or set what lies outside the head to 0"
        )
    data[bad] = 0.0
    return data, [f"{int(bad.sum())} voxels are NaN or infinite and set to 0"]


def _informative(data: NDArray[np.float32]) -> tuple[NDArray[np.bool_], list[str]]:
    """Which volumes hold more than one value, ``(N,)``, and the warnings about those that do not."""
    kept = data.min(axis=(0, 1, 2)) < data.max(axis=(0, 1, 2))
    if not kept.any():
        value = "a single value" if data.any() else "zero only"
        raise ScanError(f"every volume holds {value}, so there is nothing to see; {_CONVERT} again")
    if kept.all():
        return kept, []
    left_out = ", ".join(str(index + 1) for index in np.flatnonzero(~kept))
    return kept, [f"of {len(kept)} volumes these hold a single value and are left out: {left_out}"]
