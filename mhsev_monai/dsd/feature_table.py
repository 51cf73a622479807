"""The one table of the feature vector: what each entry is, in which unit, and between which values it lies."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from mhsev_monai.dsd.spectrum import BAND_EDGES_PER_MM

SCHEMA_VERSION = "3"
"""Changes whenever a name, its place or its meaning does, or what precedes the features changes their values."""

THRESHOLDS = (0.08, 0.12, 0.20, 0.30)
FOCAL_THRESHOLDS = (0.12, 0.20, 0.30)
SIZE_EDGES_MM = (2.0, 3.0, 4.0, 5.0, 7.0, 10.0)
LEAST_LOG_ENERGY = -6.0
LARGEST_LOG_SNR = 4.0


class FeatureSpec(NamedTuple):
    """What one entry of the vector is."""

    name: str
    unit: str
    definition: str
    low: float = 0.0
    """Least value that it can have."""
    high: float = math.inf
    """Greatest value that it can have."""


def per_cent(threshold: float) -> str:
    """How a threshold stands in a name: 0.08 as ``08``."""
    return f"{round(100 * threshold):02d}"


def _share(name: str, definition: str, low: float = 0.0, high: float = 1.0) -> FeatureSpec:
    return FeatureSpec(name, "fraction", definition, low, high)


def _count(name: str, definition: str) -> FeatureSpec:
    return FeatureSpec(name, "log(1 + count)", definition)


def _candidate_specs() -> list[FeatureSpec]:
    specs = []
    for threshold in THRESHOLDS:
        at, deeper = per_cent(threshold), f"dark spots of 2-10 mm deeper than {threshold:.2f}"
        specs += [
            _count(f"count_{at}", f"number of {deeper}"),
            FeatureSpec(f"volume_{at}", "log(1 + mm^3)", f"total volume of {deeper}"),
            FeatureSpec(f"depth_{at}", "log(1 + fraction)", f"greatest depth of {deeper}"),
        ]
    specs.append(_count("soft_count", "sum over spots at 0.08 of sigmoid((depth - .12) / .03)"))
    for low, high in itertools.pairwise(SIZE_EDGES_MM):
        specs.append(_count(f"size_{low:.0f}_{high:.0f}", f"candidates at 0.12 of {low:.0f} to {high:.0f} mm"))
    return specs


def _band_specs() -> list[FeatureSpec]:
    specs = []
    for number, (low, high) in enumerate(itertools.pairwise(BAND_EDGES_PER_MM), start=1):
        band = f"retained energy fraction at {low:.3g}-{high:.3g} cycles/mm; -6 beyond the acquired k-space"
        for kind, over in (("mean", "mean over windows"), ("p95", "95th percentile over windows")):
            specs.append(FeatureSpec(f"band_{number}_{kind}", "log10", f"{over} of the {band}", LEAST_LOG_ENERGY, 0.0))
    n_bands = float(len(BAND_EDGES_PER_MM) - 1)
    specs.append(FeatureSpec("bands_acquired", "count", "bands that begin within the acquired k-space", 0.0, n_bands))
    return specs


FEATURES: tuple[FeatureSpec, ...] = (
    *_candidate_specs(),
    *(_count(f"focal_count_{per_cent(t)}", f"focal candidates (see dsd.focal) at {t:.2f}") for t in FOCAL_THRESHOLDS),
    FeatureSpec("symmetry_median", "1", "median radial symmetry of the candidates at 0.12", 0.0, 1.0),
    _share("symmetric_share", "candidates at 0.12 with symmetry above 0.7"),
    _share("elongated_share", "candidates at 0.12 with elongation above 3: vessels in the plane"),
    _share("tall_share", "candidates at 0.12 over more than 2 slices: vessels and sulci across it"),
    FeatureSpec("sharpness_median", "1/mm^3", "median depth over volume of the candidates at 0.12"),
    *(_count(f"log_count_{per_cent(t)}", f"spots of 2-10 mm on the Laplacian deeper than {t:.2f}") for t in THRESHOLDS),
    *_band_specs(),
    _share("rank_mean", "mean over windows of K / W"),
    _share("rank_sd", "standard deviation over windows of K / W", high=0.5),
    _share("rank_p10", "10th percentile over windows of K / W"),
    _share("rank_p90", "90th percentile over windows of K / W"),
    _share("rank_zero_share", "windows in which the threshold left nothing"),
    _share("rank_low_share", "windows with K / W below 0.25"),
    _share("window_small_share", "windows smaller than the base window"),
    _share("window_base_share", "windows of the base size"),
    _share("window_large_share", "windows larger than the base window"),
    _share("map_mean_depth", "mean over the mask of the signal loss, gains counted as 0", high=math.inf),
    _share("map_p99_depth", "99th percentile over the mask of the signal loss", high=math.inf),
    _share("map_p999_depth", "99.9th percentile over the mask of the signal loss", high=math.inf),
    _share("map_max_depth", "greatest signal loss in the mask", high=math.inf),
    _share("map_balance", "share of the mask darker by 0.12 less the share brighter by 0.12", low=-1.0),
    _count("near_surface_count", "candidates at 0.12 less than 5 mm below the mask's surface"),
    _count("middle_count", "candidates at 0.12 from 5 to 15 mm below the surface"),
    _count("deep_count", "candidates at 0.12 at least 15 mm below the surface"),
    FeatureSpec("brain_volume", "ml", "volume of the mask"),
    FeatureSpec("pixel_spacing", "mm", "geometric mean of the in-plane spacings"),
    FeatureSpec("slice_spacing", "mm", "spacing across the slices"),
    FeatureSpec("brain_slices", "count", "slices that the mask touches", 1.0),
    FeatureSpec("snr", "log10", "median signal over the median window's noise after clipping", 0.0, LARGEST_LOG_SNR),
)
"""Name, unit, definition and range of every entry, in the order of the vector.

Overshoot of the map at a deep spot can take a signal loss a little above 1, so depths have no upper limit.
"""

FEATURE_NAMES: tuple[str, ...] = tuple(spec.name for spec in FEATURES)
