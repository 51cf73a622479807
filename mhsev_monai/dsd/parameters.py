"""The choices that the paper leaves open, in one frozen, JSON-able record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

WINDOW_SIZES = (8, 16, 32)
"""Window sides that the decomposition may use, voxels."""

BASE_WINDOW_MM = 16.0
"""Side of the base window: smaller ones lose a bleed to the taper, larger ones dilute it."""

GAINS = ("wiener", "hard", "soft", "none")
EIGENVALUES = ("squared", "singular")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
LOWEST_SUPPORT = 0.125
"""Least support of k-space, cycles per pixel, that still leaves bins for the noise scale of the smallest window."""


@dataclass(frozen=True)
class DSDParameters:
    """Settings of the decomposition.

    Attributes:
        energy: K is the fewest components that hold more than this fraction of the eigenvalues' sum; in (0, 1).
        kappa: threshold T over the local noise power; 0 or more.
        gain: what T does to a bin of power P: ``wiener`` (1 - T/P), ``soft`` (1 - sqrt(T/P)), each not below 0,
            ``hard`` (P > T), ``none`` (every bin but the zero frequency passes).
        eigenvalues: ``squared`` reads them as squared singular values, ``singular`` as the singular values.
        dynamic: False keeps the base window everywhere.
        window_size: base window, one of 8, 16, 32 voxels; None: the one nearest to 16 mm.
        stride_fraction: anchors lie ``base window / stride_fraction`` voxels apart; 4 or 8.
        clip: intensities above ``clip`` times the mask's median are lowered to it, since the rim of bright
            fluid would otherwise look like a row of bleeds.
        least_brain: windows of which less than this fraction lies in the mask (measured on the base window's box) are
            left out; 0.25 spares the brain's rim the windows that are mostly fill. 0 keeps every window that touches
            the mask, and no other can change the map inside.
        acquired: half-width of the acquired k-space, cycles per pixel, 0.125 to 0.5; None: estimated for each axis.
        literal: True takes the complex SVD of the spectrum, without the tie rule, and the real part at the end.
        dtype: ``float32`` or ``float64``.
    """

    energy: float = 0.95
    kappa: float = 3.0
    gain: str = "wiener"
    eigenvalues: str = "squared"
    dynamic: bool = True
    window_size: int | None = None
    stride_fraction: int = 4
    clip: float = 1.0
    least_brain: float = 0.25
    acquired: float | None = None
    literal: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _require(0 < self.energy < 1, "energy", "between 0 and 1, both excluded", self.energy)
        _require(0 <= self.kappa < float("inf"), "kappa", "a finite number, 0 or more", self.kappa)
        _require(self.gain in GAINS, "gain", f"one of {', '.join(GAINS)}", self.gain)
        _require(self.eigenvalues in EIGENVALUES, "eigenvalues", f"one of {', '.join(EIGENVALUES)}", self.eigenvalues)
        _require(self.window_size in (None, *WINDOW_SIZES), "window_size", "None, 8, 16 or 32", self.window_size)
        _require(self.stride_fraction in (4, 8), "stride_fraction", "4 or 8", self.stride_fraction)
        _require(0 < self.clip < float("inf"), "clip", "a finite number above 0", self.clip)
        _require(0 <= self.least_brain <= 1, "least_brain", "a fraction from 0 to 1", self.least_brain)
        acquired = 0.5 if self.acquired is None else self.acquired
        _require(LOWEST_SUPPORT <= acquired <= 0.5, "acquired", "None or cycles per pixel in 0.125-0.5", self.acquired)
        _require(self.dtype in DTYPES, "dtype", f"one of {', '.join(DTYPES)}", self.dtype)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values; ``DSDParameters(**p.as_dict()) == p``."""
        return asdict(self)


def _require(holds: bool, name: str, accepted: str, came: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {accepted}, got {came!r}")
