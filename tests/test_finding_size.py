"""The extent of a spot's darkness against circles whose size is known."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.finding_size import LARGEST_MM, darkness_extent

SHAPE = (48, 48, 3)


def plane(spacing: tuple[float, float], centre_mm: tuple[float, float]) -> np.ndarray:
    """Distance of each voxel of ``SHAPE`` from a place in the middle slice, mm."""
    x, y = (np.arange(n) * side - at for n, side, at in zip(SHAPE, spacing, centre_mm, strict=False))
    return np.repeat(np.hypot(x[:, None], y[None, :])[..., None], SHAPE[2], axis=2)


@pytest.mark.parametrize("fwhm", [3.0, 4.0, 6.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.75, 1.75), (1.2, 2.0)])
def test_a_gaussian_dip_is_as_wide_as_its_full_width_at_half_depth(fwhm, spacing):
    centre = (24 * spacing[0], 24 * spacing[1])
    away = plane(spacing, centre)
    image = 1 - 0.6 * np.exp(-4 * np.log(2) * (away / fwhm) ** 2)
    found = darkness_extent(image, (24, 24, 1), (*spacing, 5.0), np.ones(SHAPE, bool))
    # Linear interpolation between voxels narrows a dip, by less than a third of a voxel.
    assert found == pytest.approx(fwhm, abs=max(spacing) / 3)


def test_the_depth_makes_no_difference_and_the_darkest_neighbour_is_taken():
    away = plane((1.5, 1.5), (36.0, 36.0))
    extents = [
        darkness_extent(1 - depth * np.exp(-(away**2) / 8), voxel, (1.5, 1.5, 3.0), np.ones(SHAPE, bool))
        for depth in (0.1, 0.9)
        for voxel in ((24, 24, 1), (25, 24, 1), (24.4, 23.3, 1.2))
    ]
    assert extents == pytest.approx([extents[0]] * len(extents), abs=1e-6)


def test_what_is_not_dark_or_has_no_edge_has_no_extent():
    away = plane((1.0, 1.0), (24.0, 24.0))
    inside = np.ones(SHAPE, bool)
    wide = np.where(away < LARGEST_MM, 0.3, 1.0)
    assert darkness_extent(np.ones(SHAPE), (24, 24, 1), (1.0, 1.0, 5.0), inside) is None
    assert darkness_extent(wide, (24, 24, 1), (1.0, 1.0, 5.0), inside) is None
    line = np.where(np.abs(np.arange(48) - 24)[:, None, None] < 2, 0.3, 1.0) * np.ones(SHAPE)
    assert darkness_extent(line, (24, 24, 1), (1.0, 1.0, 5.0), inside) is None


def test_darkness_outside_the_mask_does_not_count_and_the_border_is_no_error():
    away = plane((1.0, 1.0), (1.0, 24.0))
    image = np.where(away < 2.5, 0.3, 1.0)
    inside = np.ones(SHAPE, bool)
    at_border = darkness_extent(image, (1, 24, 1), (1.0, 1.0, 5.0), inside)
    assert at_border is not None
    assert 2.5 < at_border < 5.5
    inside[:, 26:] = False
    image[:, 26:] = 0.0
    assert darkness_extent(image, (1, 24, 1), (1.0, 1.0, 5.0), inside) == pytest.approx(at_border, abs=0.6)
