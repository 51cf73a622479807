"""The decomposition as a MONAI transform of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from mhsev_monai.dsd.engines import check_engine_name
from mhsev_monai.dsd.functional import DSDParameters, DSDResult, dynamic_spectral_decomposition


class DynamicSpectralDecomposition(Transform):
    """The dynamic feature map of an image: the fractional signal change of its significant structure.

    Each channel is decomposed by itself, slice by slice along the last axis. The map has the shape, device and metadata
    of the image; it is negative where the image is darker than its surroundings. See also
    :func:`mhsev_monai.dsd.functional.dynamic_spectral_decomposition`.

    Args:
        parameters: settings by name, see :class:`~mhsev_monai.dsd.parameters.DSDParameters`; None: the defaults.
        spacing: voxel size in mm; None: from the image's metadata, which plain arrays lack.
        engine: ``numba``, ``triton`` or ``torch``; None: the fastest that can run where the image lies, see
            :mod:`mhsev_monai.dsd.engines`.

    Raises:
        ValueError: if a setting is out of its range, or the engine is not known.
        TypeError: if a setting is unknown.

    Example:
        >>> transform = DynamicSpectralDecomposition({"kappa": 3.0})
        >>> feature_map = transform(b0, brain_mask)
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012  MONAI's own classes spell it so

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        spacing: Sequence[float] | None = None,
        engine: str | None = None,
    ) -> None:
        DSDParameters(**(parameters or {}))
        check_engine_name(engine)
        self.parameters = parameters
        self.spacing = spacing
        self.engine = engine

    def __call__(self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None) -> NdarrayOrTensor:
        """The map of a channel-first image ``(C, X, Y[, Z])``, float32 unless the parameters say float64.

        Args:
            img: positive intensities.
            mask: nonzero in the brain; one channel for all, or one for each; None takes every voxel.

        Raises:
            ValueError: if the spacing is not known, or the image or mask cannot be used.
        """
        maps = torch.stack([result.map for result in self.decompose(img, mask)])
        # A plain array becomes a MetaTensor, as with MONAI's own transforms.
        target = convert_to_tensor(img, track_meta=get_track_meta())
        return convert_to_dst_type(maps, dst=target, dtype=maps.dtype)[0]

    def decompose(self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None) -> list[DSDResult]:
        """The whole decomposition of each channel: map, ranks, window sizes and energies."""
        spacing = self.spacing_of(img)
        channels = as_plain_tensor(img)
        masks = _channel_masks(channels, mask)
        parameters = DSDParameters(**(self.parameters or {}))
        return [
            dynamic_spectral_decomposition(channel, spacing, inside, parameters, self.engine)
            for channel, inside in zip(channels, masks, strict=True)
        ]

    def spacing_of(self, img: NdarrayOrTensor) -> tuple[float, ...]:
        """Voxel size of a channel-first image, mm, one number for each spatial axis.

        Raises:
            ValueError: if ``spacing`` was not given and the image carries no metadata.
        """
        if self.spacing is not None:
            spacing: Sequence[float] = self.spacing
        elif isinstance(img, MetaTensor):
            spacing = [float(side) for side in img.pixdim]
        else:
            raise ValueError("spacing must be given for an image without metadata: pass spacing or a MetaTensor")
        return tuple(float(side) for side in spacing[: img.ndim - 1])


def as_plain_tensor(img: NdarrayOrTensor) -> torch.Tensor:
    """The image as a tensor without metadata, on its own device; shares the image's memory."""
    return torch.as_tensor(img).as_subclass(torch.Tensor)


def _channel_masks(channels: torch.Tensor, mask: NdarrayOrTensor | None) -> list[torch.Tensor | None]:
    if mask is None:
        return [None] * len(channels)
    inside = as_plain_tensor(mask)
    if inside.shape[1:] != channels.shape[1:] or len(inside) not in (1, len(channels)):
        raise ValueError(
            f"mask must have 1 or {len(channels)} channels and the image's spatial shape {tuple(channels.shape[1:])}, "
            f"got shape {tuple(inside.shape)}"
        )
    return list(inside.expand(channels.shape))
