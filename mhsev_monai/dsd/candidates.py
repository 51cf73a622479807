"""Spots that may be microbleeds: connected dark parts of a feature map, each with its size and shape.

A candidate is not a finding. Vessels cut across, sulci and noise leave candidates too; what tells them apart is
learnt from these descriptions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.dsd.contrast import Array, check_volume, contrast_image

DIAMETER_RANGE_MM = (2.0, 10.0)
"""Microbleeds measure 2 to 10 mm (Greenberg et al., Lancet Neurology 2009)."""

THRESHOLD = 0.12
"""Depth, fraction of the surrounding signal, from which a voxel belongs to a candidate."""

_TOUCHING = ndimage.generate_binary_structure(3, 2)
"""18-connectivity: voxels that share a face or an edge."""


@dataclass(frozen=True)
class Candidate:
    """One dark spot.

    Attributes:
        centre_voxel: centre weighted by depth, voxel indices (x, y, z), not rounded.
        peak_voxel: voxel of the greatest depth.
        depth: greatest signal loss, fraction of the surroundings, above 0.
        mean_depth: mean signal loss over its voxels.
        volume_mm3: volume of its voxels.
        diameter_mm: diameter of the sphere of that volume.
        n_slices: slices that it touches.
        symmetry: 1 - (variance around rings) / (variance) of the map in its deepest slice, 0 to 1; 1 for a round spot.
        elongation: ratio of the two in-plane variances of its voxels, each voxel an evenly filled rectangle; 1 or more.
            In the plane only, since thick slices make everything look long across them.
        distance_to_surface_mm: from the peak voxel to the nearest voxel outside the mask or the image.
    """

    centre_voxel: tuple[float, float, float]
    peak_voxel: tuple[int, int, int]
    depth: float
    mean_depth: float
    volume_mm3: float
    diameter_mm: float
    n_slices: int
    symmetry: float
    elongation: float
    distance_to_surface_mm: float


class Spots(NamedTuple):
    """Connected dark parts within a range of sizes; one entry each, in the order of ``label``."""

    labels: NDArray[np.int32]
    """``(X, Y, Z)``, also of parts outside the range of sizes; 0: no part."""
    label: NDArray[np.int64]
    volume_mm3: NDArray[np.float64]
    diameter_mm: NDArray[np.float64]
    depth: NDArray[np.float64]


def find_spots(
    depth: NDArray[np.float64], spacing: Sequence[float], threshold: float, diameter_range_mm: Sequence[float]
) -> Spots:
    """18-connected parts of ``depth > threshold`` whose equivalent sphere has a diameter in the range.

    Args:
        depth: ``(X, Y, Z)`` signal loss, 0 where there is none.
        spacing: voxel size, mm.
        threshold: fraction of the surrounding signal.
        diameter_range_mm: smallest and largest diameter, both included.
    """
    dark = depth > threshold
    labels, n_parts = ndimage.label(dark, _TOUCHING)
    part = labels[dark] - 1
    volume = np.bincount(part, minlength=n_parts) * float(np.prod(spacing))
    peak = np.zeros(n_parts)
    np.maximum.at(peak, part, depth[dark])
    diameter = np.cbrt(6 * volume / math.pi)
    fits = (diameter >= diameter_range_mm[0]) & (diameter <= diameter_range_mm[1])
    return Spots(labels, np.flatnonzero(fits) + 1, volume[fits], diameter[fits], peak[fits])


def find_candidates(
    dsd_map: Array,
    spacing: Sequence[float],
    mask: Array | None = None,
    *,
    threshold: float = THRESHOLD,
    diameter_range_mm: Sequence[float] = DIAMETER_RANGE_MM,
) -> tuple[Candidate, ...]:
    """The candidates of a map, deepest first.

    Args:
        dsd_map: ``(X, Y, Z)`` or ``(X, Y)``, fractional signal change, negative where dark; a feature map or a
            :func:`laplacian_of_gaussian`.
        spacing: voxel size, mm.
        mask: same shape, nonzero where candidates may lie; None: everywhere.
        threshold: least signal loss, above 0.
        diameter_range_mm: smallest and largest diameter of the equivalent sphere.

    Raises:
        ValueError: for a map, mask or spacing that :func:`dynamic_spectral_decomposition` would not take, a threshold
            that is not positive, or a range that is not rising.
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be positive, got {threshold}")
    if len(diameter_range_mm) != 2 or not 0 <= diameter_range_mm[0] < diameter_range_mm[1]:
        raise ValueError(f"diameter_range_mm must be two rising numbers, got {tuple(diameter_range_mm)}")
    volume, inside, sides = check_volume(dsd_map, spacing, mask)
    signed = -_slices_last(volume * inside)
    spots = find_spots(np.maximum(signed, 0), sides, threshold, diameter_range_mm)
    if not len(spots.label):
        return ()
    distance = _distance_to_surface(_slices_last(inside), sides)
    boxes = ndimage.find_objects(spots.labels)
    described = [
        _describe(spots, index, boxes[label - 1], signed, distance, sides) for index, label in enumerate(spots.label)
    ]
    return tuple(sorted(described, key=lambda candidate: (-candidate.depth, candidate.peak_voxel)))


def laplacian_of_gaussian(
    image: Array, spacing: Sequence[float], mask: Array | None = None, *, sigma_mm: float = 2.0, clip: float = 1.0
) -> NDArray[np.float64]:
    """The classical detector of dark spots, on the scale of the feature map.

    In the plane of the slices, on the same intensities as the decomposition (over their median, clipped, filled),
    times ``2 sigma^2``: a Gaussian spot whose standard deviation is ``sigma_mm`` has at its centre its own depth.
    So a threshold means the same contrast as on the feature map, for spots near 4.7 mm full width at 2 mm.

    Args:
        image: ``(X, Y, Z)`` or ``(X, Y)``, positive intensity.
        spacing: voxel size, mm.
        mask: same shape, nonzero in the brain; None takes every voxel.
        sigma_mm: scale, mm.
        clip: see ``DSDParameters``.

    Returns:
        ``image``'s shape; negative where darker than the surroundings, 0 outside the mask.

    Raises:
        ValueError: as :func:`dynamic_spectral_decomposition`, or if ``sigma_mm`` is not positive.
    """
    if not sigma_mm > 0:
        raise ValueError(f"sigma_mm must be positive, got {sigma_mm}")
    volume, inside, sides = check_volume(image, spacing, mask)
    contrast = _slices_last(contrast_image(volume, inside, clip)[0])
    scale = (sigma_mm / sides[0], sigma_mm / sides[1], 0.0)
    # Derivatives come per voxel; times the scale in voxels they become sigma^2 times those per mm.
    along_x = ndimage.gaussian_filter(contrast, scale, order=(2, 0, 0), mode="mirror") * scale[0] ** 2
    along_y = ndimage.gaussian_filter(contrast, scale, order=(0, 2, 0), mode="mirror") * scale[1] ** 2
    return (-2 * (along_x + along_y) * _slices_last(inside)).reshape(tuple(image.shape))


def _slices_last(volume: torch.Tensor) -> NDArray[np.float64]:
    return np.ascontiguousarray(volume.permute(1, 2, 0).cpu().numpy())


def _distance_to_surface(inside: NDArray[np.float64], spacing: Sequence[float]) -> NDArray[np.float64]:
    padded = np.pad(inside != 0, 1)
    return ndimage.distance_transform_edt(padded, sampling=spacing)[1:-1, 1:-1, 1:-1]


def _describe(
    spots: Spots,
    index: int,
    box: tuple[slice, ...],
    signed: NDArray[np.float64],
    distance: NDArray[np.float64],
    spacing: Sequence[float],
) -> Candidate:
    inside = spots.labels[box] == spots.label[index]
    voxels = np.argwhere(inside) + [side.start for side in box]
    depth = signed[box][inside]
    peak = voxels[depth.argmax()]
    centre = depth @ voxels / depth.sum()
    diameter = float(spots.diameter_mm[index])
    return Candidate(
        centre_voxel=(float(centre[0]), float(centre[1]), float(centre[2])),
        peak_voxel=(int(peak[0]), int(peak[1]), int(peak[2])),
        depth=float(depth.max()),
        mean_depth=float(depth.mean()),
        volume_mm3=float(spots.volume_mm3[index]),
        diameter_mm=diameter,
        n_slices=box[2].stop - box[2].start,
        symmetry=radial_symmetry(signed[:, :, peak[2]], centre[:2], 0.75 * diameter, spacing),
        elongation=_elongation(voxels[:, :2], spacing),
        distance_to_surface_mm=float(distance[tuple(peak)]),
    )


def radial_symmetry(
    plane: NDArray[np.float64], centre: NDArray[np.float64], radius_mm: float, spacing: Sequence[float]
) -> float:
    """Share of the variance around ``centre`` that depends on the distance alone, 0 to 1; 1 for a constant plane.

    Args:
        plane: ``(X, Y)``.
        centre: voxel indices, not rounded.
        radius_mm: radius of the disc that is looked at; at least 1.5 voxels are.
        spacing: in-plane spacing, mm.
    """
    pixel = math.sqrt(spacing[0] * spacing[1])
    radius = max(radius_mm, 1.5 * pixel)
    low = [max(0, math.floor(centre[axis] - radius / spacing[axis])) for axis in (0, 1)]
    high = [math.ceil(centre[axis] + radius / spacing[axis]) + 1 for axis in (0, 1)]
    patch = plane[low[0] : high[0], low[1] : high[1]]
    x, y = np.indices(patch.shape)
    away = np.hypot((x + low[0] - centre[0]) * spacing[0], (y + low[1] - centre[1]) * spacing[1])
    values, ring = patch[away <= radius], np.rint(away[away <= radius] / pixel).astype(int)
    total = values.var()
    if not total > 0:
        return 1.0
    ring_mean = np.bincount(ring, values) / np.maximum(np.bincount(ring), 1)
    return float(1 - np.mean((values - ring_mean[ring]) ** 2) / total)


def _elongation(pixels: NDArray[np.int64], spacing: Sequence[float]) -> float:
    places = pixels * np.asarray(spacing[:2])
    own = np.diag(np.square(spacing[:2]) / 12)
    covariance = np.cov(places.T, bias=True).reshape(2, 2) + own
    smaller, larger = np.linalg.eigvalsh(covariance)
    return float(larger / smaller)
