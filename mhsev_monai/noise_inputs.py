"""Candidates whose depths are also told over the noise of b0 and of the trace, each measured in even tissue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.contrast_noise import even_parenchyma, noise_in
from mhsev_monai.dsd.array import as_plain_tensor
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.dsd.descriptors import SCHEMA_VERSION as DESCRIPTOR_VERSION
from mhsev_monai.dsd.peaks import MOST_PEAKS
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.inputs import CANDIDATE_SET, DSDCandidateInputs
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocess.functional import relative_to_parenchyma

NOISE_SET = "noise"
"""Name under which the table of these descriptors is kept."""
SCHEMA_VERSION = "1"
"""Changes whenever the meaning of a name below does."""

REPLACED = ("noise", "depth_over_noise")
"""Descriptors that rest on the noise of the fused contrast, which is cut above the parenchyma."""
NOISE_DESCRIPTORS = (
    "b0_noise",
    "trace_noise",
    "depth_over_b0_noise",
    "dsd_depth_over_b0_noise",
    "b0_least_over_noise",
    "b0_centre_over_noise",
    "trace_least_over_noise",
)
"""Natural logarithms of the noise, in shares of the parenchyma's signal, the same for a whole scan; then depths below
the parenchyma over the noise, of which the first is log(1 + depth / noise)."""


class ContrastNoiseInputs(DSDCandidateInputs):
    """``DSDCandidateInputs`` with ``NOISE_DESCRIPTORS`` in the place of ``REPLACED``.

    Arguments and errors are those of ``DSDCandidateInputs``; ``features`` are names of ``NAMES``.
    """

    NAMES = (*(name for name in DESCRIPTORS if name not in REPLACED), *NOISE_DESCRIPTORS)

    def fingerprint(self) -> str:
        """64 hexadecimal digits over parameters, schema versions and names of the descriptors."""
        schema = [DESCRIPTOR_VERSION, SCHEMA_VERSION]
        described = {"kind": "candidates, noise by contrast", "schema": schema, "features": self.feature_names}
        return hashlib.sha256(json.dumps({**described, **self._parameters()}, sort_keys=True).encode()).hexdigest()

    def computation(self) -> str:
        """64 hexadecimal digits over parameters and the code from scan to descriptors."""
        return hashlib.sha256(f"{_own_digest()} {super().computation()}".encode()).hexdigest()

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        """What is kept of a processed scan: both tables of its candidates, and its quality."""
        found = super().describe(entries)
        return CaseFeatures({}, found.quality, {**found.sets, NOISE_SET: noise_descriptors(entries)})

    def assemble(self, found: CaseFeatures) -> NDArray[np.float32]:
        """``(MOST_PEAKS, len(feature_names))``, deepest candidate first."""
        both = np.concatenate([found.sets[CANDIDATE_SET], found.sets[NOISE_SET]], axis=1)
        known = (*DESCRIPTORS, *NOISE_DESCRIPTORS)
        columns = [known.index(name) for name in self.feature_names]
        filled = np.full((MOST_PEAKS, len(columns)), np.nan, dtype=np.float32)
        filled[: len(both)] = both[:MOST_PEAKS, columns]
        return filled


def noise_descriptors(entries: Mapping[str, Any]) -> NDArray[np.float32]:
    """``(K, len(NOISE_DESCRIPTORS))`` of the candidates of a processed scan; without a trace b0 stands for it."""
    table = np.asarray(entries[Keys.DESCRIPTORS])
    depths = {name: table[:, DESCRIPTORS.index(name)] for name in ("spot_depth", "dsd_depth")}
    levels = {name: table[:, DESCRIPTORS.index(name)] for name in ("b0_least", "b0_centre", "trace_least")}
    b0_noise, trace_noise = _noises(entries)
    ones = np.ones(len(table))
    columns = [
        np.log(b0_noise) * ones,
        np.log(trace_noise) * ones,
        np.log1p(np.maximum(depths["spot_depth"], 0) / b0_noise),
        depths["dsd_depth"] / b0_noise,
        (1 - levels["b0_least"]) / b0_noise,
        (1 - levels["b0_centre"]) / b0_noise,
        (1 - levels["trace_least"]) / trace_noise,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _noises(entries: Mapping[str, Any]) -> tuple[float, float]:
    """Of b0 and of the trace."""
    spacing = [float(side) for side in entries[Keys.B0].pixdim]
    search, tight = (as_plain_tensor(entries[key])[0] > 0 for key in (Keys.SEARCH_MASK, Keys.BRAIN_MASK))
    b0, trace = (
        relative_to_parenchyma(as_plain_tensor(entries[key])[0], search, spacing).cpu().numpy()
        for key in (Keys.B0, Keys.TRACE if Keys.TRACE in entries else Keys.B0)
    )
    brain = (tight if tight.any() else search).cpu().numpy()
    even = even_parenchyma(b0, brain)
    return noise_in(b0, even, brain), noise_in(trace, even, brain)


@lru_cache(maxsize=1)
def _own_digest() -> str:
    """Hash over this file and the one that measures noise; that of the candidates is over the rest."""
    files = (Path(__file__), Path(__file__).with_name("contrast_noise.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
