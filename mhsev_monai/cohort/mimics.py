"""What looks like a microbleed and does not count: flow voids, calcified basal ganglia, and lacunes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.clinical import MEAN_AGE, Clinical
from mhsev_monai.cohort.disease import Difficulty, dim
from mhsev_monai.cohort.lesions import Ellipsoid, Tube, filled_share
from mhsev_monai.cohort.regions import Region, region_of
from mhsev_monai.cohort.smooth_fields import VoxelGrid

_N_VESSELS = (5, 10)
_VESSEL_LENGTH, _VESSEL_RADIUS, _VESSEL_LOSS = (14.0, 28.0), (0.9, 1.4), (0.6, 0.95)
_VESSEL_DEPTH = (-0.5, 2.0)
_STEP = 1.0
_STEEPNESS = 0.35
_CALCIFIED_FROM_AGE, _CALCIFIED_SHARE = 60, 0.25
_PALLIDUM = (20.0, -4.0, 0.0)
_LACUNE_RADIUS, _LACUNE_FLUID = (1.8, 3.6), 0.9
_SAMPLES = 4


class Mimics(NamedTuple):
    """Findings that do not count.

    Attributes:
        vessels: dark tubes along the brain's surface and in sulci, with their signal loss.
        calcifications: dark bodies in the basal ganglia of both sides, with their signal loss.
        lacunes: fluid in deep grey or white matter, bright on b = 0 and dark under diffusion weighting.
    """

    vessels: tuple[tuple[Tube, float], ...]
    calcifications: tuple[tuple[Ellipsoid, float], ...]
    lacunes: tuple[Ellipsoid, ...]

    @property
    def bodies(self) -> list[Ellipsoid | Tube]:
        """All of them, for what must stay clear."""
        return [*(tube for tube, _ in self.vessels), *(body for body, _ in self.calcifications), *self.lacunes]


def draw_mimics(
    rng: np.random.Generator, clinical: Clinical, anatomy: Anatomy, grid: VoxelGrid, difficulty: Difficulty
) -> Mimics:
    """Random findings that do not count; some come with age and hypertension, none with the number of bleeds.

    Args:
        rng: where they come from.
        clinical: of the subject.
        anatomy: of the subject, on ``grid``.
        grid: voxels of the scan.
        difficulty: how dark calcifications are.
    """
    vessels = tuple(_vessel(rng, anatomy, grid) for _ in range(int(rng.integers(*_N_VESSELS, endpoint=True))))
    calcifications = []
    if rng.random() < _CALCIFIED_SHARE and clinical.age >= _CALCIFIED_FROM_AGE:
        for side in (-1.0, 1.0):
            place = _nearest(anatomy, grid, np.array(_PALLIDUM) * (side, 1, 1) + rng.normal(0, 1.5, size=3))
            body = Ellipsoid(place, rng.uniform(2.2, 4.5, size=3))
            calcifications.append((body, float(rng.uniform(*difficulty.calcification_loss))))
    expected = 0.4 + 0.4 * clinical.hypertension + 0.03 * max(clinical.age - MEAN_AGE, 0)
    lacunes = tuple(_lacune(rng, anatomy, grid) for _ in range(int(rng.poisson(expected))))
    return Mimics(vessels, tuple(calcifications), lacunes)


def paint_mimics(mimics: Mimics, grid: VoxelGrid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What is left of the signal, a factor ``(X, Y, Z)``, and the share of fluid that took the place of tissue.

    Args:
        mimics: from :func:`draw_mimics`.
        grid: voxels of the scan.
    """
    kept = np.ones(grid.shape, dtype=np.float32)
    for tube, loss in mimics.vessels:
        dim(kept, filled_share(tube, grid, _SAMPLES), loss)
    for body, loss in mimics.calcifications:
        dim(kept, filled_share(body, grid, _SAMPLES), loss)
    tissue = np.ones(grid.shape, dtype=np.float32)
    for lacune in mimics.lacunes:
        dim(tissue, filled_share(lacune, grid, _SAMPLES), _LACUNE_FLUID)
    return kept, 1 - tissue


def _vessel(rng: np.random.Generator, anatomy: Anatomy, grid: VoxelGrid) -> tuple[Tube, float]:
    """A tube that starts in CSF at the surface, above the tentorium, and runs up or down through several slices."""
    region = region_of(anatomy.template_position)
    low, high = _VESSEL_DEPTH
    start = (anatomy.brain_depth > low) & (anatomy.brain_depth < high) & (region == Region.LOBAR)
    place = _random_place(rng, start, grid)
    direction = np.array([*rng.normal(0, _STEEPNESS, size=2), rng.choice((-1.0, 1.0))])
    depth = _depth_at(place, anatomy, grid)
    curve = [place]
    for _ in range(int(rng.uniform(*_VESSEL_LENGTH) / _STEP)):
        direction = direction / np.linalg.norm(direction) + rng.normal(0, 0.12, size=3)
        place = place + _STEP * direction / np.linalg.norm(direction)
        # Held at its depth: the way out of the brain is taken as the way from the middle of the scan.
        outward = (place - np.array(grid.centre)) * (1, 1, 0.5)
        excess = np.clip(_depth_at(place, anatomy, grid) - depth, -2, 2)
        place = place + 0.5 * excess * outward / np.linalg.norm(outward)
        curve.append(place)
    return Tube(np.array(curve), float(rng.uniform(*_VESSEL_RADIUS))), float(rng.uniform(*_VESSEL_LOSS))


def _lacune(rng: np.random.Generator, anatomy: Anatomy, grid: VoxelGrid) -> Ellipsoid:
    region = region_of(anatomy.template_position)
    inner = (anatomy.parenchyma > 0.9) & (anatomy.brain_depth > 15.0) & (region != Region.INFRATENTORIAL)
    return Ellipsoid(_random_place(rng, inner, grid), rng.uniform(*_LACUNE_RADIUS, size=3))


def _random_place(rng: np.random.Generator, where: NDArray[np.bool_], grid: VoxelGrid) -> NDArray[np.float64]:
    voxels = np.flatnonzero(where)
    voxel = np.unravel_index(voxels[rng.integers(voxels.size)], grid.shape)
    return np.array([grid.axis(axis)[voxel[axis]] for axis in range(3)])


def _depth_at(place: NDArray[np.float64], anatomy: Anatomy, grid: VoxelGrid) -> float:
    """Depth below the brain's surface in the voxel nearest to a position, mm."""
    index = [
        int(np.clip(np.rint((place[a] - grid.axis(a)[0]) / grid.spacing[a]), 0, grid.shape[a] - 1)) for a in range(3)
    ]
    return float(anatomy.brain_depth[index[0], index[1], index[2]])


def _nearest(anatomy: Anatomy, grid: VoxelGrid, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where in the scan a place of the template lies."""
    squared = ((anatomy.template_position - target.astype(np.float32)) ** 2).sum(axis=-1)
    voxel = np.unravel_index(int(squared.argmin()), grid.shape)
    return np.array([grid.axis(axis)[voxel[axis]] for axis in range(3)])
