"""Descriptors of spots against geometry that is known."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.dsd.descriptors import DESCRIPTORS, ContrastImages, describe_peaks, high_pass_noise
from mhsev_monai.dsd.peaks import Peaks

SPACING = (1.5, 1.5, 3.0)
SHAPE = (61, 61, 11)
MIDDLE = (30, 30, 5)


def images_of(fused, trace=True, spacing=SPACING, brain=None):
    inside = np.ones(fused.shape, dtype=bool) if brain is None else brain
    affine = np.diag([*spacing, 1.0])
    return ContrastImages(
        b0=fused, trace=fused if trace else None, fused=fused, cleared=fused, dsd_map=fused - 1, search=inside,
        brain=inside, spacing=spacing, affine=affine,
    )  # fmt: skip


def described(images, voxels=(MIDDLE,)):
    table = describe_peaks(images, Peaks(np.array(voxels), np.full(len(voxels), 0.3)))
    return [dict(zip(DESCRIPTORS, row.tolist(), strict=True)) for row in table]


def body(predicate):
    """1 outside, 0.4 where a predicate of x, y, z in mm from the middle holds."""
    axes = [(np.arange(n) - m) * s for n, m, s in zip(SHAPE, MIDDLE, SPACING, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return np.where(predicate(x, y, z), 0.4, 1.0).astype(np.float32)


def test_names_are_different_and_rows_finite():
    assert len(set(DESCRIPTORS)) == len(DESCRIPTORS)
    rng = np.random.default_rng(0)
    noisy = (1 + 0.2 * rng.normal(size=SHAPE)).astype(np.float32)
    table = describe_peaks(images_of(noisy, trace=False), Peaks(np.argwhere(noisy > 1.5)[:50], np.full(50, 0.2)))
    assert table.shape == (50, len(DESCRIPTORS))
    assert np.isfinite(table).all()


def test_a_disc_is_dark_within_its_radius_and_bright_beyond():
    found = described(images_of(body(lambda x, y, z: (x**2 + y**2 < 4.0**2) & (np.abs(z) < 1))))[0]
    assert found["fused_centre"] == pytest.approx(0.4)
    assert found["fused_ring_1.5mm"] == pytest.approx(0.4)
    assert found["fused_ring_6mm"] == pytest.approx(1.0)
    assert found["fused_ring_9mm"] == pytest.approx(1.0)
    # It ends with its slice: one slice on, both sides are bright.
    assert found["fused_next_lower_3mm"] == pytest.approx(1.0)


def test_a_vessel_through_the_slices_goes_on_above_and_below():
    found = described(images_of(body(lambda x, y, z: x**2 + y**2 < 2.0**2)))[0]
    assert found["fused_next_higher_3mm"] == pytest.approx(0.4)
    assert found["fused_next_higher_6mm"] == pytest.approx(0.4)


def test_a_line_in_the_plane_is_dark_in_two_opposite_directions_and_a_wall_in_one():
    line = described(images_of(body(lambda x, y, z: np.abs(x) < 1)))[0]
    wall = described(images_of(body(lambda x, y, z: (np.abs(x) < 1) & (y < 1))))[0]
    spot = described(images_of(body(lambda x, y, z: x**2 + y**2 < 2)))[0]
    assert line["fused_line_6mm"] == pytest.approx(0.4)
    assert wall["fused_line_6mm"] == pytest.approx(1.0)
    assert wall["fused_opening_6mm"] == pytest.approx(0.4)
    assert spot["fused_opening_6mm"] == pytest.approx(1.0)
    small, large = "fused_curvature_small_1.2mm", "fused_curvature_large_1.2mm"
    assert spot[small] > 0.6 * spot[large]
    assert abs(line[small]) < 0.05 * line[large]


def test_places_are_measured_from_the_middle_of_the_brain_whatever_the_axes():
    brain = np.zeros(SHAPE, dtype=bool)
    brain[10:51, 10:51, 2:9] = True
    straight = images_of(np.ones(SHAPE, dtype=np.float32), brain=brain)
    flipped = straight._replace(affine=straight.affine @ np.diag([-1.0, 1.0, 1.0, 1.0]))
    for images in (straight, flipped):
        middle, right = described(images, [MIDDLE, (40, 30, 5)])
        assert middle["place_x"] == pytest.approx(0, abs=1e-6)
        # A box of 41 voxels of 1.5 mm: ten voxels over twice its standard deviation of 41/sqrt(12), nearly.
        assert right["place_x"] == pytest.approx(10 / (2 * np.sqrt((41**2 - 1) / 12)), rel=1e-5)
        assert middle["brain_edge"] == pytest.approx(4 * 3.0)


def test_a_scan_without_trace_says_so_and_repeats_b0():
    found = described(images_of(body(lambda x, y, z: x**2 + y**2 < 9), trace=False))[0]
    assert found["has_trace"] == 0
    assert found["trace_centre"] == found["b0_centre"]


def test_noise_is_found_beside_a_smooth_image():
    rng = np.random.default_rng(3)
    smooth = 1 + 0.2 * np.sin(np.arange(SHAPE[0]) / 15)[:, None, None] * np.ones(SHAPE)
    noisy = (smooth + 0.05 * rng.normal(size=SHAPE)).astype(np.float32)
    # Some 40 000 differences know their median to about one per cent.
    assert high_pass_noise(noisy, np.ones(SHAPE, dtype=bool)) == pytest.approx(0.05, rel=0.03)


def test_neighbours_are_counted_within_ten_millimetres():
    rows = described(images_of(np.ones(SHAPE, dtype=np.float32)), [MIDDLE, (34, 30, 5), (50, 30, 5)])
    assert [row["nearest_peak"] for row in rows] == pytest.approx([6.0, 6.0, 24.0])
    assert [row["peaks_within_10mm"] for row in rows] == pytest.approx([np.log(2), np.log(2), 0.0])
