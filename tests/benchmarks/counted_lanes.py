"""Floating-point operations of the compiled kernels, counted by running their own Python code on lanes that count."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from mhsev_monai.dsd.engines import cpu, cpu_kernel, lane_eigen, lane_fft, lane_products, lane_rank
from mhsev_monai.dsd.engines.simd import HALF, LANES

MODULES = (lane_products, lane_eigen, lane_rank, lane_fft, cpu_kernel, cpu)


class Lanes:
    """Numbers that remember how many operations were done on any of them: + - * / and square roots, one each."""

    operations = 0.0
    """Over all lanes so far, for each window of a full group."""

    def __init__(self, numbers: np.ndarray) -> None:
        # A copy: what was loaded stays what it was when its place is written to.
        self.numbers = np.array(numbers, dtype=np.float32)

    def _apply(self, operation: Callable[..., Any], other: Any, *, swapped: bool = False) -> Lanes:
        pair = (self.numbers, other.numbers if isinstance(other, Lanes) else np.float32(other))
        Lanes.operations += len(self.numbers) / LANES
        with np.errstate(all="ignore"):
            return Lanes(operation(*(pair[::-1] if swapped else pair)))

    def __add__(self, other: Any) -> Lanes:
        return self._apply(operator.add, other)

    def __sub__(self, other: Any) -> Lanes:
        return self._apply(operator.sub, other)

    def __mul__(self, other: Any) -> Lanes:
        return self._apply(operator.mul, other)

    def __truediv__(self, other: Any) -> Lanes:
        return self._apply(operator.truediv, other)

    def __rsub__(self, other: Any) -> Lanes:
        return self._apply(operator.sub, other, swapped=True)

    def __rtruediv__(self, other: Any) -> Lanes:
        return self._apply(operator.truediv, other, swapped=True)

    __radd__, __rmul__ = __add__, __mul__

    def _compare(self, operation: Callable[..., Any], other: Any) -> np.ndarray:
        return operation(self.numbers, other.numbers if isinstance(other, Lanes) else np.float32(other))

    def __lt__(self, other: Any) -> np.ndarray:
        return self._compare(operator.lt, other)

    def __le__(self, other: Any) -> np.ndarray:
        return self._compare(operator.le, other)

    def __gt__(self, other: Any) -> np.ndarray:
        return self._compare(operator.gt, other)

    def __ge__(self, other: Any) -> np.ndarray:
        return self._compare(operator.ge, other)


def _numbers(value: Any) -> Any:
    return value.numbers if isinstance(value, Lanes) else np.float32(value)


def _root(value: Lanes) -> Lanes:
    Lanes.operations += len(value.numbers) / LANES
    return Lanes(np.sqrt(value.numbers))


def _store(count: int) -> Callable[[np.ndarray, int, Any], None]:
    def store(array: np.ndarray, place: int, value: Any) -> None:
        array[place * count : (place + 1) * count] = _numbers(value)

    return store


def _add_eight(array: np.ndarray, first: int, values: np.ndarray, start: int) -> None:
    Lanes.operations += 8 / LANES
    array[first : first + 8] += values[start : start + 8]


def _copy_eight(array: np.ndarray, first: int, values: np.ndarray, start: int) -> None:
    array[first : first + 8] = values[start : start + 8]


def _halves(array: np.ndarray, first: int) -> np.ndarray:
    """A view of the 8 halves ``first, first + 2, ...``, one in each line."""
    return array.reshape(-1, HALF)[first : first + 16 : 2]


def _lanes_to_lines(array: np.ndarray, first: int, lines: np.ndarray) -> None:
    lines[:] = _halves(array, first).T.ravel()


def _lines_to_lanes(array: np.ndarray, first: int, lines: np.ndarray) -> None:
    _halves(array, first)[:] = lines.reshape(HALF, 8).T


INSTRUCTIONS: dict[str, Callable[..., Any]] = {
    "load": lambda array, place: Lanes(array[place * LANES : (place + 1) * LANES]),
    "load_half": lambda array, place: Lanes(array[place * HALF : (place + 1) * HALF]),
    "store": _store(LANES),
    "store_half": _store(HALF),
    "add_eight": _add_eight,
    "copy_eight": _copy_eight,
    "lanes_to_lines": _lanes_to_lines,
    "lines_to_lanes": _lines_to_lanes,
    "splat": lambda value: Lanes(np.full(LANES, value, dtype=np.float32)),
    "where": lambda mask, chosen, other: Lanes(np.where(mask, _numbers(chosen), _numbers(other))),
    "lower_of": lambda a, b: Lanes(np.minimum(_numbers(a), _numbers(b))),
    "higher_of": lambda a, b: Lanes(np.maximum(_numbers(a), _numbers(b))),
    "root": _root,
    "magnitude": lambda value: Lanes(np.abs(value.numbers)),
    "any_lane": lambda mask: bool(np.any(mask)),
}


@contextmanager
def _uncompiled(modules: tuple[ModuleType, ...]) -> Iterator[None]:
    kept: list[tuple[ModuleType, str, Any]] = []
    try:
        for module in modules:
            for name, value in list(vars(module).items()):
                plain = INSTRUCTIONS.get(name, getattr(value, "py_func", None))
                if plain is not None:
                    kept.append((module, name, value))
                    setattr(module, name, plain)
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


def count_operations(call: Callable[[], Any]) -> tuple[float, Any]:
    """Operations of a full group, for each of its windows, and what ``call`` returns, with all kernels uncompiled.

    Scalar loops that move windows in and out of their lanes are not counted.
    """
    Lanes.operations = 0.0
    with _uncompiled(MODULES):
        result = call()
    return Lanes.operations, result
