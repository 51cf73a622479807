"""Where in a head something can lie: voxels by anatomical zone, places apart from each other and clear of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.lesions import Ellipsoid, Tube
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.regions import Region, region_of

MIN_DISTANCE = 8.0
"""Between the middles of two bleeds, mm, wherever the head has room for it."""

# What is tried first, what is accepted, and what is taken before a bleed would be left out: (mm to the next bleed,
# mm to the surface of what does not count).
_DISTANCES = ((12.0, 5.0), (10.0, 5.0), (MIN_DISTANCE, 4.0), (6.0, 2.0), (4.0, 0.0))
_TRIES = 150
_MIN_PARENCHYMA, _MIN_PARENCHYMA_AROUND = 0.92, 0.80
_MIN_DEPTH = 2.5
_EDGE_SLICES = 2
_MIXED = 0.15
_WHITE = 0.8
# How far subcortical white matter reaches from the cortex, mm.
_SUBCORTICAL = 10.0
# Voxels that a first search passes over.
_SEARCH_STEP = 4


class Zone(Enum):
    """Where microbleeds are told apart: two parts of the lobes, deep, and infratentorial."""

    JUNCTION = Region.LOBAR, "cortex and its junction with white matter"
    SUBCORTICAL = Region.LOBAR, "subcortical white matter"
    DEEP = Region.DEEP, "basal ganglia, thalamus, capsules"
    INFRATENTORIAL = Region.INFRATENTORIAL, "brainstem and cerebellum"

    @property
    def region(self) -> Region:
        """The region that holds the zone."""
        return self.value[0]


ZONE_SHARES = {Zone.JUNCTION: 0.334, Zone.SUBCORTICAL: 0.398, Zone.DEEP: 0.134, Zone.INFRATENTORIAL: 0.125}
"""Of 957 microbleeds of five cohorts, by BOMBS regions; brought to a sum of 1 where they are used."""


class Obstacles(NamedTuple):
    """What must stay clear: points with a radius, mm, and ellipsoids.

    Attributes:
        points: ``(n, 3)`` world positions.
        radii: ``(n,)``.
        centres: ``(m, 3)`` of ellipsoids.
        half_axes: ``(m, 3)``.
    """

    points: NDArray[np.float64]
    radii: NDArray[np.float64]
    centres: NDArray[np.float64]
    half_axes: NDArray[np.float64]

    def gap(self, position: NDArray[np.float64]) -> float:
        """Distance to the nearest surface, mm, never too large; negative inside."""
        gap = np.inf
        if len(self.points):
            gap = float((np.linalg.norm(self.points - position, axis=1) - self.radii).min())
        if len(self.centres):
            scaled = np.linalg.norm((position - self.centres) / self.half_axes, axis=1)
            gap = min(gap, float(((scaled - 1) * self.half_axes.min(axis=1)).min()))
        return gap


def obstacles_of(bodies: Sequence[Ellipsoid | Tube]) -> Obstacles:
    """The bodies as :class:`Obstacles`; a tube counts as the balls around the points of its curve."""
    tubes = [body for body in bodies if isinstance(body, Tube)]
    ellipsoids = [body for body in bodies if isinstance(body, Ellipsoid)]
    empty = np.empty((0, 3))
    return Obstacles(
        np.concatenate([empty, *(tube.curve for tube in tubes)]),
        np.concatenate([np.empty(0), *(np.full(len(tube.curve), tube.radius) for tube in tubes)]),
        np.stack([body.centre for body in ellipsoids]) if ellipsoids else empty,
        np.stack([body.half_axes for body in ellipsoids]) if ellipsoids else empty,
    )


class Places(NamedTuple):
    """Voxels that may hold the middle of a bleed.

    Attributes:
        by_zone: flat indices of voxels; a zone may be empty.
        grid: voxels of the scan.
    """

    by_zone: dict[Zone, NDArray[np.intp]]
    grid: VoxelGrid

    def random(self, rng: np.random.Generator, zone: Zone) -> NDArray[np.float64]:
        """A random position in a zone that is not empty, mm."""
        voxels = self.by_zone[zone]
        voxel = np.unravel_index(voxels[rng.integers(voxels.size)], self.grid.shape)
        middle = np.array([self.grid.axis(axis)[voxel[axis]] for axis in range(3)])
        return middle + rng.uniform(-0.5, 0.5, size=3) * self.grid.spacing


def bleed_places(anatomy: Anatomy, grid: VoxelGrid) -> Places:
    """Where microbleeds may lie: within grey or white matter, not at its surface nor in the outermost slices.

    Args:
        anatomy: of the subject, on ``grid``.
        grid: voxels of the scan.

    Raises:
        ValueError: if no voxel of the scan is brain.
    """
    parenchyma = anatomy.parenchyma
    around = ndimage.uniform_filter(parenchyma, (3, 3, 1), mode="constant")
    allowed = (parenchyma > _MIN_PARENCHYMA) & (around > _MIN_PARENCHYMA_AROUND) & (anatomy.brain_depth > _MIN_DEPTH)
    allowed[:, :, :_EDGE_SLICES] = allowed[:, :, -_EDGE_SLICES:] = False
    if not allowed.any():
        raise ValueError("no voxel of the scan can hold a microbleed; the scan must show brain in five slices or more")
    region = region_of(anatomy.template_position)
    grey, white = anatomy.fractions[1] + anatomy.fractions[3], anatomy.fractions[2]
    width = [max(3, round(2 * _SUBCORTICAL / spacing)) for spacing in grid.spacing]
    near_cortex = ndimage.uniform_filter(grey, width, mode="constant") > _MIXED
    lobar = allowed & (region == Region.LOBAR)
    inside = {
        Zone.JUNCTION: lobar & (grey > _MIXED) & (anatomy.brain_depth < 2 * _SUBCORTICAL),
        Zone.SUBCORTICAL: lobar & (white > _WHITE) & near_cortex,
        Zone.DEEP: allowed & (region == Region.DEEP),
        Zone.INFRATENTORIAL: allowed & (region == Region.INFRATENTORIAL),
    }
    by_zone = {zone: np.flatnonzero(voxels) for zone, voxels in inside.items()}
    if not by_zone[Zone.SUBCORTICAL].size:
        by_zone[Zone.SUBCORTICAL] = np.flatnonzero(allowed)
    return Places(by_zone, grid)


class Site(NamedTuple):
    """A place for a bleed: ``position`` in mm and its ``region``."""

    position: NDArray[np.float64]
    region: Region


def free_site(
    rng: np.random.Generator, places: Places, taken: Sequence[NDArray[np.float64]], obstacles: Obstacles
) -> Site:
    """A place in a random zone; where the zone is full one in the lobes, and where they are full a closer one.

    Args:
        rng: where it comes from.
        places: from :func:`bleed_places`.
        taken: middles of the bleeds that are there, mm.
        obstacles: what must stay clear.
    """
    zones = list(ZONE_SHARES)
    shares = np.array([ZONE_SHARES[zone] for zone in zones])
    zone = zones[int(rng.choice(len(zones), p=shares / shares.sum()))]
    choices = [choice for choice in dict.fromkeys((zone, Zone.SUBCORTICAL)) if places.by_zone[choice].size]
    others = np.array(taken).reshape(-1, 3)
    for distance, clearance in _DISTANCES:
        for choice in choices:
            for _ in range(_TRIES):
                position = places.random(rng, choice)
                apart = not len(others) or np.linalg.norm(others - position, axis=1).min() >= distance
                if apart and obstacles.gap(position) >= clearance:
                    return Site(position, choice.region)
    return Site(places.random(rng, choices[0]), choices[0].region)


def random_place(rng: np.random.Generator, where: NDArray[np.bool_], grid: VoxelGrid) -> NDArray[np.float64] | None:
    """The middle of a random voxel of those that ``where`` marks, mm; None where it marks none."""
    voxels = np.flatnonzero(where)
    if not voxels.size:
        return None
    voxel = np.unravel_index(voxels[rng.integers(voxels.size)], grid.shape)
    return np.array([grid.axis(axis)[voxel[axis]] for axis in range(3)])


def nearest_voxels(places: NDArray[np.float64], grid: VoxelGrid) -> tuple[NDArray[np.intp], ...]:
    """Indices along X, Y and Z of the voxels nearest to places in mm, ``(3,)`` or ``(n, 3)``."""
    indices = (np.rint((places[..., a] - grid.axis(a)[0]) / grid.spacing[a]).astype(np.intp) for a in range(3))
    return tuple(np.clip(index, 0, n - 1) for index, n in zip(indices, grid.shape, strict=True))


def depth_at(place: NDArray[np.float64], anatomy: Anatomy, grid: VoxelGrid) -> float:
    """Depth below the brain's surface in the voxel nearest to a position, mm."""
    return float(anatomy.brain_depth[nearest_voxels(place, grid)])


def nearest_to_template(
    anatomy: Anatomy, grid: VoxelGrid, target: tuple[float, float, float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where in the scan a place of the template lies, mm; ``target`` in MNI mm."""
    wanted = np.asarray(target, dtype=np.float32)
    # The way from scan to template is smooth: the neighbourhood of the nearest of few voxels holds the nearest of all.
    first = np.zeros(3, dtype=np.intp)
    for step in (_SEARCH_STEP, 1):
        last = np.array(grid.shape) if step > 1 else first + 2 * _SEARCH_STEP + 1
        x, y, z = (slice(int(begin), int(end), step) for begin, end in zip(first, last, strict=True))
        squared = ((anatomy.template_position[x, y, z] - wanted) ** 2).sum(axis=-1)
        voxel = first + step * np.array(np.unravel_index(int(squared.argmin()), squared.shape))
        first = np.maximum(voxel - _SEARCH_STEP, 0)
    return np.array([grid.axis(axis)[voxel[axis]] for axis in range(3)])


def template_distance(
    place: NDArray[np.float64], target: NDArray[np.float64], anatomy: Anatomy, grid: VoxelGrid
) -> float:
    """Distance in the template, mm, between a place of the scan, of its voxel's middle, and a place of the template."""
    return float(np.linalg.norm(anatomy.template_position[nearest_voxels(place, grid)] - target))
