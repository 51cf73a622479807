"""Settings of the radiomics features, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mhsev_monai.radiomics.discretise import MOST_LEVELS


@dataclass(frozen=True)
class RadiomicsParameters:
    """How intensities become grey levels, and matrices features.

    Attributes:
        bin_count: number of grey levels, 2 to 1024; not looked at where ``bin_width`` is given.
        bin_width: width of a grey level in the image's unit; None: a fixed number of them.
        over_median: intensities are first divided by their median in the region, where that is positive.
        limits: least and greatest intensity, after that division; what lies beyond is set to them, so that a few bright
            voxels do not stretch the bins. None: as they are.
        merged: co-occurrences and runs of all directions are counted in one matrix (IBSI "3D, merged"); otherwise
            features are averaged over the 13 directions, as in pyradiomics.
        intensity_shift: added to intensities for energy and root mean square; pyradiomics' ``voxelArrayShift``.
        log_sigmas_mm: scales at which the first-order features of the Laplacian of Gaussian are added; different
            positive numbers.

    Raises:
        ValueError: if a setting is out of its range.
    """

    bin_count: int = 32
    bin_width: float | None = None
    over_median: bool = False
    limits: tuple[float, float] | None = None
    merged: bool = False
    intensity_shift: float = 0.0
    log_sigmas_mm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.bin_count <= MOST_LEVELS or self.bin_count != int(self.bin_count):
            raise ValueError(f"bin_count must be a whole number from 2 to {MOST_LEVELS}, got {self.bin_count}")
        if self.bin_width is not None and not 0 < self.bin_width < math.inf:
            raise ValueError(f"bin_width must be positive and finite, or None, got {self.bin_width}")
        if self.limits is not None:
            low, high = (float(limit) for limit in self.limits)
            if not -math.inf < low < high < math.inf:
                raise ValueError(f"limits must be two rising finite numbers, or None, got {list(self.limits)}")
            object.__setattr__(self, "limits", (low, high))
        if not math.isfinite(self.intensity_shift):
            raise ValueError(f"intensity_shift must be finite, got {self.intensity_shift}")
        sigmas = tuple(float(sigma) for sigma in self.log_sigmas_mm)
        if not all(0 < sigma < math.inf for sigma in sigmas) or len(set(sigmas)) < len(sigmas):
            raise ValueError(f"log_sigmas_mm must be different positive numbers, got {list(sigmas)}")
        # JSON gives lists, for the limits too; a frozen dataclass that is to be hashed holds tuples.
        object.__setattr__(self, "log_sigmas_mm", sigmas)
