"""Signal of the tissues under spin-echo diffusion weighting or a gradient echo, the coil's shading, stored integers.

Relaxation at 3 T. White and grey matter: T1 from Wansapura et al., J Magn Reson Imaging 1999;9:531-538 (832 and
1331 ms), T2* near theirs (about 45 to 50 ms in both). T2 of white matter lies between theirs (80 ms) and that of
Stanisz et al., Magn Reson Med 2005;54:507-512 (69 ms); T2 of grey matter somewhat below both (110 and 99 ms), since
real scans show the brain darker against CSF. CSF: T1 of Rooney et al., Magn Reson Med 2007;57:308-318, about
4 s; T2 of Spijkerman et al., MAGMA 2018;31:415-424, about 2 s. Muscle: Stanisz et al. Diffusion: Helenius et al., AJNR
2002;23:194-199 (white 0.70, cortex 0.89, deep grey 0.75); free water at body temperature for CSF. Cortex is set to
0.80, below the cited value: a measured one holds the CSF that voxels of the cortex share, which here comes on top.

Assumptions, chosen so that the images look like those of a 3 T scanner: all proton densities; T2* of CSF, muscle and
fluid; the iron-rich grey matter; what is left of suppressed fat; infarct (T2 up by a half, ADC down by 40 %)
and white-matter hyperintensity (T2 up by a half, ADC up by a quarter), and the anisotropy of white matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.anatomy import TISSUES
from mhsev_monai.cohort.smooth_fields import SmoothField, VoxelGrid, random_field

SCANNED_TISSUES = (*TISSUES, "infarct", "hyperintensity")
"""Order of the fractions that are scanned: those of the anatomy, and what disease adds."""

_ANISOTROPY_KNOTS, _ANISOTROPY_SD = 11.0, 0.18


class Tissue(NamedTuple):
    """What a tissue's signal depends on.

    Attributes:
        proton_density: relative to CSF.
        t1: ms.
        t2: ms.
        t2_star: ms.
        adc: apparent diffusion coefficient, mm^2/s.
    """

    proton_density: float
    t1: float
    t2: float
    t2_star: float
    adc: float


TISSUE_TABLE: dict[str, Tissue] = {
    "csf": Tissue(1.00, 4000.0, 1800.0, 300.0, 3.00e-3),
    "grey": Tissue(0.78, 1330.0, 90.0, 50.0, 0.80e-3),
    "white": Tissue(0.68, 830.0, 71.0, 47.0, 0.70e-3),
    "iron_grey": Tissue(0.76, 1100.0, 58.0, 26.0, 0.75e-3),
    "soft": Tissue(0.50, 1410.0, 50.0, 28.0, 1.20e-3),
    "fluid": Tissue(1.00, 4000.0, 1800.0, 300.0, 3.00e-3),
    "infarct": Tissue(0.84, 1500.0, 112.0, 70.0, 0.45e-3),
    "hyperintensity": Tissue(0.80, 1150.0, 107.0, 65.0, 0.95e-3),
}
"""By the names of ``SCANNED_TISSUES``."""


class Contrast(NamedTuple):
    """How a volume is weighted.

    Attributes:
        te: echo time, ms.
        tr: repetition time, ms.
        b: s/mm^2.
        flip_degrees: None for a spin echo; the angle of a spoiled gradient echo.
    """

    te: float
    tr: float
    b: float
    flip_degrees: float | None = None


Direction = tuple[float, float, float]


class WhiteMatterTensor(NamedTuple):
    """How diffusion in white matter differs between directions; the mean over three orthogonal ones is not changed.

    Attributes:
        fields: relative deviation of the diffusion coefficient along X and along Y; along Z it is minus their sum.
    """

    fields: tuple[SmoothField, SmoothField]

    def deviation(self, direction: Direction, grid: VoxelGrid) -> NDArray[np.float32]:
        """Relative deviation of the diffusion coefficient along a unit vector, ``(X, Y, Z)``."""
        x, y, z = (component**2 for component in direction)
        axes = (grid.axis(0), grid.axis(1), grid.axis(2))
        first, second = self.fields
        blended = first._replace(coefficients=(x - z) * first.coefficients + (y - z) * second.coefficients)
        return np.clip(blended.on_axes(axes), -0.5, 0.5)


def draw_tensor(rng: np.random.Generator, grid: VoxelGrid) -> WhiteMatterTensor:
    """A random, smooth anisotropy on the box of ``grid``."""
    first, second = (random_field(rng, grid, _ANISOTROPY_KNOTS, _ANISOTROPY_SD) for _ in range(2))
    return WhiteMatterTensor((first, second))


def tissue_signal(tissue: Tissue, contrast: Contrast) -> float:
    """Signal of a tissue in units of CSF's proton density.

    Spin echo with diffusion weighting: PD (1 - exp(-TR/T1)) exp(-TE/T2) exp(-b ADC). Spoiled gradient echo, after Ernst
    and Anderson, Rev Sci Instrum 1966;37:93-102: PD sin a (1 - E1) / (1 - E1 cos a) exp(-TE/T2*), E1 = exp(-TR/T1).
    """
    unrecovered = np.exp(-contrast.tr / tissue.t1)
    if contrast.flip_degrees is None:
        decay = np.exp(-contrast.te / tissue.t2 - contrast.b * tissue.adc)
        return float(tissue.proton_density * (1 - unrecovered) * decay)
    angle = np.deg2rad(contrast.flip_degrees)
    steady = np.sin(angle) * (1 - unrecovered) / (1 - unrecovered * np.cos(angle))
    return float(tissue.proton_density * steady * np.exp(-contrast.te / tissue.t2_star))


def volume_signal(
    fractions: NDArray[np.float32], contrast: Contrast, white_deviation: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Noise-free signal of voxels that hold several tissues, ``(X, Y, Z)``.

    Args:
        fractions: ``(n, X, Y, Z)``, the first n of ``SCANNED_TISSUES``.
        contrast: weighting of the volume.
        white_deviation: ``(X, Y, Z)``, relative deviation of white matter's diffusion coefficient; None for none.
    """
    names = SCANNED_TISSUES[: len(fractions)]
    signals = np.array([tissue_signal(TISSUE_TABLE[name], contrast) for name in names], dtype=np.float32)
    signal: NDArray[np.float32] = np.tensordot(signals, fractions, axes=1)
    if white_deviation is not None and contrast.b > 0:
        white = names.index("white")
        exponent = np.float32(-contrast.b * TISSUE_TABLE["white"].adc) * white_deviation
        signal += signals[white] * fractions[white] * np.expm1(exponent)
    return signal


def coil_shading(rng: np.random.Generator, grid: VoxelGrid, strength: float) -> NDArray[np.float32]:
    """A smooth factor around 1, ``(X, Y, Z)``: brighter towards the coil's elements around the head.

    Args:
        rng: where the uneven part comes from.
        grid: voxels of the scan.
        strength: how much log-brightness rises from the middle to 90 mm off, and the scale of the uneven part.
    """
    x, y, z = (((grid.axis(axis) - grid.centre[axis]) / 90.0) ** 2 for axis in range(3))
    bowl = x[:, None, None] + y[None, :, None] + 0.5 * z[None, None, :]
    uneven = random_field(rng, grid, 90.0, 0.35 * strength).on_axes(tuple(grid.axis(axis) for axis in range(3)))
    shading: NDArray[np.float32] = np.exp(strength * (bowl - 0.4).astype(np.float32) + uneven)
    return shading


def stored_integers(signal: NDArray[np.float32], gain: float) -> NDArray[np.int16]:
    """The signal as a scanner stores it: times a fixed gain, rounded, not above 32767."""
    return np.clip(np.rint(signal * np.float32(gain)), 0, 32767).astype(np.int16)
