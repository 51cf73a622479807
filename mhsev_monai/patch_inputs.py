"""What the lesion detector reads: a small picture around every candidate, on both contrasts and three slices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.cases import Case
from mhsev_monai.dsd.peaks import MOST_PEAKS
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.inputs import POSITION_SET, DSDCandidateInputs
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocess.functional import relative_to_parenchyma

PATCH_SET = "patches"
"""Name under which the pictures are kept."""
SCHEMA_VERSION = 1
BRIGHTEST = 2.0
"""Levels above are cut: fluid reaches 7 times the parenchyma and would be all that a network sees."""

_SLICES = (-1, 0, 1)


class CandidatePatchInputs:
    """Pictures of the candidates of ``DSDCandidateInputs``: b0 and trace, on the candidate's slice and its neighbours.

    Levels are relative to the local parenchyma, from 0 to 2, sampled linearly along the image's own axes. Where a scan
    has no trace, its channels are those of b0. A scan has up to ``MOST_PEAKS`` candidates; rows of NaN fill the table
    up. Arguments are JSON values, so that a FLARE job and a model file can name them.

    Args:
        side: pixels along an edge, odd, so that the candidate lies in the middle.
        step_mm: edge of a pixel.

    Raises:
        ValueError: if ``side`` is not odd and positive, or ``step_mm`` is not positive.
    """

    def __init__(self, side: int = 9, step_mm: float = 1.5) -> None:
        if side < 1 or side % 2 == 0 or not step_mm > 0:
            raise ValueError(f"side must be odd and step_mm positive, got {side} and {step_mm}")
        self.side = side
        self.step_mm = float(step_mm)
        self._candidates = DSDCandidateInputs()

    _always_serialize_args = ("side", "step_mm")
    KIND = "patches"
    CONTRASTS: tuple[str, ...] = (Keys.B0, Keys.TRACE)

    @property
    def channels(self) -> tuple[str, ...]:
        """Name of each channel of a picture."""
        return tuple(f"{contrast}_slice_{offset:+d}" for contrast in self.CONTRASTS for offset in _SLICES)

    @property
    def pixel_names(self) -> tuple[str, ...]:
        """Name of each pixel of a picture: channel by channel, row by row."""
        pixels = range(self.side)
        return tuple(f"{channel}_{i}_{j}" for channel in self.channels for i in pixels for j in pixels)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each entry of a row: the pixels."""
        return self.pixel_names

    def fingerprint(self) -> str:
        """64 hexadecimal digits over parameters and schema version: what a model is tied to."""
        own = {"kind": self.KIND, "schema": SCHEMA_VERSION, "side": self.side, "step_mm": self.step_mm}
        described = {**own, "candidates": self._candidates.fingerprint()}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def computation(self) -> str:
        """64 hexadecimal digits over parameters and the code from scan to pictures."""
        parts = (_own_digest(), self._candidates.computation(), self.side, self.step_mm)
        return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()

    def transforms(self, b0_only: bool = False) -> Compose:
        """The transforms of ``DSDCandidateInputs``."""
        return self._candidates.transforms(b0_only)

    def process(self, image: Path, bvals: Path | None = None, b0_only: bool = False) -> Mapping[str, Any]:
        """The dictionary of one scan after all transforms; raises ``ScanError`` for a scan that cannot be used."""
        return self._candidates.process(image, bvals, b0_only)

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        """What is kept of a processed scan: pictures and positions of its candidates, and its quality."""
        found = self._candidates.describe(entries)
        spacing = [float(length) for length in entries[Keys.B0].pixdim]
        pictures = self._pictures(self.levels(entries), entries[Keys.CANDIDATE_VOXELS], spacing)
        return CaseFeatures({}, found.quality, {PATCH_SET: pictures, POSITION_SET: found.sets[POSITION_SET]})

    def levels(self, entries: Mapping[str, Any]) -> list[NDArray[np.float32]]:
        """b0 and trace, ``(X, Y, Z)``, in shares of the local parenchyma's signal, 0 to 2; as many as ``CONTRASTS``."""
        b0 = entries[Keys.B0]
        spacing = [float(length) for length in b0.pixdim]
        search = torch.as_tensor(np.asarray(entries[Keys.SEARCH_MASK][0]))
        images = []
        for key in (Keys.B0, Keys.TRACE):
            volume = torch.as_tensor(np.asarray(entries.get(key, b0)[0]))
            images.append(relative_to_parenchyma(volume, search, spacing).clamp(0.0, BRIGHTEST).numpy())
        return images

    def _pictures(
        self, images: list[NDArray[np.float32]], voxels: NDArray[np.integer], spacing: list[float]
    ) -> NDArray[np.float16]:
        """``(K, channels * side * side)`` pixels around each voxel."""
        offsets = (np.arange(self.side) - self.side // 2) * self.step_mm
        across, along = np.meshgrid(offsets / spacing[0], offsets / spacing[1], indexing="ij")
        channels = []
        for image in images:
            for slice_offset in _SLICES:
                step = np.stack([across, along, np.full_like(across, slice_offset)])
                points = voxels.T[:, :, None, None] + step[:, None]
                channels.append(ndimage.map_coordinates(image, points, order=1, mode="nearest"))
        return np.stack(channels, axis=1).reshape(len(voxels), len(self.pixel_names)).astype(np.float16)

    def assemble(self, found: CaseFeatures) -> NDArray[np.floating]:
        """``(MOST_PEAKS, len(feature_names))`` float16, deepest candidate first."""
        table = found.sets[PATCH_SET]
        filled = np.full((MOST_PEAKS, len(self.feature_names)), np.nan, dtype=np.float16)
        filled[: len(table)] = table[:MOST_PEAKS]
        return filled

    def __call__(self, case: Case) -> CaseFeatures:
        """The pictures of one case; raises ``ScanError`` for a scan that cannot be used."""
        return self.describe(self.process(case.image, case.bvals))


@lru_cache(maxsize=1)
def _own_digest() -> str:
    """Hash over this file; that of the candidates is over the rest."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
