"""The three simulated hospitals: what their scanners do and whom they scan.

Protocols differ as those of different vendors do; severity mixes are graver than a population's, so that
every class occurs at every site. Shares of subjects are the paper's 200, 180 and 120 of 500.
"""

from __future__ import annotations

from dataclasses import dataclass

from mhsev_monai.cohort.smooth_fields import VoxelGrid


@dataclass(frozen=True)
class Hospital:
    """A site's protocol and patients.

    Attributes:
        name: of the site and of its folder.
        n_reference: subjects of 500; sites share a cohort in this proportion.
        shape: voxels along the axes of the stored image.
        spacing: voxel size, mm.
        orientation: where the stored axes lead, such as ``"LAS"``.
        b_values: s/mm^2, one a volume.
        te_ms: echo time.
        tr_ms: repetition time.
        snr: of white matter on b = 0 where the shading is 1.
        shading: strength of the coil's shading, see ``signal.coil_shading``.
        gain: stored integers per unit of signal.
        masked_background: whether the scanner stores 0 outside the head.
        severity_mix: shares of none, mild, moderate and severe.
        manufacturer: as written beside the images.
    """

    name: str
    n_reference: int
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str
    b_values: tuple[float, ...]
    te_ms: float
    tr_ms: float
    snr: float
    shading: float
    gain: float
    masked_background: bool
    severity_mix: tuple[float, float, float, float]
    manufacturer: str = "simulated"

    def __post_init__(self) -> None:
        if abs(sum(self.severity_mix) - 1) > 1e-9 or min(self.severity_mix) < 0:
            raise ValueError(f"severity_mix must be four shares that sum to 1, got {self.severity_mix}")
        if self.orientation not in ("RAS", "LAS", "RPS", "LPS"):
            raise ValueError(f"orientation must be RAS, LAS, RPS or LPS, got {self.orientation}")

    @property
    def grid(self) -> VoxelGrid:
        """The voxels in RAS order, placed where a technologist places them: the whole brain, little neck."""
        return VoxelGrid(self.shape, self.spacing, (0.0, -16.0, 9.0))


HOSPITALS: tuple[Hospital, ...] = (
    Hospital(
        name="site-1",
        n_reference=200,
        shape=(112, 112, 45),
        spacing=(1.8, 1.8, 3.0),
        orientation="LAS",
        b_values=(0.0, 1000.0, 1000.0, 1000.0),
        te_ms=62.0,
        tr_ms=8000.0,
        snr=22.0,
        shading=0.25,
        gain=1200.0,
        masked_background=False,
        severity_mix=(0.15, 0.45, 0.25, 0.15),
    ),
    Hospital(
        name="site-2",
        n_reference=180,
        shape=(104, 104, 42),
        spacing=(2.0, 2.0, 3.2),
        orientation="RAS",
        b_values=(0.0, 1000.0, 1000.0, 1000.0),
        te_ms=72.0,
        tr_ms=5000.0,
        snr=18.0,
        shading=0.45,
        gain=3500.0,
        masked_background=True,
        severity_mix=(0.15, 0.35, 0.30, 0.20),
    ),
    Hospital(
        name="site-3",
        n_reference=120,
        shape=(108, 108, 34),
        spacing=(1.9, 1.9, 4.0),
        orientation="LPS",
        b_values=(1.25, 930.0, 930.0, 930.0),
        te_ms=76.0,
        tr_ms=6000.0,
        snr=15.0,
        shading=0.35,
        gain=600.0,
        masked_background=False,
        severity_mix=(0.15, 0.20, 0.30, 0.35),
    ),
)
