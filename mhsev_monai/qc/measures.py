"""Measures of a scan's quality from its volumes and its brain mask: arrays in, numbers out.

A measure that a scan does not allow is None, with the reason; none is ever guessed. Slices lie along the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

CORD_CM2 = 12.0
"""Largest section of brainstem or cord with its fluid; what leaves the volume below with a larger one is brain."""

DROPOUT_LEVEL = 0.7
"""Share of its shell's median below which a slice has lost signal."""

_BRAIN_MARGIN_MM = 15.0
_HEAD_MARGIN_MM = 8.0
_HEAD_LEVEL = 0.2
_BIG_SLICE = 0.6
_MIN_AIR_VOXELS = 200
_MAX_ZERO_SHARE = 0.5
_CLIP_SD = 4.0
_RAYLEIGH_SD = (2.0 - np.pi / 2.0) ** 0.5
_NORMAL_MAD = 1.4826
_SLICE_SHARE = 0.2
_LEAST_VOXELS = 100


class Measured(NamedTuple):
    """A number, or None and why there is none."""

    value: float | None
    reason: str = ""


class GhostLevel(NamedTuple):
    """The larger N/2 ghost of both in-plane axes.

    Attributes:
        value: share of the brain's median signal; None where it cannot be measured.
        axis: storage axis along which it is displaced, 0 or 1; None likewise.
        reason: why there is no value.
    """

    value: float | None
    axis: int | None = None
    reason: str = ""


class Air(NamedTuple):
    """Voxels that hold nothing but air.

    Attributes:
        mask: ``(X, Y, Z)``; empty where there is too little.
        reason: why it is empty.
    """

    mask: BoolArray
    reason: str = ""


def find_air(image: FloatArray, brain: BoolArray, spacing: Sequence[float]) -> Air:
    """Where there is nothing but air, in slices that show at least 60 % of the brain's largest section.

    The head is the brain, 15 mm around it, and all that is connected with them and brighter than a fifth of the brain,
    so that face, neck and displaced scalp are no air; air begins 8 mm from it. A ghost brighter than that is taken for
    head in part. Lower slices and the outermost voxels of each slice, which hold what interpolation left there, do not
    count; nor do areas that the scanner has set to zero, told from weak noise by their neighbours.

    Args:
        image: ``(X, Y, Z)``, b0 in any linear unit.
        brain: ``(X, Y, Z)``.
        spacing: mm along each axis.
    """
    none = np.zeros_like(brain, dtype=bool)
    if int(brain.sum()) < _LEAST_VOXELS:
        return Air(none, "the brain mask is too small")
    section = brain.sum(axis=(0, 1))
    inner = (slice(1, -1), slice(1, -1), section >= _BIG_SLICE * section.max())
    air = none.copy()
    air[inner] = (
        ndimage.distance_transform_edt(~_head(image, brain, spacing), sampling=spacing)[inner] > _HEAD_MARGIN_MM
    )
    n_air = int(air.sum())
    air &= ~ndimage.binary_opening(image == 0, np.ones((3, 3, 1)))
    if n_air < _MIN_AIR_VOXELS:
        return Air(none, "there is too little air around the head")
    if int(air.sum()) < max(_MIN_AIR_VOXELS, (1 - _MAX_ZERO_SHARE) * n_air) or not image[air].std() > 0:
        return Air(none, "the scanner has set the air to zero")
    return Air(air)


def _head(image: FloatArray, brain: BoolArray, spacing: Sequence[float]) -> BoolArray:
    near = ndimage.distance_transform_edt(~brain, sampling=spacing) <= _BRAIN_MARGIN_MM
    # Smoothed by 3 mm (full width at half maximum), so that single bright voxels of noise connect nothing.
    smooth = ndimage.gaussian_filter(np.asarray(image, dtype=np.float32), [3.0 / (2.355 * s) for s in spacing])
    labels, _ = ndimage.label((smooth > _HEAD_LEVEL * np.median(image[brain])) | near)
    head: BoolArray = np.isin(labels, np.unique(labels[brain]))
    return head


def cut_faces(brain: BoolArray, spacing: Sequence[float], axis_codes: Sequence[str]) -> tuple[str, ...]:
    """Faces of the volume through which brain leaves it; brainstem or cord alone through the lowest one is no cut.

    Args:
        brain: ``(X, Y, Z)``.
        spacing: mm along each axis.
        axis_codes: where each axis runs to, such as ``("L", "A", "S")``.

    Returns:
        ``first z``, ``last z`` and so on, along the storage axes.
    """
    faces = []
    for axis, code in enumerate(axis_codes):
        pixel_cm2 = float(np.prod([s for other, s in enumerate(spacing) if other != axis])) / 100.0
        for index, end, lowest in ((0, "first", code == "S"), (-1, "last", code == "I")):
            if float(np.take(brain, index, axis=axis).sum()) * pixel_cm2 > (CORD_CM2 if lowest else 0.0):
                faces.append(f"{end} {'xyz'[axis]}")
    return tuple(faces)


def snr_difference(volumes: FloatArray, brain: BoolArray) -> Measured:
    """Signal-to-noise ratio of one b0 volume, by differences of repeated ones.

    Mean signal in the brain over the noise, which is the spread of the difference of two volumes over sqrt(2), taken
    of each pair of neighbours in time and then the median (NEMA MS 1-2008, method 1; Dietrich et al., JMRI 26:375,
    2007). It holds for any coil and acceleration. The sources take the standard deviation; we take 1.4826 times the
    median absolute deviation, since pulsation of fluid and small motion between volumes are no noise, and would
    dominate it at edges. What is left of them makes the value too low, smoothing on the scanner makes it too high.

    Args:
        volumes: ``(X, Y, Z, N)``, b0, any linear unit.
        brain: ``(X, Y, Z)``.

    Returns:
        Dimensionless, above 0; usually 10 to 100. None with fewer than two volumes, fewer than 100 voxels of brain, or
        where the volumes are copies.
    """
    if volumes.shape[-1] < 2:
        return Measured(None, "there is one b0 volume")
    inside = volumes[brain].astype(np.float64)
    if len(inside) < _LEAST_VOXELS:
        return Measured(None, "the brain mask is too small")
    differences = np.diff(inside, axis=1)
    spread = _NORMAL_MAD * np.median(np.abs(differences - np.median(differences, axis=0)), axis=0) / np.sqrt(2.0)
    noise = float(np.median(spread))
    if not noise > 0:
        return Measured(None, "the b0 volumes are copies of each other")
    return Measured(float(inside.mean()) / noise)


def snr_background(image: FloatArray, brain: BoolArray, air: Air) -> Measured:
    """Signal-to-noise ratio of one volume, by the noise in air onto which no N/2 ghost falls.

    Mean signal in the brain over the standard deviation in air / 0.655, since the magnitude of pure noise is
    Rayleigh-distributed (NEMA MS 1-2008, method 4; Henkelman, Med Phys 12:232, 1985). Voxels beyond four standard
    deviations are left out, as often as there are any, since the sources assume a region without artefact. The
    factor is that of one coil; sums of squares over coils, parallel imaging and filters change it (Dietrich et al.,
    JMRI 26:375, 2007). So the value compares scans of one protocol, and not those of two.

    Args:
        image: ``(X, Y, Z)``, a single volume in any linear unit; of a mean of n the value is sqrt(n) larger.
        brain: ``(X, Y, Z)``.
        air: from ``find_air``.

    Returns:
        Dimensionless, above 0. None without at least 200 voxels of such air.
    """
    if air.reason:
        return Measured(None, air.reason)
    values = image[air.mask & ~_displaced(brain, 0) & ~_displaced(brain, 1)].astype(np.float64)
    for _ in range(10):
        kept = values[values <= np.median(values) + _CLIP_SD * values.std()] if len(values) else values
        if len(kept) == len(values):
            break
        values = kept
    if len(values) < _MIN_AIR_VOXELS or not values.std() > 0:
        return Measured(None, "there is too little air without ghost")
    return Measured(float(image[brain].mean(dtype=np.float64)) / (float(values.std()) / _RAYLEIGH_SD))


def ghost_level(image: FloatArray, brain: BoolArray, air: Air) -> GhostLevel:
    """Level of the N/2 (Nyquist) ghost of echo-planar images, the larger of both in-plane axes.

    Mean signal of air onto which the brain falls when it is displaced by half the matrix, minus that of other air, over
    the median signal of the brain (Giannelli et al., J Appl Clin Med Phys 11:237, 2010; MRIQC's GSR, Esteban et al.,
    PLoS ONE 12:e0184661, 2017). Ghosts weaker than the noise in air are underestimated, since noise is
    rectified; where parallel imaging is used they also lie at other places than half the matrix, and are missed.

    Args:
        image: ``(X, Y, Z)``, b0 in any linear unit, not corrected for the bias field.
        brain: ``(X, Y, Z)``.
        air: from ``find_air``.

    Returns:
        A share, about 0 without ghost and slightly negative by chance; above 0.05 is seen by eye. None without at
        least 200 voxels of either kind of air.
    """
    if air.reason:
        return GhostLevel(None, None, air.reason)
    signal = float(np.median(image[brain]))
    levels = {}
    for axis in (0, 1):
        displaced = _displaced(brain, axis)
        ghost, other = image[air.mask & displaced], image[air.mask & ~displaced]
        if min(len(ghost), len(other)) >= _MIN_AIR_VOXELS and signal > 0:
            levels[axis] = float(ghost.mean(dtype=np.float64) - other.mean(dtype=np.float64)) / signal
    if not levels:
        return GhostLevel(None, None, "there is too little air where a ghost would lie")
    largest = max(levels, key=levels.__getitem__)
    return GhostLevel(levels[largest], largest)


def _displaced(brain: BoolArray, axis: int) -> BoolArray:
    return np.roll(brain, brain.shape[axis] // 2, axis=axis)


def slice_signal(volumes: FloatArray, brain: BoolArray) -> FloatArray:
    """Mean signal of each slice over the median of its shell, ``(slices, N)``; slices with little brain are left out.

    Args:
        volumes: ``(X, Y, Z, N)``, one shell.
        brain: ``(X, Y, Z)``; slices of less than a fifth of its largest section do not count.
    """
    section = brain.sum(axis=(0, 1))
    indices = np.flatnonzero(section >= max(1.0, _SLICE_SHARE * section.max(initial=0)))
    means = np.array([volumes[:, :, z][brain[:, :, z]].mean(axis=0, dtype=np.float64) for z in indices])
    means = means.reshape(len(indices), volumes.shape[-1])
    middle = np.median(means, axis=1, keepdims=True)
    return np.divide(means, middle, out=np.ones_like(means), where=middle > 0)


def dropout_share(volumes: FloatArray, brain: BoolArray, level: float = DROPOUT_LEVEL) -> Measured:
    """Share of the slices of a diffusion-weighted shell that have lost signal, by motion during the gradients.

    A slice has lost signal where its mean over the brain is below ``level`` of the median over the volumes of the
    shell. The measure behind the replacement of outlier slices by FSL eddy (Andersson et al., NeuroImage 141:556,
    2016), without its model of the signal: direction alone changes slice means by up to a tenth, so only
    losses well beyond are counted. Near the noise floor (high b) losses look smaller than they are.

    Args:
        volumes: ``(X, Y, Z, N)``, one shell, any linear unit.
        brain: ``(X, Y, Z)``.
        level: in (0, 1).

    Returns:
        0 to 1. None with fewer than three volumes, whose median says nothing.
    """
    if volumes.shape[-1] < 3:
        return Measured(None, "the shell has fewer than 3 volumes")
    ratio = slice_signal(volumes, brain)
    return Measured(float((ratio < level).mean())) if ratio.size else Measured(None, "the brain mask is empty")


def field_agreement(first: FloatArray, second: FloatArray, mask: BoolArray) -> Measured:
    """Correlation of two bias fields of one scan, such as of b0 and of trace, which passed the same coils.

    Both are estimated from different contrasts, so what they share is the coils' and what they do not is error: a
    figure of merit that needs no truth. On six scans of three vendors it was 0.78 to 0.97, lowest where the scanner had
    corrected the shading: both fields are nearly flat then, and the correlation is that of what errors are left.

    Args:
        first: ``(X, Y, Z)``, natural logarithm of a field.
        second: same shape.
        mask: same shape, normally the brain.

    Returns:
        Pearson's r, -1 to 1. None where a field is constant or the mask has fewer than 100 voxels.
    """
    a, b = (field[mask].astype(np.float64) for field in (first, second))
    if len(a) < _LEAST_VOXELS or not min(a.std(), b.std()) > 1e-6:
        return Measured(None, "a bias field is constant")
    return Measured(float(np.corrcoef(a, b)[0, 1]))


def field_spread(log_bias: FloatArray, mask: BoolArray) -> Measured:
    """How strong the shading is: the field's 95th over its 5th percentile in a mask, 1 or more; None if that is empty.

    Args:
        log_bias: ``(X, Y, Z)``, natural logarithm of the field.
        mask: same shape, normally the brain.
    """
    if not mask.any():
        return Measured(None, "the brain mask is empty")
    low, high = np.percentile(log_bias[mask], [5.0, 95.0])
    return Measured(float(np.exp(high - low)))
