"""What a microbleed's hemosiderin does to the images around it: displaced signal in spin-echo EPI, blooming in T2*.

A bleed is a sphere of another magnetic susceptibility. Outside it the field of the scanner changes as around a dipole,
inside it does not (Schenck, Med Phys 1996;23:815-850, with the correction by Lorentz's sphere). A spin echo refocuses
the phases; in an echo-planar readout the shift of frequency still moves signal along the phase encoding. A gradient
echo adds up spins of all phases, and the void grows with the echo time (Yablonskiy and Haacke, Magn Reson Med
1994;32:749-763). Spins are taken as resting; relaxation and proton density are those of the surroundings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.displacement import displaced, displacement
from mhsev_monai.cohort.lesions import Box, Ellipsoid
from mhsev_monai.cohort.smooth_fields import VoxelGrid

PROTON_MHZ_PER_TESLA = 42.577
"""Gyromagnetic ratio of the proton over 2 pi."""

Direction = tuple[float, float, float]

# Samples per radius of the sphere, the closest they may be, mm, and how many a voxel has at most along an axis.
_EPI_PER_RADIUS, _GRADIENT_PER_RADIUS = 3.5, 7.0
_EPI_CLOSEST, _GRADIENT_CLOSEST, _MOST_SAMPLES = 0.4, 0.25, 8
# What is left of the effect at the border of the box: a share of a voxel, and radians.
_LEAST_SHIFT, _LEAST_PHASE = 0.08, 0.5
# No box reaches farther from the middle than this, mm; no signal moves farther than this, voxels.
_LARGEST_REACH, _LARGEST_SHIFT = 16.0, 8.0


class MagneticSphere(Protocol):
    """A body that disturbs the field; microbleeds are such bodies."""

    @property
    def body(self) -> Ellipsoid:
        """The core, a sphere in mm."""

    @property
    def loss(self) -> float:
        """Share of the signal lost inside the core, 0 to 1."""

    @property
    def susceptibility_ppm(self) -> float:
        """Volume susceptibility (SI) of the core minus that of tissue, in ppm."""


class EpiReadout(NamedTuple):
    """What displaces signal in an echo-planar image.

    Attributes:
        bandwidth_hz: of one voxel along the phase encoding, Y.
        field_tesla: strength of the scanner.
        field_direction: unit vector of the field in the coordinates of the grid.
    """

    bandwidth_hz: float
    field_tesla: float = 3.0
    field_direction: Direction = (0.0, 0.0, 1.0)


class _Samples(NamedTuple):
    """Evenly spread points around a sphere; ``box`` and ``voxels`` say which voxels they are in."""

    offsets: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
    first: tuple[int, int, int]
    voxels: tuple[int, int, int]
    per_voxel: tuple[int, int, int]


def sphere_frequency(
    offsets: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    radius: float,
    surface_hz: float,
    field_direction: Direction = (0.0, 0.0, 1.0),
) -> NDArray[np.float32]:
    """Shift of the resonance frequency around a sphere, Hz; 0 inside it.

    Args:
        offsets: positions along X, Y and Z from the middle of the sphere, mm; the result is on their product.
        radius: mm.
        surface_hz: f0 chi / 3, half of the shift at the poles.
        field_direction: unit vector.
    """
    x, y, z = offsets[0][:, None, None], offsets[1][None, :, None], offsets[2][None, None, :]
    squared = np.maximum(x * x + y * y + z * z, np.float32(1e-6))
    along = np.float32(field_direction[0]) * x + np.float32(field_direction[1]) * y + np.float32(field_direction[2]) * z
    # (R / r)^3 (3 cos^2 - 1) with cos = along / r.
    shift = np.float32(surface_hz * radius**3) * (3 * along * along / squared - 1) / (squared * np.sqrt(squared))
    shift[squared < radius**2] = 0
    return shift


def spin_echo_epi_factor(bleeds: Sequence[MagneticSphere], grid: VoxelGrid, epi: EpiReadout) -> NDArray[np.float32]:
    """Factor ``(X, Y, Z)`` on the signal of a spin-echo echo-planar image; effects of several bleeds multiply.

    The sum of the signal stays the same but for what the cores lose; far away the factor is 1.

    Args:
        bleeds: spheres in mm.
        grid: voxels of the scan; Y is the phase encoding.
        epi: readout.
    """
    factor = np.ones(grid.shape, dtype=np.float32)
    for bleed in bleeds:
        radius, surface_hz = _sphere(bleed, epi.field_tesla)
        reach = _reach(radius, 2 * abs(surface_hz) / epi.bandwidth_hz, _LEAST_SHIFT)
        most = float(np.ceil(min(2 * abs(surface_hz) / epi.bandwidth_hz, _LARGEST_SHIFT)))
        samples = _sampled(bleed.body.centre, reach, grid, max(radius / _EPI_PER_RADIUS, _EPI_CLOSEST), most)
        distance = _distance(samples.offsets)
        shift = sphere_frequency(samples.offsets, radius, surface_hz, epi.field_direction) / np.float32(
            epi.bandwidth_hz
        )
        # Fades towards the border of the box, where the rest of the field is cut off.
        shift = np.clip(shift, -_LARGEST_SHIFT, _LARGEST_SHIFT) * _fade(distance, reach)
        signal = np.where(distance < radius, np.float32(1 - bleed.loss), np.float32(1))
        moved = displaced(signal, displacement(shift * samples.per_voxel[1]))
        _multiply(factor, _voxel_mean(moved, samples), samples)
    return factor


def gradient_echo_factor(
    bleeds: Sequence[MagneticSphere],
    grid: VoxelGrid,
    te_ms: float,
    field_tesla: float,
    field_direction: Direction = (0.0, 0.0, 1.0),
) -> NDArray[np.float32]:
    """Factor ``(X, Y, Z)`` in 0 to 1 on the magnitude of a gradient echo; effects of several bleeds multiply.

    Args:
        bleeds: spheres in mm.
        grid: voxels of the scan.
        te_ms: echo time.
        field_tesla: strength of the scanner.
        field_direction: unit vector of the field in the coordinates of the grid.
    """
    factor = np.ones(grid.shape, dtype=np.float32)
    for bleed in bleeds:
        radius, surface_hz = _sphere(bleed, field_tesla)
        cycles = te_ms / 1000
        reach = _reach(radius, 2 * np.pi * 2 * abs(surface_hz) * cycles, _LEAST_PHASE)
        samples = _sampled(bleed.body.centre, reach, grid, max(radius / _GRADIENT_PER_RADIUS, _GRADIENT_CLOSEST), 0.0)
        phase = sphere_frequency(samples.offsets, radius, surface_hz, field_direction) * np.float32(2 * np.pi * cycles)
        distance = _distance(samples.offsets)
        signal = np.where(distance < radius, np.float32(1 - bleed.loss), np.float32(1))
        phase *= _fade(distance, reach)
        real, imaginary = (_voxel_mean(signal * part(phase), samples) for part in (np.cos, np.sin))
        _multiply(factor, np.hypot(real, imaginary), samples)
    return factor


def _sphere(bleed: MagneticSphere, field_tesla: float) -> tuple[float, float]:
    """Radius in mm of a sphere of the same volume, and f0 chi / 3 in Hz: MHz times ppm is Hz."""
    return float(
        np.cbrt(np.prod(bleed.body.half_axes))
    ), PROTON_MHZ_PER_TESLA * field_tesla * bleed.susceptibility_ppm / 3


def _reach(radius: float, at_surface: float, least: float) -> float:
    """Distance from the middle, mm, at which an effect that falls with the third power is as small as ``least``.

    It is lengthened by a quarter, since the effect fades over the outer third.
    """
    return float(min(max(1.25 * radius * np.cbrt(at_surface / least), 1.2 * radius), _LARGEST_REACH))


def _sampled(centre: NDArray[np.float64], reach: float, grid: VoxelGrid, sampling: float, margin_y: float) -> _Samples:
    """Samples of all voxels within ``reach`` mm, and ``margin_y`` voxels more along Y; the grid's border is ignored."""
    offsets, firsts, voxels, per_voxel = [], [], [], []
    for axis in range(3):
        origin, spacing = grid.axis(axis)[0], grid.spacing[axis]
        margin = margin_y if axis == 1 else 0.0
        first = round((centre[axis] - reach - origin) / spacing - margin)
        last = round((centre[axis] + reach - origin) / spacing + margin)
        n = int(np.clip(round(spacing / sampling), 3, _MOST_SAMPLES))
        within = (np.arange(n) + 0.5) / n - 0.5
        positions = (np.arange(first, last + 1)[:, None] + within).ravel() * spacing + origin
        offsets.append((positions - centre[axis]).astype(np.float32))
        firsts.append(first)
        voxels.append(last + 1 - first)
        per_voxel.append(n)
    return _Samples(
        (offsets[0], offsets[1], offsets[2]),
        (firsts[0], firsts[1], firsts[2]),
        (voxels[0], voxels[1], voxels[2]),
        (per_voxel[0], per_voxel[1], per_voxel[2]),
    )


def _distance(offsets: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]) -> NDArray[np.float32]:
    x, y, z = (part * part for part in offsets)
    distance: NDArray[np.float32] = np.sqrt(x[:, None, None] + y[None, :, None] + z[None, None, :])
    return distance


def _fade(distance: NDArray[np.float32], reach: float) -> NDArray[np.float32]:
    """1 near the sphere, falling to 0 over the outer third of the reach."""
    fade: NDArray[np.float32] = np.clip(3 * (1 - distance / np.float32(reach)), 0, 1)
    return fade


def _voxel_mean(values: NDArray[np.float32], samples: _Samples) -> NDArray[np.float32]:
    shape = [n for pair in zip(samples.voxels, samples.per_voxel, strict=True) for n in pair]
    mean: NDArray[np.float32] = values.reshape(shape).mean(axis=(1, 3, 5))
    return mean


def _multiply(factor: NDArray[np.float32], local: NDArray[np.float32], samples: _Samples) -> None:
    """Multiply, in place, the part of ``factor`` around a bleed; what lies beyond the grid is cut off."""
    low = [max(first, 0) for first in samples.first]
    high = [min(first + n, size) for first, n, size in zip(samples.first, samples.voxels, factor.shape, strict=True)]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return
    box: Box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    part = tuple(slice(a - first, b - first) for a, b, first in zip(low, high, samples.first, strict=True))
    factor[box] *= local[part]
