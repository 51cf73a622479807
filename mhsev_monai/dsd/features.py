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
from typing import Any

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
from mhsev_monai.dsd.feature_table import (
    FEATURE_NAMES,
    FEATURES,
    FOCAL_THRESHOLDS,
    LARGEST_LOG_SNR,
    LEAST_LOG_ENERGY,
    SCHEMA_VERSION,
    SIZE_EDGES_MM,
    THRESHOLDS,
    FeatureSpec,
    per_cent,
)
from mhsev_monai.dsd.focal import focal_candidates
from mhsev_monai.dsd.functional import DSDResult
from mhsev_monai.dsd.parameters import DSDParameters
from mhsev_monai.dsd.spectrum import BAND_EDGES_PER_MM

__all__ = ["FEATURES", "FEATURE_NAMES", "LEAST_LOG_ENERGY", "SCHEMA_VERSION", "FeatureSpec", "dsd_features"]

SURFACE_EDGES_MM = (0.0, 5.0, 15.0, math.inf)
SOFT_DEPTH, SOFT_WIDTH = 0.12, 0.03
"""Depth at which a candidate counts half, and how fast that changes."""


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
        f"count_{per_cent(threshold)}": math.log1p(len(find_spots(depth, spacing, threshold, DIAMETER_RANGE_MM).label))
        for threshold in THRESHOLDS
    }


def _spot_values(depth: NDArray[np.float64], spacing: Sequence[float]) -> dict[str, float]:
    values: dict[str, float] = {}
    for threshold in THRESHOLDS:
        spots, at = find_spots(depth, spacing, threshold, DIAMETER_RANGE_MM), per_cent(threshold)
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
        values[f"focal_count_{per_cent(threshold)}"] = math.log1p(len(focal_candidates(candidates, image, median)))
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
