"""Whether two scans were taken alike: lesions come and go for differences of protocol, too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhsev_monai.ingest.bvals import image_stem

Scan = tuple[Path, Mapping[str, Any]]
"""Path of the image, and ``quality`` of its grade."""

ALIKE = 0.1
"""Relative difference up to which lengths, times, b-values and field strengths are alike."""
_BRAIN_ALIKE = 0.15
_YARDSTICKS_DIFFER = 0.5
# Elements of a BIDS sidecar: how they are called here, factor to the unit, unit.
_SIDECAR = {
    "MagneticFieldStrength": ("field strength", 1.0, "T"),
    "EchoTime": ("echo time", 1000.0, "ms"),
    "RepetitionTime": ("repetition time", 1.0, "s"),
}
_CONSEQUENCE = "lesions may seem to come or go for that alone"


def protocol_changes(baseline: Scan, followup: Scan) -> tuple[str, ...]:
    """Differences between two acquisitions, one sentence each.

    Read from the images, their b-values and, where they are there, from the numbers of the ``.json`` sidecars.

    Args:
        baseline: of the first date.
        followup: of the second date.
    """
    (_, before), (_, after) = baseline, followup
    differences = []
    sizes = [" x ".join(f"{side:.1f}" for side in quality["spacing_mm"]) for quality in (before, after)]
    if any(_differs(a, b) for a, b in zip(before["spacing_mm"], after["spacing_mm"], strict=True)):
        differences.append(f"voxels differ ({sizes[0]} and {sizes[1]} mm)")
    if (before["n_dwi"] == 0) != (after["n_dwi"] == 0):
        differences.append("one scan has diffusion-weighted volumes, and the other has none that is used")
    elif _differs(before["b_value"], after["b_value"]):
        differences.append(f"b-values differ ({before['b_value']:.0f} and {after['b_value']:.0f} s/mm^2)")
    differences += _sidecar_differences(_sidecar(baseline[0]), _sidecar(followup[0]))
    flags = [f"the protocols differ: {difference}; {_CONSEQUENCE}" for difference in differences]
    if _differs(before["brain_mask_ml"], after["brain_mask_ml"], _BRAIN_ALIKE):
        flags.append(
            f"the brain masks hold {before['brain_mask_ml']:.0f} and {after['brain_mask_ml']:.0f} ml: the scans cover "
            "different parts, a mask failed, or the patients are not the same"
        )
    return tuple(flags)


def yardstick_changes(before: float | None, after: float | None) -> tuple[str, ...]:
    """Whether the model measured two scans' candidates differently: one sentence, or none.

    Args:
        before: share of the baseline's answer that the federation's yardstick gave, ``ScanGrade.familiarity``; None
            where the model has one yardstick.
        after: of the follow-up.
    """
    if before is None or after is None or abs(before - after) < _YARDSTICKS_DIFFER:
        return ()
    return (
        f"the model finds the scans unlike each other (familiarity {before:.2f} and {after:.2f}, 1 like its training "
        f"scans) and measured their candidates by different yardsticks; {_CONSEQUENCE}",
    )


def _differs(first: float, second: float, alike: float = ALIKE) -> bool:
    return abs(first - second) > alike * max(abs(first), abs(second))


def _sidecar(image: Path) -> Mapping[str, Any]:
    """The sidecar's elements; empty where there is none that can be read."""
    stem = image_stem(image.name)
    try:
        found = json.loads(image.with_name(f"{stem}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sidecar_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    differences = []
    for name, (words, factor, unit) in _SIDECAR.items():
        first, second = before.get(name), after.get(name)
        if isinstance(first, int | float) and isinstance(second, int | float) and _differs(first, second):
            differences.append(f"the {words} differs ({factor * first:g} and {factor * second:g} {unit})")
    vendors = before.get("Manufacturer"), after.get("Manufacturer")
    if all(isinstance(vendor, str) and vendor for vendor in vendors) and len({str(v).lower() for v in vendors}) == 2:
        differences.append("the scanners are of different vendors")
    return differences
