"""Radiomics features as a transform of a data dictionary."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from mhsev_monai.radiomics.array import RadiomicsFeatures


class RadiomicsFeaturesd(MapTransform):
    """Dictionary version of :class:`~mhsev_monai.radiomics.array.RadiomicsFeatures`.

    The features of ``image`` are written to ``image_radiomics``, ``(C, n_features)`` float64; the image stays.

    Args:
        keys: entries with images, channel first.
        mask_key: entry with the mask for all of them.
        postfix: the features' entry is ``{key}_{postfix}``.
        parameters: settings by name, see :class:`~mhsev_monai.radiomics.parameters.RadiomicsParameters`; None: the
            defaults.
        spacing: voxel size in mm; None: from each image's metadata.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        ValueError: if ``postfix`` is empty, since the features would replace the image, or a setting is out of its
            range.
    """

    backend = RadiomicsFeatures.backend

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str,
        postfix: str = "radiomics",
        parameters: Mapping[str, Any] | None = None,
        spacing: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not postfix:
            raise ValueError("postfix must not be empty: the features would replace the image")
        self.mask_key = mask_key
        self.postfix = postfix
        self.radiomics = RadiomicsFeatures(parameters, spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the features added; the one given is not changed.

        Raises:
            KeyError: if a key is absent and ``allow_missing_keys`` is false, or the mask is absent.
            ValueError: if an image or the mask cannot be used.
        """
        result = dict(data)
        if self.mask_key not in result:
            raise KeyError(f"mask_key {self.mask_key!r} is not in the data; it holds {sorted(map(str, result))}")
        for key in self.key_iterator(result):
            result[f"{key}_{self.postfix}"] = self.radiomics(result[key], result[self.mask_key])
        return result


RadiomicsFeaturesD = RadiomicsFeaturesDict = RadiomicsFeaturesd
