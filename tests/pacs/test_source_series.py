"""The slices that results refer to, and what happens where the converter turned the pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_heads import SPOT, write_head
from small_heads import SHAPE

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom.series import convert_series, group_series
from mhsev_monai.ingest.source import look_through
from mhsev_monai.pacs.frame_sources import snapped
from mhsev_monai.pacs.geometry import FrameVolume, to_patient
from mhsev_monai.pacs.source_series import source_series


def in_volume(series, scan) -> tuple[int, ...]:
    """The voxel of the converted volume that holds the spot: the darkest against the same head without it."""
    near = scan.stored[..., 0].astype(float)
    wanted = series.volume[SPOT]
    (found,) = (index for index in np.argwhere(near == wanted) if near[tuple(index - (1, 0, 0))] > 3 * wanted)
    return tuple(int(i) for i in found)


@pytest.mark.parametrize("orientation", ["sagittal", "oblique"])
def test_where_pictures_were_turned_results_follow_the_header(orientation, tmp_path):
    """The converter turns some of GE's pictures over; the voxel then lies elsewhere, the pixel does not."""
    head = write_head(tmp_path / "in", orientation)
    (series,) = group_series(look_through(head.folder).dicom)
    scan, _ = convert_series(series)
    turned = replace(scan, stored=scan.stored[:, ::-1])
    for each in (scan, turned):
        source = source_series(series, each)
        voxel = in_volume(head, each)
        point = to_patient(source.to_source @ each.affine, voxel)
        assert np.allclose(point, head.point(), atol=0.01)
        plane = source.slices[SPOT[2]].plane
        assert plane.distance(point) == pytest.approx(0, abs=0.01)
        assert plane.pixel(point) == pytest.approx(SPOT[:2], abs=0.01)
    assert in_volume(head, scan) != in_volume(head, turned)


def test_slices_that_are_not_in_the_volume_are_refused(tmp_path):
    head = write_head(tmp_path / "in")
    (series,) = group_series(look_through(head.folder).dicom)
    scan, _ = convert_series(series)
    for stored in (scan.stored + 1, scan.stored[:, :, :-1]):
        with pytest.raises(ScanError, match="not found in the converted volume"):
            source_series(series, replace(scan, stored=stored))


def test_without_identifiers_nothing_can_be_filed(tmp_path):
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.StudyInstanceUID = ""
        return dataset

    head = write_head(tmp_path / "in", change=change)
    (series,) = group_series(look_through(head.folder).dicom)
    scan, _ = convert_series(series)
    with pytest.raises(ScanError, match="results cannot be filed"):
        source_series(series, scan)


def test_frames_of_another_grid_keep_their_own_places(tmp_path):
    head = write_head(tmp_path / "in")
    (series,) = group_series(look_through(head.folder).dicom)
    source = source_series(series, convert_series(series)[0])
    affine = np.eye(4)
    shape = (SHAPE[2], SHAPE[1], SHAPE[0])
    coarser, elsewhere = FrameVolume(np.zeros((4, 5, 6)), affine), FrameVolume(np.zeros(shape), affine)
    assert snapped(coarser, source) is coarser
    assert snapped(elsewhere, source) is elsewhere
