"""Geometry without files: pixels, frames and letters against hand-computed numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.pacs.geometry import SlicePlane, as_frames, patient_orientation

AXIAL = SlicePlane((-10.0, 20.0, 5.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (3.0, 2.0))
SAGITTAL = SlicePlane((7.0, -30.0, 40.0), (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (2.0, 2.0))


@pytest.mark.parametrize(
    ("plane", "point", "pixel", "distance"),
    [
        (AXIAL, (-10.0, 20.0, 5.0), (0, 0), 0),
        (AXIAL, (-6.0, 26.0, 8.0), (2, 2), 3),  # columns 2 mm apart, rows 3 mm
        (SAGITTAL, (7.0, -20.0, 34.0), (5, 3), 0),
        (SAGITTAL, (3.0, -30.0, 40.0), (0, 0), 4),  # the normal of these rows and columns points to the right
    ],
)
def test_a_point_falls_on_its_pixel(plane, point, pixel, distance):
    assert plane.pixel(point) == pytest.approx(pixel)
    assert plane.distance(point) == pytest.approx(distance)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
@pytest.mark.parametrize("plane", [AXIAL, SAGITTAL], ids=["axial", "sagittal"])
def test_frames_run_as_the_source_s_rows_and_columns_whatever_the_volume_s_axes_do(plane, signs):
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    to_lps = np.eye(4)
    axes = (np.array(plane.orientation[:3]) * 2, np.array(plane.orientation[3:]) * 3, plane.normal * 5)
    to_lps[:3, :3] = np.stack([axis * sign for axis, sign in zip(axes, signs, strict=True)], axis=1)
    to_lps[:3, 3] = (1.0, 2.0, 3.0)
    frames = as_frames(volume, to_lps, plane)
    assert frames.array.shape == (4, 3, 2)
    for axis, direction in enumerate((plane.normal, plane.orientation[3:], plane.orientation[:3])):
        assert frames.affine[:3, axis] @ np.array(direction) > 0
    # Every value stays at its place.
    for index in np.ndindex(4, 3, 2):
        voxel = np.linalg.inv(to_lps) @ frames.affine @ (*index, 1)
        assert volume[tuple(np.rint(voxel[:3]).astype(int))] == frames.array[index]


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        ((1, 0, 0, 0, 1, 0), ("L", "P")),
        ((0, 1, 0, 0, 0, -1), ("P", "F")),
        ((0.95, 0.3, 0, 0, 0.04, -1), ("LP", "F")),
    ],
)
def test_directions_have_letters(orientation, letters):
    assert patient_orientation(orientation) == letters
