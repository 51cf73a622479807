"""Findings that change water rather than take signal: perivascular spaces, lacunes, white-matter lesions, infarcts.

Fluid is bright on b = 0 and dark under diffusion weighting, an infarct of the last days is bright on both, and a
white-matter hyperintensity is a little brighter on b = 0. How often they occur grows with age and hypertension; the
rates are assumptions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.clinical import MEAN_AGE, Clinical
from mhsev_monai.cohort.disease import Difficulty
from mhsev_monai.cohort.lesions import Ellipsoid, Tube
from mhsev_monai.cohort.placement import nearest_to_template, random_place
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.regions import Region, region_of

_LACUNE_RADIUS = (1.8, 3.6)
_DEEP = 15.0
_SPACE_RADIUS, _SPACE_LENGTH, _STEP = (0.4, 0.9), (4.0, 10.0), 0.5
# Where perivascular spaces gather at the foot of the basal ganglia, MNI mm, and how far around it.
_BASAL_GANGLIA, _BASAL_SPREAD = (20.0, 4.0, -6.0), (4.0, 5.0, 3.0)
_CENTRUM = (24.0, 44.0)
_PATCH_RADIUS, _CAP_RADIUS = (2.0, 6.0), (2.5, 6.5)
_PATCH_DEPTH, _CAP_REACH = 8.0, 8.0
_VENTRICLE_DEPTH = 22.0
_INFARCT_SHARE, _INFARCT_HYPERTENSION = 0.03, 0.03
_INFARCT_RADIUS = (3.0, 9.0)
_WHITE = 0.8


def draw_lacunes(
    rng: np.random.Generator, clinical: Clinical, anatomy: Anatomy, grid: VoxelGrid, difficulty: Difficulty
) -> tuple[Ellipsoid, ...]:
    """Small holes filled with fluid in deep grey or white matter."""
    expected = 0.4 + 0.4 * clinical.hypertension + 0.03 * max(clinical.age - MEAN_AGE, 0)
    region = region_of(anatomy.template_position)
    inner = (anatomy.parenchyma > 0.9) & (anatomy.brain_depth > _DEEP) & (region != Region.INFRATENTORIAL)
    places = (random_place(rng, inner, grid) for _ in range(int(rng.poisson(expected * difficulty.mimics))))
    return tuple(Ellipsoid(place, rng.uniform(*_LACUNE_RADIUS, size=3)) for place in places if place is not None)


def draw_perivascular_spaces(
    rng: np.random.Generator, clinical: Clinical, anatomy: Anatomy, grid: VoxelGrid, difficulty: Difficulty
) -> tuple[Tube, ...]:
    """Thin fluid along vessels: upright in the basal ganglia, towards the ventricles in the centrum semiovale."""
    decades = max(clinical.age - 45, 0) / 10
    spaces = []
    for _ in range(int(rng.poisson((1.0 + 0.8 * decades + clinical.hypertension) * difficulty.mimics))):
        side = float(rng.choice((-1.0, 1.0)))
        target = (np.array(_BASAL_GANGLIA) + rng.normal(0, _BASAL_SPREAD)) * (side, 1, 1)
        direction = np.array([*rng.normal(0, 0.2, size=2), 1.0])
        spaces.append(_space(rng, nearest_to_template(anatomy, grid, target), direction))
    low, high = _CENTRUM
    height = anatomy.template_position[..., 2]
    centrum = (anatomy.fractions[2] > _WHITE) & (height > low) & (height < high) & (anatomy.brain_depth > _PATCH_DEPTH)
    for _ in range(int(rng.poisson((1.0 + 1.0 * decades) * difficulty.mimics))):
        place = random_place(rng, centrum, grid)
        if place is not None:
            inward = np.array(grid.centre) - place
            spaces.append(_space(rng, place, inward / np.linalg.norm(inward) + rng.normal(0, 0.3, size=3)))
    return tuple(spaces)


def _space(rng: np.random.Generator, middle: NDArray[np.float64], direction: NDArray[np.float64]) -> Tube:
    length = rng.uniform(*_SPACE_LENGTH)
    along = np.arange(-length / 2, length / 2 + _STEP / 2, _STEP)
    middle = middle + rng.uniform(-0.5, 0.5, size=3)
    return Tube(middle + along[:, None] * direction / np.linalg.norm(direction), float(rng.uniform(*_SPACE_RADIUS)))


def draw_hyperintensities(
    rng: np.random.Generator, clinical: Clinical, anatomy: Anatomy, grid: VoxelGrid, difficulty: Difficulty
) -> tuple[Ellipsoid, ...]:
    """White-matter hyperintensities: caps around the ventricles and patches in deep white matter, within the white."""
    white = anatomy.fractions[2] > _WHITE
    to_other = ndimage.distance_transform_edt(white, sampling=grid.spacing)
    ventricles = (anatomy.fractions[0] > 0.5) & (anatomy.brain_depth > _VENTRICLE_DEPTH)
    to_ventricle = ndimage.distance_transform_edt(~ventricles, sampling=grid.spacing)
    region = region_of(anatomy.template_position)
    upper = white & (region != Region.INFRATENTORIAL) & (anatomy.brain_depth > _PATCH_DEPTH)
    decades = max(clinical.age - 50, 0) / 10
    burden = (1 + 0.5 * clinical.hypertension) * difficulty.mimics
    kinds = (
        (upper & (to_ventricle < _CAP_REACH), (1.5 + 1.5 * decades) * burden, _CAP_RADIUS),
        (upper & (to_ventricle >= _CAP_REACH), (0.3 + 1.2 * decades) * burden, _PATCH_RADIUS),
    )
    found = []
    for where, expected, radii in kinds:
        for _ in range(int(rng.poisson(expected))):
            place = random_place(rng, where, grid)
            if place is not None:
                room = _value_at(to_other, place, grid)
                found.append(Ellipsoid(place, np.minimum(rng.uniform(*radii, size=3), max(room, radii[0]))))
    return tuple(found)


def draw_infarcts(
    rng: np.random.Generator, clinical: Clinical, anatomy: Anatomy, grid: VoxelGrid, difficulty: Difficulty
) -> tuple[Ellipsoid, ...]:
    """A recent infarct, of few subjects."""
    share = (_INFARCT_SHARE + _INFARCT_HYPERTENSION * clinical.hypertension) * difficulty.mimics
    if rng.random() >= share:
        return ()
    place = random_place(rng, (anatomy.parenchyma > 0.9) & (anatomy.brain_depth > _PATCH_DEPTH), grid)
    return () if place is None else (Ellipsoid(place, rng.uniform(*_INFARCT_RADIUS, size=3)),)


def _value_at(values: NDArray[np.float64], place: NDArray[np.float64], grid: VoxelGrid) -> float:
    """The value of the voxel whose middle a place is."""
    index = tuple(round((place[axis] - grid.axis(axis)[0]) / grid.spacing[axis]) for axis in range(3))
    return float(values[index])
