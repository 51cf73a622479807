"""A brain mask from the contrasts of diffusion MRI, without weights or templates.

Coil shading makes the middle of a brain up to four times darker than its rim, and a threshold alone would cut the
brainstem and the deep nuclei out, where microbleeds are common. So a quick N4 inside the head comes before each
threshold: head -> N4 on b0 and on trace -> median -> Otsu -> opening, largest component, closing, holes; twice, on a
grid of about 3 mm. Where there is no trace, fluid outshines the tissue and scalp may be bright; what is not as bright
as tissue is then peeled off the rim, at the scan's own resolution. All lengths are in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsev_monai.errors import ScanError
from mhsev_monai.preprocess import morphology
from mhsev_monai.preprocess.n4 import N4Parameters, estimate_log_bias

_FAST_N4 = N4Parameters(levels=4, iterations=12, tolerance=0.0, shrink=1, relaxation=1.8)
"""Good enough to threshold by, and a constant number of steps; not the field to correct a scan with."""
_BRIGHT = 0.98
"""Quantile of a contrast that stands for its brightest tissue."""
_CEILING = 1.2
"""Of intensities over their median inside the head: fluid counts for little more than tissue."""
_TISSUE = (0.5, 1.5)
"""Intensities of tissue on b0, over their median: bone is darker, and a voxel half of fluid, twice to four times as
bright as tissue, is brighter."""
_PEELED_OPENING, _PEELED_CLOSING = 2.0, 4.0
"""mm; after peeling, what hangs on by a thread goes, and sulci are filled that were opened."""
_COMPONENT_SHARE = 0.1
"""Components of the threshold count in ``n_components`` from this share of the largest on."""


@dataclass(frozen=True)
class BrainMaskParameters:
    """Lengths in mm and the volumes that a brain may have.

    Attributes:
        work_spacing: the mask is found on a grid this coarse, or as coarse as the scan.
        median_width: side of the median box.
        opening: radius of the ball that parts brain from meninges, eyes and scalp.
        closing: radius of the ball that closes sulci. A larger one would bridge the skull base.
        b0_threshold: the threshold on b0 alone, over Otsu's. Otsu's lies halfway from air to tissue; muscle and the
            scalp's rest of fat come close to it on b0, and not on trace.
        rim: on b0 alone, how deep bone and fluid are peeled off the mask; 0 for not at all.
        passes: how often correction and threshold follow each other.
        search_closing: radius of the ball that closes, for the search mask, the bays that lobar lesions cut.
        search_margin: how far the search mask reaches beyond that.
        min_volume_ml: a smaller mask is refused; allow less for thin slabs.
        max_volume_ml: a larger mask is refused.
        n4: the quick correction before each threshold.
    """

    work_spacing: float = 3.0
    median_width: float = 6.0
    opening: float = 6.0
    closing: float = 6.0
    b0_threshold: float = 1.3
    rim: float = 6.0
    passes: int = 2
    search_closing: float = 15.0
    search_margin: float = 3.0
    min_volume_ml: float = 300.0
    max_volume_ml: float = 2200.0
    n4: N4Parameters = field(default=_FAST_N4)

    def __post_init__(self) -> None:
        for name in ("median_width", "opening", "closing", "rim", "search_closing", "search_margin", "min_volume_ml"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("work_spacing", "b0_threshold"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")
        if not self.max_volume_ml > self.min_volume_ml:
            raise ValueError(f"max_volume_ml must exceed {self.min_volume_ml}, got {self.max_volume_ml}")


class BrainMaskResult(NamedTuple):
    """Masks of a scan and what tells whether to trust them.

    Attributes:
        mask: boolean ``(X, Y, Z)``, the brain with its sulci, for statistics.
        search_mask: boolean ``(X, Y, Z)``, the mask before peeling, closed and widened so that lesions at the rim stay
            inside.
        volume_ml: of ``mask``.
        touches_border: faces of the field of view that ``mask`` reaches, such as ``"first z"``; empty for none.
            Both ends of the slice axis say that the scan is a slab.
        n_components: parts of the thresholded head of at least a tenth of the largest; 1 is a brain.
        field_of_view_mm: extent of the scan along its storage axes.
    """

    mask: Tensor
    search_mask: Tensor
    volume_ml: float
    touches_border: tuple[str, ...]
    n_components: int
    field_of_view_mm: tuple[float, float, float]


def dwi_brain_mask(
    b0: Tensor,
    trace: Tensor | None,
    spacing: Sequence[float],
    parameters: BrainMaskParameters | None = None,
) -> BrainMaskResult:
    """Find the brain on b0 and trace, or on b0 alone.

    Args:
        b0: ``(X, Y, Z)``, any unit, slices along the last axis whatever its anatomical direction; T2*-weighted and
            T2-weighted images may stand in for it. Voxels that are negative or not finite count as 0.
        trace: same shape, the diffusion-weighted mean; ``None`` where the scan has none.
        spacing: mm along each axis.
        parameters: ``BrainMaskParameters()`` by default.

    Returns:
        The masks and their quality figures.

    Raises:
        ScanError: if the mask is empty or its volume is not a brain's.
        ValueError: if the images are not 3-D and of one shape, or the spacing not three positive numbers.
    """
    parameters = parameters or BrainMaskParameters()
    _check_images(b0, trace, spacing)
    shape, work = _work_grid(b0.shape, spacing, parameters.work_spacing)
    contrasts = [_normalised(image, shape) for image in (b0, trace) if image is not None]
    mask, n_components = _coarse_brain(contrasts, work, parameters)
    search_mask = _widened(mask, work, b0.shape, spacing, parameters)
    full = _resample(mask.float(), b0.shape) > 0.5
    if trace is None and parameters.rim > 0 and bool(full.any()):
        bias = _resample(estimate_log_bias(contrasts[0], mask, parameters.n4), b0.shape)
        full = _peeled(_finite(b0) / bias.exp(), full, spacing, parameters.rim)
    volume_ml = float(full.sum()) * float(spacing[0] * spacing[1] * spacing[2]) / 1000.0
    _check_volume(volume_ml, parameters)
    return BrainMaskResult(
        mask=full,
        search_mask=search_mask | full,
        volume_ml=volume_ml,
        touches_border=morphology.touched_faces(full),
        n_components=n_components,
        field_of_view_mm=(b0.shape[0] * spacing[0], b0.shape[1] * spacing[1], b0.shape[2] * spacing[2]),
    )


def _coarse_brain(
    contrasts: Sequence[Tensor], spacing: Sequence[float], parameters: BrainMaskParameters
) -> tuple[Tensor, int]:
    """The brain on the work grid, and the parts of the bright head."""
    head = _head(contrasts)
    mask, n_components = head, 0
    for _ in range(parameters.passes):
        corrected = [_corrected(image, mask, parameters.n4) for image in contrasts]
        mean = torch.where(head, torch.stack(corrected).mean(0), 0.0)
        threshold = parameters.b0_threshold if len(contrasts) == 1 else 1.0
        mask, n_components = _brain(mean, spacing, parameters, threshold)
        if not bool(mask.any()):
            break
    return mask, n_components


def _widened(
    mask: Tensor,
    work: Sequence[float],
    shape: Sequence[int],
    spacing: Sequence[float],
    parameters: BrainMaskParameters,
) -> Tensor:
    """The mask closed, and what lies within a margin, in coarse scans at least the next voxel in plane."""
    closed = morphology.fill_holes(morphology.close(mask, parameters.search_closing, work))
    margin = parameters.search_margin
    full = _resample(closed.float(), shape) > 0.5
    return morphology.dilate(full, max(margin, min(spacing)) if margin > 0 else 0.0, spacing)


def _peeled(corrected: Tensor, mask: Tensor, spacing: Sequence[float], depth: float) -> Tensor:
    """The mask without what is not as bright as tissue and reaches its surface, down to a depth in mm."""
    low, high = (share * _quantile(corrected[mask], 0.5) for share in _TISSUE)
    other = mask & ((corrected < low) | (corrected > high)) & ~morphology.erode(mask, depth, spacing)
    kept = mask & ~morphology.spread(~mask, other)
    core = morphology.largest_component(morphology.erode(kept, _PEELED_OPENING, spacing))
    closed = morphology.close(morphology.dilate(core, _PEELED_OPENING, spacing), _PEELED_CLOSING, spacing) & mask
    return morphology.fill_holes_by_slice(morphology.fill_holes(closed))


def _check_images(b0: Tensor, trace: Tensor | None, spacing: Sequence[float]) -> None:
    if b0.ndim != 3 or min(b0.shape) < 1:
        raise ValueError(f"b0 must be a volume (X, Y, Z), got shape {tuple(b0.shape)}")
    if trace is not None and trace.shape != b0.shape:
        raise ValueError(f"trace must have b0's shape {tuple(b0.shape)}, got {tuple(trace.shape)}")
    if len(spacing) != 3 or not all(0 < s < float("inf") for s in spacing):
        raise ValueError(f"spacing must be three positive lengths in mm, got {tuple(spacing)}")


def _check_volume(volume_ml: float, parameters: BrainMaskParameters) -> None:
    low, high = parameters.min_volume_ml, parameters.max_volume_ml
    if volume_ml > 0 and low <= volume_ml <= high:
        return
    raise ScanError(
        f"the brain mask holds {volume_ml:.0f} ml, and {low:.0f} to {high:.0f} ml are accepted: check that the scan "
        "shows a human head with its skull and that its voxel size is right, or change min_volume_ml and max_volume_ml"
    )


def _work_grid(
    shape: Sequence[int], spacing: Sequence[float], work: float
) -> tuple[tuple[int, int, int], tuple[float, ...]]:
    x, y, z = (max(1, round(n * s / max(work, s))) for n, s in zip(shape, spacing, strict=True))
    coarse = (x, y, z)
    return coarse, tuple(n * s / m for n, s, m in zip(shape, spacing, coarse, strict=True))


def _resample(image: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(image[None, None], size=tuple(shape), mode="trilinear", align_corners=False)[0, 0]


def _quantile(values: Tensor, q: float) -> Tensor:
    """A quantile without interpolation; torch.quantile refuses large volumes."""
    n = values.numel()
    return values.flatten().kthvalue(min(n - 1, int(q * n)) + 1).values


def _finite(image: Tensor) -> Tensor:
    return torch.nan_to_num(image.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0.0)


def _normalised(image: Tensor, shape: tuple[int, int, int]) -> Tensor:
    coarse = F.adaptive_avg_pool3d(_finite(image)[None], shape)[0]
    return coarse / _quantile(coarse, _BRIGHT).clamp_min(1e-20)


def _head(contrasts: Sequence[Tensor]) -> Tensor:
    """Everything that gives signal: the head without the air, holes filled."""
    mean = torch.stack([image.clamp(max=1.0) for image in contrasts]).mean(0)
    log_mean = mean.clamp_min(1e-3).log()
    return morphology.fill_holes(morphology.largest_component(log_mean > morphology.otsu_threshold(log_mean)))


def _corrected(image: Tensor, mask: Tensor, n4: N4Parameters) -> Tensor:
    flat = image / estimate_log_bias(image, mask, n4).exp()
    tissue = _quantile(flat[mask], 0.5) if bool(mask.any()) else flat.max()
    return (flat / tissue.clamp_min(1e-20)).clamp(max=_CEILING)


def _brain(
    mean: Tensor, spacing: Sequence[float], parameters: BrainMaskParameters, threshold: float
) -> tuple[Tensor, int]:
    """The largest part of the bright head, and the number of such parts."""
    smooth = morphology.median_filter(mean, [int(parameters.median_width / (2 * s)) for s in spacing])
    bright = smooth > threshold * morphology.otsu_threshold(smooth)
    core = morphology.erode(bright, parameters.opening, spacing)
    _, sizes = morphology.label_components(core)
    n_components = sum(size >= _COMPONENT_SHARE * max(sizes) for size in sizes)
    opened = morphology.dilate(morphology.largest_component(core), parameters.opening, spacing)
    closed = morphology.close(opened, parameters.closing, spacing)
    return morphology.fill_holes_by_slice(morphology.fill_holes(closed)), n_components
