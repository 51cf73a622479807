"""What the radiomics baseline reads: intensity and texture features of the brain on b0 and trace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
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
from mhsev_monai.radiomics.dictionary import RadiomicsFeaturesd
from mhsev_monai.radiomics.feature_table import SCHEMA_VERSION
from mhsev_monai.radiomics.functional import feature_names
from mhsev_monai.radiomics.parameters import RadiomicsParameters

HAS_TRACE = "has_trace"
"""Feature that is 1 where the scan has diffusion-weighted volumes; 0 tells the zeros of their features from values."""

LIMITS = (0.0, 3.0)
"""Range of the ratio to the brain's median. On b0 of three real heads, fluid reaches 7 to 8 times the median: 32 levels
over all of that would leave about four to tissue between 0.6 and 1.4."""

_CONTRASTS = (Keys.B0, Keys.TRACE)
_POSTFIX = "radiomics"


class RadiomicsInputs:
    """Radiomics features of the brain on b0 and trace, corrected for the bias field, over their medians in the brain.

    The ratios to the median are limited to 0 to 3.

    For each contrast the 93 features of :mod:`mhsev_monai.radiomics`, then the 18 first-order ones of its Laplacian of
    Gaussian at each scale; names begin with ``b0_`` or ``trace_``. Where a scan has no trace, the trace's features are
    0 and so is ``has_trace``. Arguments are JSON values, so that a FLARE job and a model file can name them.

    Args:
        bin_count: grey levels of a contrast, a fixed number since MR intensities have no unit.
        log_sigmas_mm: scales of the Laplacian of Gaussian; a ball of diameter d answers most at d / 3.5. Empty: none.
        features: names of the entries of the vector that the network reads, in this order; None means all.

    Raises:
        ValueError: if a setting is out of its range, or a name is not known, or comes twice.
    """

    def __init__(
        self,
        bin_count: int = 32,
        log_sigmas_mm: Sequence[float] = (2.0, 3.0),
        features: Sequence[str] | None = None,
    ) -> None:
        self.bin_count = bin_count
        self.log_sigmas_mm = [float(sigma) for sigma in log_sigmas_mm]
        self.features = None if features is None else list(features)
        unknown = sorted(set(features or ()) - set(self.computed_names))
        if unknown or (features is not None and len(set(features)) != len(features)) or self.features == []:
            raise ValueError(
                "features must be different names of the radiomics features, at least one; not known: "
                f"{', '.join(unknown) or 'none'}"
            )

    # FLARE leaves arguments out of a job's JSON that equal their defaults, and a default may change one day.
    _always_serialize_args = ("bin_count", "log_sigmas_mm", "features")

    @property
    def computed_names(self) -> tuple[str, ...]:
        """Name of each feature that is computed, selected or not."""
        each = feature_names(RadiomicsParameters(**self._parameters()))
        return (*(f"{contrast}_{name}" for contrast in _CONTRASTS for name in each), HAS_TRACE)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each entry of the vector."""
        return self.computed_names if self.features is None else tuple(self.features)

    def fingerprint(self) -> str:
        """64 hexadecimal digits over parameters, schema version and names of the entries: what a model is tied to."""
        described = {
            "kind": "radiomics",
            "schema": SCHEMA_VERSION,
            "features": self.feature_names,
            **self._parameters(),
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def computation(self) -> str:
        """64 hexadecimal digits over parameters and the code from scan to features: what a cached vector is tied to."""
        return hashlib.sha256(f"{code_digest()} {json.dumps(self._parameters())}".encode()).hexdigest()

    def _parameters(self) -> dict[str, Any]:
        # A ratio to the median, not a z-score: it leaves mean, spread and percentiles their meaning.
        return {
            "bin_count": self.bin_count,
            "log_sigmas_mm": self.log_sigmas_mm,
            "over_median": True,
            "limits": list(LIMITS),
        }

    def transforms(self, b0_only: bool = False) -> Compose:
        """The MONAI transforms from ``{"image": path, "bval": path or None}`` to a dictionary with the features.

        They are the entries ``b0_radiomics`` and, where there is a trace, ``trace_radiomics``.

        Args:
            b0_only: every volume is b = 0, so that no b-values are looked for.
        """
        features = RadiomicsFeaturesd(
            keys=list(_CONTRASTS),
            mask_key=Keys.BRAIN_MASK,
            postfix=_POSTFIX,
            parameters=self._parameters(),
            allow_missing_keys=True,
        )
        return Compose([*correction_transforms(b0_only), features])

    def process(self, image: Path, bvals: Path | None = None, b0_only: bool = False) -> Mapping[str, Any]:
        """The dictionary of one scan after all transforms: contrasts, masks and features.

        Raises:
            ScanError: if the scan cannot be used.
        """
        return process(self.transforms(b0_only), image, bvals)

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        """All features of a processed scan by their names, and its quality."""
        n_each = len(self.computed_names) // len(_CONTRASTS)
        rows = [np.ravel(entries.get(f"{contrast}_{_POSTFIX}", np.zeros(n_each))) for contrast in _CONTRASTS]
        numbers = [*np.concatenate(rows).tolist(), float(Keys.TRACE in entries)]
        return CaseFeatures(dict(zip(self.computed_names, numbers, strict=True)), scan_quality(entries))

    def assemble(self, found: CaseFeatures) -> NDArray[np.float32]:
        """The vector of a case, ``(len(feature_names),)``; raises ``KeyError`` for a feature that is not there."""
        return found.vector(self.feature_names).astype(np.float32)

    def __call__(self, case: Case) -> CaseFeatures:
        """The feature vector of one case; raises ``ScanError`` for a scan that cannot be used."""
        return self.describe(self.process(case.image, case.bvals))


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Hash over the files that make features of a scan: this room, and those that it begins with."""
    base = Path(__file__).parents[1]
    rooms = ("ingest", "preprocess", "radiomics")
    files = [base / "preprocessing.py", *(file for room in rooms for file in sorted((base / room).rglob("*.py")))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
