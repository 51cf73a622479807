"""How a model is explained: which cases, how carefully, against which background. No FLARE."""

from __future__ import annotations

from dataclasses import dataclass

SPLITS = ("train", "validation", "test", "all")
"""Cases that can be explained; ``all`` are the three splits together."""


@dataclass(frozen=True)
class ExplanationPlan:
    """The part of an explanation that both ends must know.

    Attributes:
        split: which cases, one of ``SPLITS``.
        n_passes: pairs of orders, see ``mhsev_monai.shapley.sample_shapley``.
        n_background: rows of the common background, or scans for a candidate network.
        background_seed: of their draw.
        covariances: ask the sites for second moments, which some may not tell.

    Raises:
        ValueError: if there is no such split, or a number is below 1.
    """

    split: str
    n_passes: int
    n_background: int
    background_seed: int
    covariances: bool

    @property
    def of_training(self) -> bool:
        """Whether cases are among them that the network was trained with."""
        return self.split in ("train", "all")

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if self.n_passes < 1 or self.n_background < 1:
            raise ValueError(
                f"n_passes and n_background must be 1 or more, got {self.n_passes} and {self.n_background}"
            )
