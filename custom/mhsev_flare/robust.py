"""What the server makes of updates when some of them may be wrong: pure numbers, no FLARE.

``matrix`` is always ``(n, d)`` float64, one flattened update a site, sites in sorted order. Entries and their squares
are finite, as for any float32; whoever calls has refused the rest. ``weights`` are ``(n,)``, and ``f`` is how many of
the sites may send anything at all. ``ValueError`` if the weights are not one number from 0 up for each row, or all 0,
and if ``f`` is negative or too much for ``n``. No input is changed; memory stays within a few copies of ``matrix``.

No rule can tell a liar from an honest site unlike the others. A robust one promises only that ``f`` sites cannot
move the result arbitrarily far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NORM_LIMIT = 2.0
"""Median norms that an update may be long before ``clip`` shortens it."""

_N_COLUMNS = 4096
"""Columns taken at a time to compare all pairs of rows: few enough that a hundred rows stay in the cache."""


@dataclass(frozen=True)
class Layout:
    """Where each array of an update lies in its flattened vector: one after another, by sorted key."""

    keys: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


def flatten(updates: Sequence[Mapping[str, np.ndarray]]) -> tuple[np.ndarray, Layout]:
    """``(n, d)`` float64 with each update's arrays by sorted key in a row, and the layout by which to undo it.

    Raises:
        ValueError: if there is no update, or one has other keys or shapes than the first.
    """
    if not updates or not updates[0]:
        raise ValueError("need at least one update with at least one array, got none")
    keys = tuple(sorted(updates[0]))
    layout = Layout(keys, tuple(np.shape(updates[0][key]) for key in keys))
    rows = []
    for i, update in enumerate(updates):
        if set(update) != set(keys):
            differing = sorted(set(update) ^ set(keys))
            raise ValueError(f"update {i} does not have the same keys as update 0; they differ in {differing}")
        for key, shape in zip(keys, layout.shapes, strict=True):
            if (got := np.shape(update[key])) != shape:
                raise ValueError(f"{key} of update {i} must have shape {shape} as in update 0, got {got}")
        rows.append(np.concatenate([np.ravel(update[key]) for key in keys], dtype=np.float64))
    return np.stack(rows), layout


def unflatten(vector: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """Cut a ``(d,)`` vector into the float32 arrays of ``layout``.

    Raises:
        ValueError: if the vector does not have the layout's length.
    """
    *stops, size = np.cumsum([math.prod(shape) for shape in layout.shapes])
    if vector.shape != (size,):
        raise ValueError(f"the layout asks for a vector of shape ({size},), got {vector.shape}")
    arrays = zip(layout.keys, layout.shapes, np.split(vector, stops), strict=True)
    return {key: array.reshape(shape).astype(np.float32) for key, shape, array in arrays}


def _checked_weights(matrix: np.ndarray, weights: np.ndarray) -> np.ndarray:
    numbers = np.asarray(weights, dtype=np.float64)
    if numbers.shape != (len(matrix),) or not (np.isfinite(numbers) & (numbers >= 0)).all() or not numbers.any():
        raise ValueError(f"weights must be {len(matrix)} numbers from 0 up, not all 0, got {numbers.tolist()}")
    return numbers


def weighted_mean(matrix: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of ``weights[i] * matrix[i]``; weights that do not sum to 1 are not made to.

    Rows are added one by one, as ``weighting.weighted_mean`` does, so that both give the same bits.
    """
    total = np.zeros(matrix.shape[1])
    for weight, row in zip(_checked_weights(matrix, weights), matrix, strict=True):
        total += weight * row
    return total


def coordinate_median(matrix: np.ndarray) -> np.ndarray:
    """``(d,)`` median of each column; between the two middle values when ``n`` is even (Yin et al. 2018)."""
    return np.median(matrix, axis=0)


def _check_rows(purpose: str, f: int, n: int, least: int) -> None:
    if f < 0 or n < least:
        raise ValueError(f"{purpose} needs f >= 0 and, for this f, {least} rows or more, got f = {f} and {n} rows")


def trimmed_mean(matrix: np.ndarray, f: int) -> np.ndarray:
    """``(d,)`` mean of each column without its ``f`` largest and ``f`` smallest (Yin et al. 2018); ``2 f < n``."""
    n = len(matrix)
    _check_rows("trimming", f, n, 2 * f + 1)
    return np.sort(matrix, axis=0)[f : n - f].mean(axis=0)


def geometric_median(
    matrix: np.ndarray, weights: np.ndarray, tolerance: float = 1e-12, n_steps: int = 20_000
) -> np.ndarray:
    """Point with the least weighted sum of distances to the rows, the aggregate of RFA (Pillutla et al. 2022).

    Liars cannot drag it away while they hold less than half of the *weight*: whoever trusts the sites' own counts must
    cap them first. Only ratios of the weights matter. RFA smooths the distance near a row, at a length to be chosen; we
    test the rows first, as Vardi and Zhang (2000) do, so that a row that is the minimum is returned as it is, and rows
    that tie, as on a line, are averaged. Else Weiszfeld's steps lead on from the row with the least sum, until one is
    shorter than ``tolerance`` times the harmonic mean distance, or for ``n_steps``. Each lowers the sum: where they run
    out, which takes a minimum very close to a row, the point reached is returned, and betters every single row.
    """
    shares = _checked_weights(matrix, weights)
    shares = shares / shares.sum()
    distances = np.sqrt(_squared_distances(matrix))
    held = (distances == 0) @ shares
    pulls = _pulls_on_rows(matrix, shares, distances)
    if (at_rest := pulls <= held + 1e-12).any():
        rows = matrix[at_rest]
        return rows[0] + (rows - rows[0]).mean(axis=0)
    start = np.argmin(distances @ shares)
    offsets = matrix - matrix[start]
    # Every step ends at a mean of the rows, so it is enough to know its coefficients and the rows' inner products.
    products = offsets @ offsets.T
    inverse = np.divide(shares, distances[start], out=np.zeros_like(shares), where=distances[start] > 0)
    mixture = inverse / inverse.sum() * (1 - held[start] / pulls[start])
    for _ in range(n_steps):
        squared = np.diag(products) - 2 * products @ mixture + mixture @ products @ mixture
        inverse = shares / np.sqrt(np.maximum(squared, np.finfo(np.float64).tiny))
        previous, mixture = mixture, inverse / inverse.sum()
        if np.abs(mixture - previous) @ distances[start] * inverse.sum() <= tolerance:
            break
    return matrix[start] + mixture @ offsets


def _pulls_on_rows(matrix: np.ndarray, shares: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """``(n,)`` length of the sum of unit vectors from each row to the others, weighted by their shares."""
    inverse = np.divide(shares, distances, out=np.zeros_like(distances), where=distances > 0)
    squared = np.zeros(len(matrix))
    for block in _blocks(matrix):
        for i, row in enumerate(block):
            pull = inverse[i] @ (block - row)
            squared[i] += pull @ pull
    return np.sqrt(squared)


def _blocks(matrix: np.ndarray) -> Iterator[np.ndarray]:
    return (matrix[:, start : start + _N_COLUMNS] for start in range(0, matrix.shape[1], _N_COLUMNS))


def _squared_distances(matrix: np.ndarray) -> np.ndarray:
    """``(n, n)`` from the differences: norms and inner products would cancel for updates that nearly agree."""
    squared = np.zeros((len(matrix), len(matrix)))
    for block in _blocks(matrix):
        for i, row in enumerate(block[:-1]):
            difference = block[i + 1 :] - row
            squared[i, i + 1 :] += np.einsum("ij,ij->i", difference, difference)
    return squared + squared.T


def krum_scores(matrix: np.ndarray, f: int) -> np.ndarray:
    """``(n,)`` sum of squared distances to the ``n - f - 2`` nearest others, at least one (Blanchard et al. 2017)."""
    n = len(matrix)
    _check_rows("a Krum score", f, n, f + 3)
    squared = _squared_distances(matrix)
    np.fill_diagonal(squared, np.inf)
    return np.sort(squared, axis=1)[:, : n - f - 2].sum(axis=1)


def multi_krum(matrix: np.ndarray, f: int) -> np.ndarray:
    """``(d,)`` mean of the ``n - f`` rows with the lowest Krum scores; of equal scores the earlier row wins."""
    order = np.argsort(krum_scores(matrix, f), kind="stable")
    return matrix[np.sort(order[: len(matrix) - f])].mean(axis=0)


def nearest_neighbour_mixing(matrix: np.ndarray, f: int) -> np.ndarray:
    """``(n, d)``, each row replaced by the mean of its ``n - f`` nearest rows, itself included (Allouah et al. 2023).

    Of rows equally near, the earlier is taken.
    """
    n = len(matrix)
    _check_rows("mixing", f, n, f + 1)
    nearest = np.argsort(_squared_distances(matrix), axis=1, kind="stable")[:, : n - f]
    chosen = np.zeros((n, n))
    np.put_along_axis(chosen, nearest, 1.0, axis=1)
    mixed = chosen @ matrix
    mixed /= n - f
    return mixed


def norm_ratios(matrix: np.ndarray) -> np.ndarray:
    """``(n,)`` L2 norm of each row over the median norm; if the median is 0, 1 for a zero row and inf for any other."""
    # Row by row: norm(axis=1) would square a copy of the whole matrix.
    norms = np.array([np.linalg.norm(row) for row in matrix])
    middle = np.median(norms)
    return norms / middle if middle > 0 else np.where(norms == 0, 1.0, np.inf)


def clip_to_median_norm(matrix: np.ndarray, limit: float) -> np.ndarray:
    """``(n, d)``, rows longer than ``limit`` median norms shortened to the median norm, the others bit for bit as sent.

    They are cut to the median and not to the limit: a site found out gains nothing by being too long. If the median
    norm is 0, every row becomes 0. Of two rows neither exceeds twice their median, which is the mean of both norms.
    ``ValueError`` if ``limit`` is less than 1.
    """
    if not limit >= 1:
        raise ValueError(f"limit must be 1 or more median norms, got {limit}")
    ratios = norm_ratios(matrix)
    long = ratios > limit
    clipped = matrix.copy()
    clipped[long] /= ratios[long, None]
    return clipped


def cosines_to_median(matrix: np.ndarray) -> np.ndarray:
    """``(n,)`` cosine of each row to the coordinate median, from -1 to 1; nan where either of them is zero."""
    median = coordinate_median(matrix)
    norms = np.linalg.norm(median) * np.array([np.linalg.norm(row) for row in matrix])
    with np.errstate(invalid="ignore"):
        return np.clip(matrix @ median / norms, -1.0, 1.0)


def pairwise_cosines(matrix: np.ndarray) -> np.ndarray:
    """``(n, n)`` cosines between the rows, from -1 to 1; nan in the row and the column of a zero row."""
    products = matrix @ matrix.T
    norms = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore"):
        return np.clip(products / norms / norms[:, None], -1.0, 1.0)


def opposing(matrix: np.ndarray, threshold: float) -> np.ndarray:
    """``(n,)`` bool, True for a row whose cosine to more than half of the other rows is below ``-threshold``.

    If one of three sites flips its sign, an honest row opposes only the liar, and the liar opposes both. Cosines to the
    median or to the mean of the others cannot tell: for (1, 0), (0, 1) and the flipped (-1, -1) the median is zero, and
    each of the three has cosine -1 to the mean of the other two. A zero row opposes none. False for all if ``n < 3``;
    if half of the sites flip, all may oppose, since nothing says which half is honest. ``ValueError`` if ``threshold``
    is outside [0, 1).
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), got {threshold}")
    n_opposed = (pairwise_cosines(matrix) < -threshold).sum(axis=1)
    return (2 * n_opposed > len(matrix) - 1) & (len(matrix) >= 3)


@dataclass(frozen=True)
class Rule:
    """A way to make one update of many.

    ``combine`` takes updates, weights and ``f``, and returns ``(d,)``; ``least_sites`` is the fewest sites with which
    it bears ``f`` liars. ``uses_weights`` is False if every site counts the same.
    """

    name: str
    least_sites: Callable[[int], int]
    combine: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
    uses_weights: bool
    source: str


def _majority(f: int) -> int:
    return 2 * f + 1


_NNM, _CLIP = "Allouah et al. 2023", "the norm bound of Sun et al. 2019, set at the median norm"
_RULES = (
    Rule("mean", lambda f: 1, lambda m, w, f: weighted_mean(m, w), True, "McMahan et al. 2017"),
    Rule("clip", lambda f: 1, lambda m, w, f: weighted_mean(clip_to_median_norm(m, NORM_LIMIT), w), True, _CLIP),
    Rule("median", _majority, lambda m, w, f: coordinate_median(m), False, "Yin et al. 2018"),
    Rule("trimmed_mean", _majority, lambda m, w, f: trimmed_mean(m, f), False, "Yin et al. 2018"),
    Rule("geometric_median", _majority, lambda m, w, f: geometric_median(m, w), True, "Pillutla et al. 2022"),
    Rule("multi_krum", lambda f: 2 * f + 3, lambda m, w, f: multi_krum(m, f), False, "Blanchard et al. 2017"),
    Rule("nnm_median", _majority, lambda m, w, f: coordinate_median(nearest_neighbour_mixing(m, f)), False, _NNM),
    Rule("nnm_trimmed_mean", _majority, lambda m, w, f: trimmed_mean(nearest_neighbour_mixing(m, f), f), False, _NNM),
)
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _RULES}
"""``mean`` and ``clip`` take any ``f`` and promise nothing about liars."""


def check_tolerance(rule: str, n: int, f: int) -> None:
    """Refuse a rule that cannot bear ``f`` liars among ``n`` sites.

    Raises:
        ValueError: if there is no such rule, ``f`` is negative, or the rule needs more than ``n`` sites.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r} (for n = {n} sites and f = {f} liars)")
    if f < 0:
        raise ValueError(f"rule {rule} with n = {n} sites takes f from 0 up, got f = {f}; 0 if no liar is to be borne")
    if n < (least := RULES[rule].least_sites(f)):
        others = ", ".join(name for name, other in RULES.items() if other.least_sites(f) <= n)
        raise ValueError(
            f"rule {rule} with f = {f} liars needs n = {least} sites or more, got n = {n}; "
            f"add sites, lower f, or take a rule that accepts this n and f: {others}"
        )
