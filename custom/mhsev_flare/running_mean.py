"""A weighted mean that keeps nothing but its sum, whatever the order in which updates arrive. No FLARE."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class RunningMean:
    """Sums of weighted updates, reduced as they arrive: memory for three models, however many sites there are.

    Sums of floating-point numbers depend on their order. Each sum therefore carries the digits that it lost
    (Neumaier 1974), in twice the digits of a double: where updates do not cancel each other to 1e-16 and
    below, the mean rounds to the same float32 numbers for every order of arrival, and lies within one rounding of the
    exact one.
    """

    def __init__(self) -> None:
        self.n_updates = 0
        self._sums: dict[str, np.ndarray] = {}
        self._lost: dict[str, np.ndarray] = {}

    def add(self, update: Mapping[str, np.ndarray], weight: float) -> None:
        """Add ``weight * update``.

        Raises:
            ValueError: if the keys differ from those of the updates before.
        """
        if self._sums and set(update) != set(self._sums):
            raise ValueError("the updates do not have the same keys")
        for key, value in update.items():
            term = float(weight) * np.asarray(value, dtype=np.float64)
            if key not in self._sums:
                self._sums[key], self._lost[key] = np.zeros_like(term), np.zeros_like(term)
            total = self._sums[key] + term
            larger = np.abs(self._sums[key]) >= np.abs(term)
            self._lost[key] += np.where(larger, (self._sums[key] - total) + term, (term - total) + self._sums[key])
            self._sums[key] = total
        self.n_updates += 1

    def result(self, divisor: float) -> dict[str, np.ndarray]:
        """The sum divided by ``divisor``, as float32.

        Raises:
            ValueError: if nothing was added.
        """
        if not self._sums:
            raise ValueError("the mean of no update is not defined")
        return {key: ((self._sums[key] + self._lost[key]) / divisor).astype(np.float32) for key in self._sums}
