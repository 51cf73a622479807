"""MONAI array transforms of this room: channel-first images in, the same kind of image out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import Transform
from monai.utils.enums import TransformBackends
from monai.utils.type_conversion import convert_data_type, convert_to_dst_type, convert_to_tensor
from torch import Tensor

from mhsev_monai.preprocess import functional

__all__ = ["BrainMasks", "DWIBrainMask", "FuseContrasts", "N4BiasFieldCorrection", "NyulStandardize", "ZScoreInMask"]


class N4BiasFieldCorrection(Transform):
    """Divide the bias field out of each channel of an image, by N4.

    Works on 2-D and 3-D images of any origin, on the device where they lie; there is nothing random in it.

    Args:
        parameters: fields of ``N4Parameters`` by name, for example ``levels=4, shrink=1``.

    Raises:
        TypeError: for a name that ``N4Parameters`` does not have.
        ValueError: for a value that it does not accept.

    Example::

        corrected = N4BiasFieldCorrection(shrink=4)(image)     # (C, X, Y, Z)

    See also: ``N4BiasFieldCorrectiond``, which applies one field to several images of a scan.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI's own declaration)

    def __init__(self, **parameters: Any) -> None:
        self.parameters = functional.N4Parameters(**parameters)

    def __call__(self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None) -> NdarrayOrTensor:
        """The corrected image, float32, with the image's metadata.

        Args:
            img: ``(C, X, Y[, Z])``, linear intensities.
            mask: ``(1, X, Y[, Z])``, or one channel for each of the image's; voxels above 0 are fitted. By default
                all that are positive.
        """
        img = convert_to_tensor(img, track_meta=get_track_meta())
        return self.divide(img, self.log_bias(img, mask))

    def log_bias(self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None) -> NdarrayOrTensor:
        """Natural logarithm of the field of each channel, ``(C, X, Y[, Z])`` float32, with the image's metadata."""
        img = convert_to_tensor(img, track_meta=get_track_meta())
        channels = _plain(img)
        masks: Sequence[Tensor | None] = [None] * len(channels)
        if mask is not None:
            masks = _one_per_channel(_plain(mask).to(channels.device), len(channels))
        fields = [
            functional.estimate_log_bias(channel, channel_mask, self.parameters)
            for channel, channel_mask in zip(channels, masks, strict=True)
        ]
        return _as_image(torch.stack(fields), img)

    @staticmethod
    def divide(img: NdarrayOrTensor, log_bias: NdarrayOrTensor) -> NdarrayOrTensor:
        """The image divided by ``exp(log_bias)``, float32; a field of one channel serves all."""
        img = convert_to_tensor(img, track_meta=get_track_meta())
        image, field = _plain(img).float(), _plain(log_bias)
        if image.shape[1:] != field.shape[1:] or len(field) not in (1, len(image)):
            raise ValueError(f"a field of shape {tuple(field.shape)} does not fit an image of {tuple(image.shape)}")
        return _as_image(image / field.to(image.device).exp(), img)


class BrainMasks(NamedTuple):
    """What ``DWIBrainMask`` returns: two images and the figures that tell whether to trust them.

    Attributes:
        mask: ``(1, X, Y, Z)`` uint8, the brain.
        search_mask: ``(1, X, Y, Z)`` uint8, the brain and what lies close around it.
        quality: ``brain_mask_ml``, ``touches_border`` (the faces of the scan, ``"first z, last z"``, empty for none),
            ``n_components`` and ``field_of_view_mm``; see ``BrainMaskResult``.
    """

    mask: NdarrayOrTensor
    search_mask: NdarrayOrTensor
    quality: dict[str, Any]


class DWIBrainMask(Transform):
    """Find the brain on b0 and, where there is one, the diffusion-weighted mean.

    Args:
        spacing: mm along each spatial axis, for images without an affine; images with one bring their own.
        parameters: fields of ``BrainMaskParameters`` by name, for example ``min_volume_ml=150``.

    Raises:
        TypeError: for a name that ``BrainMaskParameters`` does not have.
        ValueError: for a value that it does not accept.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI's own declaration)

    def __init__(self, spacing: Sequence[float] | None = None, **parameters: Any) -> None:
        self.spacing = spacing
        self.parameters = functional.BrainMaskParameters(**parameters)

    def __call__(self, b0: NdarrayOrTensor, trace: NdarrayOrTensor | None = None) -> BrainMasks:
        """The masks with b0's metadata.

        Args:
            b0: ``(1, X, Y, Z)``.
            trace: same shape, or None.

        Raises:
            ScanError: where no brain of a plausible volume is found.
            ValueError: if shapes do not fit or the voxel size is unknown.
        """
        spacing = _spacing(b0, self.spacing)
        b0 = convert_to_tensor(b0, track_meta=get_track_meta())
        volume = _single(b0, "b0")
        other = None if trace is None else _single(trace, "trace").to(volume.device)
        found = functional.dwi_brain_mask(volume, other, spacing, self.parameters)
        quality = {
            "brain_mask_ml": found.volume_ml,
            "touches_border": ", ".join(found.touches_border),
            "n_components": found.n_components,
            "field_of_view_mm": found.field_of_view_mm,
        }
        mask, search_mask = (_as_image(m[None], b0, torch.uint8) for m in (found.mask, found.search_mask))
        return BrainMasks(mask, search_mask, quality)


class ZScoreInMask(Transform):
    """Standardise each channel by the mean and standard deviation of its voxels in a mask.

    Args:
        clip: results are limited to ``-clip..clip``; None for no limit.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI's own declaration)

    def __init__(self, clip: float | None = 6.0) -> None:
        self.clip = clip

    def __call__(self, img: NdarrayOrTensor, mask: NdarrayOrTensor) -> NdarrayOrTensor:
        """The standardised image, float32, with the image's metadata; ``mask`` has one channel or one for each."""
        img = convert_to_tensor(img, track_meta=get_track_meta())
        channels = _plain(img)
        masks = _one_per_channel(_plain(mask).to(channels.device), len(channels))
        scores = [functional.z_score_in_mask(c, m, self.clip) for c, m in zip(channels, masks, strict=True)]
        return _as_image(torch.stack(scores), img)


class NyulStandardize(Transform):
    """Map each channel so that the percentiles of its voxels in a mask come to lie on a standard scale.

    Args:
        scale: 11 rising numbers, from ``functional.standard_scale`` over the sites that take part.

    Raises:
        ValueError: if ``scale`` is something else.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI's own declaration)

    def __init__(self, scale: Sequence[float]) -> None:
        self.scale = functional.check_scale(scale)

    def __call__(self, img: NdarrayOrTensor, mask: NdarrayOrTensor) -> NdarrayOrTensor:
        """The mapped image, float32, with the image's metadata; ``mask`` has one channel or one for each."""
        img = convert_to_tensor(img, track_meta=get_track_meta())
        channels = _plain(img)
        masks = _one_per_channel(_plain(mask).to(channels.device), len(channels))
        mapped = [functional.nyul_standardize(c, m, self.scale) for c, m in zip(channels, masks, strict=True)]
        return _as_image(torch.stack(mapped), img)


class FuseContrasts(Transform):
    """Keep dark what is dark on b0 and on trace, each relative to the parenchyma around.

    Args:
        sigma: mm; width of the local mean that an image is divided by.
        ceiling: brighter values are cut here; 1 is the local parenchyma.
        spacing: mm along each spatial axis, for images without an affine.
        rim: mm; how far darkness that comes from outside the mask is followed inwards and lifted; 0 for not at all.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI's own declaration)

    def __init__(
        self,
        sigma: float = 13.0,
        ceiling: float = 1.12,
        spacing: Sequence[float] | None = None,
        rim: float = 0.0,
    ) -> None:
        self.sigma = sigma
        self.ceiling = ceiling
        self.spacing = spacing
        self.rim = rim

    def __call__(
        self, b0: NdarrayOrTensor, mask: NdarrayOrTensor, trace: NdarrayOrTensor | None = None
    ) -> NdarrayOrTensor:
        """The fused image ``(1, X, Y, Z)``, float32 in ``0..ceiling``, with b0's metadata; 1 outside the mask."""
        spacing = _spacing(b0, self.spacing)
        b0 = convert_to_tensor(b0, track_meta=get_track_meta())
        volume = _single(b0, "b0")
        inside = _single(mask, "mask").to(volume.device)
        other = None if trace is None else _single(trace, "trace").to(volume.device)
        fused = functional.fuse_contrasts(volume, other, inside, spacing, self.sigma, self.ceiling, self.rim)
        return _as_image(fused[None], b0)


def _plain(img: NdarrayOrTensor) -> Tensor:
    """The same numbers without metadata; MetaTensor would follow every step of an iteration."""
    return convert_data_type(img, torch.Tensor)[0]


def _as_image(values: Tensor, img: NdarrayOrTensor, dtype: torch.dtype = torch.float32) -> NdarrayOrTensor:
    return convert_to_dst_type(values, dst=img, dtype=dtype)[0]


def _single(img: NdarrayOrTensor, name: str) -> Tensor:
    image = _plain(img)
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"{name} must be one volume (1, X, Y, Z), got shape {tuple(image.shape)}")
    return image[0]


def _one_per_channel(mask: Tensor, n_channels: int) -> list[Tensor]:
    if len(mask) not in (1, n_channels):
        raise ValueError(f"the mask must have 1 channel or {n_channels}, got {len(mask)}")
    return list(mask.expand(n_channels, *mask.shape[1:]))


def _spacing(img: NdarrayOrTensor, spacing: Sequence[float] | None) -> tuple[float, ...]:
    # Asked before any conversion: MONAI gives an array without an affine one of 1 mm.
    if isinstance(img, MetaTensor):
        return tuple(float(s) for s in img.pixdim)
    if spacing is None:
        raise ValueError("the voxel size is unknown: give images with an affine (MetaTensor), or spacing in mm")
    return tuple(float(s) for s in spacing)
