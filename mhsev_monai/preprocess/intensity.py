"""Intensities that mean the same in every scan: z-scores in the brain, and a fusion of b0 and trace over their level.

On b0 the fluid is bright, on trace the sulci beside it are dark; a bleed is dark on both. The voxel-wise maximum of the
two, each relative to the parenchyma around it, therefore keeps bleeds dark and little else.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_PRIOR_WEIGHT = 1e-3
"""Share of the scan's level in a voxel's local level; it decides only where no plausible voxel is near."""
_PASSES = 3
"""Rounds in which the local level and the voxels that are plausible beside it determine each other."""


def z_score_in_mask(image: Tensor, mask: Tensor, clip: float | None = 6.0) -> Tensor:
    """Standardise an image by the mean and standard deviation of its finite voxels in a mask.

    Args:
        image: any shape, any unit.
        mask: same shape; voxels above 0 count.
        clip: results are limited to ``-clip..clip``; ``None`` for no limit.

    Returns:
        float32, 0 at the mask's mean, one unit a standard deviation, outside the mask as well; 0 where the image is
        not finite. All 0, with a ``RuntimeWarning``, where the mask is empty or the image constant in it.

    Raises:
        ValueError: if the shapes differ or ``clip`` is not positive.
    """
    _check_shape("mask", mask, image)
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive or None, got {clip}")
    finite = torch.isfinite(image)
    values = image[finite & (mask > 0)].double()
    spread = float(values.std(correction=0)) if values.numel() else 0.0
    if not spread > 1e-6 * float(values.abs().max() if values.numel() else 0.0):
        warnings.warn("z-score: no spread inside the mask; the result is zero", RuntimeWarning, stacklevel=2)
        return torch.zeros(image.shape, dtype=torch.float32, device=image.device)
    scores = torch.where(finite, (image.double() - values.mean()) / spread, 0.0).float()
    return scores if clip is None else scores.clamp(-clip, clip)


def relative_to_parenchyma(
    image: Tensor,
    mask: Tensor,
    spacing: Sequence[float],
    sigma: float = 13.0,
    plausible: tuple[float, float] = (0.6, 1.4),
) -> Tensor:
    """Divide an image by its local parenchymal level: 1 is the tissue around, 0.5 half its signal.

    The level at a voxel is the mean of the plausible voxels around it, with Gaussian weights (normalised convolution).
    Plausible is what lies inside the mask and within two factors of the level itself; so fluid, bleeds and background
    have no part in it, and residual shading has.

    Args:
        image: ``(X, Y, Z)``, linear intensities in any unit.
        mask: same shape; voxels above 0 may be parenchyma.
        spacing: mm along each axis.
        sigma: of the Gaussian, mm: wider than a lesion, narrower than a coil's shading.
        plausible: lowest and highest share of the level that still counts as parenchyma.

    Returns:
        float32, 1 outside the mask and where the image is not finite. All 1, with a ``RuntimeWarning``, where the
        mask holds no positive voxel.

    Raises:
        ValueError: if shapes, spacing, ``sigma`` or ``plausible`` do not fit.
    """
    _check_shape("mask", mask, image)
    low, high = plausible
    if not sigma > 0 or not 0 < low < 1 < high:
        raise ValueError(f"sigma must be positive and plausible a range around 1, got {sigma} and {plausible}")
    if len(spacing) != image.ndim or not all(s > 0 for s in spacing):
        raise ValueError(f"spacing must be {image.ndim} positive lengths in mm, got {tuple(spacing)}")
    image = image.float()
    usable = (mask > 0) & torch.isfinite(image)
    values = image[usable & (image > 0)]
    if values.numel() == 0:
        warnings.warn("no positive voxel inside the mask; the relative image is 1", RuntimeWarning, stacklevel=2)
        return torch.ones_like(image)
    clean = torch.where(usable, image, 0.0)
    start = _common_level(values, low, high)
    level = torch.full_like(image, start)
    smoothers = [_gaussian(n, float(s), sigma, image.device) for n, s in zip(image.shape, spacing, strict=True)]
    for _ in range(_PASSES):
        weight = (usable & (clean > low * level) & (clean < high * level)).float()
        level = (_smooth(clean * weight, smoothers) + _PRIOR_WEIGHT * start) / (
            _smooth(weight, smoothers) + _PRIOR_WEIGHT
        )
    return torch.where(usable, clean / level, 1.0)


def fuse_contrasts(
    b0: Tensor,
    trace: Tensor | None,
    mask: Tensor,
    spacing: Sequence[float],
    sigma: float = 13.0,
    ceiling: float = 1.12,
    rim: float = 0.0,
) -> Tensor:
    """Keep dark what is dark on b0 and on trace: the voxel-wise maximum of both, relative to the local parenchyma.

    Args:
        b0: ``(X, Y, Z)``, linear intensities in any unit.
        trace: same shape; ``None`` takes b0 alone, where fluid is bright but sulci and air interfaces stay dark.
        mask: same shape; voxels above 0 are fused.
        spacing: mm along each axis.
        sigma: of the Gaussian that makes the local level, mm.
        ceiling: brighter values are cut here, so that fluid leaves no edge to look at.
        rim: mm; how far ``clear_rim`` follows darkness inwards from the edge of the mask. 0 leaves the rim as it is.

    Returns:
        float32 in ``0..ceiling``; 1 is the local parenchyma, and so is all that lies outside the mask.

    Raises:
        ValueError: if shapes or parameters do not fit.
    """
    if not ceiling > 1:
        raise ValueError(f"ceiling must exceed 1, the level of parenchyma, got {ceiling}")
    fused = relative_to_parenchyma(b0, mask, spacing, sigma)
    if trace is not None:
        _check_shape("trace", trace, b0)
        fused = torch.maximum(fused, relative_to_parenchyma(trace, mask, spacing, sigma))
    fused = fused.clamp(0.0, ceiling)
    return clear_rim(fused, mask, spacing, rim) if rim > 0 else fused


def clear_rim(image: Tensor, mask: Tensor, spacing: Sequence[float], reach: float) -> Tensor:
    """Lift what is dark and connected, through the dark, with the outside of the mask: skull, air, emptied sulci.

    Morphological border clearing of grey values (Soille, Morphological Image Analysis, 2003, chapter 6): the
    darkness of the outside is spread inwards under the image's own darkness, and what it reaches is taken away. A dark
    spot with a brighter ring around it keeps its depth over that ring.

    Args:
        image: ``(X, Y[, Z])`` relative to the parenchyma, 1 where it is as bright.
        mask: same shape; voxels above 0 are inside.
        spacing: mm along each axis.
        reach: mm; how far inwards darkness is followed, counted in steps of the smallest voxel side.

    Returns:
        The image with the rim lifted to at most 1; 1 outside the mask; brighter voxels as they were.

    Raises:
        ValueError: if shapes do not fit or ``reach`` is negative.
    """
    _check_shape("mask", mask, image)
    if reach < 0:
        raise ValueError(f"reach must be 0 mm or more, got {reach}")
    outside = mask <= 0
    darkness = torch.where(outside, torch.inf, (1.0 - image).clamp_min(0.0))
    reached = torch.where(outside, torch.inf, 0.0)
    for _ in range(math.ceil(reach / min(spacing))):
        reached = torch.minimum(_greatest_neighbour(reached), darkness)
    return torch.where(outside, 1.0, image + torch.where(outside, 0.0, reached))


def _greatest_neighbour(image: Tensor) -> Tensor:
    """Maximum over the box of three voxels along each axis, axis by axis."""
    for axis in range(image.ndim):
        moved = image.movedim(axis, -1)
        pooled = functional.max_pool1d(moved.reshape(-1, 1, moved.shape[-1]), 3, stride=1, padding=1)
        image = pooled.reshape(moved.shape).movedim(-1, axis)
    return image


def _check_shape(name: str, other: Tensor, image: Tensor) -> None:
    if other.shape != image.shape:
        raise ValueError(f"{name} must have the image's shape {tuple(image.shape)}, got {tuple(other.shape)}")


def _common_level(values: Tensor, low: float, high: float) -> float:
    """Median of the values that lie around it: near the mode, whatever share of fluid the mask holds."""
    level = _median(values)
    for _ in range(5):
        around = values[(values > low * level) & (values < high * level)]
        level = _median(around) if around.numel() else level
    return level


def _median(values: Tensor) -> float:
    return float(values.kthvalue(len(values) // 2 + 1).values)


def _gaussian(n: int, spacing: float, sigma: float, device: torch.device) -> Tensor:
    """``(n, n)`` Gaussian weights between the positions of an axis: an exact convolution as one matrix product."""
    position = torch.arange(n, device=device, dtype=torch.float64) * spacing
    weights = torch.exp(-0.5 * ((position[:, None] - position[None]) / sigma) ** 2)
    return (weights * spacing / (sigma * (2 * torch.pi) ** 0.5)).float()


def _smooth(image: Tensor, smoothers: Sequence[Tensor]) -> Tensor:
    for smoother in smoothers:
        image = torch.tensordot(image, smoother, dims=([0], [0]))
    return image
