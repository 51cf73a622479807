"""N4 bias field correction (Tustison et al., IEEE TMI 29:1310, 2010) in torch, for 2-D and 3-D images on any device.

The corrected image has the sharpest histogram that a smooth multiplicative field allows: each iteration sharpens the
histogram of the log intensities by Wiener deconvolution with a Gaussian (Sled et al., IEEE TMI 17:87, 1998), fits a
cubic B-spline lattice to what sharpening changed, and adds it to the field. Lattices double in density level by level.

With ``shrink=1`` and ``relaxation=1`` this is ITK's filter with equal parameters, down to its rounding where that
decides when a level stops (``n4_itk``). With ``shrink > 1`` the samples keep their place in the full image, where ITK
users fit on a smaller one and extrapolate.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mhsev_monai.preprocess import n4_itk
from mhsev_monai.preprocess.b_splines import SplineBasis

_FIXED_POINT = 2.0**30
"""Histogram weights in [0, 1] as integers on CUDA: integer sums do not depend on the order of the threads."""
_FEWEST_SAMPLES = 8
"""Shrinking never leaves an axis fewer samples than this."""


@dataclass(frozen=True)
class N4Parameters:
    """How N4 searches; the defaults are chosen for b0 and diffusion-weighted contrast.

    Attributes:
        levels: lattice densities, each twice the one before. ITK's default is 4; on diffusion contrast the fourth
            follows anatomy more than coils.
        iterations: at most so many a level.
        tolerance: a level ends when the coefficient of variation of the field's last change is not above this; 0 runs
            all iterations, and with ``shrink > 1`` or relaxation never waits for the device.
        shrink: every n-th voxel along each axis takes part in the fit.
        n_bins: histogram bins.
        fwhm: full width at half maximum of the Gaussian that is deconvolved, in log intensity.
        wiener_noise: noise term of the Wiener filter.
        relaxation: factor on each change of the field; 1 is N4, up to 1.8 converges in fewer iterations to a
            slightly different field.
        n_control_points: lattice points along each axis at the first level, 4 or more.
    """

    levels: int = 3
    iterations: int = 50
    tolerance: float = 1e-3
    shrink: int = 2
    n_bins: int = 200
    fwhm: float = 0.15
    wiener_noise: float = 0.01
    relaxation: float = 1.0
    n_control_points: int = 4

    def __post_init__(self) -> None:
        least = {"levels": 1, "iterations": 1, "tolerance": 0, "shrink": 1, "n_bins": 2, "n_control_points": 4}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        for name in ("fwhm", "wiener_noise"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.relaxation < 2:
            raise ValueError(f"relaxation must lie between 0 and 2, got {self.relaxation}")

    @property
    def like_itk(self) -> bool:
        """Whether ITK's filter has these parameters, so that its rounding is followed too."""
        return self.shrink == 1 and self.relaxation == 1


class N4Result(NamedTuple):
    """A corrected image, the field that was divided out, and how long the search took.

    Attributes:
        corrected: the image divided by ``exp(log_bias)``, float32.
        log_bias: natural logarithm of the field, float32, the image's shape, finite everywhere.
        iterations: iterations spent at each level; empty where no field could be estimated.
    """

    corrected: Tensor
    log_bias: Tensor
    iterations: tuple[int, ...]


def n4_bias_field_correction(image: Tensor, mask: Tensor | None, parameters: N4Parameters | None = None) -> N4Result:
    """Divide the smooth multiplicative bias field out of an image.

    Args:
        image: ``(X, Y, Z)`` or ``(X, Y)``, linear intensities in any unit.
        mask: same shape; voxels above 0 are fitted. ``None`` fits every voxel that is finite and positive.
        parameters: how to search; ``N4Parameters()`` by default.

    Returns:
        The corrected image at full resolution, its field and the iterations. Voxels that are not finite stay as they
        came and touch no other. Where nothing can be estimated (no positive finite voxel in the mask, or all of them
        equal) the field is zero and a ``RuntimeWarning`` says so.

    Raises:
        ValueError: if the image has not 2 or 3 axes, or the mask another shape.
    """
    log_bias, iterations = _fit_log_bias(image, mask, parameters or N4Parameters())
    return N4Result(image.to(torch.float32) / log_bias.exp(), log_bias, iterations)


def estimate_log_bias(image: Tensor, mask: Tensor | None, parameters: N4Parameters | None = None) -> Tensor:
    """Estimate the logarithm of the bias field, at the image's full resolution.

    One field may serve all volumes of a scan: they pass the same coils, and a ratio such as ADC does not change.
    Arguments, guards and errors are those of ``n4_bias_field_correction``.
    """
    return _fit_log_bias(image, mask, parameters or N4Parameters())[0]


def _fit_log_bias(image: Tensor, mask: Tensor | None, parameters: N4Parameters) -> tuple[Tensor, tuple[int, ...]]:
    if image.ndim not in (2, 3):
        raise ValueError(f"image must have 2 or 3 axes, got shape {tuple(image.shape)}")
    if mask is not None and mask.shape != image.shape:
        raise ValueError(f"mask must have the image's shape {tuple(image.shape)}, got {tuple(mask.shape)}")
    usable = torch.isfinite(image) & (image > 0)
    if mask is not None:
        usable &= mask > 0
    # ITK's order of voxels, the first axis fastest: the measure that stops a level depends on it.
    backwards = tuple(reversed(range(image.ndim)))
    field, iterations = _fit_levels(image.permute(backwards), usable.permute(backwards), parameters)
    return field.permute(backwards).contiguous(), iterations


def _fit_levels(image: Tensor, usable: Tensor, parameters: N4Parameters) -> tuple[Tensor, tuple[int, ...]]:
    axes = _sample_axes(usable, parameters.shrink)
    field = torch.zeros(image.shape, dtype=torch.float32, device=image.device)
    if axes is None:
        warnings.warn("N4: no positive, finite voxel inside the mask; the field is zero", RuntimeWarning, stacklevel=4)
        return field, ()
    inside = _take(usable, axes)
    values = _take(image, axes)[inside].double().log()
    # The field does not change when the image is scaled; centred logarithms keep float32's digits for the differences.
    values = (values - values.mean()).float()
    if not float(values.max() - values.min()) > 1e-6:
        warnings.warn("N4: the image is constant inside the mask; the field is zero", RuntimeWarning, stacklevel=4)
        return field, ()
    spent = []
    for level in range(parameters.levels):
        mesh = (parameters.n_control_points - 3) * 2**level
        lattice, values, n_iterations = _fit_level(values, inside, SplineBasis(image.shape, axes, mesh), parameters)
        full = [torch.arange(n, device=image.device) for n in image.shape]
        # Refining a B-spline lattice is exact, so the levels' fields add up to the field of the finest lattice.
        field += SplineBasis(image.shape, full, mesh).evaluate(lattice)
        spent.append(n_iterations)
    return field, tuple(spent)


def _sample_axes(usable: Tensor, shrink: int) -> list[Tensor] | None:
    """The voxel indices along each axis that take part: every ``shrink``-th, inside the bounding box of the mask."""
    axes = []
    for axis, n in enumerate(usable.shape):
        step = max(1, min(shrink, n // _FEWEST_SAMPLES))
        others = [other for other in range(usable.ndim) if other != axis]
        hit = usable.sum(others).nonzero().flatten()
        if len(hit) == 0:
            return None
        index = torch.arange((n - 1) % step // 2, n, step, device=usable.device)
        axes.append(index[(index >= hit[0]) & (index <= hit[-1])])
    # A mask of a few voxels may fall between the samples.
    if any(len(index) == 0 for index in axes) or not bool(_take(usable, axes).any()):
        return _sample_axes(usable, 1) if shrink > 1 else None
    return axes


def _take(image: Tensor, axes: Sequence[Tensor]) -> Tensor:
    for axis, index in enumerate(axes):
        image = image.index_select(axis, index)
    return image


def _fit_level(
    values: Tensor, inside: Tensor, basis: SplineBasis, parameters: N4Parameters
) -> tuple[Tensor, Tensor, int]:
    """Lattice found at one level, the log intensities without its field, and the iterations spent."""
    support = basis.support(inside)
    lattice = torch.zeros_like(support)
    residual = torch.zeros(inside.shape, dtype=values.dtype, device=values.device)
    where = inside.flatten().nonzero().flatten()
    for iteration in range(1, parameters.iterations + 1):
        residual.view(-1)[where] = values - _sharpen(values, parameters)
        change = parameters.relaxation * basis.fit(residual, support)
        step = basis.evaluate(change).flatten()[where]
        lattice = lattice + change
        values = values - step
        if parameters.tolerance > 0 and _variation(step, parameters) <= parameters.tolerance:
            return lattice, values, iteration
    return lattice, values, parameters.iterations


def _variation(step: Tensor, parameters: N4Parameters) -> float:
    """Coefficient of variation of the factor by which the field changed; 0 for a single voxel."""
    factor = step.neg().exp()
    if parameters.like_itk:
        return n4_itk.variation(factor)
    return float(factor.std() / factor.mean()) if factor.numel() > 1 else 0.0


def _sharpen(values: Tensor, parameters: N4Parameters) -> Tensor:
    """Expected true log intensity of each voxel, given the one it has (Sled 1998, section II-C)."""
    n_bins = parameters.n_bins
    low = values.min()
    counted: slice | Tensor = slice(None)
    if parameters.like_itk:
        low = n4_itk.lowest_value(values)
        counted = values >= low
    width = ((values.max() - low).double() / (n_bins - 1)).clamp_min(1e-12)
    position = (values - low) / width.float()
    # Only ITK's minimum has values below it. They go where ITK sends them: to the brightest bin, uncounted.
    position = torch.where(position < 0, n_bins - 1.0, position)
    lower = position.long().clamp(0, n_bins - 1)
    upper = (lower + 1).clamp(max=n_bins - 1)
    share = position - lower
    counts = _histogram(lower[counted], upper[counted], share[counted], n_bins)
    expected = _expected_values(counts, low.double(), width, parameters).to(values.dtype)
    return torch.lerp(expected[lower], expected[upper], share)


def _histogram(lower: Tensor, upper: Tensor, share: Tensor, n_bins: int) -> Tensor:
    """Counts in float64, each voxel shared linearly between the two bins around it; the same on every run."""
    if not share.is_cuda:
        return torch.bincount(lower, 1.0 - share.double(), n_bins) + torch.bincount(upper, share.double(), n_bins)
    return _fixed_point_histogram(lower, upper, share, n_bins)


def _fixed_point_histogram(lower: Tensor, upper: Tensor, share: Tensor, n_bins: int) -> Tensor:
    weight = (share.double() * _FIXED_POINT).long()
    counts = torch.zeros(n_bins, dtype=torch.int64, device=share.device)
    counts.scatter_add_(0, lower, int(_FIXED_POINT) - weight)
    counts.scatter_add_(0, upper, weight)
    return counts.double() / _FIXED_POINT


def _expected_values(counts: Tensor, low: Tensor, width: Tensor, parameters: N4Parameters) -> Tensor:
    """Expected true log intensity in each bin, after Wiener deconvolution of the histogram."""
    n_bins = parameters.n_bins
    # ITK's padding: zeros on both sides, up to twice the next power of two.
    n_padded = 2 ** (math.ceil(math.log2(n_bins)) + 1)
    offset = (n_padded - n_bins) // 2
    padded = torch.zeros(n_padded, dtype=torch.float64, device=counts.device)
    padded[offset : offset + n_bins] = counts
    bins = torch.arange(n_padded, dtype=torch.float64, device=counts.device)
    scaled_fwhm = parameters.fwhm / width
    distance = torch.minimum(bins, n_padded - bins)
    height = 2 * math.sqrt(math.log(2) / math.pi) / scaled_fwhm
    blur = torch.fft.fft(height * torch.exp(-4 * math.log(2) * (distance / scaled_fwhm) ** 2))
    wiener = blur.conj() / (blur.conj() * blur + parameters.wiener_noise)
    sharp = torch.fft.ifft(torch.fft.fft(padded) * wiener).real.clamp_min(0)
    centres = low + (bins - offset) * width
    mass = torch.fft.ifft(torch.fft.fft(sharp) * blur).real
    moment = torch.fft.ifft(torch.fft.fft(sharp * centres) * blur).real
    expected = torch.where(mass != 0, moment / mass, 0.0)
    return expected[offset : offset + n_bins]
