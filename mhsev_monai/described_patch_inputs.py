"""What is said of every candidate and how it looks: its descriptors, and a patch of the DSD map and both contrasts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.dsd.peaks import MOST_PEAKS
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.inputs import CANDIDATE_SET
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.patch_inputs import PATCH_SET, CandidatePatchInputs


class DescribedPatchInputs(CandidatePatchInputs):
    """The descriptors of ``DSDCandidateInputs``, then a patch of the DSD map, b0 and trace: one row a candidate.

    The map is taken as it is, in shares of the parenchyma's signal; the contrasts as ``CandidatePatchInputs`` has them,
    with its arguments.
    """

    KIND = "described patches"
    CONTRASTS = (*CandidatePatchInputs.CONTRASTS, Keys.DSD)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each descriptor, then of each pixel."""
        return (*DESCRIPTORS, *self.pixel_names)

    def computation(self) -> str:
        """64 hexadecimal digits over parameters and the code from scan to rows."""
        return hashlib.sha256(f"{_own_digest()} {super().computation()}".encode()).hexdigest()

    def levels(self, entries: Mapping[str, Any]) -> list[NDArray[np.float32]]:
        """b0 and trace as above, then the map as it is, ``(X, Y, Z)``."""
        return [*super().levels(entries), np.asarray(entries[Keys.DSD][0], dtype=np.float32)]

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        """What is kept of a processed scan: its candidates' descriptors, patches and positions, and its quality."""
        found = super().describe(entries)
        return CaseFeatures({}, found.quality, {CANDIDATE_SET: entries[Keys.DESCRIPTORS], **found.sets})

    def assemble(self, found: CaseFeatures) -> NDArray[np.float32]:
        """``(MOST_PEAKS, len(feature_names))`` float32, deepest candidate first."""
        described, patches = found.sets[CANDIDATE_SET], found.sets[PATCH_SET]
        filled = np.full((MOST_PEAKS, len(self.feature_names)), np.nan, dtype=np.float32)
        filled[: len(described)] = np.concatenate([described, patches], axis=1)[:MOST_PEAKS]
        return filled


@lru_cache(maxsize=1)
def _own_digest() -> str:
    """Hash over this file; that of the patches is over the rest."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
