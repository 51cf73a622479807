"""Where the slices of a series lie along their common normal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mhsev_monai.ingest.dicom.frames import Frame
    from mhsev_monai.ingest.dicom.headers import DicomFile

SAME_PLACE_MM = 0.05
"""Two slices closer than this along the normal lie at one place: scanners write positions to 5 digits and more."""
SAME_DIRECTION = 1e-3
"""Largest difference between the direction cosines of parallel slices; GE writes them to 8 digits, differently."""


def n_orientations(files: Sequence[DicomFile]) -> int:
    """How many different slice orientations there are among frames that tell one."""
    found: list[NDArray[np.float64]] = []
    for orientation in {frame.orientation for file in files for frame in file.frames if frame.orientation}:
        cosines = np.asarray(orientation)
        if not any(np.abs(cosines - other).max() <= SAME_DIRECTION for other in found):
            found.append(cosines)
    return len(found)


def normal(orientation: Sequence[float]) -> NDArray[np.float64]:
    """Unit vector across the slices, from the directions of rows and columns."""
    cosines = np.asarray(orientation, dtype=np.float64)
    across = np.cross(cosines[:3], cosines[3:])
    length = float(np.linalg.norm(across))
    return across / length if length > 0 else across


def heights(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """``(N,)`` mm of each frame along the normal of the first; every frame has a position and an orientation."""
    positions = np.array([frame.position for frame in frames], dtype=np.float64).reshape(-1, 3)
    return positions @ normal(frames[0].orientation)


def places(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sorted places and, for each value, the index of its place."""
    order = np.argsort(values, kind="stable")
    steps = np.diff(values[order]) > SAME_PLACE_MM
    index = np.empty(len(values), dtype=np.int64)
    index[order] = np.concatenate([[0], np.cumsum(steps)]) if len(values) else []
    return np.array([values[index == place].mean() for place in range(int(index.max(initial=-1)) + 1)]), index


def slice_positions(files: Sequence[DicomFile]) -> tuple[float, ...]:
    """The places of the slices, mm; empty where a frame does not tell."""
    frames = [frame for file in files for frame in file.frames]
    if not frames or not all(len(frame.position) == 3 and len(frame.orientation) == 6 for frame in frames):
        return ()
    return tuple(places(heights(frames))[0].tolist())
