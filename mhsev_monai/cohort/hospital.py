"""A hospital of the simulation: its protocol, its patients, and how scans vary within it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mhsev_monai.cohort.smooth_fields import VoxelGrid

FIELD_TESLA = 3.0
# Voxels of the coarse variant of a hospital, mm.
_SMALL_SPACING = (3.4, 3.4, 5.0)
# A three-dimensional gradient echo as vendors set it for SWI at 3 T.
_SWI_TE_MS, _SWI_TR_MS, _SWI_FLIP_DEGREES = 20.0, 28.0, 15.0
# A volume is read for longer than one echo train: its noise is lower.
_SWI_SNR_GAIN = 1.4
# How scans of one site vary: standard deviations of factors, and of degrees.
_SNR_SD, _GAIN_SD, _SHADING_SD, _GHOST_SD, _BANDWIDTH_SD = 0.10, 0.15, 0.15, 0.30, 0.03
_OBLIQUE_SD_DEGREES = 1.5
_FACTOR_LIMIT = 2.5
# s/mm^2; up to here a volume counts as b = 0.
_UNWEIGHTED = 50.0
_DIAGONALS = ((1, 1, 0), (1, 0, 1), (0, 1, 1), (1, -1, 0), (1, 0, -1), (0, 1, -1))


@dataclass(frozen=True)
class Hospital:
    """A site's protocol and patients.

    Attributes:
        name: of the site and of its folder.
        n_reference: subjects of 500; sites share a cohort in this proportion.
        shape: voxels along the axes of the stored image.
        spacing: voxel size, mm.
        acquired: points of k-space along X and Y, at most those of ``shape``; the rest is filled with zeros.
        orientation: where the stored axes lead, such as ``"LAS"``.
        oblique_degrees: turn of the slices about the world's X, Y and Z.
        b_values: s/mm^2, one a volume.
        te_ms: echo time.
        tr_ms: repetition time.
        phase_bandwidth_hz: of a stored voxel along the phase encoding, which is Y.
        ghost: amplitude of the N/2 ghost as a share of the signal.
        snr: of white matter on b = 0 where the shading is 1.
        shading: strength of the coil's shading, see ``signal.coil_shading``.
        gain: stored integers per unit of signal.
        masked_background: whether the scanner stores 0 outside the head.
        severity_mix: shares of mild, moderate and severe among subjects with microbleeds.
        lognormal_severe_share: share of severe among them when counts follow the distribution of real cohorts.
        manufacturer: as written beside the images.
        contrast: ``dwi``, or ``swi`` for a gradient echo.
        flip_degrees: of the gradient echo; a spin echo takes 90.
    """

    name: str
    n_reference: int
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    acquired: tuple[int, int]
    orientation: str
    oblique_degrees: tuple[float, float, float]
    b_values: tuple[float, ...]
    te_ms: float
    tr_ms: float
    phase_bandwidth_hz: float
    ghost: float
    snr: float
    shading: float
    gain: float
    masked_background: bool
    severity_mix: tuple[float, float, float]
    lognormal_severe_share: float
    manufacturer: str = "simulated"
    contrast: str = "dwi"
    flip_degrees: float = 90.0

    def __post_init__(self) -> None:
        if len(self.severity_mix) != 3 or abs(sum(self.severity_mix) - 1) > 1e-9 or min(self.severity_mix) < 0:
            raise ValueError(f"severity_mix must be three shares that sum to 1, got {self.severity_mix}")
        if self.orientation not in ("RAS", "LAS", "RPS", "LPS"):
            raise ValueError(f"orientation must be RAS, LAS, RPS or LPS, got {self.orientation}")
        if any(not 8 <= n <= stored for n, stored in zip(self.acquired, self.shape[:2], strict=True)):
            raise ValueError(f"acquired must be 8 to the stored {self.shape[:2]} points, got {self.acquired}")

    @property
    def grid(self) -> VoxelGrid:
        """The voxels in RAS order, placed where a technologist places them: the whole brain, little neck."""
        return VoxelGrid(self.shape, self.spacing, (0.0, -16.0, 9.0))

    @property
    def rotation(self) -> NDArray[np.float64]:
        """``(3, 3)``, from directions along the image's axes to those of the world."""
        return np.asarray(Rotation.from_euler("xyz", self.oblique_degrees, degrees=True).as_matrix())

    @property
    def affine(self) -> NDArray[np.float64]:
        """``(4, 4)``, from voxel indices in RAS order to world mm: turned about the middle of the box."""
        affine = np.eye(4)
        affine[:3, :3] = self.rotation * np.array(self.spacing)
        affine[:3, 3] = np.array(self.grid.centre) - affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine

    @property
    def directions(self) -> tuple[tuple[float, float, float], ...]:
        """Unit vector of the diffusion gradient of each volume along the image's axes; zeros where b is below 50.

        Up to three weighted volumes take X, Y and Z, more take the six diagonals of the coordinate planes in turn.
        """
        weighted = [volume for volume, b in enumerate(self.b_values) if b > _UNWEIGHTED]
        table = np.eye(3) if len(weighted) <= 3 else np.array(_DIAGONALS) / np.sqrt(2)
        rows = np.zeros((len(self.b_values), 3))
        rows[weighted] = table[np.arange(len(weighted)) % len(table)]
        return tuple((float(x), float(y), float(z)) for x, y, z in rows)

    def with_noise(self, snr_factor: float) -> Hospital:
        """The hospital with its signal-to-noise ratio multiplied."""
        return replace(self, snr=self.snr * snr_factor)

    def scaled(self, size: str) -> Hospital:
        """The hospital with its own matrix (``full``), or the same field of view in coarse voxels (``small``).

        Raises:
            ValueError: if ``size`` is neither.
        """
        if size == "full":
            return self
        if size != "small":
            raise ValueError(f"size must be full or small, got {size}")
        extents = [self.grid.extent(axis) for axis in range(3)]
        x, y, z = (round(extent / target) for extent, target in zip(extents, _SMALL_SPACING, strict=True))
        share_x, share_y = x / self.shape[0], y / self.shape[1]
        return replace(
            self,
            shape=(x, y, z),
            spacing=(extents[0] / x, extents[1] / y, extents[2] / z),
            acquired=(round(self.acquired[0] * share_x), round(self.acquired[1] * share_y)),
            # The same displacement in mm.
            phase_bandwidth_hz=self.phase_bandwidth_hz / share_y,
        )

    def for_contrast(self, contrast: str) -> Hospital:
        """The hospital with its diffusion protocol (``dwi``), or with a gradient echo of the same voxels (``swi``).

        Raises:
            ValueError: if ``contrast`` is neither.
        """
        if contrast == self.contrast:
            return self
        if contrast != "swi":
            raise ValueError(f"contrast must be dwi or swi, got {contrast}")
        return replace(
            self,
            b_values=(0.0,),
            te_ms=_SWI_TE_MS,
            tr_ms=_SWI_TR_MS,
            flip_degrees=_SWI_FLIP_DEGREES,
            ghost=0.0,
            snr=self.snr * _SWI_SNR_GAIN,
            contrast="swi",
        )

    def for_subject(self, rng: np.random.Generator) -> Hospital:
        """The protocol of one scan: noise, gain, shading, ghost, bandwidth and obliquity vary around the site's.

        Args:
            rng: the subject's stream for the protocol.
        """
        standard = np.clip(rng.standard_normal(5), -_FACTOR_LIMIT, _FACTOR_LIMIT)
        snr, gain, shading, ghost, bandwidth = np.exp(
            standard * (_SNR_SD, _GAIN_SD, _SHADING_SD, _GHOST_SD, _BANDWIDTH_SD)
        )
        turn = np.array(self.oblique_degrees) + _OBLIQUE_SD_DEGREES * np.clip(rng.standard_normal(3), -2, 2)
        about_x, about_y, about_z = (round(float(angle), 2) for angle in turn)
        return replace(
            self,
            snr=self.snr * float(snr),
            gain=self.gain * float(gain),
            shading=self.shading * float(shading),
            ghost=self.ghost * float(ghost),
            phase_bandwidth_hz=self.phase_bandwidth_hz * float(bandwidth),
            oblique_degrees=(about_x, about_y, about_z),
        )
