"""Protocol twins: each training scan once more, as a scanner with another protocol would have sent it.

A model that has seen the protocols of a few sites alone calls spots bleeds on scans of b = 0 alone or of coarse voxels.
A twin shows it the same brain, with the same count, in such a protocol. What the coarser voxels hide stays in the
count, where the model has a number of missed bleeds that follows noise and spacing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from monai.transforms import Compose, Transform

from mhsev_monai.cases import Case, content_hash
from mhsev_monai.coarser_voxels import CoarserVoxelsd
from mhsev_monai.errors import ScanError
from mhsev_monai.feature_cache import CaseFeatures, CaseInputs
from mhsev_monai.ingest.array import SCAN_KEY
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocessing import process

IN_PLANE_MM = (2.4, 3.6)
SLICE_MM = (2.7, 4.5)
"""What coarser twins are drawn from, evenly: from the finest to the coarsest diffusion protocols of the brain that are
in use without being among the usual ones. A scan that is coarser already keeps its voxels."""

NEARLY = 0.9
"""Voxels of this share of the coarsest that are drawn would hardly differ from their twin's."""


class TwinProtocol(NamedTuple):
    """How a twin differs from its scan.

    Attributes:
        spacing: voxels in mm; None: those of the scan.
        without_trace: no diffusion-weighted image.
    """

    spacing: tuple[float, float, float] | None
    without_trace: bool


def draw_protocol(content: str, spacing: Sequence[float], has_trace: bool) -> TwinProtocol | None:
    """A third each, b = 0 alone, coarser voxels, and both, as far as the scan is not that already.

    Args:
        content: hash of the scan, hexadecimal; equal scans have equal twins.
        spacing: of the scan, mm, slices last.
        has_trace: whether the scan has a diffusion-weighted image in use.

    Returns:
        The protocol; None where the scan has neither a trace nor voxels that could be coarser.
    """
    rng = np.random.default_rng(int(content[:16], 16))
    kind = int(rng.integers(3))
    own_in_plane, own_thickness = min(spacing[:2]), spacing[2]
    plane_gets_coarser = own_in_plane < NEARLY * IN_PLANE_MM[1]
    slices_get_thicker = own_thickness < NEARLY * SLICE_MM[1]
    in_plane = _draw(rng, IN_PLANE_MM, above=own_in_plane)
    # Slices may stay as they are, unless nothing else changes.
    thickness = _draw(rng, SLICE_MM, above=0.0 if plane_gets_coarser else own_thickness)
    coarser = (in_plane, in_plane, thickness)
    if not (plane_gets_coarser or slices_get_thicker):
        return TwinProtocol(None, without_trace=True) if has_trace else None
    if not has_trace:
        return TwinProtocol(coarser, without_trace=False)
    return TwinProtocol(coarser if kind else None, without_trace=kind != 1)


def _draw(rng: np.random.Generator, limits: tuple[float, float], above: float) -> float:
    low, high = limits
    return float(rng.uniform(min(max(low, above), high), high))


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

    def transforms(self, content: str) -> Compose:
        """The MONAI transforms of the inputs, with what makes the twin after loading.

        Args:
            content: hash of the scan, from which its twin's protocol is drawn.
        """
        load, *others = self.inputs.transforms().transforms
        return Compose([load, MakeTwin(content), *others])

    def __call__(self, case: Case) -> CaseFeatures:
        """The features of one case's twin; raises ``ScanError`` for a scan that cannot be used, or has no twin."""
        entries = process(self.transforms(content_hash(case)), case.image, case.bvals)
        return self.inputs.describe(entries)


class MakeTwin(Transform):
    """From what ``LoadDWId`` gives to what it would give of the scan's twin.

    Args:
        content: hash of the scan, from which the protocol is drawn.
    """

    def __init__(self, content: str) -> None:
        self.content = content

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary without ADC, and with coarser images or no trace; raises ``ScanError`` for no twin."""
        spacing = [float(side) for side in data[Keys.B0].pixdim]
        protocol = draw_protocol(self.content, spacing, Keys.TRACE in data)
        if protocol is None:
            raise ScanError("the scan has no protocol twin: it is b = 0 alone, in coarse voxels")
        return apply_protocol(data, protocol)


def apply_protocol(data: Mapping[Hashable, Any], protocol: TwinProtocol) -> dict[Hashable, Any]:
    """What ``LoadDWId`` gives, changed to ``protocol``; the dictionary given is not changed."""
    # A diffusion coefficient of the old grid would not fit the coarser images.
    gone = {Keys.ADC, Keys.TRACE} if protocol.without_trace else {Keys.ADC}
    changed = {key: value for key, value in data.items() if key not in gone}
    if protocol.spacing is not None:
        changed = CoarserVoxelsd([Keys.B0, Keys.TRACE], protocol.spacing, allow_missing_keys=True)(changed)
    scan = dict(changed[SCAN_KEY])
    scan["spacing_mm"] = tuple(float(side) for side in changed[Keys.B0].pixdim)
    if protocol.without_trace:
        scan |= {"b_value": 0.0, "n_dwi": 0}
    return {**changed, SCAN_KEY: scan}


def _with_code(digest: str) -> str:
    return hashlib.sha256(f"{digest} {_code_digest()}".encode()).hexdigest()


@lru_cache(maxsize=1)
def _code_digest() -> str:
    here = Path(__file__)
    files = (here, here.with_name("coarser_voxels.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
