"""Spin-echo diffusion signal of the tissues, the scanner's shading and noise, and the integers that it stores.

Relaxation at 3 T. White and grey matter: T1 from Wansapura et al., J Magn Reson Imaging 1999;9:531-538 (832 and
1331 ms); T2 between theirs (80 and 110 ms) and those of Stanisz et al., Magn Reson Med 2005;54:507-512 (69 and 99 ms).
CSF: T1 of Rooney et al., Magn Reson Med 2007;57:308-318, about 4 s; T2 of Spijkerman et al., MAGMA 2018;31:415-424,
about 2 s. Muscle: Stanisz et al. Diffusion: Helenius et al., AJNR 2002;23:194-199 (white 0.70, cortex 0.89, deep grey
0.75); free water at body temperature for CSF. The proton densities, the iron-rich grey matter and what is left of
suppressed fat are assumptions, chosen so that the images look like the b = 0 of a 3 T scanner.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.anatomy import TISSUES
from mhsev_monai.cohort.smooth_fields import VoxelGrid, random_field


class Tissue(NamedTuple):
    """What a tissue's signal depends on.

    Attributes:
        proton_density: relative to CSF.
        t1: ms.
        t2: ms.
        adc: apparent diffusion coefficient, mm^2/s.
    """

    proton_density: float
    t1: float
    t2: float
    adc: float


TISSUE_TABLE: dict[str, Tissue] = {
    "csf": Tissue(1.00, 4000.0, 1800.0, 3.00e-3),
    "grey": Tissue(0.82, 1330.0, 95.0, 0.85e-3),
    "white": Tissue(0.70, 830.0, 75.0, 0.75e-3),
    "iron_grey": Tissue(0.76, 1100.0, 58.0, 0.75e-3),
    "soft": Tissue(0.50, 1410.0, 50.0, 1.20e-3),
    "fluid": Tissue(1.00, 4000.0, 1800.0, 3.00e-3),
}
"""By the names of ``anatomy.TISSUES``."""


class Contrast(NamedTuple):
    """How a volume is weighted: ``te`` and ``tr`` in ms, ``b`` in s/mm^2."""

    te: float
    tr: float
    b: float


def tissue_signal(tissue: Tissue, contrast: Contrast) -> float:
    """Spin-echo diffusion signal, PD (1 - exp(-TR/T1)) exp(-TE/T2) exp(-b ADC), in units of CSF's proton density."""
    recovered = 1 - np.exp(-contrast.tr / tissue.t1)
    return float(tissue.proton_density * recovered * np.exp(-contrast.te / tissue.t2 - contrast.b * tissue.adc))


def volume_signal(fractions: NDArray[np.float32], contrast: Contrast) -> NDArray[np.float32]:
    """Noise-free signal of voxels that hold several tissues, ``(X, Y, Z)``; diffusion is isotropic.

    Args:
        fractions: ``(6, X, Y, Z)``, see ``anatomy.TISSUES``.
        contrast: weighting of the volume.
    """
    signals = np.array([tissue_signal(TISSUE_TABLE[name], contrast) for name in TISSUES], dtype=np.float32)
    return np.tensordot(signals, fractions, axes=1)


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


def rician(signal: NDArray[np.float32], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Magnitude of the signal with complex normal noise of standard deviation ``sigma`` in each part."""
    real = signal + np.float32(sigma) * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = np.float32(sigma) * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.hypot(real, imaginary)


def stored_integers(signal: NDArray[np.float32], gain: float) -> NDArray[np.int16]:
    """The signal as a scanner stores it: times a fixed gain, rounded, not above 32767."""
    return np.clip(np.rint(signal * np.float32(gain)), 0, 32767).astype(np.int16)
