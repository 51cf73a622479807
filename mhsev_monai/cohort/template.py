"""The head that every simulated subject is bent from: ICBM152 tissue maps with a synthetic skull and scalp around them.

The tissue maps are the symmetric ICBM 2009a averages (Fonov et al., NeuroImage 2011;54:313-327) that nilearn ships in
its wheel. What lies outside the brain is drawn with ellipsoids and distances; positions are MNI mm.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.cohort.dura import dura_map
from mhsev_monai.errors import CohortError

CHANNELS = ("csf", "white", "brain_distance", "hull_distance", "head_distance", "iron", "eye", "dura")
"""What ``HeadTemplate.channels`` holds, in order: scores of CSF and of white over grey matter; signed distances in mm,
positive outside, to the brain, to its hull and to the skin; membership of the iron-rich nuclei, of the eyes, and of
falx and tentorium."""

# The average of 152 heads washes sulci out; a high-pass brings them back to where a threshold can find them.
_SULCAL_SIGMA = 5.0
_SULCAL_GAIN = 1.2
_HULL_CLOSING = 16.0
_SCALP_SURFACE = 13.0
# Slices repeated below the template, where the medulla goes on as the cord.
_CORD_SLICES = 40
# What the head with its scalp needs of the template's box.
_CROP = (slice(8, 189), slice(6, 224), slice(0, 172))

# Centre, half axes and tilt-free ellipsoids, mm: a face, a neck, and the air inside the face.
_SOFT_TISSUE = (((0.0, 30.0, -62.0), (58.0, 52.0, 58.0)), ((0.0, -42.0, -110.0), (56.0, 60.0, 90.0)))
_AIR = (
    ((0.0, 62.0, -62.0), (11.0, 28.0, 22.0)),
    ((0.0, 22.0, -82.0), (13.0, 12.0, 40.0)),
    ((30.0, 52.0, -66.0), (13.0, 15.0, 14.0)),
    ((-30.0, 52.0, -66.0), (13.0, 15.0, 14.0)),
    ((0.0, 24.0, -42.0), (9.0, 9.0, 7.0)),
)
_EYES = tuple(((side * 32.0, 62.0, -40.0), (12.0, 12.0, 12.0)) for side in (-1.0, 1.0))
_IRON = tuple(
    ((side * x, y, z), axes)
    for side in (-1.0, 1.0)
    for (x, y, z), axes in (
        ((19.0, -4.0, -1.0), (5.0, 9.0, 5.0)),  # globus pallidus
        ((9.0, -18.0, -12.0), (4.0, 6.0, 3.5)),  # substantia nigra
        ((5.0, -21.0, -9.0), (3.0, 3.0, 3.0)),  # red nucleus
        ((15.0, -57.0, -36.0), (6.0, 6.0, 4.0)),  # dentate nucleus
    )
)

Ellipsoids = tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]


class HeadTemplate(NamedTuple):
    """Smooth maps of a head, to be sampled anywhere and cut into tissues after.

    Attributes:
        channels: ``(X * Y * Z, 8)`` float16 in C order, see ``CHANNELS``.
        shape: X, Y and Z of the grid.
        origin: MNI position of the first voxel, mm; the voxels are 1 mm.
    """

    channels: NDArray[np.float16]
    shape: tuple[int, int, int]
    origin: tuple[float, float, float]


@lru_cache(maxsize=1)
def load_head_template() -> HeadTemplate:
    """The head template, made once in a process and from files of the nilearn wheel; nothing is downloaded.

    Raises:
        CohortError: if nilearn is not installed.
    """
    grey, white, brain, origin = _tissue_maps()
    shape: tuple[int, int, int] = grey.shape
    csf = np.where(brain, np.clip(1 - grey - white, 0, 1), 0).astype(np.float32)
    csf += _SULCAL_GAIN * (csf - _mean_inside(csf, brain, _SULCAL_SIGMA))
    nuclei = (_ellipsoid_map(parts, shape, origin) for parts in (_IRON, _EYES))
    maps = (csf, white - grey, *_distances(brain, origin), *nuclei, dura_map(shape, origin))
    channels = np.empty((brain.size, len(CHANNELS)), dtype=np.float16)
    for column, values in enumerate(maps):
        channels[:, column] = values.reshape(-1)
    return HeadTemplate(channels, shape, origin)


def _tissue_maps() -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], tuple[float, float, float]]:
    """Grey matter, white matter, brain mask and the position of the first voxel; continued downwards by the cord."""
    try:
        from nilearn import datasets
    except ImportError:
        raise CohortError(
            "simulated hospitals need nilearn for its head template; install it with pip install 'mhsev[cohort]'"
        ) from None
    images = [
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
    ]
    arrays = [np.asarray(image.dataobj, dtype=np.float32)[_CROP] for image in images]
    x, y, z = (float(first + crop.start) for first, crop in zip(images[0].affine[:3, 3], _CROP, strict=True))
    # The lowest slices hold the medulla alone; the first one that is not cut obliquely is repeated.
    lowest = int(np.flatnonzero((arrays[2] > 0).sum(axis=(0, 1)) > 0)[0]) + 2
    grey, white, mask = (
        np.concatenate([np.repeat(a[:, :, lowest : lowest + 1], lowest + _CORD_SLICES, axis=2), a[:, :, lowest:]], 2)
        for a in arrays
    )
    return grey, white, mask > 0, (x, y, z - _CORD_SLICES)


def _mean_inside(values: NDArray[np.float32], inside: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Gaussian mean over the voxels inside only; on every third voxel, since it is smooth."""
    coarse = (slice(None, None, 3),) * 3
    weight = ndimage.gaussian_filter(inside[coarse].astype(np.float32), sigma / 3)
    mean = ndimage.gaussian_filter((values * inside)[coarse], sigma / 3) / np.maximum(weight, 1e-3)
    return _upsampled(mean, values.shape, 3)


def _distances(brain: NDArray[np.bool_], origin: tuple[float, float, float]) -> list[NDArray[np.float32]]:
    """Signed distances, mm, to brain, hull and skin; computed on a grid of 2 mm."""
    coarse = brain[::2, ::2, ::2]
    reach = int(_HULL_CLOSING / 2)
    padded = np.pad(coarse, reach)
    # Closing by distances: grow by the radius, then shrink by it.
    grown = ndimage.distance_transform_edt(~padded) <= reach
    hull = (ndimage.distance_transform_edt(grown) > reach)[(slice(reach, -reach),) * 3] | coarse
    to_brain, to_hull = (_signed_distance(mask, 2.0) for mask in (coarse, hull))
    to_skin = np.minimum(to_hull - _SCALP_SURFACE, _ellipsoid_distance(_SOFT_TISSUE, coarse.shape, origin, 2.0))
    air = _ellipsoid_distance(_AIR, coarse.shape, origin, 2.0)
    to_skin = np.where(to_hull < _SCALP_SURFACE / 2, to_skin, np.maximum(to_skin, -air))
    return [_upsampled(distance, brain.shape, 2) for distance in (to_brain, to_hull, to_skin)]


def _signed_distance(mask: NDArray[np.bool_], spacing: float) -> NDArray[np.float32]:
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    # Half a voxel on either side: zero lies between the last voxel inside and the first outside.
    signed = np.where(mask, -(inside - spacing / 2), outside - spacing / 2)
    return ndimage.gaussian_filter(signed.astype(np.float32), 0.6)


def _upsampled(coarse: NDArray[np.float32], shape: tuple[int, ...], factor: int) -> NDArray[np.float32]:
    """A map on every ``factor``-th voxel, linearly interpolated onto all of them."""
    fine = coarse
    for axis, n in enumerate(shape):
        position = np.minimum(np.arange(n) / factor, coarse.shape[axis] - 1)
        low = np.minimum(np.floor(position).astype(int), coarse.shape[axis] - 2)
        share = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        fine = np.take(fine, low, axis) * (1 - share) + np.take(fine, low + 1, axis) * share
    return fine


def _ellipsoid_distance(
    ellipsoids: Ellipsoids, shape: tuple[int, ...], origin: tuple[float, float, float], spacing: float
) -> NDArray[np.float32]:
    """Distance in about mm to the nearest surface of a union of ellipsoids, positive outside."""
    nearest = np.full(shape, np.float32(1e3))
    for centre, half_axes in ellipsoids:
        x, y, z = (
            ((np.arange(n, dtype=np.float32) * spacing + first - middle) / half) ** 2
            for n, first, middle, half in zip(shape, origin, centre, half_axes, strict=True)
        )
        radius = np.sqrt(x[:, None, None] + y[None, :, None] + z[None, None, :])
        np.minimum(nearest, (radius - 1) * np.float32(min(half_axes)), out=nearest)
    return nearest


def _ellipsoid_map(
    ellipsoids: Ellipsoids, shape: tuple[int, ...], origin: tuple[float, float, float]
) -> NDArray[np.float32]:
    """1 inside a union of small ellipsoids, 0 outside, with an edge of 1 mm; on the grid of 1 mm."""
    filled = np.zeros(shape, dtype=np.float32)
    for centre, half_axes in ellipsoids:
        low = [int(c - h - o) - 2 for c, h, o in zip(centre, half_axes, origin, strict=True)]
        high = [int(c + h - o) + 3 for c, h, o in zip(centre, half_axes, origin, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        x, y, z = (o + a for o, a in zip(origin, low, strict=True))
        distance = _ellipsoid_distance(((centre, half_axes),), filled[box].shape, (x, y, z), 1.0)
        filled[box] = np.maximum(filled[box], np.clip(0.5 - distance, 0, 1))
    return filled
