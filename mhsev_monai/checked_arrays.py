"""Numbers that came from elsewhere, checked once: shapes, types and ranges of what sites send."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CASES = 10**7
"""The largest number of cases that is accepted: squares of counts stay far inside 64 bits."""


def whole_numbers(value: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """A read-only copy of counts from 0 to ``MOST_CASES``.

    Raises:
        ValueError: if the shape differs, a value is no whole number, or one is out of range.
    """
    array = _array(value, name, shape)
    if array.dtype.kind not in "iu" or (array.size > 0 and (array.min() < 0 or array.max() > MOST_CASES)):
        raise ValueError(f"{name} must hold whole numbers from 0 to {MOST_CASES}")
    return _read_only(array.astype(np.int64))


def finite_numbers(value: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A read-only copy of finite numbers.

    Raises:
        ValueError: if the shape differs or a value is not a finite number.
    """
    array = _array(value, name, shape)
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers")
    return _read_only(array.astype(np.float64))


def check_entries(value: Any, names: Collection[str], what: str) -> None:
    """Refuse what is no mapping with exactly these entries.

    Raises:
        ValueError: which entries are missing or unknown.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a mapping with the entries {sorted(names)}, got {type(value).__name__}")
    if set(value) != set(names):
        missing, unknown = sorted(set(names) - set(value)), sorted(str(key) for key in set(value) - set(names))
        raise ValueError(f"{what} has exactly the entries {sorted(names)}; missing {missing}, unknown {unknown}")


def class_probabilities(value: Any) -> NDArray[np.float64]:
    """``(n, K)`` probabilities whose rows are made to sum to exactly 1.

    Raises:
        ValueError: if the shape differs, a value is below 0, or a row's sum is not near 1.
    """
    scores = np.asarray(value, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"probabilities must be (n, K) of two or more grades, got {scores.shape}")
    # 1e-3: half-precision networks do not sum to 1 any better.
    if not (np.isfinite(scores).all() and (np.abs(scores.sum(axis=1) - 1) <= 1e-3).all() and (scores >= -1e-6).all()):
        raise ValueError("probabilities must be 0 or more, and each row must sum to 1")
    scores = np.clip(scores, 0.0, None)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def class_indices(value: Any, name: str, n: int | None, n_classes: int) -> NDArray[np.int64]:
    """``(n,)`` grades or categories from 0 to ``n_classes - 1``; any number of them where ``n`` is None.

    Raises:
        ValueError: if the shape differs or a value is out of range.
    """
    indices = np.asarray(value)
    if indices.size == 0 and indices.ndim == 1:
        indices = indices.astype(np.int64)
    good = indices.ndim == 1 and n in (None, indices.size) and indices.dtype.kind in "iu"
    if not good or (indices.size > 0 and (indices.min() < 0 or indices.max() >= n_classes)):
        wanted = "n" if n is None else n
        raise ValueError(f"{name} must be ({wanted},) whole numbers from 0 to {n_classes - 1}, one a case")
    return indices.astype(np.int64)


def _array(value: Any, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = np.array(value)
    except ValueError:
        raise ValueError(f"{name} must have the shape {shape}, got rows of unequal length") from None
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {array.shape}")
    return array


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
