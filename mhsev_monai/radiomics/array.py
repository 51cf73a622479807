"""Radiomics features as a MONAI transform of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends
from numpy.typing import NDArray

from mhsev_monai.radiomics.functional import feature_names, radiomics_features
from mhsev_monai.radiomics.parameters import RadiomicsParameters


class RadiomicsFeatures(Transform):
    """Intensity and texture features of a region of a 3-D image, as pyradiomics defines them.

    Args:
        parameters: settings by name, see :class:`~mhsev_monai.radiomics.parameters.RadiomicsParameters`; None: the
            defaults, 32 grey levels.
        spacing: voxel size in mm; None: from the image's metadata, which plain arrays lack.

    Raises:
        ValueError: if a setting is out of its range.
        TypeError: if a setting is unknown.

    Example:
        >>> transform = RadiomicsFeatures({"bin_count": 64})
        >>> dict(zip(transform.feature_names, transform(b0, brain_mask)[0]))
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012  MONAI's own classes spell it so

    def __init__(self, parameters: Mapping[str, Any] | None = None, spacing: Sequence[float] | None = None) -> None:
        self.parameters = RadiomicsParameters(**(parameters or {}))
        self.spacing = spacing

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each column."""
        return feature_names(self.parameters)

    def __call__(self, img: NdarrayOrTensor, mask: NdarrayOrTensor) -> NDArray[np.float64]:
        """``(C, n_features)``, a row for each channel of an image ``(C, X, Y, Z)``.

        Args:
            img: intensities.
            mask: nonzero in the region; one channel for all, or one for each.

        Raises:
            ValueError: if the spacing is not known, or the image or mask cannot be used.
        """
        channels, masks = (torch.as_tensor(each).as_subclass(torch.Tensor).cpu().numpy() for each in (img, mask))
        if masks.shape[1:] != channels.shape[1:] or len(masks) not in (1, len(channels)):
            raise ValueError(
                f"mask must have 1 or {len(channels)} channels and the image's spatial shape {channels.shape[1:]}, got "
                f"shape {masks.shape}"
            )
        spacing = self._spacing_of(img)
        rows = [
            list(radiomics_features(channel, inside, spacing, self.parameters).values())
            for channel, inside in zip(channels, np.broadcast_to(masks, channels.shape), strict=True)
        ]
        return np.array(rows, dtype=np.float64)

    def _spacing_of(self, img: NdarrayOrTensor) -> tuple[float, ...]:
        if self.spacing is not None:
            return tuple(float(side) for side in self.spacing)
        if isinstance(img, MetaTensor):
            return tuple(float(side) for side in img.pixdim)[: img.ndim - 1]
        raise ValueError("spacing must be given for an image without metadata: pass spacing or a MetaTensor")
