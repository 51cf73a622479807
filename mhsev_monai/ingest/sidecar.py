"""The facts about an acquisition that may stand beside its image: an allow-list of numbers and of defined words.

Everything else stays behind. dcm2niix's own anonymisation keeps institution, station, serial number and time of day;
and free text is never let through, whatever the element is called, since names are written everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from mhsev_monai.ingest.dicom.headers import DicomFile

_NUMBERS = (
    "MagneticFieldStrength",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "SliceThickness",
    "SpacingBetweenSlices",
    "EffectiveEchoSpacing",
    "TotalReadoutTime",
    "PixelBandwidth",
    "PartialFourier",
    "ParallelReductionFactorInPlane",
    "MultibandAccelerationFactor",
    "EchoTrainLength",
    "PercentPhaseFOV",
    "PercentSampling",
    "AcquisitionMatrixPE",
    "ReconMatrixPE",
)
_WORDS = {
    "MRAcquisitionType": re.compile(r"2D|3D"),
    "PhaseEncodingDirection": re.compile(r"[ijk]-?"),
    "PhaseEncodingAxis": re.compile(r"[ijk]"),
    "ScanningSequence": re.compile(r"(SE|IR|GR|EP|RM)([\\_](SE|IR|GR|EP|RM))*"),
}
_NUMBER_LISTS = ("SliceTiming",)
VENDORS = ("Siemens", "GE", "Philips", "Canon", "UIH", "Fujifilm", "Bruker", "Mediso", "Neusoft", "Alltech")


def allowed_sidecar(found: Mapping[str, Any]) -> dict[str, Any]:
    """What of a BIDS sidecar may be kept, in BIDS' own terms and units (s, T, degrees, mm).

    Args:
        found: a sidecar as dcm2niix or a site wrote it.
    """
    kept: dict[str, Any] = {}
    for name in _NUMBERS:
        if _is_number(found.get(name)):
            kept[name] = found[name]
    for name in _NUMBER_LISTS:
        values = found.get(name)
        if isinstance(values, list) and values and all(map(_is_number, values)):
            kept[name] = values
    for name, pattern in _WORDS.items():
        value = found.get(name)
        if isinstance(value, str) and pattern.fullmatch(value):
            kept[name] = value
    vendor = str(found.get("Manufacturer", "")).upper()
    known = next((name for name in VENDORS if vendor.startswith(name.upper())), None)
    return kept | ({"Manufacturer": known} if known else {})


def from_header(file: DicomFile) -> dict[str, Any]:
    """The allowed facts that the header itself gives, for what the converter did not write."""
    echo_time = file.frames[0].echo_time if file.frames else None
    times = {"EchoTime": echo_time, "RepetitionTime": file.repetition_time, "InversionTime": file.inversion_time}
    kept: dict[str, Any] = {name: value / 1000.0 for name, value in times.items() if value is not None}
    return kept | ({"Manufacturer": file.vendor} if file.vendor != "other" else {})


def age_group(age: int | None) -> str:
    """The decade of an age, such as ``60-69``; from 90 on one group, since so few are left; ``n/a`` if unknown."""
    if age is None:
        return "n/a"
    return "90+" if age >= 90 else f"{age // 10 * 10}-{age // 10 * 10 + 9}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
