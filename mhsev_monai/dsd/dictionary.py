"""The decomposition, its candidates and its features as transforms of a data dictionary."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from mhsev_monai.dsd.array import DynamicSpectralDecomposition, as_plain_tensor
from mhsev_monai.dsd.candidates import DIAMETER_RANGE_MM, THRESHOLD, find_candidates
from mhsev_monai.dsd.features import dsd_features
from mhsev_monai.dsd.functional import DSDParameters
from mhsev_monai.keys import SeverityKeys as Keys


class DynamicSpectralDecompositiond(MapTransform):
    """Dictionary version of :class:`~mhsev_monai.dsd.array.DynamicSpectralDecomposition`.

    The map of ``image`` is written to ``image_dsd``; the image stays.

    Args:
        keys: entries to decompose, channel first.
        mask_key: entry with the mask for all of them; None takes every voxel.
        postfix: the map's entry is ``{key}_{postfix}``.
        parameters: settings by name, see :class:`~mhsev_monai.dsd.parameters.DSDParameters`; None: the defaults.
        spacing: voxel size in mm; None: from each image's metadata.
        engine: see :class:`~mhsev_monai.dsd.array.DynamicSpectralDecomposition`.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        ValueError: if ``postfix`` is empty, since the map would replace the image, or a setting is out of its range.
    """

    backend = DynamicSpectralDecomposition.backend

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str | None = None,
        postfix: str = "dsd",
        parameters: Mapping[str, Any] | None = None,
        spacing: Sequence[float] | None = None,
        engine: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not postfix:
            raise ValueError("postfix must not be empty: the map would replace the image")
        self.mask_key = mask_key
        self.postfix = postfix
        self.decomposition = DynamicSpectralDecomposition(parameters, spacing, engine)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the maps added; the one given is not changed.

        Raises:
            KeyError: if a key is absent and ``allow_missing_keys`` is false, or the mask is absent.
            ValueError: if an image or the mask cannot be used.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            mask = _mask_of(result, self.mask_key)
            result[f"{key}_{self.postfix}"] = self.decomposition(result[key], mask)
        return result


class DSDFeaturesd(MapTransform):
    """Map, candidates and feature vector of one single-channel image, from one decomposition.

    Candidates differ in number from scan to scan, so MONAI's collation cannot batch them: with a ``DataLoader``, set
    ``candidates_key=None`` or drop the entry.

    Args:
        image_key: entry with the image ``(1, X, Y[, Z])``.
        mask_key: entry with the mask; None takes every voxel.
        dsd_key: entry that gets the map, with the image's shape and metadata; None: not written.
        features_key: entry that gets the float64 array of :func:`~mhsev_monai.dsd.features.dsd_features`.
        candidates_key: entry that gets the tuple of :class:`~mhsev_monai.dsd.candidates.Candidate`; None: not written.
        parameters: settings by name, see :class:`~mhsev_monai.dsd.parameters.DSDParameters`; None: the defaults.
        spacing: voxel size in mm; None: from the image's metadata.
        engine: see :class:`~mhsev_monai.dsd.array.DynamicSpectralDecomposition`.
        threshold: least depth of a candidate that is written; the features have their own.
        diameter_range_mm: smallest and largest diameter of a candidate that is written.
        allow_missing_keys: return the dictionary as it came where the image is absent.

    Raises:
        ValueError: if an output would replace the image or the mask, or a setting is out of its range.
    """

    backend = DynamicSpectralDecomposition.backend

    def __init__(
        self,
        image_key: str,
        mask_key: str | None = None,
        dsd_key: str | None = Keys.DSD,
        features_key: str = Keys.FEATURES,
        candidates_key: str | None = Keys.CANDIDATES,
        *,
        parameters: Mapping[str, Any] | None = None,
        spacing: Sequence[float] | None = None,
        engine: str | None = None,
        threshold: float = THRESHOLD,
        diameter_range_mm: Sequence[float] = DIAMETER_RANGE_MM,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(image_key, allow_missing_keys)
        outputs = [key for key in (dsd_key, features_key, candidates_key) if key is not None]
        if len({image_key, mask_key, *outputs}) < len(outputs) + 2:
            raise ValueError(f"outputs must differ from each other and from the inputs, got {outputs}")
        self.image_key = image_key
        self.mask_key = mask_key
        self.dsd_key = dsd_key
        self.features_key = features_key
        self.candidates_key = candidates_key
        self.parameters = parameters
        self.spacing = spacing
        self.threshold = threshold
        self.diameter_range_mm = diameter_range_mm
        self.decomposition = DynamicSpectralDecomposition(parameters, spacing, engine)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the results added; the one given is not changed.

        Raises:
            KeyError: if the image is absent and ``allow_missing_keys`` is false, or the mask is absent.
            ValueError: if the image has several channels, or the image or mask cannot be used.
        """
        entries = dict(data)
        for key in self.key_iterator(entries):
            mask = _mask_of(entries, self.mask_key)
            entries.update(self._results(entries[key], mask))
        return entries

    def _results(self, img: Any, mask: Any) -> dict[Hashable, Any]:
        if len(img) != 1:
            raise ValueError(f"image must have one channel, got {len(img)}; split the channels first")
        result = self.decomposition.decompose(img, mask)[0]
        spacing = self.decomposition.spacing_of(img)
        image, inside = as_plain_tensor(img)[0], None if mask is None else as_plain_tensor(mask)[0]
        parameters = DSDParameters(**(self.parameters or {}))
        written: dict[Hashable, Any] = {
            self.features_key: dsd_features(result, image, spacing, inside, parameters),
        }
        if self.dsd_key is not None:
            written[self.dsd_key] = _like_image(result.map[None], img)
        if self.candidates_key is not None:
            written[self.candidates_key] = find_candidates(
                result.map, spacing, inside, threshold=self.threshold, diameter_range_mm=self.diameter_range_mm
            )
        return written


def _mask_of(entries: Mapping[Hashable, Any], mask_key: str | None) -> Any:
    if mask_key is None:
        return None
    if mask_key not in entries:
        raise KeyError(f"mask_key {mask_key!r} is not in the data; it holds {sorted(map(str, entries))}")
    return entries[mask_key]


def _like_image(feature_map: torch.Tensor, img: Any) -> Any:
    target = convert_to_tensor(img, track_meta=get_track_meta())
    return convert_to_dst_type(feature_map, dst=target, dtype=feature_map.dtype)[0]


DynamicSpectralDecompositionD = DynamicSpectralDecompositionDict = DynamicSpectralDecompositiond
DSDFeaturesD = DSDFeaturesDict = DSDFeaturesd
