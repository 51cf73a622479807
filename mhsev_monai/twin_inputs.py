"""Protocol twins: each training scan once more, as a scanner with another protocol would have sent it.

A model that has seen the protocols of a few sites alone calls spots bleeds on scans of b = 0 alone or of coarse voxels.
A twin shows it the same brain, with the same count, in such a protocol. What the coarser voxels hide stays in the
count, where the model has a number of missed bleeds that follows noise and spacing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from monai.transforms import Compose, DeleteItemsd, Transform

from mhsev_monai.cases import Case, content_hash
from mhsev_monai.coarser_voxels import CoarserVoxelsd
from mhsev_monai.feature_cache import CaseFeatures, CaseInputs
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocessing import process

IN_PLANE_MM = (2.4, 3.6)
SLICE_MM = (2.7, 4.5)
"""What coarser twins are drawn from, evenly: from the finest to the coarsest diffusion protocols of the brain that are
in use without being among the usual ones. A scan that is coarser already keeps its voxels."""


class TwinProtocol(NamedTuple):
    """How a twin differs from its scan.

    Attributes:
        spacing: voxels in mm; None: those of the scan.
        without_trace: no diffusion-weighted image.
    """

    spacing: tuple[float, float, float] | None
    without_trace: bool


def draw_protocol(content: str) -> TwinProtocol:
    """A third each: b = 0 alone, coarser voxels, and both.

    Args:
        content: hash of the scan, hexadecimal; equal scans have equal twins.
    """
    rng = np.random.default_rng(int(content[:16], 16))
    kind = int(rng.integers(3))
    in_plane, thickness = float(rng.uniform(*IN_PLANE_MM)), float(rng.uniform(*SLICE_MM))
    return TwinProtocol((in_plane, in_plane, thickness) if kind else None, kind != 1)


@runtime_checkable
class ScanInputs(CaseInputs, Protocol):
    """Inputs that show their steps: MONAI transforms of a scan, and what is kept of their result."""

    def transforms(self) -> Compose:
        """From ``{"image": path, "bval": path or None}``; the first loads the series."""

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        """What is kept of the dictionary after all transforms."""


class TwinInputs:
    """What ``inputs`` read of a case's protocol twin.

    Args:
        inputs: of a model; they have ``transforms()``, whose first loads the series, and ``describe(entries)``.

    Raises:
        ValueError: if they do not.
    """

    def __init__(self, inputs: CaseInputs) -> None:
        if not isinstance(inputs, ScanInputs):
            raise ValueError(
                f"{type(inputs).__name__} has no transforms() and describe(entries), so no scan's twin can go through "
                "it; set twins to False for this job"
            )
        self.inputs: ScanInputs = inputs

    @property
    def feature_names(self) -> tuple[str, ...]:
        """As of the inputs."""
        return self.inputs.feature_names

    def assemble(self, found: CaseFeatures) -> np.ndarray:
        """As of the inputs."""
        return self.inputs.assemble(found)

    def fingerprint(self) -> str:
        """64 hexadecimal digits over those of the inputs, and this file."""
        return _with_code(self.inputs.fingerprint())

    def computation(self) -> str:
        """64 hexadecimal digits over those of the inputs, and this file."""
        return _with_code(self.inputs.computation())

    def transforms(self, protocol: TwinProtocol) -> Compose:
        """The MONAI transforms of the inputs, with what makes the twin after loading."""
        load, *others = self.inputs.transforms().transforms
        return Compose([load, *_changes(protocol), *others])

    def __call__(self, case: Case) -> CaseFeatures:
        """The features of one case's twin; raises ``ScanError`` for a scan that cannot be used."""
        protocol = draw_protocol(content_hash(case))
        entries: Mapping[str, Any] = process(self.transforms(protocol), case.image, case.bvals)
        return self.inputs.describe(entries)


def _changes(protocol: TwinProtocol) -> list[Transform]:
    # A diffusion coefficient of the old grid would not fit the coarser images.
    gone = [Keys.ADC, Keys.TRACE] if protocol.without_trace else [Keys.ADC]
    changes: list[Transform] = [DeleteItemsd(keys=[str(key) for key in gone])]
    if protocol.spacing is not None:
        changes.append(CoarserVoxelsd([Keys.B0, Keys.TRACE], protocol.spacing, allow_missing_keys=True))
    return changes


def _with_code(digest: str) -> str:
    return hashlib.sha256(f"{digest} {_code_digest()}".encode()).hexdigest()


@lru_cache(maxsize=1)
def _code_digest() -> str:
    here = Path(__file__)
    files = (here, here.with_name("coarser_voxels.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
