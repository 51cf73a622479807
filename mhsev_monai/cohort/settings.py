"""What decides a cohort beside its seed and its hospitals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DIFFICULTY_NAMES = ("easy", "moderate", "realistic", "hard")
MIXES = ("balanced", "lognormal")
LABELS = ("visible", "all")
CONTRASTS = ("dwi", "swi")
SIZES = ("full", "small")


@dataclass(frozen=True)
class CohortSettings:
    """Choices that hold for every subject of a cohort.

    Attributes:
        difficulty: how large and dark bleeds are, how noisy the scans, how many mimics; see ``disease.DIFFICULTIES``.
        mix: ``balanced``: mild, moderate and severe are about equally common over all hospitals. ``lognormal``: counts
            follow the distribution of real cohorts, with each hospital's own share of severe.
        negatives: share of subjects without a bleed, 0 to 0.9.
        label: ``visible``: the count is of bleeds that the b = 0 image shows; those hidden in the noise are there and
            are not counted. ``all``: every planted bleed counts, as a reader of SWI would count them.
        contrast: ``dwi``: spin-echo EPI, b = 0 and three directions. ``swi``: gradient echo with full blooming.
        size: ``full``: the hospital's own matrix. ``small``: coarse voxels, for quick trials and tests.
        backgrounds: folder with real diffusion scans to plant bleeds in, instead of the simulated heads.
    """

    difficulty: str = "easy"
    mix: str = "balanced"
    negatives: float = 0.1
    label: str = "visible"
    contrast: str = "dwi"
    size: str = "full"
    backgrounds: Path | None = None

    def __post_init__(self) -> None:
        for name, accepted in (
            ("difficulty", DIFFICULTY_NAMES),
            ("mix", MIXES),
            ("label", LABELS),
            ("contrast", CONTRASTS),
            ("size", SIZES),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {getattr(self, name)}")
        if not 0 <= self.negatives <= 0.9:
            raise ValueError(f"negatives must be a share from 0 to 0.9, got {self.negatives}")
