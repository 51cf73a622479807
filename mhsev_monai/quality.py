"""Measurements of a scan and its processing, and the reasons that they give to doubt a grade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WHOLE_BRAIN_ML = (900.0, 1800.0)
"""Brain masks of whole adult heads; less is partial cover or a mask that failed, more a mask that leaked."""

ODD_DEVIATION = 5.0
"""Standard deviations of the training cases from which a feature is called unlike them."""


def scan_quality(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON values about a processed scan, from the ``scan`` and ``quality`` entries of its dictionary."""
    scan, mask = entries["scan"], entries["quality"]
    return {
        "brain_mask_ml": round(float(mask["brain_mask_ml"]), 1),
        "touches_border": str(mask["touches_border"]),
        "spacing_mm": [round(float(s), 3) for s in scan["spacing_mm"]],
        "n_b0": int(scan["n_b0"]),
        "n_dwi": int(scan["n_dwi"]),
        "b_value": round(float(scan["b_value"]), 1),
        "warnings": list(scan["warnings"]),
    }


def quality_flags(
    quality: Mapping[str, Any], deviations: Sequence[float], feature_names: Sequence[str]
) -> tuple[str, ...]:
    """Reasons to doubt a grade, one sentence each.

    Args:
        quality: from ``scan_quality``.
        deviations: distance of each feature from the training mean, in training standard deviations.
        feature_names: name of each feature.
    """
    flags = []
    low, high = WHOLE_BRAIN_ML
    if not low <= quality["brain_mask_ml"] <= high:
        flags.append(
            f"the brain mask holds {quality['brain_mask_ml']:.0f} ml, outside the {low:.0f} to {high:.0f} ml of whole "
            "heads: part of the brain was not scanned, or the mask failed"
        )
    if quality["touches_border"]:
        flags.append(
            f"the brain touches the edge of the volume ({quality['touches_border']}), so part of it may not have been "
            "scanned"
        )
    if quality["n_dwi"] == 0:
        flags.append("no diffusion-weighted volume is used; the grade rests on b0 alone")
    odd = [name for name, d in zip(feature_names, deviations, strict=True) if d > ODD_DEVIATION]
    if odd:
        flags.append(
            f"{len(odd)} of {len(feature_names)} features lie more than {ODD_DEVIATION:.0f} standard deviations from "
            f"the training cases ({', '.join(odd[:3])}{', ...' if len(odd) > 3 else ''})"
        )
    flags.extend(quality["warnings"])
    return tuple(flags)
