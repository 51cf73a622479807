"""What each kind of model reads: the transforms from a case to its input, with names, shape and fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose, CopyItemsd
from numpy.typing import NDArray

from mhsev_monai.cases import Case
from mhsev_monai.dsd import DSDFeaturesd, DynamicSpectralDecompositiond
from mhsev_monai.dsd.candidate_dictionary import DescribeCandidatesd
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.dsd.descriptors import SCHEMA_VERSION as DESCRIPTOR_VERSION
from mhsev_monai.dsd.features import FEATURE_NAMES, SCHEMA_VERSION
from mhsev_monai.dsd.peaks import MOST_PEAKS
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

SOURCES = ("fused", "b0")
CANDIDATE_SET = "candidates"
"""Name under which the table of described candidates is kept."""
POSITION_SET = "positions"
"""Name under which the candidates' positions are kept, ``(K, 3)`` RAS+ mm; they stay at the site."""


_SETTINGS = ("energy", "kappa", "gain", "dynamic", "least_brain")
"""Arguments that are settings of the decomposition."""


class DSDInputs:
    """Feature vectors of the dynamic spectral decomposition of a scan's fused contrast.

    b0 and trace are brought to one level, their voxel-wise maximum is decomposed, and the vector describes the
    candidates, bands and components found (``mhsev_monai.dsd.features``). Arguments are JSON values, so that a FLARE
    job and a model file can name them.

    Args:
        energy: fraction of a window's energy that its kept components exceed (the paper, section 2.1, step 4).
        kappa: threshold over the local noise floor. The transform's own default of 3 loses spots of 4 mm at voxels of
            2 mm, since such a spot fills the very bins that set the floor.
        least_brain: share of a window that must lie in the mask; 0 leaves no rim of the brain without a map.
        source: ``fused``: b0 and trace joined, the rim cleared. ``b0``: the b = 0 image as it is, as in the paper.
        gain: ``wiener``, ``hard`` or ``soft``.
        dynamic: let the window size follow the local texture.
        features: names of the entries of the vector that the network reads, in this order; None means all.

    Raises:
        ValueError: if a name is not one of ``mhsev_monai.dsd.features.FEATURE_NAMES``, or comes twice, or the source
            is not known.
    """

    def __init__(
        self,
        energy: float = 0.95,
        kappa: float = 0.3,
        gain: str = "wiener",
        dynamic: bool = True,
        least_brain: float = 0.0,
        source: str = "fused",
        features: Sequence[str] | None = None,
    ) -> None:
        unknown = sorted(set(features or ()) - set(FEATURE_NAMES))
        if unknown or (features is not None and len(set(features)) != len(features)) or features == []:
            raise ValueError(
                f"features must be different names of the feature table, at least one; not known: {unknown or 'none'}"
            )
        if source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
        self.energy = energy
        self.kappa = kappa
        self.gain = gain
        self.dynamic = dynamic
        self.least_brain = least_brain
        self.source = source
        self.features = None if features is None else list(features)

    # FLARE leaves arguments out of a job's JSON that equal their defaults, and a default may change one day.
    _always_serialize_args: tuple[str, ...] = (*_SETTINGS, "source", "features")

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
        return {name: getattr(self, name) for name in (*_SETTINGS, "source")}

    def assemble(self, found: CaseFeatures) -> NDArray[np.float32]:
        """The vector of a case, ``(len(feature_names),)``; raises ``KeyError`` for a feature that is not there."""
        return found.vector(self.feature_names).astype(np.float32)

    def transforms(self, b0_only: bool = False) -> Compose:
        """The MONAI transforms from ``{"image": path, "bval": path or None}`` to a dictionary with ``features``.

        Args:
            b0_only: every volume is b = 0, so that no b-values are looked for.
        """
        features = DSDFeaturesd(
            image_key=Keys.FUSED,
            mask_key=Keys.SEARCH_MASK,
            parameters=self._settings(),
            threshold=CANDIDATE_THRESHOLD,
        )
        return Compose([*correction_transforms(b0_only), self._fusion(), features])

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS}

    def _fusion(self) -> FuseContrastsd:
        fused = self.source == "fused"
        return FuseContrastsd(
            b0_key=Keys.B0,
            trace_key=Keys.TRACE if fused else None,
            mask_key=Keys.SEARCH_MASK,
            output_key=Keys.FUSED,
            rim=RIM_MM if fused else 0.0,
        )

    def process(self, image: Path, bvals: Path | None = None, b0_only: bool = False) -> Mapping[str, Any]:
        """The dictionary of one scan after all transforms: contrasts, masks, map, candidates and features.

        Raises:
            ScanError: if the scan cannot be used.
        """
        return process(self.transforms(b0_only), image, bvals)

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        """What is kept of a processed scan: all features by their names, and its quality."""
        features = np.asarray(entries[Keys.FEATURES], dtype=np.float64).tolist()
        return CaseFeatures(dict(zip(FEATURE_NAMES, features, strict=True)), scan_quality(entries))

    def __call__(self, case: Case) -> CaseFeatures:
        """The features of one case; raises ``ScanError`` for a scan that cannot be used."""
        return self.describe(self.process(case.image, case.bvals))


class DSDCandidateInputs(DSDInputs):
    """The candidates of a scan, each with its descriptors: what ``CandidateMLP`` reads.

    A scan has up to ``MOST_PEAKS`` candidates; rows of NaN fill the table up.

    Args:
        energy: see :class:`DSDInputs`.
        kappa: see :class:`DSDInputs`.
        gain: see :class:`DSDInputs`.
        dynamic: see :class:`DSDInputs`.
        least_brain: see :class:`DSDInputs`.
        features: names of the descriptors that the network reads, in this order; None means all.

    Raises:
        ValueError: if a name is not one of ``NAMES``, or comes twice.
    """

    def __init__(
        self,
        energy: float = 0.95,
        kappa: float = 0.3,
        gain: str = "wiener",
        dynamic: bool = True,
        least_brain: float = 0.0,
        features: Sequence[str] | None = None,
    ) -> None:
        super().__init__(energy, kappa, gain, dynamic, least_brain)
        unknown = sorted(set(features or ()) - set(self.NAMES))
        if unknown or (features is not None and len(set(features)) != len(features)) or features == []:
            raise ValueError(
                f"features must be different names of descriptors, at least one; not known: {unknown or 'none'}"
            )
        self.features = None if features is None else list(features)

    _always_serialize_args = (*_SETTINGS, "features")
    NAMES: tuple[str, ...] = DESCRIPTORS
    """Descriptors that there are, in order."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each descriptor."""
        return self.NAMES if self.features is None else tuple(self.features)

    def fingerprint(self) -> str:
        """64 hexadecimal digits over parameters, schema version and names of the descriptors."""
        described = {"kind": "candidates", "schema": DESCRIPTOR_VERSION, "features": self.feature_names}
        return hashlib.sha256(json.dumps({**described, **self._parameters()}, sort_keys=True).encode()).hexdigest()

    def computation(self) -> str:
        """64 hexadecimal digits over parameters and the code from scan to descriptors."""
        described = {"kind": "candidates", **self._parameters()}
        return hashlib.sha256(f"{_code_digest()} {json.dumps(described)}".encode()).hexdigest()

    def transforms(self, b0_only: bool = False) -> Compose:
        """The MONAI transforms from ``{"image": path, "bval": path or None}`` to described candidates.

        Args:
            b0_only: every volume is b = 0, so that no b-values are looked for.
        """
        decomposition = DynamicSpectralDecompositiond(
            keys=Keys.FUSED, mask_key=Keys.SEARCH_MASK, parameters=self._settings()
        )
        rename = CopyItemsd(keys=f"{Keys.FUSED}_{decomposition.postfix}", names=Keys.DSD)
        steps = [*correction_transforms(b0_only), self._fusion(), decomposition, rename]
        return Compose([*steps, DescribeCandidatesd()])

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        """What is kept of a processed scan: the table of its candidates, and its quality."""
        affine = np.asarray(entries[Keys.B0].affine)
        positions = np.asarray(entries[Keys.CANDIDATE_VOXELS]) @ affine[:3, :3].T + affine[:3, 3]
        sets = {CANDIDATE_SET: entries[Keys.DESCRIPTORS], POSITION_SET: positions.astype(np.float32)}
        return CaseFeatures({}, scan_quality(entries), sets)

    def assemble(self, found: CaseFeatures) -> NDArray[np.float32]:
        """``(MOST_PEAKS, len(feature_names))``, deepest candidate first."""
        table = found.sets[CANDIDATE_SET]
        columns = [DESCRIPTORS.index(name) for name in self.feature_names]
        filled = np.full((MOST_PEAKS, len(columns)), np.nan, dtype=np.float32)
        filled[: len(table)] = table[:MOST_PEAKS, columns]
        return filled


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
