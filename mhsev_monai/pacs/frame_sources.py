"""How objects that have frames of their own refer to the source, and lie exactly over it where they can."""

from __future__ import annotations

from typing import Any

import numpy as np

from mhsev_monai.pacs.geometry import FrameVolume
from mhsev_monai.pacs.source_series import SourceSeries

_SAME_PLACE_MM = 0.1


def frame_sources(source: SourceSeries) -> dict[str, Any]:
    """The arguments of highdicom's classes for the source: of several multi-frame files, only one may come first."""
    references = list(source.references)
    if "NumberOfFrames" not in references[0]:
        return {"source_images": references}
    return {"source_images": references[:1], "further_source_images": references[1:] or None}


def snapped(frames: FrameVolume, source: SourceSeries) -> FrameVolume:
    """Frames with the very geometry of the source's slices, if they lie where these do.

    The converter's affine has 7 digits; viewers that lay frames over slices may ask for more.
    """
    first, last = source.slices[0].plane, source.slices[-1].plane
    if frames.array.shape != (len(source.slices), *source.slices[0].stored.shape):
        return frames
    affine = np.eye(4)
    affine[:3, 0] = (np.asarray(last.position) - np.asarray(first.position)) / (len(source.slices) - 1)
    affine[:3, 1] = np.asarray(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2] = np.asarray(first.orientation[:3]) * first.spacing[1]
    affine[:3, 3] = first.position
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(frames.array.shape) - 1
    moved = (corners @ (affine - frames.affine).T)[:, :3]
    return FrameVolume(frames.array, affine) if np.abs(moved).max() <= _SAME_PLACE_MM else frames
