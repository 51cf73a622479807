"""Microbleeds: how large they are, what they take from the signal, and which of them a b = 0 image can show.

On susceptibility images microbleeds have a median diameter of 2.7 mm (logarithmic standard deviation 0.36, 957 bleeds
of five public data sets), and that includes blooming. A spin echo refocuses the static part of the dephasing around a
bleed, so what it shows is the core that holds the hemosiderin: taken here as 0.5 to 0.8 of the bloomed diameter, 1.4
to 2.2 mm. Only ``hard`` lies there. ``realistic`` has cores as large as bleeds look on susceptibility images, the other
two have larger ones, so that there is something to count; the small end of each distribution is hidden in the noise
and does not count. None of them is a claim about real b = 0 images, which miss most punctate bleeds (Lin et al., AJNR
2001).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.lesions import Ellipsoid, Filled, Tube, filled_share
from mhsev_monai.cohort.placement import MIN_DISTANCE, bleed_places, free_site, obstacles_of
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.susceptibility import EpiReadout, spin_echo_epi_factor
from mhsev_monai.regions import Region

__all__ = [
    "DIFFICULTIES",
    "MAX_OCCULT",
    "MIN_DISTANCE",
    "TRUTH_SHARE",
    "VISIBLE_CONTRAST_TO_NOISE",
    "Bleed",
    "Core",
    "Difficulty",
    "Imaging",
    "contrast_to_noise",
    "dim",
    "draw_bleeds",
    "draw_contrasts",
    "draw_core",
    "label_bleeds",
    "share_visible",
]

VISIBLE_CONTRAST_TO_NOISE = 5.0
"""From here a bleed counts as shown by the image: Rose's criterion (J Opt Soc Am 1948;38:196-208) for a dot that is
seen with confidence wherever it lies. Among the 1e5 voxels of a brain noise alone goes below -3 standard deviations in
more than a hundred, below -4 in a few, and below -5 in none as a rule."""

TRUTH_SHARE = 0.25
"""A voxel belongs to a bleed in the truth when the bleed fills this share of it, or more of it than of any other."""

MAX_OCCULT = 100
"""More bleeds than this are not hidden in one head: labels have 8 bits, and the head has no more room."""

_SAMPLES = 6
_CORE_GRID = (11, 11, 9)


class Difficulty(NamedTuple):
    """How hard bleeds are to see.

    Attributes:
        median_diameter: of the core, mm, of a lognormal distribution.
        log_sd: its standard deviation in the logarithm.
        diameter_range: diameters are clipped to it, mm.
        loss: range of the share of the spin-echo signal that is lost inside a core.
        susceptibility_ppm: range of the volume susceptibility of a core against tissue, SI ppm. An assumption for
            chronic hemosiderin: some tenths to about one ppm at 3 T, where it is saturated.
        calcification_loss: like ``loss``, for calcifications, which do not count.
        snr_factor: multiplies a hospital's signal-to-noise ratio.
        mimics: multiplies how often mimics occur.
    """

    median_diameter: float
    log_sd: float
    diameter_range: tuple[float, float]
    loss: tuple[float, float]
    susceptibility_ppm: tuple[float, float]
    calcification_loss: tuple[float, float]
    snr_factor: float
    mimics: float


DIFFICULTIES = {
    "easy": Difficulty(4.2, 0.16, (3.4, 6.0), (0.90, 1.00), (0.6, 1.2), (0.25, 0.40), 1.0, 0.5),
    "moderate": Difficulty(3.3, 0.24, (2.2, 5.5), (0.75, 0.98), (0.5, 1.2), (0.35, 0.60), 1.0, 0.75),
    "realistic": Difficulty(2.7, 0.30, (1.3, 5.5), (0.60, 0.95), (0.3, 1.2), (0.35, 0.70), 1.0, 1.0),
    "hard": Difficulty(2.2, 0.36, (1.0, 5.0), (0.50, 0.95), (0.3, 1.2), (0.35, 0.80), 1.0, 1.25),
}
"""By the names of ``settings.DIFFICULTY_NAMES``, in rising order."""


class Bleed(NamedTuple):
    """One microbleed.

    Attributes:
        body: the core that holds hemosiderin, a sphere.
        loss: share of the spin-echo signal that is lost inside the core.
        susceptibility_ppm: volume susceptibility of the core against tissue, SI ppm.
        region: where it was put.
        counted: whether the subject's count includes it.
        contrast_to_noise: see :func:`contrast_to_noise`.
    """

    body: Ellipsoid
    loss: float
    susceptibility_ppm: float
    region: Region
    counted: bool
    contrast_to_noise: float = float("nan")


class Imaging(NamedTuple):
    """What a scan makes of a bleed's core.

    Attributes:
        readout: whose displacement empties more voxels than the core fills.
        spread: from a change of the signal ``(X, Y, Z)`` to that of the image: what lies beside emptied voxels fills
            them in part. None: they stay empty.
    """

    readout: EpiReadout
    spread: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None


class Core(NamedTuple):
    """What makes one bleed differ from the next beside its place: ``diameter`` in mm, and the others of a bleed."""

    diameter: float
    loss: float
    susceptibility_ppm: float


def draw_core(rng: np.random.Generator, difficulty: Difficulty) -> Core:
    """A random core."""
    diameter = float(np.exp(rng.normal(np.log(difficulty.median_diameter), difficulty.log_sd)))
    return Core(
        float(np.clip(diameter, *difficulty.diameter_range)),
        float(rng.uniform(*difficulty.loss)),
        float(rng.uniform(*difficulty.susceptibility_ppm)),
    )


def contrast_to_noise(
    body: Ellipsoid, core: Core, grid: VoxelGrid, snr: float, imaging: Imaging | None = None
) -> float:
    """Expected contrast of a bleed's darkest voxel on b = 0, in standard deviations of the noise.

    Args:
        body: the core's place and size.
        core: its loss and susceptibility.
        grid: voxels of the scan.
        snr: of the tissue around it on b = 0.
        imaging: what the scan makes of the core; None: what the core takes, and nothing else.
    """
    if imaging is None:
        share = filled_share(body, grid, _SAMPLES).share
        return core.loss * float(share.max(initial=0.0)) * snr
    around = _voxels_around(body, grid)
    bleed = Bleed(body, core.loss, core.susceptibility_ppm, Region.UNCERTAIN, counted=False)
    loss = 1 - spin_echo_epi_factor([bleed], around, imaging.readout)
    return float((loss if imaging.spread is None else imaging.spread(loss)).max()) * snr


def _voxels_around(body: Ellipsoid, grid: VoxelGrid) -> VoxelGrid:
    """The voxels of a grid near a body, which may lie beyond its border."""
    steps = (np.rint((body.centre[a] - grid.axis(a)[0]) / grid.spacing[a]) for a in range(3))
    x, y, z = (float(grid.axis(a)[0] + step * grid.spacing[a]) for a, step in enumerate(steps))
    return VoxelGrid(_CORE_GRID, grid.spacing, (x, y, z))


def draw_bleeds(
    rng: np.random.Generator,
    n: int,
    anatomy: Anatomy,
    grid: VoxelGrid,
    difficulty: Difficulty,
    avoid: Sequence[Ellipsoid | Tube],
    snr: float,
    label: str = "visible",
    imaging: Imaging | None = None,
) -> list[Bleed]:
    """Microbleeds in grey or white matter, apart from each other and from what does not count.

    The first bleeds are the same whatever ``n`` is.

    Args:
        rng: where they come from.
        n: how many count, up to 255.
        anatomy: of the subject, on ``grid``.
        grid: voxels of the scan.
        difficulty: sizes and signal loss.
        avoid: bodies to stay clear of.
        snr: of tissue on the scan's b = 0 image.
        label: ``visible``: bleeds are drawn until ``n`` of them reach ``VISIBLE_CONTRAST_TO_NOISE``; the occult ones
            on the way are there and do not count. ``all``: ``n`` are drawn, and all count.
        imaging: see :func:`contrast_to_noise`.
    """
    places, obstacles = bleed_places(anatomy, grid), obstacles_of(avoid)
    bleeds: list[Bleed] = []
    n_counted = n_occult = 0
    while n_counted < n:
        core = draw_core(rng, difficulty)
        site = free_site(rng, places, [bleed.body.centre for bleed in bleeds], obstacles)
        body = Ellipsoid(site.position, np.full(3, core.diameter / 2))
        contrast = contrast_to_noise(body, core, grid, snr, imaging)
        counted = label == "all" or contrast >= VISIBLE_CONTRAST_TO_NOISE
        if not counted and n_occult == MAX_OCCULT:
            # Nothing more is hidden: what is drawn from here on is as dark as it must be to be seen.
            core, body, contrast = _visible_core(
                core, site.position, grid, difficulty, partial(contrast_to_noise, snr=snr, imaging=imaging)
            )
            counted = True
        n_counted, n_occult = n_counted + counted, n_occult + (not counted)
        bleeds.append(Bleed(body, core.loss, core.susceptibility_ppm, site.region, counted, contrast))
    return bleeds


def _visible_core(
    core: Core,
    position: NDArray[np.float64],
    grid: VoxelGrid,
    difficulty: Difficulty,
    contrast_of: Callable[[Ellipsoid, Core, VoxelGrid], float],
) -> tuple[Core, Ellipsoid, float]:
    """The core, grown and darkened until it is seen, or until it is the difficulty's largest and darkest."""
    largest, darkest = difficulty.diameter_range[1], difficulty.loss[1]
    while True:
        body = Ellipsoid(position, np.full(3, core.diameter / 2))
        contrast = contrast_of(body, core, grid)
        if contrast >= VISIBLE_CONTRAST_TO_NOISE or core.diameter >= largest:
            return core, body, contrast
        core = core._replace(diameter=min(1.1 * core.diameter, largest), loss=darkest)


def label_bleeds(bleeds: Sequence[Bleed], grid: VoxelGrid, *, counted: bool = True) -> NDArray[np.uint8]:
    """Which voxels belong to which bleed, ``(X, Y, Z)``: 0, or a number from 1 in the order of the bleeds.

    Args:
        bleeds: any number, of which up to 255 have ``counted`` as asked.
        grid: voxels of the scan.
        counted: whether the bleeds that count are marked, or the occult ones; the others are left out.
    """
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for number, bleed in enumerate((bleed for bleed in bleeds if bleed.counted == counted), start=1):
        filled = filled_share(bleed.body, grid, _SAMPLES)
        if filled.share.size:
            labels[filled.box][_belongs(filled)] = number
    return labels


def _belongs(filled: Filled) -> NDArray[np.bool_]:
    """Which voxels of the box are the bleed's in the truth."""
    belongs: NDArray[np.bool_] = (filled.share >= TRUTH_SHARE) | (filled.share == filled.share.max())
    return belongs


def dim(kept: NDArray[np.float32], filled: Filled, loss: float) -> None:
    """Take from ``kept``, in place, the signal that a body loses."""
    kept[filled.box] *= 1 - np.float32(loss) * filled.share


def draw_contrasts(
    rng: np.random.Generator,
    n: int,
    difficulty: Difficulty,
    spacing: tuple[float, float, float],
    snr: float,
    imaging: Imaging | None = None,
) -> NDArray[np.float64]:
    """Contrast to noise of ``n`` random bleeds at random places of the voxel grid, ``(n,)``; no head is made.

    Args:
        rng: where they come from.
        n: how many.
        difficulty: sizes and signal loss.
        spacing: voxel size, mm.
        snr: of tissue on b = 0.
        imaging: see :func:`contrast_to_noise`.
    """
    grid = VoxelGrid(_CORE_GRID, spacing)
    contrasts = np.empty(n)
    for index in range(n):
        core = draw_core(rng, difficulty)
        centre = rng.uniform(-0.5, 0.5, size=3) * spacing
        contrasts[index] = contrast_to_noise(Ellipsoid(centre, np.full(3, core.diameter / 2)), core, grid, snr, imaging)
    return contrasts


def share_visible(contrasts: NDArray[np.float64]) -> float:
    """The share of bleeds that reach ``VISIBLE_CONTRAST_TO_NOISE``, of those that :func:`draw_contrasts` gives."""
    return float(np.mean(contrasts >= VISIBLE_CONTRAST_TO_NOISE))
