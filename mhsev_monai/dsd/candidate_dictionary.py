"""Candidates of a scan with their descriptors, as a MONAI transform of a data dictionary."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from mhsev_monai.dsd.array import as_plain_tensor
from mhsev_monai.dsd.descriptors import ContrastImages, describe_peaks
from mhsev_monai.dsd.peaks import find_peaks, spot_maps
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocess.functional import relative_to_parenchyma

FUSED_CEILING = 1.12
"""Brighter values of the fused image are cut here, so that fluid leaves no edge to look at."""


class DescribeCandidatesd(MapTransform):
    """Peaks of the feature map and of its twins in the image, each with its descriptors.

    Args:
        b0_key: corrected b = 0 image ``(1, X, Y, Z)`` with an affine.
        trace_key: corrected trace; used where it is there.
        image_key: what was decomposed, 1 at the level of parenchyma.
        dsd_key: its feature map.
        search_key: mask of where candidates may lie.
        brain_key: tight brain mask.
        descriptors_key: entry that receives ``(K, len(DESCRIPTORS))`` float32, deepest candidate first.
        voxels_key: entry that receives the candidates' voxels, ``(K, 3)`` integers.
        allow_missing_keys: return the dictionary as it came where b0 is absent.
    """

    def __init__(
        self,
        b0_key: str = Keys.B0,
        trace_key: str = Keys.TRACE,
        image_key: str = Keys.FUSED,
        dsd_key: str = Keys.DSD,
        search_key: str = Keys.SEARCH_MASK,
        brain_key: str = Keys.BRAIN_MASK,
        *,
        descriptors_key: str = Keys.DESCRIPTORS,
        voxels_key: str = Keys.CANDIDATE_VOXELS,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(b0_key, allow_missing_keys)
        self.b0_key = b0_key
        self.trace_key = trace_key
        self.image_key = image_key
        self.dsd_key = dsd_key
        self.search_key = search_key
        self.brain_key = brain_key
        self.descriptors_key = descriptors_key
        self.voxels_key = voxels_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with descriptors and voxels added.

        Raises:
            KeyError: if an entry is absent.
            ValueError: if b0 has no affine.
        """
        entries = dict(data)
        for _ in self.key_iterator(entries):
            images = self._images(entries)
            maps = spot_maps(images.dsd_map, images.cleared, images.fused, images.search, images.spacing)
            peaks = find_peaks(maps, images.search, images.spacing)
            entries[self.descriptors_key] = describe_peaks(images, peaks)
            entries[self.voxels_key] = peaks.voxel
        return entries

    def _images(self, entries: Mapping[Hashable, Any]) -> ContrastImages:
        b0 = entries[self.b0_key]
        if not isinstance(b0, MetaTensor):
            raise ValueError(f"{self.b0_key} must be a MetaTensor with an affine, got {type(b0).__name__}")
        spacing = [float(side) for side in b0.pixdim]
        search = as_plain_tensor(entries[self.search_key])[0]
        relative_b0 = relative_to_parenchyma(as_plain_tensor(b0)[0], search, spacing)
        relative_trace = None
        if self.trace_key in entries:
            relative_trace = relative_to_parenchyma(as_plain_tensor(entries[self.trace_key])[0], search, spacing)
        fused = relative_b0 if relative_trace is None else torch.maximum(relative_b0, relative_trace)
        return ContrastImages(
            b0=_array(relative_b0),
            trace=None if relative_trace is None else _array(relative_trace),
            fused=_array(fused.clamp(0.0, FUSED_CEILING)),
            cleared=_array(as_plain_tensor(entries[self.image_key])[0]),
            dsd_map=_array(as_plain_tensor(entries[self.dsd_key])[0]),
            search=_array(search) > 0,
            brain=_array(as_plain_tensor(entries[self.brain_key])[0]) > 0,
            spacing=(spacing[0], spacing[1], spacing[2]),
            affine=np.asarray(b0.affine, dtype=np.float64),
        )


def _array(image: torch.Tensor) -> np.ndarray:
    return image.float().cpu().numpy()


DescribeCandidatesD = DescribeCandidatesDict = DescribeCandidatesd
