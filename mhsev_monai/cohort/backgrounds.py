"""Microbleeds planted in real healthy diffusion scans, for trials between simulated heads and patients.

A subject takes one of the scans in turn. So that subjects who share a scan differ, the head is mirrored left to right
or not, moved by whole voxels in plane, and shaded a little. None of this interpolates: resampling by fractions of a
voxel would smooth the noise, and adding noise back would give it another spectrum than the scanner's. Everything else
is the scan's own: b-values, number of volumes, distortions, ghosts, and whatever looks like a bleed in a healthy head.

The bleeds' factor, smoothed by a point spread of about a voxel, acts on the magnitude and with it on its noise. The
noise that it takes is given back as complex normal noise, which keeps the Rician floor in dark cores.

A few heads serve many subjects. A model can learn the heads, so subjects of one scan do not belong on both sides of a
split, and results tell nothing about heads that are not among the backgrounds.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.background_geometry import tissue_fractions
from mhsev_monai.cohort.background_scans import Background, background_scan, background_summary
from mhsev_monai.cohort.disease import DIFFICULTIES, Imaging, draw_bleeds, label_bleeds
from mhsev_monai.cohort.hospitals import Hospital
from mhsev_monai.cohort.mimics import Mimics
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.signal import coil_shading, stored_integers
from mhsev_monai.cohort.subject import Record, SimulatedSubject, Streams
from mhsev_monai.cohort.susceptibility import spin_echo_epi_factor
from mhsev_monai.errors import CohortError

__all__ = ["background_summary", "simulate_on_background"]

_LARGEST_SHIFT = 8.0
# Strength of the shading that is added, see ``signal.coil_shading``: a few per cent over the head.
_SHADING = 0.06
# A scanner's image is a little smoother than its voxels; standard deviation in voxels.
_POINT_SPREAD = 0.42


class Placement(NamedTuple):
    """How a head is put on its grid.

    Attributes:
        mirrored: left and right exchanged.
        shift: whole voxels along X and Y; what leaves on one side enters on the other, as aliasing does.
    """

    mirrored: bool
    shift: tuple[int, int]

    def moved(self, values: NDArray[Any]) -> NDArray[Any]:
        """``(X, Y, ...)`` values of the head where it is put."""
        turned = values[::-1] if self.mirrored else values
        return np.roll(turned, self.shift, axis=(0, 1))


def draw_placement(rng: np.random.Generator, background: Background) -> Placement:
    """A random placement that keeps the brain away from the sides of the scan.

    Args:
        rng: where it comes from.
        background: whose head is placed.
    """
    mirrored = bool(rng.random() < 0.5)
    shift = []
    for axis in range(2):
        brain = np.flatnonzero((background.depth > 0).any(axis=(1 - axis, 2)))
        before, after = int(brain[0]), background.grid.shape[axis] - 1 - int(brain[-1])
        if axis == 0 and mirrored:
            before, after = after, before
        most = int(_LARGEST_SHIFT / background.grid.spacing[axis])
        # Drawn as a share of the room, so that the stream is used alike by all scans.
        low, high = -min(most, max(before - 1, 0)), min(most, max(after - 1, 0))
        shift.append(low + int(rng.random() * (high - low + 1)))
    return Placement(mirrored, (shift[0], shift[1]))


def background_anatomy(background: Background, placement: Placement) -> Anatomy:
    """The tissues of a placed head; see :mod:`~mhsev_monai.cohort.background_geometry` for how they are told."""
    fractions = tissue_fractions(background.fluid, background.cortex, background.tissue)
    position = background.match.positions(background.grid)
    if placement.mirrored:
        position = position * np.array([-1, 1, 1], dtype=np.float32)
    return Anatomy(
        np.stack([placement.moved(share) for share in fractions]),
        placement.moved(position),
        placement.moved(background.depth),
    )


def simulate_on_background(
    hospital: Hospital, seed: int, index: int, settings: CohortSettings, record: Record, streams: Streams
) -> SimulatedSubject:
    """A subject whose microbleeds lie in a real head; of the hospital's protocol nothing is taken but missing times.

    ``settings.size`` and the difficulty's noise have no effect, since matrix and noise are the scan's; no mimics are
    added.

    Args:
        hospital: whose patients.
        seed: of the cohort; a hospital begins with another scan under another seed.
        index: number of the subject within the hospital, from 1.
        settings: of the cohort, with ``backgrounds``.
        record: of the subject.
        streams: of the subject; those of anatomy, bleeds, shading and noise are drawn from.

    Raises:
        CohortError: if the folder of backgrounds cannot be used, or the contrast is not ``dwi``.
    """
    if settings.backgrounds is None:
        raise ValueError("settings.backgrounds must be a folder of real scans, got None")
    if settings.contrast != "dwi":
        raise CohortError(
            f"backgrounds are diffusion scans, and the contrast {settings.contrast} was asked for; "
            "choose the contrast dwi, or leave the backgrounds out"
        )
    background = background_scan(settings.backgrounds, index - 1 + seed + zlib.crc32(hospital.name.encode()))
    placement, grid = draw_placement(streams["anatomy"], background), background.grid
    anatomy = background_anatomy(background, placement)
    bleeds = draw_bleeds(
        streams["bleeds"],
        record.n_microbleeds,
        anatomy,
        grid,
        DIFFICULTIES[settings.difficulty],
        (),
        background.snr,
        settings.label,
        Imaging(background.readout, _spread),
    )
    change = spin_echo_epi_factor(bleeds, grid, background.readout) - 1
    # Smoothed as a difference from 1, it stays exactly 0 far from bleeds.
    factor = 1 + _spread(change)
    return SimulatedSubject(
        record=record,
        images=_planted(background, placement, factor, streams),
        labels=label_bleeds(bleeds, grid),
        bleeds=tuple(bleeds),
        mimics=Mimics(),
        anatomy=anatomy,
        affine=background.affine,
        b_values=background.b_values,
        te_ms=hospital.te_ms if background.te_ms is None else background.te_ms,
        tr_ms=hospital.tr_ms if background.tr_ms is None else background.tr_ms,
    )


def _spread(change: NDArray[np.float32]) -> NDArray[np.float32]:
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(change, _POINT_SPREAD)
    return smooth


def _planted(
    background: Background, placement: Placement, factor: NDArray[np.float32], streams: Streams
) -> NDArray[np.int16]:
    """The stored volumes, ``(X, Y, Z, N)``; where the factor is 1, they are the placed and shaded scan's."""
    shading = coil_shading(streams["shading"], background.grid, _SHADING)
    # Of the noise's variance, what the factor took; drawn everywhere, so that it does not depend on the bleeds.
    missing = np.float32(background.noise) * np.sqrt(np.clip(1 - factor**2, 0, 1))
    images = np.empty(background.stored.shape, dtype=np.int16)
    for volume in range(len(background.b_values)):
        signal = placement.moved(background.stored[..., volume]) * factor
        real, imaginary = (streams["noise"].standard_normal(factor.shape, dtype=np.float32) for _ in range(2))
        # Where nothing is missing the square root of a square could be off by its last bit.
        noisy = np.where(missing > 0, np.hypot(signal + missing * real, missing * imaginary), signal)
        images[..., volume] = stored_integers(noisy * shading, 1.0)
    return images
