"""What looks like a microbleed and does not count: its drawing, and what it does to the voxels of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.bright_mimics import (
    draw_hyperintensities,
    draw_infarcts,
    draw_lacunes,
    draw_perivascular_spaces,
)
from mhsev_monai.cohort.clinical import Clinical
from mhsev_monai.cohort.dark_mimics import Calcification, Vessel, draw_calcifications, draw_flow_voids, draw_veins
from mhsev_monai.cohort.disease import Difficulty, dim
from mhsev_monai.cohort.great_vessels import VesselPiece, draw_great_vessels
from mhsev_monai.cohort.lesions import Ellipsoid, Tube, filled_share
from mhsev_monai.cohort.smooth_fields import VoxelGrid

_SAMPLES = 4
_LACUNE_FLUID, _SPACE_FLUID = 0.9, 0.9
_INFARCT_SHARE, _HYPERINTENSE_SHARE = 1.0, 0.8


class Mimics(NamedTuple):
    """Findings that do not count.

    Attributes:
        flow_voids: dark tubes along the brain's surface and in sulci.
        veins: short dark tubes in sulci, across the slices.
        calcifications: dark bodies in basal ganglia, choroid plexus and pineal gland; their fields are left to those
            who make the signal.
        lacunes: fluid in deep grey or white matter.
        perivascular_spaces: thin tubes of fluid.
        hyperintensities: of white matter.
        infarcts: recent ones.
        great_vessels: flow voids of the named arteries and veins, which every head has.
    """

    flow_voids: tuple[Vessel, ...] = ()
    veins: tuple[Vessel, ...] = ()
    calcifications: tuple[Calcification, ...] = ()
    lacunes: tuple[Ellipsoid, ...] = ()
    perivascular_spaces: tuple[Tube, ...] = ()
    hyperintensities: tuple[Ellipsoid, ...] = ()
    infarcts: tuple[Ellipsoid, ...] = ()
    great_vessels: tuple[VesselPiece, ...] = ()

    @property
    def bodies(self) -> list[Ellipsoid | Tube]:
        """All of them, for what must stay clear."""
        bodies: list[Ellipsoid | Tube] = [finding.body for finding in self.dark]
        return [*bodies, *self.lacunes, *self.perivascular_spaces, *self.hyperintensities, *self.infarcts]

    @property
    def dark(self) -> list[Vessel | VesselPiece | Calcification]:
        """Those that take signal."""
        return [*self.flow_voids, *self.veins, *self.great_vessels, *self.calcifications]


class MimicEffects(NamedTuple):
    """What mimics do to voxels; all ``(X, Y, Z)`` float32 in 0 to 1.

    Attributes:
        kept: factor on the signal.
        fluid: share of the voxel that is fluid instead of tissue.
        restricted: share that is a recent infarct: longer T2, ADC near 0.45e-3 mm^2/s.
        hyperintense: share that is a white-matter hyperintensity: longer T2, slightly larger ADC.
    """

    kept: NDArray[np.float32]
    fluid: NDArray[np.float32]
    restricted: NDArray[np.float32]
    hyperintense: NDArray[np.float32]


def draw_mimics(
    rng: np.random.Generator, clinical: Clinical, anatomy: Anatomy, grid: VoxelGrid, difficulty: Difficulty
) -> Mimics:
    """Random findings that do not count; some come with age and hypertension, none with the number of bleeds.

    Each kind has a stream of its own, so that one can be changed and the others stay.

    Args:
        rng: where they come from.
        clinical: of the subject.
        anatomy: of the subject, on ``grid``.
        grid: voxels of the scan.
        difficulty: how many there are, and how dark calcifications are.
    """
    voids, veins, calcium, lacunes, spaces, white, infarcts, great = rng.spawn(len(Mimics._fields))
    subject = clinical, anatomy, grid, difficulty
    return Mimics(
        draw_flow_voids(voids, anatomy, grid, difficulty),
        draw_veins(veins, anatomy, grid, difficulty),
        draw_calcifications(calcium, *subject),
        draw_lacunes(lacunes, *subject),
        draw_perivascular_spaces(spaces, *subject),
        draw_hyperintensities(white, *subject),
        draw_infarcts(infarcts, *subject),
        draw_great_vessels(great, anatomy, grid),
    )


def paint_mimics(mimics: Mimics, grid: VoxelGrid) -> MimicEffects:
    """What the mimics do to the voxels of a scan.

    Args:
        mimics: from :func:`draw_mimics`.
        grid: voxels of the scan.
    """
    kept = np.ones(grid.shape, dtype=np.float32)
    for finding in mimics.dark:
        dim(kept, filled_share(finding.body, grid, _SAMPLES), finding.loss)
    dry = _without(mimics.lacunes, _LACUNE_FLUID, grid) * _without(mimics.perivascular_spaces, _SPACE_FLUID, grid)
    return MimicEffects(
        kept,
        1 - dry,
        1 - _without(mimics.infarcts, _INFARCT_SHARE, grid),
        1 - _without(mimics.hyperintensities, _HYPERINTENSE_SHARE, grid),
    )


def _without(bodies: Sequence[Ellipsoid | Tube], share: float, grid: VoxelGrid) -> NDArray[np.float32]:
    """What bodies leave of each voxel when they take a share of what they fill."""
    left = np.ones(grid.shape, dtype=np.float32)
    for body in bodies:
        dim(left, filled_share(body, grid, _SAMPLES), share)
    return left
