"""What surrounds a dark spot, in mm and relative to the parenchyma: what tells a bleed from a vessel or a sulcus.

Rings lie in the plane of the slices, where resolution is highest. A bleed is dark on every contrast, round, and ends
after a slice or two; a vessel goes on through the slices, a sulcus opens to one side and has fluid beside it, bone has
darkness all the way to the edge of the brain (Greenberg et al., Lancet Neurology 2009;8:165-174, list the mimics).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from mhsev_monai.dsd.peaks import SPOT_SIGMAS_MM, Peaks, in_plane_curvature

RING_RADII_MM = (1.5, 3.0, 4.5, 6.0, 9.0)
RING_ANGLES = 8
SLICE_OFFSETS_MM = (3.0, 6.0)
"""Distances above and below at which the spot is looked for again."""
SHARE_SIGMAS_MM = (3.0, 6.0)
SCHEMA_VERSION = "1"
"""Changes whenever a descriptor's name, place or meaning does, or what precedes them changes their values."""

_FLUID_LEVEL, _DARK_LEVEL = 1.4, 0.7
_FARTHEST_MM = 30.0

Volume = NDArray[np.float32]


class ContrastImages(NamedTuple):
    """The images of one scan that spots are described on, each ``(X, Y, Z)``; 1 is the local parenchyma.

    Attributes:
        b0: over its local level.
        trace: over its local level; None where the scan has b = 0 alone.
        fused: voxel-wise maximum of the two, cut above the parenchyma.
        cleared: ``fused`` after darkness that comes in from outside the brain was lifted.
        dsd_map: feature map of ``cleared``; negative where dark.
        search: where spots are looked for.
        brain: tight mask of the brain.
        spacing: mm.
        affine: ``(4, 4)``, voxel indices to RAS+ mm.
    """

    b0: Volume
    trace: Volume | None
    fused: Volume
    cleared: Volume
    dsd_map: Volume
    search: NDArray[np.bool_]
    brain: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]


def _names() -> tuple[str, ...]:
    contrasts = ("fused", "b0", "trace")
    names = ["dsd_depth", "cleared_depth", "spot_depth"]
    names += [f"{image}_centre" for image in contrasts] + [f"{image}_least" for image in contrasts]
    for image in contrasts:
        names += [f"{image}_ring_{r:g}mm" for r in RING_RADII_MM]
    for radius in RING_RADII_MM[1:4]:
        at = f"{radius:g}mm"
        names += [f"fused_spread_{at}", f"fused_opening_{at}", f"fused_line_{at}", f"b0_spread_{at}"]
    for offset in SLICE_OFFSETS_MM:
        at = f"{offset:g}mm"
        names += [f"fused_next_lower_{at}", f"fused_next_higher_{at}", f"dsd_next_lower_{at}", f"dsd_next_higher_{at}"]
    for image in ("fused", "dsd"):
        for sigma in SPOT_SIGMAS_MM:
            names += [f"{image}_curvature_large_{sigma:g}mm", f"{image}_curvature_small_{sigma:g}mm"]
    names += [f"{kind}_share_{s:g}mm" for kind in ("fluid", "dark") for s in SHARE_SIGMAS_MM]
    names += ["search_edge", "brain_edge", "place_x", "place_y", "place_z"]
    names += ["nearest_peak", "peaks_within_10mm", "noise", "depth_over_noise", "in_plane_spacing", "slice_spacing"]
    return (*names, "has_trace")


DESCRIPTORS: tuple[str, ...] = _names()
"""Names of the descriptors, in order; depths and levels are fractions of the parenchyma's signal, lengths mm."""


def describe_peaks(images: ContrastImages, peaks: Peaks) -> NDArray[np.float32]:
    """Descriptors of each peak, ``(K, len(DESCRIPTORS))``, all finite.

    Args:
        images: of the scan.
        peaks: in ``images``.
    """
    if len(peaks.voxel) == 0:
        return np.zeros((0, len(DESCRIPTORS)), dtype=np.float32)
    trace = images.b0 if images.trace is None else images.trace
    contrasts = [images.fused, np.minimum(images.b0, 3.0), np.minimum(trace, 3.0)]
    columns = [
        *_depths(images, peaks),
        *(image[tuple(peaks.voxel.T)] for image in contrasts),
        *(ndimage.minimum_filter(image, (3, 3, 1))[tuple(peaks.voxel.T)] for image in contrasts),
        *_rings(contrasts, peaks, images.spacing),
        *_next_slices(images, peaks),
        *_curvatures(images, peaks),
        *_shares(images, peaks),
        *_places(images, peaks),
        *_clutter(images, peaks),
        *_scan(images, peaks),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _depths(images: ContrastImages, peaks: Peaks) -> list[NDArray[np.floating]]:
    at = tuple(peaks.voxel.T)
    return [-images.dsd_map[at], 1 - images.cleared[at], peaks.depth]


def _rings(contrasts: Sequence[Volume], peaks: Peaks, spacing: Sequence[float]) -> list[NDArray[np.floating]]:
    """Means over rings on each contrast; then spread, darkest and most line-like direction of the middle rings."""
    rings = {}
    for radius in RING_RADII_MM:
        angle = 2 * np.pi * np.arange(RING_ANGLES) / RING_ANGLES
        step = np.stack([np.cos(angle) * radius / spacing[0], np.sin(angle) * radius / spacing[1], 0 * angle], axis=1)
        points = peaks.voxel[:, None, :] + step
        rings[radius] = [_sample(image, points) for image in contrasts]
    columns = [rings[radius][image].mean(axis=1) for image in range(len(contrasts)) for radius in RING_RADII_MM]
    for radius in RING_RADII_MM[1:4]:
        fused, b0 = rings[radius][0], rings[radius][1]
        opposite = np.maximum(fused[:, : RING_ANGLES // 2], fused[:, RING_ANGLES // 2 :])
        columns += [fused.std(axis=1), fused.min(axis=1), opposite.min(axis=1), b0.std(axis=1)]
    return columns


def _next_slices(images: ContrastImages, peaks: Peaks) -> list[NDArray[np.floating]]:
    """Least level near the spot's axis above and below it; of the two sides, the lower first."""
    near = ndimage.minimum_filter(images.fused, (3, 3, 1))
    deep = ndimage.maximum_filter(-images.dsd_map, (3, 3, 1))
    columns = []
    for offset in SLICE_OFFSETS_MM:
        step = np.array([[0, 0, -offset / images.spacing[2]], [0, 0, offset / images.spacing[2]]])
        for image in (near, deep):
            sides = _sample(image, peaks.voxel[:, None, :] + step)
            columns += [sides.min(axis=1), sides.max(axis=1)]
    return columns


def _curvatures(images: ContrastImages, peaks: Peaks) -> list[NDArray[np.floating]]:
    """Two large curvatures for a spot, one for a line."""
    at, columns = tuple(peaks.voxel.T), []
    for image in (images.fused, images.dsd_map):
        for sigma in SPOT_SIGMAS_MM:
            columns += [curvature[at] for curvature in in_plane_curvature(image, images.spacing, sigma)]
    return columns


def _shares(images: ContrastImages, peaks: Peaks) -> list[NDArray[np.floating]]:
    """Share of fluid, and of what is dark, around the spot, with in-plane Gaussian weights."""
    at, columns = tuple(peaks.voxel.T), []
    for marked in (images.b0 > _FLUID_LEVEL, (images.fused < _DARK_LEVEL) | ~images.search):
        for sigma in SHARE_SIGMAS_MM:
            scale = (sigma / images.spacing[0], sigma / images.spacing[1], 0.0)
            columns.append(ndimage.gaussian_filter(marked.astype(np.float32), scale)[at])
    return columns


def _places(images: ContrastImages, peaks: Peaks) -> list[NDArray[np.floating]]:
    """Distances to the edges of both masks, and the place relative to the middle and the size of the brain."""
    at = tuple(peaks.voxel.T)
    edges = [
        np.minimum(
            ndimage.distance_transform_edt(np.pad(mask, 1), sampling=images.spacing)[1:-1, 1:-1, 1:-1], _FARTHEST_MM
        )
        for mask in (images.search, images.brain)
    ]
    brain = np.argwhere(images.brain if images.brain.any() else images.search) @ images.affine[:3, :3].T
    centre, size = brain.mean(axis=0), np.maximum(2 * brain.std(axis=0), 1.0)
    place = (peaks.voxel @ images.affine[:3, :3].T - centre) / size
    return [*(edge[at] for edge in edges), np.abs(place[:, 0]), place[:, 1], place[:, 2]]


def _clutter(images: ContrastImages, peaks: Peaks) -> list[NDArray[np.floating]]:
    places = peaks.voxel * np.asarray(images.spacing)
    tree = cKDTree(places)
    nearest = tree.query(places, k=2)[0][:, 1] if len(places) > 1 else np.full(1, _FARTHEST_MM)
    within = np.array([len(others) - 1 for others in tree.query_ball_point(places, 10.0)])
    return [np.minimum(nearest, _FARTHEST_MM), np.log1p(within)]


def _scan(images: ContrastImages, peaks: Peaks) -> list[NDArray[np.floating]]:
    """What is the same for all spots of a scan, but for the depth over the noise."""
    noise = max(high_pass_noise(images.fused, images.brain if images.brain.any() else images.search), 1e-3)
    in_plane = float(np.sqrt(images.spacing[0] * images.spacing[1]))
    constant = (in_plane, float(images.spacing[2]), float(images.trace is not None))
    ones = np.ones(len(peaks.depth))
    return [noise * ones, np.log1p(peaks.depth / noise), *(value * ones for value in constant)]


def high_pass_noise(image: Volume, mask: NDArray[np.bool_]) -> float:
    """Noise of an image from its diagonal second differences in the plane: 1.4826 times their median size, scaled.

    Tissue is smooth at this scale more often than not, so the median follows the noise (an upper bound of it).
    """
    cross = image[1:, 1:] - image[1:, :-1] - image[:-1, 1:] + image[:-1, :-1]
    inside = mask[1:, 1:] & mask[1:, :-1] & mask[:-1, 1:] & mask[:-1, :-1]
    values = np.abs(cross[inside])
    # The difference of four independent voxels has twice their standard deviation.
    return float(1.4826 * np.median(values) / 2) if values.size else 0.0


def _sample(image: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Linear interpolation at ``(K, n, 3)`` voxel positions; the border is continued."""
    flat = points.reshape(-1, 3).T
    values: NDArray[np.floating] = ndimage.map_coordinates(image, flat, order=1, mode="nearest")
    return values.reshape(points.shape[:2])
