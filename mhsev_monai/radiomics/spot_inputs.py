"""What the radiomics baseline of single lesions reads: features of dark spots, put together over the scan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose
from numpy.typing import NDArray

from mhsev_monai.cases import Case
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocessing import correction_transforms, process
from mhsev_monai.quality import scan_quality
from mhsev_monai.radiomics.feature_table import SCHEMA_VERSION
from mhsev_monai.radiomics.functional import feature_names
from mhsev_monai.radiomics.inputs import HAS_TRACE, LIMITS, code_digest
from mhsev_monai.radiomics.parameters import RadiomicsParameters
from mhsev_monai.radiomics.region import FloatArray
from mhsev_monai.radiomics.spots import STATISTICS, Spots, dark_spots, spot_features

SIGMAS_MM = (1.2, 2.0)
"""Scales of spots of some 4 and 7 mm: a ball of diameter d answers most at d / 3.5."""
RIM_MM = 4.0
RESPONSES = (0.1, 0.15, 0.2, 0.3, 0.4)
"""Depths at which spots are counted, shares of the brain's median."""

_CONTRASTS = (Keys.B0, Keys.TRACE)


class SpotRadiomicsInputs:
    """Radiomics features of the darkest round spots of b0, on both contrasts: their mean, spread and maximum.

    Contrasts are corrected for the bias field, divided by their medians in the brain, and limited to 0 to 3. Spots are
    maxima of the Laplacian of Gaussian on b0, with what is brighter than the median at the median. Each contrast gives
    the 93 features of :mod:`mhsev_monai.radiomics` of a ball around each spot. Beside them stand the numbers of spots
    at five depths. Without a trace its features and ``has_trace`` are 0. Arguments are JSON values, so that a FLARE job
    and a model file can name them.

    Args:
        most: spots of a scan, the darkest.
        radius_mm: of the ball around a spot.
        bin_count: grey levels of a ball, which holds some 20 to 60 voxels.

    Raises:
        ValueError: if a setting is out of its range.
    """

    def __init__(self, most: int = 24, radius_mm: float = 4.0, bin_count: int = 8) -> None:
        if most < 1 or not radius_mm > 0:
            raise ValueError(f"most and radius_mm must be positive, got {most} and {radius_mm}")
        self.most = most
        self.radius_mm = float(radius_mm)
        self.bin_count = bin_count
        self._settings = RadiomicsParameters(bin_count=bin_count)

    # FLARE leaves arguments out of a job's JSON that equal their defaults, and a default may change one day.
    _always_serialize_args = ("most", "radius_mm", "bin_count")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each entry of the vector."""
        names = feature_names(self._settings)
        features = (f"{c}_{name}_{statistic}" for c in _CONTRASTS for name in names for statistic in STATISTICS)
        return (*features, *(f"spots_{100 * depth:.0f}" for depth in RESPONSES), HAS_TRACE)

    def fingerprint(self) -> str:
        """64 hexadecimal digits over parameters and schema version: what a model is tied to."""
        fixed = {"sigmas": SIGMAS_MM, "rim": RIM_MM, "limits": LIMITS, "features": self.feature_names}
        described = {"kind": "spot radiomics", "schema": SCHEMA_VERSION, **fixed, **self._parameters()}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def computation(self) -> str:
        """64 hexadecimal digits over parameters and the code from scan to features."""
        return hashlib.sha256(f"{code_digest()} spots {json.dumps(self._parameters())}".encode()).hexdigest()

    def _parameters(self) -> dict[str, Any]:
        return {"most": self.most, "radius_mm": self.radius_mm, "bin_count": self.bin_count}

    def transforms(self, b0_only: bool = False) -> Compose:
        """The MONAI transforms from ``{"image": path, "bval": path or None}`` to corrected contrasts and brain mask.

        Args:
            b0_only: every volume is b = 0, so that no b-values are looked for.
        """
        return Compose(correction_transforms(b0_only))

    def process(self, image: Path, bvals: Path | None = None, b0_only: bool = False) -> Mapping[str, Any]:
        """The dictionary of one scan after all transforms; raises ``ScanError`` for a scan that cannot be used."""
        return process(self.transforms(b0_only), image, bvals)

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        """All features of a processed scan by their names, and its quality."""
        mask = np.asarray(entries[Keys.BRAIN_MASK][0]) > 0
        spacing = [float(side) for side in entries[Keys.B0].pixdim]
        levels = {key: _level(np.asarray(entries[key][0]), mask) for key in _CONTRASTS if key in entries}
        # Fluid is bright: without it at the level of tissue, every fold between two sulci is a dark spot.
        tissue = np.minimum(levels[Keys.B0], 1.0)
        spots = dark_spots(tissue, mask, spacing, SIGMAS_MM, RIM_MM, most=mask.size)
        chosen = Spots(spots.voxels[: self.most], spots.responses[: self.most])
        values = [value for contrast in _CONTRASTS for value in self._features(levels.get(contrast), chosen, spacing)]
        values += [float((spots.responses >= depth).sum()) for depth in RESPONSES]
        values.append(float(Keys.TRACE in entries))
        return CaseFeatures(dict(zip(self.feature_names, values, strict=True)), scan_quality(entries))

    def _features(self, image: FloatArray | None, spots: Spots, spacing: list[float]) -> list[float]:
        if image is None:
            return [0.0] * (len(feature_names(self._settings)) * len(STATISTICS))
        return list(spot_features(image, spots, spacing, self.radius_mm, self._settings).values())

    def assemble(self, found: CaseFeatures) -> NDArray[np.float32]:
        """The vector of a case, ``(len(feature_names),)``; raises ``KeyError`` for a feature that is not there."""
        return found.vector(self.feature_names).astype(np.float32)

    def __call__(self, case: Case) -> CaseFeatures:
        """The feature vector of one case; raises ``ScanError`` for a scan that cannot be used."""
        return self.describe(self.process(case.image, case.bvals))


def _level(image: NDArray[np.generic], mask: NDArray[np.bool_]) -> FloatArray:
    """Ratio to the brain's median, limited."""
    values = image.astype(np.float64)
    median = float(np.median(values[mask]))
    return np.clip(values / median if median > 0 else values, *LIMITS)
