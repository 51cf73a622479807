"""Dark findings that are no microbleeds: flow voids, cortical veins seen end-on, and calcifications.

They are those that a reader is warned of in Greenberg et al., Lancet Neurol 2009;8:165-174. How often they occur and
how large they are is assumed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.clinical import Clinical
from mhsev_monai.cohort.disease import Difficulty
from mhsev_monai.cohort.lesions import Ellipsoid, Tube
from mhsev_monai.cohort.placement import depth_at, nearest_to_template, random_place
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.regions import Region, region_of

_FLOW_VOIDS = 7.5
_VESSEL_LENGTH, _VESSEL_RADIUS, _VESSEL_LOSS = (14.0, 28.0), (0.9, 1.4), (0.6, 0.95)
_VESSEL_DEPTH = (-0.5, 2.0)
_STEP = 1.0
_STEEPNESS = 0.35
_VEINS = 4.0
_VEIN_RADIUS, _VEIN_LOSS, _VEIN_TILT = (0.7, 1.2), (0.5, 0.9), 0.15
_VEIN_DEPTH = (2.0, 18.0)
_VEIN_SLICES = (2.5, 4.0)
_SULCUS = 0.25
_PALLIDUM, _CHOROID, _PINEAL = (20.0, -4.0, 0.0), (25.0, -41.0, 8.0), (0.0, -29.0, 3.0)
# Calcified share of subjects at 60 years and what a decade adds; and half axes, mm.
_PALLIDUM_SHARE, _PALLIDUM_DECADE, _PALLIDUM_AXES = 0.15, 0.08, (2.2, 4.5)
_CHOROID_SHARE, _CHOROID_DECADE, _CHOROID_AXES = 0.35, 0.08, (1.5, 3.5)
_PINEAL_SHARE, _PINEAL_DECADE, _PINEAL_AXES = 0.45, 0.04, (1.5, 3.0)
_CALCIUM_PPM = (-1.5, -0.5)


class Vessel(NamedTuple):
    """A dark tube and the share of the signal that is lost inside."""

    body: Tube
    loss: float


class Calcification(NamedTuple):
    """A calcified body: ``loss`` as of a bleed, ``susceptibility_ppm`` below 0 since calcium is diamagnetic."""

    body: Ellipsoid
    loss: float
    susceptibility_ppm: float


def draw_flow_voids(
    rng: np.random.Generator, anatomy: Anatomy, grid: VoxelGrid, difficulty: Difficulty
) -> tuple[Vessel, ...]:
    """Vessels along the brain's surface and in sulci, above the tentorium; they run up or down through slices."""
    low, high = _VESSEL_DEPTH
    lobar = region_of(anatomy.template_position) == Region.LOBAR
    starts = (anatomy.brain_depth > low) & (anatomy.brain_depth < high) & lobar
    vessels = []
    for _ in range(int(rng.poisson(_FLOW_VOIDS * difficulty.mimics))):
        place = random_place(rng, starts, grid)
        if place is not None:
            vessels.append(_flow_void(rng, place, anatomy, grid))
    return tuple(vessels)


def _flow_void(rng: np.random.Generator, place: NDArray[np.float64], anatomy: Anatomy, grid: VoxelGrid) -> Vessel:
    direction = np.array([*rng.normal(0, _STEEPNESS, size=2), rng.choice((-1.0, 1.0))])
    depth = depth_at(place, anatomy, grid)
    curve = [place]
    for _ in range(int(rng.uniform(*_VESSEL_LENGTH) / _STEP)):
        direction = direction / np.linalg.norm(direction) + rng.normal(0, 0.12, size=3)
        place = place + _STEP * direction / np.linalg.norm(direction)
        # Held at its depth: the way out of the brain is taken as the way from the middle of the scan.
        outward = (place - np.array(grid.centre)) * (1, 1, 0.5)
        excess = np.clip(depth_at(place, anatomy, grid) - depth, -2, 2)
        place = place + 0.5 * excess * outward / np.linalg.norm(outward)
        curve.append(place)
    return Vessel(Tube(np.array(curve), float(rng.uniform(*_VESSEL_RADIUS))), float(rng.uniform(*_VESSEL_LOSS)))


def draw_veins(
    rng: np.random.Generator, anatomy: Anatomy, grid: VoxelGrid, difficulty: Difficulty
) -> tuple[Vessel, ...]:
    """Cortical veins in sulci, across the slices: a dot on each, and a slice or two more of them than a bleed has."""
    low, high = _VEIN_DEPTH
    lobar = region_of(anatomy.template_position) == Region.LOBAR
    sulci = (anatomy.fractions[0] > _SULCUS) & (anatomy.brain_depth > low) & (anatomy.brain_depth < high) & lobar
    veins = []
    for _ in range(int(rng.poisson(_VEINS * difficulty.mimics))):
        middle = random_place(rng, sulci, grid)
        if middle is None:
            break
        length = rng.uniform(*_VEIN_SLICES) * grid.spacing[2]
        axis = np.array([*rng.normal(0, _VEIN_TILT, size=2), 1.0])
        along = np.arange(-length / 2, length / 2 + _STEP / 2, _STEP)
        curve = middle + along[:, None] * axis / np.linalg.norm(axis)
        veins.append(Vessel(Tube(curve, float(rng.uniform(*_VEIN_RADIUS))), float(rng.uniform(*_VEIN_LOSS))))
    return tuple(veins)


def draw_calcifications(
    rng: np.random.Generator, clinical: Clinical, anatomy: Anatomy, grid: VoxelGrid, difficulty: Difficulty
) -> tuple[Calcification, ...]:
    """Calcified pallidum and choroid plexus on both sides, and a calcified pineal gland; all commoner with age."""
    decades = (clinical.age - 60) / 10
    sites = (
        (_PALLIDUM, _PALLIDUM_SHARE + _PALLIDUM_DECADE * decades, _PALLIDUM_AXES, (-1.0, 1.0)),
        (_CHOROID, _CHOROID_SHARE + _CHOROID_DECADE * decades, _CHOROID_AXES, (-1.0, 1.0)),
        (_PINEAL, _PINEAL_SHARE + _PINEAL_DECADE * decades, _PINEAL_AXES, (1.0,)),
    )
    found = []
    for place, share, half_axes, sides in sites:
        if rng.random() >= np.clip(share * difficulty.mimics, 0, 0.9):
            continue
        for side in sides:
            target = np.array(place) * (side, 1, 1) + rng.normal(0, 1.5, size=3)
            body = Ellipsoid(nearest_to_template(anatomy, grid, target), rng.uniform(*half_axes, size=3))
            loss, susceptibility = rng.uniform(*difficulty.calcification_loss), rng.uniform(*_CALCIUM_PPM)
            found.append(Calcification(body, float(loss), float(susceptibility)))
    return tuple(found)
