"""Off-resonance by the air in sinuses and petrous bones, and what it does to the images near the skull base.

Each pocket of air acts outside itself about as a magnetised sphere does (Schenck, Med Phys 1996;23:815-850): air is 9.4
ppm more magnetic than tissue. What a linear shim takes out of the brain's field is taken out. Positions and sizes of
the pockets are assumptions, drawn in MNI space from an atlas of the head.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.displacement import displaced, displacement
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.susceptibility import PROTON_MHZ_PER_TESLA

_AIR_MINUS_TISSUE_PPM = 9.4
# Middle and half axes, MNI mm: frontal, ethmoid and sphenoid sinus; mastoid cells and ear canals of both sides.
_POCKETS = (
    ((0.0, 76.0, -8.0), (13.0, 5.0, 9.0)),
    ((0.0, 46.0, -34.0), (9.0, 17.0, 9.0)),
    ((0.0, 18.0, -36.0), (9.0, 9.0, 8.0)),
    *(((side * 52.0, -34.0, -44.0), (6.0, 9.0, 9.0)) for side in (-1.0, 1.0)),
    *(((side * 60.0, -18.0, -40.0), (9.0, 3.5, 3.5)) for side in (-1.0, 1.0)),
)
# Partly filled with bone and mucosa.
_AERATED = 0.8
# The field is not known better than this next to a pocket, Hz.
_LARGEST_HZ = 120.0
_SHIM_STRIDE = 4
_SUBDIVISIONS = 3
# Voxels of a fine bin below which a row is left alone.
_LEAST_SHIFT = 0.02


def air_field(anatomy: Anatomy, grid: VoxelGrid, field_tesla: float) -> NDArray[np.float32]:
    """Off-resonance after the shim, ``(X, Y, Z)`` in Hz.

    Args:
        anatomy: of the subject, on ``grid``.
        grid: voxels of the scan.
        field_tesla: strength of the scanner.
    """
    surface_hz = np.float32(_AERATED * PROTON_MHZ_PER_TESLA * field_tesla * _AIR_MINUS_TISSUE_PPM / 3)
    position = np.moveaxis(anatomy.template_position, -1, 0)
    field = np.zeros(grid.shape, dtype=np.float32)
    for centre, half_axes in _POCKETS:
        radius = np.float32(np.prod(half_axes) ** (1 / 3))
        x, y, z = (position[axis] - np.float32(centre[axis]) for axis in range(3))
        # A pocket is no sphere with a sharp surface: near it the field is that of a blurred one.
        squared = x * x + y * y + z * z + radius**2
        field += surface_hz * radius**3 * (3 * z * z / squared - 1) / (squared * np.sqrt(squared))
    soft = np.float32(_LARGEST_HZ) * np.tanh(field / np.float32(_LARGEST_HZ))
    return soft - _linear_part(soft, anatomy, grid)


def _linear_part(field: NDArray[np.float32], anatomy: Anatomy, grid: VoxelGrid) -> NDArray[np.float32]:
    """The linear function of position that fits the field in the brain best: a first-order shim."""
    coarse = (slice(None, None, _SHIM_STRIDE),) * 3
    axes = [grid.axis(axis).astype(np.float32) for axis in range(3)]
    brain = anatomy.brain_depth[coarse] > 0
    grids = np.meshgrid(*(positions[::_SHIM_STRIDE] for positions in axes), indexing="ij")
    design = np.stack([np.ones(int(brain.sum()), dtype=np.float32), *(part[brain] for part in grids)], axis=1)
    constant, along_x, along_y, along_z = np.linalg.lstsq(design, field[coarse][brain], rcond=None)[0]
    x, y, z = axes
    plane = (along_x * x)[:, None, None] + (along_y * y)[None, :, None] + (along_z * z)[None, None, :]
    linear: NDArray[np.float32] = (plane + constant).astype(np.float32)
    return linear


def through_slice_factor(field: NDArray[np.float32], dephasing_ms: float) -> NDArray[np.float32]:
    """What dephasing across the slice leaves of the signal, ``(X, Y, Z)``: the sinc of a linear change of phase.

    Args:
        field: off-resonance, Hz.
        dephasing_ms: how long spins dephase: the echo time of a gradient echo. A spin echo refocuses; what remains in
            an echo-planar readout is described by a few ms.
    """
    change = np.gradient(field, axis=2)
    factor: NDArray[np.float32] = np.abs(np.sinc(change * np.float32(dephasing_ms / 1000))).astype(np.float32)
    return factor


def epi_distorted(
    volumes: list[NDArray[np.float32]], field: NDArray[np.float32], bandwidth_hz: float
) -> list[NDArray[np.float32]]:
    """Volumes whose signal is moved along the phase encoding Y by the off-resonance; it piles up and thins out.

    Args:
        volumes: ``(X, Y, Z)`` each.
        field: off-resonance, Hz.
        bandwidth_hz: of one voxel along Y.
    """
    shift = field / np.float32(bandwidth_hz)
    slices = np.flatnonzero(np.abs(shift).max(axis=(0, 1)) > _LEAST_SHIFT)
    n_x, n_y, _ = shift.shape
    fine = np.repeat(shift[..., slices], _SUBDIVISIONS, axis=1)
    # Linear between the voxels' middles, so that signal of one voxel spreads evenly.
    step = np.gradient(shift[..., slices], axis=1)
    within = (np.arange(_SUBDIVISIONS) + 0.5) / _SUBDIVISIONS - 0.5
    fine += np.repeat(step, _SUBDIVISIONS, axis=1) * np.tile(within, n_y).astype(np.float32)[None, :, None]
    by = displacement(fine * _SUBDIVISIONS)
    distorted = []
    for volume in volumes:
        moved = displaced(np.repeat(volume[..., slices], _SUBDIVISIONS, axis=1), by)
        result = volume.copy()
        result[..., slices] = moved.reshape(n_x, n_y, _SUBDIVISIONS, -1).mean(axis=2)
        distorted.append(result)
    return distorted
