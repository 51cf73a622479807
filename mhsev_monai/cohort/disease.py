"""Microbleeds: where they lie, how large they are, and what they take from the signal.

Sizes on susceptibility images have a median of 2.7 mm with blooming; what a spin echo shows of them is smaller or
nothing. The difficulties below show more than that, so that a first model can be tried; they are no claim about how
many bleeds a real b = 0 image shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.lesions import Ellipsoid, Filled, Tube, filled_share
from mhsev_monai.cohort.regions import Region, region_of
from mhsev_monai.cohort.smooth_fields import VoxelGrid

LOCATION_SHARES = {Region.LOBAR: 0.732, Region.DEEP: 0.134, Region.INFRATENTORIAL: 0.125}
"""Of 957 microbleeds of five cohorts, by BOMBS regions; brought to a sum of 1 where they are used."""

MIN_DISTANCE = 12.0
"""Between the middles of two bleeds, mm: with the largest diameter they stay apart on every protocol's voxels."""

TRUTH_SHARE = 0.25
"""A voxel belongs to a bleed in the truth when the bleed fills this share of it, or more of it than of any other."""

_CLEARANCE = 7.0
_MIN_PARENCHYMA, _MIN_PARENCHYMA_AROUND = 0.92, 0.80
_MIN_DEPTH = 2.5
_EDGE_SLICES = 2
_SAMPLES = 6
_TRIES = 400


class Difficulty(NamedTuple):
    """How hard bleeds are to see.

    Attributes:
        median_diameter: visible diameter, mm, of a lognormal distribution.
        log_sd: its standard deviation in the logarithm.
        diameter_range: diameters are clipped to it, mm.
        loss: range of the share of the signal that is lost inside a bleed.
        calcification_loss: the same for calcifications, which do not count.
    """

    median_diameter: float
    log_sd: float
    diameter_range: tuple[float, float]
    loss: tuple[float, float]
    calcification_loss: tuple[float, float]


DIFFICULTIES = {
    "easy": Difficulty(4.4, 0.16, (3.4, 6.0), (0.90, 1.00), (0.25, 0.40)),
    "moderate": Difficulty(3.2, 0.25, (2.2, 5.0), (0.70, 0.95), (0.35, 0.60)),
}


class Bleed(NamedTuple):
    """One microbleed.

    Attributes:
        body: a sphere.
        loss: share of the signal that is lost inside.
        region: where it was put.
    """

    body: Ellipsoid
    loss: float
    region: Region


def draw_bleeds(
    rng: np.random.Generator,
    count: int,
    anatomy: Anatomy,
    grid: VoxelGrid,
    difficulty: Difficulty,
    avoid: Sequence[Ellipsoid | Tube],
) -> list[Bleed]:
    """``count`` microbleeds in grey or white matter, apart from each other and from what does not count.

    The first bleeds are the same whatever ``count`` is.

    Args:
        rng: where they come from.
        count: how many.
        anatomy: of the subject, on ``grid``.
        grid: voxels of the scan.
        difficulty: sizes and signal loss.
        avoid: bodies to stay clear of.

    Raises:
        RuntimeError: if there is no room left.
    """
    places = _places(anatomy)
    obstacles = np.concatenate([_outline(body) for body in avoid]) if avoid else np.empty((0, 3))
    shares = np.array([LOCATION_SHARES[region] for region in LOCATION_SHARES])
    bleeds: list[Bleed] = []
    for _ in range(count):
        region = list(LOCATION_SHARES)[int(rng.choice(len(shares), p=shares / shares.sum()))]
        centre = _free_place(rng, places, region, grid, [b.body.centre for b in bleeds], obstacles)
        diameter = float(np.exp(rng.normal(np.log(difficulty.median_diameter), difficulty.log_sd)))
        radius = float(np.clip(diameter, *difficulty.diameter_range)) / 2
        bleeds.append(Bleed(Ellipsoid(centre, np.full(3, radius)), float(rng.uniform(*difficulty.loss)), region))
    return bleeds


def paint_bleeds(bleeds: Sequence[Bleed], grid: VoxelGrid) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """What is left of the signal, and which voxels belong to which bleed.

    Args:
        bleeds: up to 255 that do not touch.
        grid: voxels of the scan.

    Returns:
        A factor ``(X, Y, Z)`` in 0 to 1 for the signal, and labels ``(X, Y, Z)``: 0, or the bleed's number from 1.
    """
    kept = np.ones(grid.shape, dtype=np.float32)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for number, bleed in enumerate(bleeds, start=1):
        filled = filled_share(bleed.body, grid, _SAMPLES)
        dim(kept, filled, bleed.loss)
        belongs = (filled.share >= TRUTH_SHARE) | (filled.share == filled.share.max())
        labels[filled.box][belongs] = number
    return kept, labels


def dim(kept: NDArray[np.float32], filled: Filled, loss: float) -> None:
    """Take from ``kept``, in place, the signal that a body loses."""
    kept[filled.box] *= 1 - np.float32(loss) * filled.share


def _places(anatomy: Anatomy) -> dict[Region, NDArray[np.intp]]:
    """Flat indices of the voxels that may hold the middle of a bleed, by region."""
    parenchyma = anatomy.parenchyma
    around = ndimage.uniform_filter(parenchyma, (3, 3, 1), mode="constant")
    allowed = (parenchyma > _MIN_PARENCHYMA) & (around > _MIN_PARENCHYMA_AROUND) & (anatomy.brain_depth > _MIN_DEPTH)
    allowed[:, :, :_EDGE_SLICES] = allowed[:, :, -_EDGE_SLICES:] = False
    region = region_of(anatomy.template_position)
    return {part: np.flatnonzero(allowed & (region == part)) for part in LOCATION_SHARES}


def _free_place(
    rng: np.random.Generator,
    places: dict[Region, NDArray[np.intp]],
    region: Region,
    grid: VoxelGrid,
    taken: Sequence[NDArray[np.float64]],
    obstacles: NDArray[np.float64],
) -> NDArray[np.float64]:
    """A position in the region, or in the lobes where the region is full, far enough from everything."""
    for choice in (region, Region.LOBAR):
        for _ in range(_TRIES if places[choice].size else 0):
            voxel = np.unravel_index(places[choice][rng.integers(places[choice].size)], grid.shape)
            jitter = rng.uniform(-0.5, 0.5, size=3)
            position = np.array([grid.axis(a)[voxel[a]] + jitter[a] * grid.spacing[a] for a in range(3)])
            if _distance(position, taken) >= MIN_DISTANCE and _distance(position, obstacles) >= _CLEARANCE:
                return position
    raise RuntimeError(f"no room for another microbleed beside {len(taken)}")


def _distance(position: NDArray[np.float64], others: Sequence[NDArray[np.float64]] | NDArray[np.float64]) -> float:
    if not len(others):
        return np.inf
    return float(np.linalg.norm(np.asarray(others) - position, axis=1).min())


def _outline(body: Ellipsoid | Tube) -> NDArray[np.float64]:
    """Points that stand for a body: its curve, or its middle and the six ends of its axes."""
    if isinstance(body, Tube):
        return body.curve
    ends = np.diag(body.half_axes)
    return np.concatenate([body.centre[None], body.centre + ends, body.centre - ends])
