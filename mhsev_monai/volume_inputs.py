"""What the 3D CNN reads: b0 and trace of the whole brain on one grid, without any decomposition."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import (
    Compose,
    CropForegroundd,
    Orientationd,
    ResizeWithPadOrCropd,
    Spacingd,
)
from numpy.typing import NDArray

from mhsev_monai.cases import Case
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocess import ZScoreInMaskd
from mhsev_monai.preprocessing import correction_transforms, process
from mhsev_monai.quality import scan_quality

VOLUME_SET = "volume"
"""Name under which the volume is kept."""
SCHEMA_VERSION = 1

_CONTRASTS = (Keys.B0, Keys.TRACE)
_OUTSIDE = np.float16(np.nan)


class VolumeInputs:
    """b0 and trace of the brain, corrected for the bias field, standardised, in RAS+ order on a grid of one size.

    Each contrast is standardised by its mean and standard deviation in the brain and limited to -6 to 6, brought to
    isotropic voxels by linear interpolation, cut to the brain, then padded or cut to ``size`` around its middle. Voxels
    outside the brain are NaN. Where a scan has no trace, its channel is 0, the brain's mean. Arguments are JSON values,
    so that a FLARE job and a model file can name them.

    Args:
        spacing_mm: edge of a voxel.
        size: voxels along right, anterior and superior. A brain of 160 x 200 x 160 mm, brainstem included, fits
            into the default.

    Raises:
        ValueError: if a number is not positive, or there are not three sizes.
    """

    def __init__(self, spacing_mm: float = 2.0, size: Sequence[int] = (80, 100, 80)) -> None:
        if not spacing_mm > 0 or len(size) != 3 or min(size) < 1:
            raise ValueError(f"spacing_mm and three sizes must be positive, got {spacing_mm} and {list(size)}")
        self.spacing_mm = float(spacing_mm)
        self.size = [int(n) for n in size]

    # FLARE leaves arguments out of a job's JSON that equal their defaults, and a default may change one day.
    _always_serialize_args = ("spacing_mm", "size")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each channel."""
        return tuple(str(contrast) for contrast in _CONTRASTS)

    def fingerprint(self) -> str:
        """64 hexadecimal digits over parameters and schema version: what a model is tied to."""
        described = {"kind": "volume", "schema": SCHEMA_VERSION, **self._parameters()}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def computation(self) -> str:
        """64 hexadecimal digits over parameters and the code from scan to volume: what a kept volume is tied to."""
        return hashlib.sha256(f"{_code_digest()} {json.dumps(self._parameters())}".encode()).hexdigest()

    def _parameters(self) -> dict[str, Any]:
        return {"spacing_mm": self.spacing_mm, "size": self.size}

    def transforms(self, b0_only: bool = False) -> Compose:
        """The MONAI transforms from ``{"image": path, "bval": path or None}`` to contrasts and mask on the grid.

        Args:
            b0_only: every volume is b = 0, so that no b-values are looked for.
        """
        maps = [*_CONTRASTS, Keys.BRAIN_MASK]
        spacing = (self.spacing_mm,) * 3
        kept = {"allow_missing_keys": True}
        return Compose(
            [
                *correction_transforms(b0_only),
                ZScoreInMaskd(keys=list(_CONTRASTS), mask_key=Keys.BRAIN_MASK, **kept),
                Orientationd(keys=maps, axcodes="RAS", labels=None, **kept),
                Spacingd(keys=list(_CONTRASTS), pixdim=spacing, mode="bilinear", **kept),
                Spacingd(keys=Keys.BRAIN_MASK, pixdim=spacing, mode="nearest"),
                CropForegroundd(keys=maps, source_key=Keys.BRAIN_MASK, allow_smaller=True, **kept),
                ResizeWithPadOrCropd(keys=maps, spatial_size=self.size, **kept),
            ]
        )

    def process(self, image: Path, bvals: Path | None = None, b0_only: bool = False) -> Mapping[str, Any]:
        """The dictionary of one scan after all transforms: contrasts and brain mask on the grid.

        Raises:
            ScanError: if the scan cannot be used.
        """
        return process(self.transforms(b0_only), image, bvals)

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        """What is kept of a processed scan: the volume ``(*size, 2)`` float16, and its quality."""
        inside = np.asarray(entries[Keys.BRAIN_MASK][0]) > 0
        empty = np.zeros(inside.shape, dtype=np.float32)
        channels = [np.asarray(entries[key][0]) if key in entries else empty for key in _CONTRASTS]
        volume = np.stack(channels, axis=-1).astype(np.float16)
        volume[~inside] = _OUTSIDE
        return CaseFeatures({}, scan_quality(entries), {VOLUME_SET: volume})

    def assemble(self, found: CaseFeatures) -> NDArray[np.float16]:
        """The volume ``(*size, 2)`` float16; raises ``KeyError`` if it is not there."""
        volume: NDArray[np.float16] = found.sets[VOLUME_SET]
        return volume

    def __call__(self, case: Case) -> CaseFeatures:
        """The volume of one case; raises ``ScanError`` for a scan that cannot be used."""
        return self.describe(self.process(case.image, case.bvals))


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Hash over the files that make the volume of a scan: this one, and those that it begins with."""
    here = Path(__file__)
    rooms = ("ingest", "preprocess")
    files = [here, here.with_name("preprocessing.py")]
    files += [file for room in rooms for file in sorted((here.parent / room).rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
