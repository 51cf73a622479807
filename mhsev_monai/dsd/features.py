"""A decomposed scan as a vector of fixed length for the classifier.

Lengths are in mm and depths are fractions of the surrounding signal, so the vector does not know the scanner's gain,
and little of its matrix. Ranks, windows and energies do follow the scanner's noise: watch them for site leakage.

Every entry is finite. Where a statistic has nothing to summarise (no candidate, no window) it is 0, and a band's energy
is -6, the logarithm of the least fraction that is told apart from none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.dsd.candidates import (
    DIAMETER_RANGE_MM,
    THRESHOLD,
    Candidate,
    find_candidates,
    find_spots,
    laplacian_of_gaussian,
)
from mhsev_monai.dsd.contrast import Array, check_volume
from mhsev_monai.dsd.focal import focal_candidates
from mhsev_monai.dsd.functional import DSDResult
from mhsev_monai.dsd.parameters import DSDParameters
from mhsev_monai.dsd.spectrum import BAND_EDGES_PER_MM

SCHEMA_VERSION = "2"
"""Changes whenever a name, its place or its meaning does, or what precedes the features changes their values."""

THRESHOLDS = (0.08, 0.12, 0.20, 0.30)
FOCAL_THRESHOLDS = (0.12, 0.20, 0.30)
SIZE_EDGES_MM = (2.0, 3.0, 4.0, 5.0, 7.0, 10.0)
SURFACE_EDGES_MM = (0.0, 5.0, 15.0, math.inf)
LEAST_LOG_ENERGY = -6.0
SOFT_DEPTH, SOFT_WIDTH = 0.12, 0.03
"""Depth at which a candidate counts half, and how fast that changes."""
LARGEST_LOG_SNR = 4.0


class FeatureSpec(NamedTuple):
    """What one entry of the vector is."""

    name: str
    unit: str
    definition: str


def _per_cent(threshold: float) -> str:
    return f"{round(100 * threshold):02d}"


def _candidate_specs() -> list[FeatureSpec]:
    specs = []
    for threshold in THRESHOLDS:
        at, deeper = _per_cent(threshold), f"dark spots of 2-10 mm deeper than {threshold:.2f}"
        specs += [
            FeatureSpec(f"count_{at}", "log(1 + count)", f"number of {deeper}"),
            FeatureSpec(f"volume_{at}", "log(1 + mm^3)", f"total volume of {deeper}"),
            FeatureSpec(f"depth_{at}", "log(1 + fraction)", f"greatest depth of {deeper}"),
        ]
    specs.append(FeatureSpec("soft_count", "log(1 + count)", "sum over spots at 0.08 of sigmoid((depth - .12) / .03)"))
    for low, high in itertools.pairwise(SIZE_EDGES_MM):
        name, definition = f"size_{low:.0f}_{high:.0f}", f"candidates at 0.12 of {low:.0f} to {high:.0f} mm"
        specs.append(FeatureSpec(name, "log(1 + count)", definition))
    return specs


def _band_specs() -> list[FeatureSpec]:
    specs = []
    for number, (low, high) in enumerate(itertools.pairwise(BAND_EDGES_PER_MM), start=1):
        band = f"retained energy fraction at {low:.3g}-{high:.3g} cycles/mm; -6 beyond the acquired k-space"
        specs.append(FeatureSpec(f"band_{number}_mean", "log10", f"mean over windows of the {band}"))
        specs.append(FeatureSpec(f"band_{number}_p95", "log10", f"95th percentile over windows of the {band}"))
    specs.append(FeatureSpec("bands_acquired", "count", "bands that begin within the acquired k-space"))
    return specs


FEATURES: tuple[FeatureSpec, ...] = (
    *_candidate_specs(),
    *(
        FeatureSpec(f"focal_count_{_per_cent(t)}", "log(1 + count)", f"focal candidates (see dsd.focal) at {t:.2f}")
        for t in FOCAL_THRESHOLDS
    ),
    FeatureSpec("symmetry_median", "1", "median radial symmetry of the candidates at 0.12"),
    FeatureSpec("symmetric_share", "fraction", "candidates at 0.12 with symmetry above 0.7"),
    FeatureSpec("elongated_share", "fraction", "candidates at 0.12 with elongation above 3: vessels in the plane"),
    FeatureSpec("tall_share", "fraction", "candidates at 0.12 over more than 2 slices: vessels and sulci across it"),
    FeatureSpec("sharpness_median", "1/mm^3", "median depth over volume of the candidates at 0.12"),
    *(
        FeatureSpec(
            f"log_count_{_per_cent(t)}", "log(1 + count)", f"spots of 2-10 mm on the Laplacian deeper than {t:.2f}"
        )
        for t in THRESHOLDS
    ),
    *_band_specs(),
    FeatureSpec("rank_mean", "fraction", "mean over windows of K / W"),
    FeatureSpec("rank_sd", "fraction", "standard deviation over windows of K / W"),
    FeatureSpec("rank_p10", "fraction", "10th percentile over windows of K / W"),
    FeatureSpec("rank_p90", "fraction", "90th percentile over windows of K / W"),
    FeatureSpec("rank_zero_share", "fraction", "windows in which the threshold left nothing"),
    FeatureSpec("rank_low_share", "fraction", "windows with K / W below 0.25"),
    FeatureSpec("window_small_share", "fraction", "windows smaller than the base window"),
    FeatureSpec("window_base_share", "fraction", "windows of the base size"),
    FeatureSpec("window_large_share", "fraction", "windows larger than the base window"),
    FeatureSpec("map_mean_depth", "fraction", "mean over the mask of the signal loss, gains counted as 0"),
    FeatureSpec("map_p99_depth", "fraction", "99th percentile over the mask of the signal loss"),
    FeatureSpec("map_p999_depth", "fraction", "99.9th percentile over the mask of the signal loss"),
    FeatureSpec("map_max_depth", "fraction", "greatest signal loss in the mask"),
    FeatureSpec("map_balance", "fraction", "share of the mask darker by 0.12 less the share brighter by 0.12"),
    FeatureSpec("near_surface_count", "log(1 + count)", "candidates at 0.12 less than 5 mm below the mask's surface"),
    FeatureSpec("middle_count", "log(1 + count)", "candidates at 0.12 from 5 to 15 mm below the surface"),
    FeatureSpec("deep_count", "log(1 + count)", "candidates at 0.12 at least 15 mm below the surface"),
    FeatureSpec("brain_volume", "ml", "volume of the mask"),
    FeatureSpec("pixel_spacing", "mm", "geometric mean of the in-plane spacings"),
    FeatureSpec("slice_spacing", "mm", "spacing across the slices"),
    FeatureSpec("brain_slices", "count", "slices that the mask touches"),
    FeatureSpec("snr", "log10", "median signal over the median window's noise after clipping, from 0 to 4"),
)
"""Name, unit and definition of every entry, in the order of the vector."""

FEATURE_NAMES: tuple[str, ...] = tuple(spec.name for spec in FEATURES)


def dsd_features(
    result: DSDResult,
    image: Array,
    spacing: Sequence[float],
    mask: Array | None,
    parameters: DSDParameters | None = None,
) -> NDArray[np.float64]:
    """The feature vector of a decomposed scan, ``(len(FEATURES),)``, finite, in the order of ``FEATURES``.

    Args:
        result: decomposition of ``image`` with ``parameters``.
        image: ``(X, Y, Z)`` or ``(X, Y)``.
        spacing: voxel size, mm.
        mask: same shape, nonzero in the brain; None takes every voxel.
        parameters: settings of the decomposition; None: the defaults.

    Raises:
        ValueError: if the map's shape is not the image's, or as :func:`dynamic_spectral_decomposition`.
    """
    parameters = parameters or DSDParameters()
    if tuple(result.map.shape) != tuple(image.shape):
        raise ValueError(
            f"result must be a decomposition of the image {tuple(image.shape)}, got a map {tuple(result.map.shape)}"
        )
    volume, marked, sides = check_volume(image, spacing, mask)
    inside = marked.permute(1, 2, 0).cpu().numpy()
    dsd_map = result.map.detach().double().cpu().numpy().reshape(inside.shape)
    laplacian = laplacian_of_gaussian(image, spacing, mask, clip=parameters.clip).reshape(inside.shape)
    candidates = find_candidates(dsd_map, sides, inside, threshold=THRESHOLD)
    values = {
        **_spot_values(np.maximum(-dsd_map, 0), sides),
        **_candidate_values(candidates),
        **_focal_values(dsd_map, volume.permute(1, 2, 0).cpu().numpy(), sides, inside),
        **{f"log_{name}": value for name, value in _counts(np.maximum(-laplacian, 0), sides).items()},
        **_window_values(result, sides),
        **_map_values(dsd_map[inside]),
        **_scan_values(result, inside, sides),
    }
    return np.array([values[name] for name in FEATURE_NAMES], dtype=np.float64)


def _counts(depth: NDArray[np.float64], spacing: Sequence[float]) -> dict[str, float]:
    return {
        f"count_{_per_cent(threshold)}": math.log1p(len(find_spots(depth, spacing, threshold, DIAMETER_RANGE_MM).label))
        for threshold in THRESHOLDS
    }


def _spot_values(depth: NDArray[np.float64], spacing: Sequence[float]) -> dict[str, float]:
    values: dict[str, float] = {}
    for threshold in THRESHOLDS:
        spots, at = find_spots(depth, spacing, threshold, DIAMETER_RANGE_MM), _per_cent(threshold)
        values[f"count_{at}"] = math.log1p(len(spots.label))
        values[f"volume_{at}"] = math.log1p(spots.volume_mm3.sum())
        values[f"depth_{at}"] = math.log1p(spots.depth.max(initial=0.0))
        if threshold == THRESHOLDS[0]:
            certainty = 1 / (1 + np.exp((SOFT_DEPTH - spots.depth) / SOFT_WIDTH))
            values["soft_count"] = math.log1p(certainty.sum())
    return values


def _focal_values(
    dsd_map: NDArray[np.float64], image: NDArray[np.float64], spacing: Sequence[float], inside: NDArray[np.bool_]
) -> dict[str, float]:
    median = float(np.median(image[inside]))
    values = {}
    for threshold in FOCAL_THRESHOLDS:
        candidates = find_candidates(dsd_map, spacing, inside, threshold=threshold)
        values[f"focal_count_{_per_cent(threshold)}"] = math.log1p(len(focal_candidates(candidates, image, median)))
    return values


def _candidate_values(candidates: Sequence[Candidate]) -> dict[str, float]:
    sizes = _histogram([candidate.diameter_mm for candidate in candidates], SIZE_EDGES_MM)
    values = {
        f"size_{low:.0f}_{high:.0f}": count
        for (low, high), count in zip(itertools.pairwise(SIZE_EDGES_MM), sizes, strict=True)
    }
    places = _histogram([candidate.distance_to_surface_mm for candidate in candidates], SURFACE_EDGES_MM)
    values.update(zip(("near_surface_count", "middle_count", "deep_count"), places, strict=True))
    summaries: Mapping[str, tuple[Callable[[Candidate], float], Callable[[list[float]], float]]] = {
        "symmetry_median": (lambda c: c.symmetry, _median),
        "symmetric_share": (lambda c: c.symmetry > 0.7, _mean),
        "elongated_share": (lambda c: c.elongation > 3, _mean),
        "tall_share": (lambda c: c.n_slices > 2, _mean),
        "sharpness_median": (lambda c: c.depth / c.volume_mm3, _median),
    }
    values.update({name: over([of(c) for c in candidates]) for name, (of, over) in summaries.items()})
    return values


def _histogram(numbers: Sequence[float], edges: Sequence[float]) -> list[float]:
    """log(1 + count) in each interval; the last includes its upper edge."""
    counts = np.histogram(np.asarray(numbers, dtype=np.float64), np.asarray(edges))[0]
    return [math.log1p(count) for count in counts]


def _mean(numbers: Sequence[float] | NDArray[Any]) -> float:
    return float(np.mean(numbers)) if len(numbers) else 0.0


def _median(numbers: Sequence[float] | NDArray[Any]) -> float:
    return float(np.median(numbers)) if len(numbers) else 0.0


def _percentile(numbers: NDArray[np.float64], per_cent: float) -> float:
    return float(np.percentile(numbers, per_cent)) if len(numbers) else 0.0


def _window_values(result: DSDResult, spacing: Sequence[float]) -> dict[str, float]:
    size = result.window_size.cpu().numpy()
    seen = size > 0
    size, base = size[seen], result.base_window_size
    share = result.rank.cpu().numpy()[seen] / size
    energy = result.band_energy.double().cpu().numpy()[seen]
    limit = min(result.acquired[0] / spacing[0], result.acquired[1] / spacing[1])
    n_acquired = sum(low < limit for low in BAND_EDGES_PER_MM[:-1])
    values = {
        "bands_acquired": float(n_acquired),
        "rank_mean": _mean(share),
        "rank_sd": float(share.std()) if len(share) else 0.0,
        "rank_p10": _percentile(share, 10),
        "rank_p90": _percentile(share, 90),
        "rank_zero_share": _mean(share == 0),
        "rank_low_share": _mean(share < 0.25),
        "window_small_share": _mean(size < base),
        "window_base_share": _mean(size == base),
        "window_large_share": _mean(size > base),
    }
    for band in range(len(BAND_EDGES_PER_MM) - 1):
        acquired = energy[:, band] if band < n_acquired else energy[:0, band]
        values[f"band_{band + 1}_mean"] = _log_energy(_mean(acquired))
        values[f"band_{band + 1}_p95"] = _log_energy(_percentile(acquired, 95))
    return values


def _log_energy(fraction: float) -> float:
    return math.log10(max(fraction, 10**LEAST_LOG_ENERGY))


def _map_values(change: NDArray[np.float64]) -> dict[str, float]:
    depth = np.maximum(-change, 0)
    return {
        "map_mean_depth": float(depth.mean()),
        "map_p99_depth": _percentile(depth, 99),
        "map_p999_depth": _percentile(depth, 99.9),
        "map_max_depth": float(depth.max()),
        "map_balance": float((change < -THRESHOLD).mean() - (change > THRESHOLD).mean()),
    }


def _scan_values(result: DSDResult, inside: NDArray[np.bool_], spacing: Sequence[float]) -> dict[str, float]:
    noise = result.noise_scale.double().cpu().numpy()[result.window_size.cpu().numpy() > 0]
    # Noise of standard deviation s has the power s^2 / 4 in a tapered window.
    level = 2 * math.sqrt(_median(noise))
    snr = -math.log10(max(level, 10**-LARGEST_LOG_SNR)) if len(noise) else 0.0
    return {
        "brain_volume": float(inside.sum() * np.prod(spacing) / 1000),
        "pixel_spacing": math.sqrt(spacing[0] * spacing[1]),
        "slice_spacing": float(spacing[2]),
        "brain_slices": float(inside.any((0, 1)).sum()),
        "snr": max(snr, 0.0),
    }
