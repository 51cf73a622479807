"""Whether a converted volume is the series: every slice compared with the pixels of its DICOM frame, at its place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bvals import B0_MAX
from mhsev_monai.ingest.dicom.frames import Frame
from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.mosaics import mosaic_frames
from mhsev_monai.ingest.dicom.pixels import stored_frames
from mhsev_monai.ingest.dicom.preflight import SeriesPlan, is_derived

_AGAIN = "export the series again, or give it as NIfTI"
_PLACE_MM = 0.1
_SAME_DIRECTION = 0.01
_SAME_SIGNAL = 1.6
# They write a b-value on every image of a diffusion series: one that is absent was lost.
_ALWAYS_WRITTEN = ("Siemens", "Philips", "UIH")
# GE's EPI with reversed polarity is stored upside down under a header that says otherwise; dcm2niix knows and turns it.
_MIRRORED = "the pictures lie upside down in their files and were turned (GE EPI of reversed polarity)"


class Slice(NamedTuple):
    """A frame with its stored values, ``(rows, columns)``."""

    frame: Frame
    stored: NDArray[Any]


class Verified(NamedTuple):
    """Which volumes of a converted image to keep.

    Attributes:
        volumes: indices along the fourth axis, without those of derived frames.
        b_values: of the headers, s/mm^2, one a kept volume; None where no header tells one.
        directions: of the headers, LPS, one a kept volume; empty where no header tells one.
        scales: slope and intercept of each slice, ``(n_slices, n_volumes, 2)``.
        warnings: what is odd.
    """

    volumes: tuple[int, ...]
    b_values: tuple[float | None, ...]
    directions: tuple[tuple[float, ...], ...]
    scales: NDArray[np.float64]
    warnings: tuple[str, ...]


def verify(image: Any, plan: SeriesPlan) -> Verified:
    """Compare a converted image with its files.

    Args:
        image: nibabel image, 3-D or 4-D.
        plan: of the series.

    Raises:
        ScanError: if shape, geometry or voxels are not those of the series.
    """
    shape = (*image.shape, 1)[:4]
    if len(image.shape) not in (3, 4) or plan.n_slices not in (0, shape[2]):
        raise ScanError(
            f"the converter made {shape[2] if len(shape) > 2 else 0} slices of a series of {plan.n_slices}; {_AGAIN}"
        )
    first = plan.files[0]
    slices = _slices(plan.files, image)
    mirrored = first.vendor == "GE" and _is_mirrored(image, slices, shape)
    try:
        frames = _match(image, slices, shape, mirrored)
    except ScanError:
        if not first.mosaic or first.vendor == "Siemens":
            raise
        frames = _match(image, _slices(plan.files, image, backwards=True), shape, mirrored)
    kept = tuple(index for index, volume in enumerate(frames) if not any(is_derived(frame) for frame in volume))
    if len(kept) != plan.n_volumes:
        raise ScanError(f"the converter made {len(kept)} volumes of a series of {plan.n_volumes}; {_AGAIN}")
    warnings = (_MIRRORED,) if mirrored else ()
    scales = np.array([[(frame.slope, frame.intercept) for frame in frames[index]] for index in kept])
    b_values = tuple(_volume_b_value(frames[index]) for index in kept)
    directions = tuple(next((f.direction for f in frames[index] if f.direction), ()) for index in kept)
    return Verified(kept, b_values, directions, scales.transpose(1, 0, 2), warnings)


def _slices(files: Sequence[DicomFile], image: Any, backwards: bool = False) -> list[Slice]:
    """Every slice of every file; ``backwards`` as in ``mosaic_frames``."""
    found = []
    for file in files:
        stored = stored_frames(file)
        tiles = mosaic_frames(file, stored, image, backwards) if file.mosaic else None
        pairs = tiles if tiles is not None else zip(file.frames, stored, strict=True)
        found += [Slice(frame, values) for frame, values in pairs]
    return found


def _stored_values(image: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """The image's values before scaling, which are those of the DICOM files."""
    return np.asarray(image.dataobj.get_unscaled()).reshape(shape)


def _is_mirrored(image: Any, slices: Sequence[Slice], shape: tuple[int, ...]) -> bool:
    """Whether the converter turned the pictures upside down against their header, judged by the fullest slice."""
    views = _Views(np.asarray(image.affine, dtype=np.float64), slices, shape)
    fullest = max(slices, key=lambda item: int(item.stored.sum(dtype=np.int64)))
    stack = _stored_values(image, shape)[:, :, views.height(fullest.frame)]
    planes = [views.as_stored(stack[:, :, t]) for t in range(shape[3])]
    upright = any(np.array_equal(plane, fullest.stored) for plane in planes)
    return not upright and any(np.array_equal(plane[::-1], fullest.stored) for plane in planes)


def _match(image: Any, slices: Sequence[Slice], shape: tuple[int, ...], mirrored: bool) -> list[list[Frame]]:
    """The frames of each volume, each frame used once."""
    views = _Views(np.asarray(image.affine, dtype=np.float64), slices, shape)
    data = _stored_values(image, shape)
    # By place and sum, so that few slices are compared in full.
    waiting: dict[tuple[int, int], list[Slice]] = defaultdict(list)
    for item in slices:
        waiting[views.height(item.frame), int(item.stored.sum(dtype=np.int64))].append(item)
    volumes = []
    for t in range(shape[3]):
        planes = [views.as_stored(data[:, :, k, t])[:: -1 if mirrored else 1] for k in range(shape[2])]
        volumes.append(_volume_frames(planes, waiting))
    left = sum(map(len, waiting.values()))
    if left:
        raise ScanError(f"the converter left out {left} slices of the series; {_AGAIN}")
    return volumes


def _volume_frames(planes: Sequence[NDArray[Any]], waiting: dict[tuple[int, int], list[Slice]]) -> list[Frame]:
    """The frames of one volume; they wait no longer."""
    candidates = []
    for k, plane in enumerate(planes):
        same = [item for item in waiting[k, int(plane.sum(dtype=np.int64))] if np.array_equal(item.stored, plane)]
        if not same:
            raise ScanError(f"the converted volume does not hold the pixels of the series in their places; {_AGAIN}")
        candidates.append(same)
    # Empty slices look alike in every volume: they belong where the others' b-value is theirs.
    certain = {same[0].frame.b_value for same in candidates if len(same) == 1}
    frames = []
    for k, same in enumerate(candidates):
        chosen = next((item for item in same if item.frame.b_value in certain), same[0])
        places = waiting[k, int(planes[k].sum(dtype=np.int64))]
        places.pop(next(n for n, item in enumerate(places) if item is chosen))
        frames.append(chosen.frame)
    return frames


class _Views:
    """How the axes of an image lie against those of its frames: any flips, in or across the slices."""

    def __init__(self, affine: NDArray[np.float64], slices: Sequence[Slice], shape: tuple[int, ...]) -> None:
        self._shape = shape
        # DICOM's world is LPS, NIfTI's RAS.
        if not abs(np.linalg.det(affine)) > 0:
            raise ScanError(f"the converted volume has no geometry; {_AGAIN}")
        self._to_voxel = np.linalg.inv(affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
        frame = slices[0].frame
        cosines = np.asarray(frame.orientation)
        # Pixel Spacing: between rows first. The column index runs along the first direction of the orientation.
        along = self._to_voxel[:3, :3] @ (cosines[:3] * frame.spacing[1])
        down = self._to_voxel[:3, :3] @ (cosines[3:] * frame.spacing[0])
        self._flips = (along[0] < 0, down[1] < 0)
        expected = np.array([[1 if along[0] > 0 else -1, 0, 0], [0, 1 if down[1] > 0 else -1, 0]])
        if np.abs(np.array([along, down]) - expected).max() > 0.01:
            raise ScanError(f"the converted volume has other axes or voxel sizes than the series; {_AGAIN}")

    def height(self, frame: Frame) -> int:
        """The slice index at which a frame lies."""
        voxel = self._to_voxel @ np.array([*frame.position, 1.0])
        corner = [self._shape[axis] - 1 if flipped else 0 for axis, flipped in enumerate(self._flips)]
        nearest = np.array([*corner, round(float(voxel[2]))])
        millimetres = np.linalg.norm(np.linalg.inv(self._to_voxel)[:3, :3] @ (voxel[:3] - nearest))
        if millimetres > _PLACE_MM * max(1.0, min(frame.spacing)) or not 0 <= nearest[2] < self._shape[2]:
            raise ScanError(f"the converted volume does not lie where the series does; {_AGAIN}")
        return int(nearest[2])

    def as_stored(self, plane: NDArray[Any]) -> NDArray[Any]:
        """A slice ``(X, Y)`` of the image as rows and columns of a frame."""
        for axis, flipped in enumerate(self._flips):
            plane = np.flip(plane, axis) if flipped else plane
        return plane.T


def _volume_b_value(frames: Sequence[Frame]) -> float | None:
    """The b-value of a volume's frames, which are of one diffusion direction."""
    found = {frame.b_value for frame in frames}
    if len(found) > 1:
        raise ScanError(f"the converted volume mixes b-values; {_AGAIN}")
    directions = np.array([frame.direction for frame in frames if frame.direction])
    if len(directions) and np.ptp(directions, axis=0).max() > _SAME_DIRECTION:
        raise ScanError(f"the converted volume mixes diffusion directions; {_AGAIN}")
    return found.pop()


def checked_b_values(
    converted: NDArray[np.float64] | None, verified: Verified, vendor: str
) -> NDArray[np.float64] | None:
    """The b-values of the kept volumes, s/mm^2; None where nobody knows them.

    The headers decide, since they were compared slice by slice: dcm2niix writes 0 for trace-weighted volumes among
    directional ones, 0 for all where it finds no element, and six digits.

    Args:
        converted: of all volumes of the converted image; None where the converter wrote none, or too few.
        verified: with the b-values of the headers.
        vendor: of the scanner.

    Raises:
        ScanError: if some volumes have no b-value in their headers, and nothing says that it is 0.
    """
    own = verified.b_values
    if all(b is None for b in own):
        known = converted is not None and converted.max() > B0_MAX
        return converted[list(verified.volumes)] if converted is not None and known else None
    if None in own and (vendor in _ALWAYS_WRITTEN or not any(b is not None and b > B0_MAX for b in own)):
        n_unknown = sum(b is None for b in own)
        raise ScanError(f"{n_unknown} of {len(own)} volumes have no b-value in their headers; {_AGAIN}")
    # Canon and GE leave the element out of b = 0 slices.
    return np.array([b or 0.0 for b in own])


def check_b0_signal(image: Any, volumes: Sequence[int], b_values: NDArray[np.float64]) -> None:
    """Refuse volumes of b = 0 that differ as only diffusion weighting makes them differ.

    Args:
        image: nibabel image, one scale for all volumes.
        volumes: those that are kept.
        b_values: of these, s/mm^2.

    Raises:
        ScanError: if the mean signal of one is more than 1.6 times that of another.
    """
    data = np.asarray(image.dataobj.get_unscaled())
    means = [
        float(data[..., t].mean()) for t, b in zip(volumes, b_values, strict=True) if b <= B0_MAX and data.ndim == 4
    ]
    if len(means) > 1 and max(means) > _SAME_SIGNAL * min(means):
        raise ScanError(
            "volumes that count as b = 0 differ in signal as only diffusion weighting makes them differ: "
            f"their b-values were lost; {_AGAIN}"
        )


def open_image(path: Any) -> Any:
    """The converted image.

    Raises:
        ScanError: if it cannot be read.
    """
    try:
        return nib.Nifti1Image.from_filename(path)
    except Exception:
        # The child may have been ended while it wrote; nibabel's errors then are of many kinds, and name the path.
        raise ScanError(f"the converter's image cannot be read; {_AGAIN}") from None
