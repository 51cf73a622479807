"""What each kind of model reads: the transforms from a case to its input, with names, shape and fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose

from mhsev_monai.cases import Case
from mhsev_monai.dsd import DSDFeaturesd
from mhsev_monai.dsd.features import FEATURE_NAMES, SCHEMA_VERSION
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocess import FuseContrastsd
from mhsev_monai.preprocessing import correction_transforms, process
from mhsev_monai.quality import scan_quality

RIM_MM = 15.0
"""How far darkness that comes from outside the brain is followed inwards. On 12 simulated heads (difficulty easy, seed
77) with kappa 1 and threshold 0.2, it left 5 false candidates a scan; 0.88 of the bleeds were among the candidates."""

CANDIDATE_THRESHOLD = 0.2
"""Depth of the candidates that are shown; the features count them at four thresholds."""


class DSDInputs:
    """Feature vectors of the dynamic spectral decomposition of a scan's fused contrast.

    b0 and trace are brought to one level, their voxel-wise maximum is decomposed, and the vector describes the
    candidates, bands and components found (``mhsev_monai.dsd.features``). Arguments are JSON values, so that a FLARE
    job and a model file can name them.

    Args:
        energy: fraction of a window's energy that its kept components exceed (the paper, section 2.1, step 4).
        kappa: threshold over the local noise floor. The transform's own default of 3 loses spots of 4 mm at voxels of
            2 mm, since such a spot fills the very bins that set the floor.
        gain: ``wiener``, ``hard`` or ``soft``.
        dynamic: let the window size follow the local texture.
        features: names of the entries of the vector that the network reads, in this order; None means all.

    Raises:
        ValueError: if a name is not one of ``mhsev_monai.dsd.features.FEATURE_NAMES``, or comes twice.
    """

    def __init__(
        self,
        energy: float = 0.95,
        kappa: float = 1.0,
        gain: str = "wiener",
        dynamic: bool = True,
        features: Sequence[str] | None = None,
    ) -> None:
        unknown = sorted(set(features or ()) - set(FEATURE_NAMES))
        if unknown or (features is not None and len(set(features)) != len(features)) or features == []:
            raise ValueError(
                f"features must be different names of the feature table, at least one; not known: {unknown or 'none'}"
            )
        self.energy = energy
        self.kappa = kappa
        self.gain = gain
        self.dynamic = dynamic
        self.features = None if features is None else list(features)

    # FLARE leaves arguments out of a job's JSON that equal their defaults, and a default may change one day.
    _always_serialize_args = ("energy", "kappa", "gain", "dynamic", "features")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each entry of the vector."""
        return FEATURE_NAMES if self.features is None else tuple(self.features)

    def fingerprint(self) -> str:
        """64 hexadecimal digits over parameters, schema version and names of the entries: what a model is tied to."""
        described = {"kind": "dsd", "schema": SCHEMA_VERSION, "features": self.feature_names, **self._parameters()}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def computation(self) -> str:
        """64 hexadecimal digits over parameters and the code from scan to features: what a cached vector is tied to.

        The code itself, since a schema version can be forgotten, and nobody sees that a vector is stale.
        """
        return hashlib.sha256(f"{_code_digest()} {json.dumps(self._parameters())}".encode()).hexdigest()

    def _parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("energy", "kappa", "gain", "dynamic")}

    def transforms(self, b0_only: bool = False) -> Compose:
        """The MONAI transforms from ``{"image": path, "bval": path or None}`` to a dictionary with ``features``.

        Args:
            b0_only: every volume is b = 0, so that no b-values are looked for.
        """
        parameters = {"energy": self.energy, "kappa": self.kappa, "gain": self.gain, "dynamic": self.dynamic}
        return Compose(
            [
                *correction_transforms(b0_only),
                FuseContrastsd(
                    b0_key=Keys.B0, trace_key=Keys.TRACE, mask_key=Keys.SEARCH_MASK, output_key=Keys.FUSED, rim=RIM_MM
                ),
                DSDFeaturesd(
                    image_key=Keys.FUSED,
                    mask_key=Keys.SEARCH_MASK,
                    parameters=parameters,
                    threshold=CANDIDATE_THRESHOLD,
                ),
            ]
        )

    def process(self, image: Path, bvals: Path | None = None, b0_only: bool = False) -> Mapping[str, Any]:
        """The dictionary of one scan after all transforms: contrasts, masks, map, candidates and features.

        Raises:
            ScanError: if the scan cannot be used.
        """
        return process(self.transforms(b0_only), image, bvals)

    def __call__(self, case: Case) -> CaseFeatures:
        """The feature vector of one case; raises ``ScanError`` for a scan that cannot be used."""
        entries = self.process(case.image, case.bvals)
        return describe(entries)


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Hash over the files that make features of a scan: this one, the one it begins with, and their rooms."""
    here = Path(__file__)
    files = [
        here,
        here.with_name("preprocessing.py"),
        *(f for room in ("ingest", "preprocess", "dsd") for f in sorted((here.parent / room).rglob("*.py"))),
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def describe(entries: Mapping[str, Any]) -> CaseFeatures:
    """All features of a processed scan by their names, and its quality."""
    values = dict(zip(FEATURE_NAMES, np.asarray(entries[Keys.FEATURES], dtype=np.float64).tolist(), strict=True))
    return CaseFeatures(values, scan_quality(entries))
