"""What a DICOM series must fulfil before it is converted.

Converters take an incomplete series for a complete one: with slices missing, dcm2niix writes a volume of the slices
that are there, mixes volumes, or changes the slice distance, and reports success. All of that shows in the headers
beforehand: every b-value must have the same slice positions, equally often, at one distance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom.frames import Frame
from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.pixels import pixel_digest
from mhsev_monai.ingest.dicom.positions import heights, n_orientations, normal, places

SAME_ECHO_MS = 0.5
"""Echo times that differ by less are one: some scanners write 80.04 on b0 and 80.06 on the others."""
_AGAIN = "export the whole series again"
_STEP_TOLERANCE = 0.02
_SIDEWAYS_MM = 0.2
_MOST_END_SLICES = 5
# Every second slice missing makes twice the distance; a gap between slices is part of the stated distance.
_SKIPPED = 1.9
_DERIVED_FRAMES = {"ADC", "ADC_UNSPECIFIED", "TRACEW", "TRACE", "ISOTROPIC", "FA", "EADC", "COLFA", "DERIVED"}


@dataclass(frozen=True)
class SeriesPlan:
    """A series that passed, and what its volume must come to.

    Attributes:
        files: one a file, without copies, in the order of instance numbers.
        n_slices: slices of a volume; 0 where only the pictures of a mosaic tell.
        n_volumes: volumes, those of derived frames not counted.
        warnings: what is odd yet can be worked with.
    """

    files: tuple[DicomFile, ...]
    n_slices: int
    n_volumes: int
    warnings: tuple[str, ...]


def is_derived(frame: Frame) -> bool:
    """Whether a frame of an enhanced file is a map among originals, such as the ADC that Philips appends."""
    return bool(_DERIVED_FRAMES & set(frame.image_type))


def check_series(files: Sequence[DicomFile]) -> SeriesPlan:
    """A plan for converting files of one series and kind.

    Raises:
        ScanError: if slices are missing, twice there, at unequal distances, of several geometries, or cut off.
    """
    kept, n_copies = _without_copies(files)
    copies = (f"{n_copies} files are copies of others and are left out",) if n_copies else ()
    _check_pictures(kept)
    plan = _check_mosaics(kept) if any(file.mosaic for file in kept) else _check_slices(kept)
    return replace(plan, warnings=(*copies, *plan.warnings))


def _without_copies(files: Sequence[DicomFile]) -> tuple[tuple[DicomFile, ...], int]:
    """The files without those that are there twice, and how many those are."""
    digests: dict[str, bytes] = {}
    contents: set[tuple[object, ...]] = set()
    kept = []
    for file in sorted(files, key=lambda file: (file.instance or 0, file.path.name)):
        digest, blank = pixel_digest(file)
        if file.instance_uid and digests.get(file.instance_uid, digest) != digest:
            raise ScanError(f"two different images have one SOP Instance UID; {_AGAIN}")
        frame = file.frames[0]
        content = (file.instance, frame.position, frame.orientation, frame.b_value, frame.echo_time, digest)
        if file.instance_uid not in digests and (blank or content not in contents):
            kept.append(file)
        contents.add(content)
        if file.instance_uid:
            digests[file.instance_uid] = digest
    return tuple(kept), len(files) - len(kept)


def _check_pictures(files: Sequence[DicomFile]) -> None:
    """One matrix, one kind of picture, as many frames as are described."""
    sizes = {(file.rows, file.columns) for file in files}
    if len(sizes) > 1:
        listed = " and ".join(f"{rows} x {columns}" for rows, columns in sorted(sizes)[:3])
        raise ScanError(f"images of different sizes ({listed}) came in one series; one is accepted; {_AGAIN}")
    if any(file.samples != 1 or file.photometric not in ("MONOCHROME2", "") for file in files):
        raise ScanError("colour or inverted pictures came; MONOCHROME2 is accepted; give the original series")
    if len({(file.bits_allocated, file.signed) for file in files}) > 1:
        raise ScanError(f"images of different number formats came in one series; {_AGAIN}")
    for file in files:
        if len(file.frames) != file.n_frames:
            raise ScanError(f"a file announces {file.n_frames} frames and describes {len(file.frames)}; {_AGAIN}")


def _check_geometry(frames: Sequence[Frame]) -> None:
    """Every frame has a place, all are parallel and of one pixel size."""
    unplaced = sum(not (frame.position and frame.orientation and frame.spacing) for frame in frames)
    if unplaced:
        raise ScanError(
            f"{unplaced} of {len(frames)} slices do not tell their position, orientation or pixel size; {_AGAIN}"
        )
    for frame in frames:
        rows, columns = np.asarray(frame.orientation[:3]), np.asarray(frame.orientation[3:])
        lengths = abs(np.linalg.norm(rows) - 1) + abs(np.linalg.norm(columns) - 1)
        if lengths + abs(float(rows @ columns)) > 0.01 or min(frame.spacing) <= 0:
            raise ScanError(f"the orientation or pixel size of a slice is impossible; {_AGAIN}")
    spacings = np.array([frame.spacing for frame in frames])
    if np.ptp(spacings, axis=0).max() > 1e-3 * spacings.max():
        raise ScanError(f"slices of different pixel size came in one series; one is accepted; {_AGAIN}")


def _check_mosaics(files: Sequence[DicomFile]) -> SeriesPlan:
    """Pictures that hold a whole volume each: Siemens MOSAIC, UIH VFRAME."""
    counts = {file.n_tiles for file in files}
    if len(counts) > 1 or not all(file.mosaic for file in files):
        raise ScanError(f"mosaics of different numbers of slices came in one series; one is accepted; {_AGAIN}")
    frames = [file.frames[0] for file in files]
    _check_geometry(frames)
    positions = np.array([frame.position for frame in frames])
    if n_orientations(files) > 1 or np.ptp(positions, axis=0).max() > _SIDEWAYS_MM:
        raise ScanError(f"the volumes of the series lie at different places; one place is accepted; {_AGAIN}")
    return SeriesPlan(tuple(files), counts.pop(), len(files), _missing_volumes(files))


def _missing_volumes(files: Sequence[DicomFile]) -> tuple[str, ...]:
    """A warning where files of a volume each are numbered with gaps: the others are whole without the missing ones."""
    instances = sorted({file.instance for file in files if file.instance is not None})
    gaps = instances[-1] - instances[0] + 1 - len(instances) if instances else 0
    return (f"{gaps} volumes seem to be missing: the numbering has gaps",) if gaps > 0 else ()


def _check_slices(files: Sequence[DicomFile]) -> SeriesPlan:
    """One slice a frame, in one or many files."""
    numbered = [(file, frame) for file in files for frame in file.frames if not is_derived(frame)]
    frames = [frame for _, frame in numbered]
    if not frames:
        raise ScanError("the series holds derived images only; give the original series")
    _check_geometry(frames)
    if n_orientations(files) > 1:
        raise ScanError(f"slices of {n_orientations(files)} orientations came in one series; one is accepted; {_AGAIN}")
    echoes = [frame.echo_time for frame in frames if frame.echo_time is not None]
    if echoes and max(echoes) - min(echoes) > SAME_ECHO_MS:
        raise ScanError("several echo times came in one series; one is accepted; export each echo as a series")
    where, index = places(heights(frames))
    step = _check_distances(frames, where)
    stated = max((value for file in files for value in file.slice_steps), default=step)
    if step > _SKIPPED * stated:
        raise ScanError(f"the slices lie {step:.2f} mm apart where the header says {stated:.2f} mm; {_AGAIN}")
    n_volumes = _check_groups(frames, index, len(where))
    declared = next((file.declared_slices for file in files if file.declared_slices), None)
    if declared is not None and len(where) < declared:
        raise ScanError(f"the volume holds {len(where)} of {declared} slices; {_AGAIN}")
    _check_stack(frames, index)
    # A frame of an enhanced file has no instance number of its own.
    instances = [file.instance if len(file.frames) == 1 else None for file, _ in numbered]
    warnings = _check_numbering(instances, index, len(where))
    if len(files) > 1 and all(len(file.frames) == len(where) for file in files):
        warnings = _missing_volumes(files)
    return SeriesPlan(tuple(files), len(where), n_volumes, warnings)


def _check_distances(frames: Sequence[Frame], where: NDArray[np.float64]) -> float:
    """The distance of neighbouring slices, the same everywhere, and none of them shifted sideways."""
    if len(where) < 2:
        raise ScanError(f"the series holds one slice position; 2 and more are accepted; {_AGAIN}")
    steps = np.diff(where)
    step = float(np.median(steps))
    if np.abs(steps - step).max() > max(_STEP_TOLERANCE * step, 0.02):
        raise ScanError(
            f"the slices lie {steps.min():.2f} to {steps.max():.2f} mm apart, equal distances are accepted: slices are "
            f"missing or belong to another volume; {_AGAIN}"
        )
    positions = np.array([frame.position for frame in frames])
    across = normal(frames[0].orientation)
    sideways = positions - np.outer(positions @ across, across)
    if np.ptp(sideways, axis=0).max() > _SIDEWAYS_MM:
        raise ScanError(f"slices are shifted sideways by up to {np.ptp(sideways, axis=0).max():.1f} mm; {_AGAIN}")
    return step


def _check_groups(frames: Sequence[Frame], index: NDArray[np.int64], n_slices: int) -> int:
    """The number of volumes; each b-value has every slice position, all equally often."""
    # Slices without the element are the b = 0 ones of a series whose others have it (Canon, GE).
    b_values = [frame.b_value or 0.0 for frame in frames]
    n_volumes = 0
    for b_value in sorted(set(b_values)):
        counts = Counter(int(place) for place, b in zip(index, b_values, strict=True) if b == b_value)
        found = [counts.get(place, 0) for place in range(n_slices)]
        if min(found) != max(found):
            short = sum(n < max(found) for n in found)
            raise ScanError(
                f"the volumes with b = {b_value:g} s/mm^2 are incomplete: {short} of {n_slices} slice positions hold "
                f"fewer images than the others ({min(found)} to {max(found)}); {_AGAIN}"
            )
        n_volumes += max(found)
    return n_volumes


def _check_stack(frames: Sequence[Frame], index: NDArray[np.int64]) -> None:
    """Where the frames number their slices within the stack, the numbers run from 1 without a gap."""
    numbers = [frame.stack_position for frame in frames]
    if len({frame.stack for frame in frames}) > 1 or any(number is None for number in numbers):
        return
    pairs = set(zip(index.tolist(), numbers, strict=True))
    found = sorted({number for number in numbers if number is not None})
    if len(pairs) == len(found) == int(index.max()) + 1 and found != list(range(1, len(found) + 1)):
        raise ScanError(f"the stack holds slices {found[0]} to {found[-1]}, {len(found)} in number; {_AGAIN}")


def _check_numbering(instances: Sequence[int | None], index: NDArray[np.int64], n_slices: int) -> tuple[str, ...]:
    """Where whole volumes are numbered one after the other, each takes as many numbers as there are slices.

    The same end slice missing in every volume shows nowhere else. Other gaps are those of objects that were left out.

    Returns:
        A warning where volumes seem to be missing.
    """
    known = [instance for instance in instances if instance is not None]
    if len(known) < len(instances) or len(set(known)) < len(known):
        return ()
    order = np.argsort(known)
    starts = np.asarray(known)[order][::n_slices]
    volumes = index[order][: len(order) // n_slices * n_slices].reshape(-1, n_slices)
    if len(volumes) < 2 or any(len(set(volume)) < n_slices for volume in volumes.tolist()):
        return ()
    strides = np.diff(starts)
    stride = int(strides.min())
    if (strides % n_slices == 0).all():
        missing = int((strides // n_slices - 1).sum())
        return (f"{missing} volumes seem to be missing: the numbering has gaps",) if missing else ()
    if (strides % stride == 0).all() and n_slices < stride <= n_slices + _MOST_END_SLICES:
        raise ScanError(f"the numbering gives a volume {stride} slices, and {n_slices} are there; {_AGAIN}")
    return ()
