"""Dynamic spectral decomposition of a brain volume, on plain tensors of any device.

The paper (section 2.1) slides a window over the image, transforms it, thresholds the spectrum, keeps the leading
components of its SVD, transforms back, and takes the result for all windows as the dynamic feature map. Its letters:
``W = window_size, F = spectrum, T = threshold, K = rank``.

What the paper leaves open is settled so:

* A window is the fractional departure from its own weighted mean, ``(p - mu) / mu``: neither the scanner's gain nor a
  smooth shading of the coil changes the map. The mean goes before the taper, or it leaks into the lowest waves.
* ``T = kappa`` times the noise power of the window, from its high frequencies inside the acquired k-space. A threshold
  from each ring's own median would delete bleeds: a round spot has the same power all around a ring.
* K follows :mod:`mhsev_monai.dsd.rank`: truncating the SVD of ``F`` and transforming back is truncating the real
  window itself.
* W follows the local texture, see :func:`mhsev_monai.dsd.windows.choose_window_sizes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mhsev_monai.dsd.contrast import Array, as_tensor, check_volume, contrast_image
from mhsev_monai.dsd.engines import check_engine_name, decomposing_engine, projecting_engine
from mhsev_monai.dsd.lattice import lay_windows
from mhsev_monai.dsd.parameters import EIGENVALUES, DSDParameters
from mhsev_monai.dsd.rank import TIE, RankProjection, select_rank
from mhsev_monai.dsd.spectrum import BAND_EDGES_PER_MM

__all__ = [
    "BAND_EDGES_PER_MM",
    "DSDParameters",
    "DSDResult",
    "RankProjection",
    "contrast_image",
    "dsd_maps",
    "dynamic_spectral_decomposition",
    "rank_k_project",
    "select_rank",
]


class DSDResult(NamedTuple):
    """A decomposed volume.

    The fields on the anchor grid have shape ``(a_x, a_y, Z)``. Anchor (i, j) is the middle of a window that covers the
    voxels ``i * stride - W/2 .. i * stride + W/2 - 1`` along X, and likewise along Y with j; ``a_x = ceil(X / stride)
    + 1``. They are 0 where ``window_size`` is 0, that is where no window lies.
    """

    map: Tensor
    """Fractional signal change, shape of the image; negative where darker than the surroundings, 0 outside the mask."""
    window_size: Tensor
    """W in voxels, integers; 0: no window, for lack of brain or signal."""
    rank: Tensor
    """K, integers from 0 to W; 0 also where the threshold left nothing."""
    noise_scale: Tensor
    """Noise power of the window's spectrum, fractional contrast squared; noise of sd s has ``s**2 / 4``."""
    retained_energy: Tensor
    """Energy after the threshold over that before it, 0 to 1."""
    band_energy: Tensor
    """``(a_x, a_y, Z, n_bands)``: the part of ``retained_energy`` in each band of ``BAND_EDGES_PER_MM``."""
    stride: int
    """Voxels between anchors."""
    base_window_size: int
    """W where the texture is neither flat nor busy."""
    acquired: tuple[float, float]
    """Half-width of the acquired k-space along X and Y, cycles per pixel, given or estimated."""


@torch.no_grad()
def dynamic_spectral_decomposition(
    image: Array,
    spacing: Sequence[float],
    mask: Array | None = None,
    parameters: DSDParameters | None = None,
    engine: str | None = None,
) -> DSDResult:
    """The dynamic feature map of a volume, slice by slice, with each window's rank, size and energies.

    Args:
        image: ``(X, Y, Z)`` or ``(X, Y)``, a positive intensity such as b0 in any unit; slices along Z. X and Y are at
            least 8 voxels.
        spacing: voxel size in mm, one number for each axis of ``image``.
        mask: same shape, nonzero in the brain; None takes every voxel. Voxels outside have no influence.
        parameters: settings; None: the defaults.
        engine: ``numba``, ``triton`` or ``torch``; None: the fastest that can do it on the image's device, see
            :mod:`mhsev_monai.dsd.engines`. The answer is the same within the rounding of float32.

    Returns:
        The result on the image's device. Parts of the mask too thin to fill a quarter of any window stay 0.

    Raises:
        ValueError: if the image is complex, not finite, neither 2-D nor 3-D, smaller than a window, or its median in
            the mask is not positive; if the mask is empty or of another shape; if a spacing is not positive; if the
            engine is not known, or cannot run, with the reason.
    """
    parameters = parameters or DSDParameters()
    planar = len(image.shape) == 2
    volume, inside, spacing = check_volume(image, spacing, mask)
    decompose = decomposing_engine(engine, volume.device, parameters)
    # Somebody's mixed-precision training loop must not round the products in here to bfloat16.
    with torch.autocast(volume.device.type, enabled=False):
        contrast, level = contrast_image(volume, inside, parameters.clip)
        lattice = lay_windows(volume / level, contrast, inside, spacing, parameters)
        fields = decompose(lattice, parameters)._asdict()
    dsd_map = (fields.pop("map") * inside).permute(1, 2, 0)
    return DSDResult(
        map=dsd_map[..., 0] if planar else dsd_map,
        **{name: field.movedim(0, 2) for name, field in fields.items()},
        stride=lattice.stride,
        base_window_size=lattice.base,
        acquired=lattice.support,
    )


@torch.no_grad()
def dsd_maps(
    images: Array,
    spacing: Sequence[float],
    mask: Array | None = None,
    parameters: DSDParameters | None = None,
    engine: str | None = None,
) -> Tensor:
    """The maps of a batch with any leading axes, such as ``(B, C, X, Y, Z)``, each image decomposed by itself.

    Args:
        images: ``(..., X, Y)`` for two spacings, ``(..., X, Y, Z)`` for three.
        spacing: voxel size in mm, the same for all images; its length is the number of spatial axes.
        mask: nonzero in the brain, of a shape that broadcasts to that of ``images``; None takes every voxel.
        parameters: see :func:`dynamic_spectral_decomposition`.
        engine: see :func:`dynamic_spectral_decomposition`.

    Returns:
        The shape of ``images``, on their device.

    Raises:
        ValueError: if there are not two or three spacings, fewer axes than spacings, or no image at all, or the mask
            does not broadcast; and as :func:`dynamic_spectral_decomposition`.
    """
    batch = as_tensor(images)
    n_spatial = len(spacing)
    if n_spatial not in (2, 3) or batch.dim() < n_spatial or not batch.numel():
        raise ValueError(
            "images must be (..., X, Y) with two spacings or (..., X, Y, Z) with three, and not empty; "
            f"got shape {tuple(batch.shape)} and {n_spatial} spacings"
        )
    inside = [None] * (batch.numel() // batch.shape[-n_spatial:].numel())
    flat = batch.reshape(-1, *batch.shape[-n_spatial:])
    if mask is not None:
        marked = as_tensor(mask)
        try:
            inside = list(marked.broadcast_to(batch.shape).reshape(flat.shape))
        except RuntimeError:
            raise ValueError(
                f"mask must broadcast to the images' shape {tuple(batch.shape)}, got {tuple(marked.shape)}"
            ) from None
    maps = [
        dynamic_spectral_decomposition(image, spacing, marks, parameters, engine).map
        for image, marks in zip(flat, inside, strict=True)
    ]
    return torch.stack(maps).reshape(batch.shape)


@torch.no_grad()
def rank_k_project(
    matrices: Array,
    energy: float,
    *,
    eigenvalues: str = "squared",
    tie: float = TIE,
    engine: str | None = None,
) -> RankProjection:
    """Each matrix rebuilt from its leading components, with their number: patch-wise truncated SVD, for any patches.

    Args:
        matrices: ``(..., m, n)`` real floating point; any device. Half precision is computed in single precision.
        energy: fraction in (0, 1); K is the fewest components that hold more of the eigenvalues' sum, 1 for zeros.
        eigenvalues: ``squared`` or ``singular``, the reading of the paper's "eigenvalues".
        tie: relative distance, in [0, 1), within which two singular values are kept or dropped together; 0 cuts
            clusters of equal values wherever the criterion falls.
        engine: see :func:`dynamic_spectral_decomposition`. ``numba`` and ``triton`` take float32 matrices whose smaller
            side is at most 32.

    Raises:
        ValueError: if ``matrices`` is not real floating point, not finite, or has fewer than two axes; if ``energy`` or
            ``tie`` is out of its range; if the engine is not known, or cannot run, with the reason.
    """
    matrices = as_tensor(matrices)
    if not matrices.is_floating_point() or matrices.dim() < 2:
        raise ValueError(
            "matrices must be real floating-point numbers with at least two axes, "
            f"got {str(matrices.dtype).removeprefix('torch.')} of shape {tuple(matrices.shape)}; convert them first"
        )
    if not 0 < energy < 1:
        raise ValueError(f"energy must be between 0 and 1, both excluded, got {energy}")
    if not 0 <= tie < 1:
        raise ValueError(f"tie must be from 0 to below 1, got {tie}")
    if eigenvalues not in EIGENVALUES:
        raise ValueError(f"eigenvalues must be one of {', '.join(EIGENVALUES)}, got {eigenvalues!r}")
    check_engine_name(engine)
    if not matrices.numel():
        return RankProjection(matrices, matrices.new_zeros(matrices.shape[:-2], dtype=torch.long))
    batch = matrices.reshape(-1, *matrices.shape[-2:])
    if batch.dtype in (torch.float16, torch.bfloat16):
        batch = batch.float()
    project = projecting_engine(engine, batch, eigenvalues)
    # A faint matrix would vanish when squared.
    scale = batch.abs().amax((1, 2), keepdim=True)
    if not scale.isfinite().all():
        raise ValueError("matrices must be finite, got NaN or infinite entries; replace them first")
    nothing = scale[:, 0, 0] == 0
    scale = torch.where(scale > 0, scale, 1.0)
    wide = batch.shape[1] < batch.shape[2]
    scaled = batch / scale
    with torch.autocast(batch.device.type, enabled=False):
        projected, rank = project(scaled.mT if wide else scaled, energy, eigenvalues, tie)
    projected = ((projected.mT if wide else projected) * scale).to(matrices.dtype)
    return RankProjection(projected.reshape(matrices.shape), rank.masked_fill(nothing, 1).reshape(matrices.shape[:-2]))
