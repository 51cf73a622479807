"""MONAI dictionary transforms of this room, each a thin layer over the array transform of the same name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform

from mhsev_monai.keys import SeverityKeys
from mhsev_monai.preprocess import array

__all__ = [
    "DWIBrainMaskD",
    "DWIBrainMaskDict",
    "DWIBrainMaskd",
    "FuseContrastsD",
    "FuseContrastsDict",
    "FuseContrastsd",
    "N4BiasFieldCorrectionD",
    "N4BiasFieldCorrectionDict",
    "N4BiasFieldCorrectiond",
    "NyulStandardizeD",
    "NyulStandardizeDict",
    "NyulStandardized",
    "ZScoreInMaskD",
    "ZScoreInMaskDict",
    "ZScoreInMaskd",
]

QUALITY = "quality"
"""Default entry for the figures that tell whether to trust a scan's masks."""


class N4BiasFieldCorrectiond(MapTransform):
    """Divide one bias field out of all images of a scan, or each image's own out of each.

    Args:
        keys: images to correct, ``(C, X, Y[, Z])``; each is replaced.
        mask_key: where the field is fitted; None fits all positive voxels.
        reference_key: the image that the one field for all keys comes from, normally b0: all volumes pass the same
            coils, and ratios such as ADC stay as they are. Its first channel counts. None estimates one per image.
        bias_key: the entry that receives the natural logarithm of the reference's field; needs ``reference_key``.
        allow_missing_keys: pass over images that are not there.
        parameters: fields of ``N4Parameters`` by name.

    Raises:
        KeyError: if the mask or the reference is not in the dictionary, or a key and it may not be missing.

    Example::

        N4BiasFieldCorrectiond(keys=["b0", "trace"], mask_key="brain_mask", reference_key="b0", allow_missing_keys=True)
    """

    backend = array.N4BiasFieldCorrection.backend

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str | None = SeverityKeys.BRAIN_MASK,
        reference_key: str | None = None,
        bias_key: str | None = None,
        allow_missing_keys: bool = False,
        **parameters: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if bias_key is not None and reference_key is None:
            raise ValueError("bias_key holds one field, so it needs a reference_key")
        self.mask_key = mask_key
        self.reference_key = reference_key
        self.bias_key = bias_key
        self.correct = array.N4BiasFieldCorrection(**parameters)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with corrected images."""
        entries = dict(data)
        mask = None if self.mask_key is None else entries[self.mask_key]
        field = None
        if self.reference_key is not None:
            field = self.correct.log_bias(entries[self.reference_key][:1], mask)
        for key in self.key_iterator(entries):
            bias = self.correct.log_bias(entries[key], mask) if field is None else field
            entries[key] = self.correct.divide(entries[key], bias)
        if self.bias_key is not None:
            entries[self.bias_key] = field
        return entries


class DWIBrainMaskd(MapTransform):
    """Add a brain mask, a search mask and their quality figures to a scan.

    Args:
        b0_key: the image that must be there, ``(1, X, Y, Z)``.
        trace_key: the diffusion-weighted mean; used where it is there, None never uses it.
        mask_key: entry that receives the brain mask, uint8.
        search_mask_key: entry that receives the search mask, uint8.
        quality_key: entry that receives the quality figures, added to those already there; see ``BrainMasks``.
        allow_missing_keys: leave a dictionary without b0 as it is.
        spacing: mm, for images without an affine.
        parameters: fields of ``BrainMaskParameters`` by name.

    Raises:
        KeyError: if b0 is not in the dictionary and may not be missing.
        ScanError: where no brain of a plausible volume is found.
    """

    backend = array.DWIBrainMask.backend

    def __init__(
        self,
        b0_key: str = SeverityKeys.B0,
        trace_key: str | None = SeverityKeys.TRACE,
        mask_key: str = SeverityKeys.BRAIN_MASK,
        search_mask_key: str = SeverityKeys.SEARCH_MASK,
        quality_key: str = QUALITY,
        *,
        allow_missing_keys: bool = False,
        spacing: Sequence[float] | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(b0_key, allow_missing_keys)
        self.b0_key = b0_key
        self.trace_key = trace_key
        self.mask_key = mask_key
        self.search_mask_key = search_mask_key
        self.quality_key = quality_key
        self.find = array.DWIBrainMask(spacing=spacing, **parameters)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with masks and quality figures."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            found = self.find(entries[key], entries.get(self.trace_key))
            entries[self.mask_key] = found.mask
            entries[self.search_mask_key] = found.search_mask
            entries[self.quality_key] = {**entries.get(self.quality_key, {}), **found.quality}
        return entries


class ZScoreInMaskd(MapTransform):
    """Standardise images by the mean and standard deviation of their voxels in a mask.

    Args:
        keys: images ``(C, X, Y[, Z])``; each is replaced.
        mask_key: the mask.
        clip: results are limited to ``-clip..clip``; None for no limit.
        allow_missing_keys: pass over images that are not there.
    """

    backend = array.ZScoreInMask.backend

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str = SeverityKeys.BRAIN_MASK,
        clip: float | None = 6.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.standardise = array.ZScoreInMask(clip)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with standardised images."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            entries[key] = self.standardise(entries[key], entries[self.mask_key])
        return entries


class NyulStandardized(MapTransform):
    """Map images so that the percentiles of their voxels in a mask come to lie on a standard scale.

    Args:
        keys: images of one contrast ``(C, X, Y[, Z])``; each is replaced. Each contrast has a scale of its own.
        scale: 11 rising numbers, from ``functional.standard_scale`` over the sites that take part.
        mask_key: the mask.
        allow_missing_keys: pass over images that are not there.
    """

    backend = array.NyulStandardize.backend

    def __init__(
        self,
        keys: KeysCollection,
        scale: Sequence[float],
        mask_key: str = SeverityKeys.BRAIN_MASK,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.standardise = array.NyulStandardize(scale)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with mapped images."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            entries[key] = self.standardise(entries[key], entries[self.mask_key])
        return entries


class FuseContrastsd(MapTransform):
    """Add the fusion of b0 and trace, in which only what is dark on both stays dark.

    Args:
        b0_key: the image that must be there, ``(1, X, Y, Z)``.
        trace_key: the diffusion-weighted mean; used where it is there, None never uses it.
        mask_key: where to fuse.
        output_key: entry that receives the fused image.
        sigma: mm; width of the local mean that an image is divided by.
        ceiling: brighter values are cut here; 1 is the local parenchyma.
        rim: mm; how far darkness that comes from outside the mask is followed inwards and lifted; 0 for not at all.
        allow_missing_keys: leave a dictionary without b0 as it is.
        spacing: mm, for images without an affine.
    """

    backend = array.FuseContrasts.backend

    def __init__(
        self,
        b0_key: str = SeverityKeys.B0,
        trace_key: str | None = SeverityKeys.TRACE,
        mask_key: str = SeverityKeys.BRAIN_MASK,
        output_key: str = SeverityKeys.FUSED,
        *,
        sigma: float = 13.0,
        ceiling: float = 1.12,
        rim: float = 0.0,
        allow_missing_keys: bool = False,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(b0_key, allow_missing_keys)
        self.b0_key = b0_key
        self.trace_key = trace_key
        self.mask_key = mask_key
        self.output_key = output_key
        self.fuse = array.FuseContrasts(sigma, ceiling, spacing, rim)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the fused image."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            entries[self.output_key] = self.fuse(entries[key], entries[self.mask_key], entries.get(self.trace_key))
        return entries


N4BiasFieldCorrectionD = N4BiasFieldCorrectionDict = N4BiasFieldCorrectiond
DWIBrainMaskD = DWIBrainMaskDict = DWIBrainMaskd
NyulStandardizeD = NyulStandardizeDict = NyulStandardized
ZScoreInMaskD = ZScoreInMaskDict = ZScoreInMaskd
FuseContrastsD = FuseContrastsDict = FuseContrastsd
