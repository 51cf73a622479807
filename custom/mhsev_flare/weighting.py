"""How much each site counts in the average: pure numbers, no FLARE.

The paper prints Weights = sum over sites of (1 / N_i) * Weights_i and explains it as "weighted by the amount of data".
The formula is the inverse of that and does not sum to 1; ``literal_weights`` exists to show what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np


def _checked(n_samples: Sequence[float]) -> np.ndarray:
    counts = np.asarray(n_samples, dtype=np.float64)
    if counts.ndim != 1 or counts.size == 0 or not np.isfinite(counts).all() or (counts <= 0).any():
        raise ValueError(f"n_samples must be one positive number per site, got {list(n_samples)}")
    return counts


def sample_weights(n_samples: Sequence[float]) -> np.ndarray:
    """N_i / sum N, the weights of federated averaging (McMahan et al. 2017, algorithm 1); they sum to 1."""
    counts = _checked(n_samples)
    return counts / counts.sum()


def uniform_weights(n_samples: Sequence[float]) -> np.ndarray:
    """1 / number of sites, whatever the sites hold."""
    counts = _checked(n_samples)
    return np.full(counts.shape, 1.0 / counts.size)


def inverse_weights(n_samples: Sequence[float]) -> np.ndarray:
    """(1 / N_i) / sum(1 / N_j): the paper's formula, divided by its sum so that the weights keep their size."""
    inverse = 1.0 / _checked(n_samples)
    return inverse / inverse.sum()


def literal_weights(n_samples: Sequence[float]) -> np.ndarray:
    """1 / N_i as the paper prints it; with 200, 180 and 120 cases they sum to 0.0189, so a model fades to nothing."""
    return 1.0 / _checked(n_samples)


def capped_cases(cases: Sequence[int], all_cases: Sequence[int], max_ratio: float) -> list[float]:
    """Numbers of cases that count: none above ``max_ratio`` times the median over all sites.

    A site tells its own number, and nobody can check it. With no number above the limit the weights are those of
    federated averaging; below the median nothing is changed.

    Args:
        cases: of the sites that are weighed.
        all_cases: of all sites of the study, whose median is the measure.
        max_ratio: 1 or more.
    """
    limit = max_ratio * float(np.median(np.asarray(all_cases, dtype=np.float64))) if len(all_cases) else np.inf
    return [min(float(n), limit) for n in cases]


WEIGHTINGS: Mapping[str, Callable[[Sequence[float]], np.ndarray]] = {
    "samples": sample_weights,
    "uniform": uniform_weights,
    "inverse": inverse_weights,
    "literal": literal_weights,
}


def weighted_mean(updates: Sequence[Mapping[str, np.ndarray]], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Sum of ``weights[i] * updates[i]`` for every key, added in the order given, in float64, returned as float32.

    Raises:
        ValueError: if there is no update, the numbers of updates and weights differ, or the keys differ.
    """
    if not updates or len(updates) != len(weights):
        raise ValueError(f"need as many weights as updates, and at least one, got {len(weights)} and {len(updates)}")
    keys = list(updates[0])
    if any(set(update) != set(keys) for update in updates):
        raise ValueError("the updates do not have the same keys")
    return {
        key: sum(w * np.asarray(u[key], dtype=np.float64) for w, u in zip(weights, updates, strict=True)).astype(
            np.float32
        )
        for key in keys
    }
