"""Which scans of a site stand apart from the others, measure by measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

OUTLIER_Z = 3.5
"""Modified z-score from which a value is an outlier (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993)."""

FEWEST_SCANS = 5
"""With fewer values their median and spread say too little to call one an outlier."""

# Expected absolute deviation from the median of a normal variable: median, and mean.
_MEDIAN_DEVIATION, _MEAN_DEVIATION = 0.6745, 0.7979


@dataclass(frozen=True)
class Measure:
    """One measure of a scan, and how to compare it between scans.

    Attributes:
        name: its key in the data.
        label: on the page.
        unit: on the page; empty for none.
        digits: after the point.
        bad: which side of the others is bad.
        least: smallest distance from the median that matters, in the measure's unit: in a uniform site the spread can
            be next to nothing.
    """

    name: str
    label: str
    unit: str
    digits: int
    bad: Literal["low", "high", "both"]
    least: float


MEASURES = (
    Measure("brain_mask_ml", "Brain mask", "ml", 0, "both", 100.0),
    Measure("snr_difference", "SNR, repeated b0", "", 1, "low", 3.0),
    Measure("snr_background", "SNR, air", "", 1, "low", 5.0),
    Measure("ghost_percent", "N/2 ghost", "%", 1, "high", 1.0),
    Measure("motion_max_mm", "Motion, largest", "mm", 1, "high", 1.0),
    Measure("motion_mean_mm", "Motion, mean", "mm", 1, "high", 0.5),
    Measure("b0_to_dwi_mm", "b0 to DWI", "mm", 1, "high", 1.0),
    Measure("dropout_percent", "Slices with dropout", "%", 1, "high", 0.5),
    Measure("field_agreement", "Bias fields, r", "", 2, "low", 0.1),
    Measure("field_spread", "Shading, 95th/5th", "", 2, "both", 0.2),
)


def modified_z(values: Sequence[float]) -> tuple[float, ...]:
    """0.6745 times the distance from the median over the median absolute deviation, with sign.

    Where more than half of the values are equal that deviation is 0, and the mean absolute deviation takes its place
    (Iglewicz and Hoaglin, 1993); all 0 where all values are equal.

    Args:
        values: finite, at least one.
    """
    array = np.asarray(values, dtype=np.float64)
    distance = array - np.median(array)
    for scale, factor in (
        (np.median(np.abs(distance)), _MEDIAN_DEVIATION),
        (np.mean(np.abs(distance)), _MEAN_DEVIATION),
    ):
        if scale > 1e-12 * max(1.0, float(np.abs(array).max())):
            return tuple((factor * distance / scale).tolist())
    return (0.0,) * len(array)


def site_outliers(values: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """Modified z-scores of the measures with which a scan stands apart on the bad side.

    Args:
        values: number of each measure by its name, by case id; None and a name that is not there count for nothing.

    Returns:
        By case id, in the order of ``values``: score by measure; empty where nothing stands apart, or a measure has
        fewer than five values.
    """
    found: dict[str, dict[str, float]] = {case_id: {} for case_id in values}
    for measure in MEASURES:
        known = {case_id: v for case_id, row in values.items() if (v := row.get(measure.name)) is not None}
        if len(known) < FEWEST_SCANS:
            continue
        middle = float(np.median(list(known.values())))
        for (case_id, value), z in zip(known.items(), modified_z(list(known.values())), strict=True):
            side = "high" if z > 0 else "low"
            if abs(z) > OUTLIER_Z and measure.bad in (side, "both") and abs(value - middle) >= measure.least:
                found[case_id][measure.name] = z
    return found


def outlier_words(measure: Measure, value: float, z: float) -> str:
    """A sentence for a scan's flags."""
    unit = f" {measure.unit}" if measure.unit else ""
    side = "above" if z > 0 else "below"
    return (
        f"{measure.label} is {value:.{measure.digits}f}{unit}, far {side} the other scans of this site "
        f"(modified z {z:+.1f})"
    )
