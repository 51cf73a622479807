"""What a site tells of its attributions: sums over its cases, from which a federation's follow, and no case's row.

Sums are of values rounded to 2^-30, which double precision adds without any further rounding up to sums of 2^22: sites
may come in any order, and the pooled table of disjoint cases is bit for bit that of all of them together.

A strip shows how the values of a player go with its size: cases in bins of the feature, with the mean value of each.
The edges come from the federation's moments, so that all sites have the same. A bin with few cases tells of them.
:meth:`ShapleyTable.told` takes such bins out; where their cases, which follow from the total, are few together, the
next smallest bins go with them, since the totals less what is told is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_CASES = 5
"""The fewest cases of which a bin, or a whole table, may tell."""
MOST_NAMES, MOST_LETTERS, MOST_CASES = 2000, 80, 10**7
_FINEST = 2.0**30


class Importance(NamedTuple):
    """Of one player for one output, over all cases of a table.

    Attributes:
        player: its name.
        mean_absolute: mean over cases of |value|.
        mean: mean over cases of the value.
        share: of ``mean_absolute`` among all players, 0 to 1.
        standard_error: of ``mean_absolute``, over cases.
    """

    player: str
    mean_absolute: float
    mean: float
    share: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class ShapleyTable:
    """Sums over ``n`` cases, for ``P`` players and ``O`` outputs.

    Attributes:
        players: names.
        outputs: names.
        n: number of cases.
        absolute_sum: ``(P, O)`` of |value|.
        value_sum: ``(P, O)`` of the value.
        square_sum: ``(P, O)`` of its square.
        output_sum: ``(O,)`` of the network's output.
        bin_counts: ``(P, B)`` int64 cases by bin of the player's feature. Cases of bins that are not told are missing.
        bin_sums: ``(P, B, O)`` of the value, in each bin.

    Raises:
        ValueError: if an entry has another shape or type, or entries contradict each other.
    """

    players: tuple[str, ...]
    outputs: tuple[str, ...]
    n: int
    absolute_sum: NDArray[np.float64]
    value_sum: NDArray[np.float64]
    square_sum: NDArray[np.float64]
    output_sum: NDArray[np.float64]
    bin_counts: NDArray[np.int64]
    bin_sums: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("players", "outputs"):
            object.__setattr__(self, name, _names(getattr(self, name), name))
        if isinstance(self.n, bool) or not isinstance(self.n, int | np.integer) or not 0 <= self.n <= MOST_CASES:
            raise ValueError(f"n must be a whole number from 0 to {MOST_CASES}, got {self.n!r}")
        object.__setattr__(self, "n", int(self.n))
        counts = _array(self.bin_counts, "bin_counts", (len(self.players), None))
        object.__setattr__(self, "bin_counts", _whole(counts))
        shape = (len(self.players), len(self.outputs))
        for name in ("absolute_sum", "value_sum", "square_sum"):
            object.__setattr__(self, name, _array(getattr(self, name), name, shape))
        object.__setattr__(self, "output_sum", _array(self.output_sum, "output_sum", shape[1:]))
        binned = (shape[0], counts.shape[1], shape[1])
        object.__setattr__(self, "bin_sums", _array(self.bin_sums, "bin_sums", binned))
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        # Of rounding to 2^-30, and of the order of additions in sums that are too large to be exact.
        margin = 1e-6 * (1.0 + self.n + self.square_sum)
        if (np.abs(self.value_sum) > self.absolute_sum + margin).any() or (self.absolute_sum < 0).any():
            raise ValueError("absolute_sum must be at least the size of value_sum")
        if (self.absolute_sum**2 > self.n * self.square_sum + margin * (1.0 + self.n)).any():
            raise ValueError("square_sum must be at least absolute_sum squared over n")
        if self.n == 0 and (self.square_sum.any() or self.output_sum.any()):
            raise ValueError("sums must be 0 where there is no case")
        if (self.bin_counts.sum(axis=1) > self.n).any():
            raise ValueError(f"bins must hold no more than the n = {self.n} cases")
        if self.bin_sums[self.bin_counts == 0].any():
            raise ValueError("bin_sums must be 0 where a bin has no case")
        if (np.abs(self.bin_sums).sum(axis=1) > self.absolute_sum + margin).any():
            raise ValueError("bin_sums must be no larger together than absolute_sum")

    @staticmethod
    def of(
        names: tuple[Sequence[str], Sequence[str]],
        values: ArrayLike,
        outputs: ArrayLike,
        sizes: ArrayLike,
        edges: ArrayLike,
    ) -> ShapleyTable:
        """The table of some cases, with all bins; :meth:`told` is what may leave.

        Args:
            names: of the players, and of the outputs.
            values: ``(n, P, O)`` Shapley values.
            outputs: ``(n, O)`` the network's outputs.
            sizes: ``(n, P)`` what the strip of each player is drawn over; NaN where a case has none.
            edges: ``(P, B - 1)`` rising, from :func:`quantile_edges`.

        Raises:
            ValueError: if the shapes do not fit each other, or a value is not finite.
        """
        n_players, n_outputs = len(names[0]), len(names[1])
        given = np.asarray(values, dtype=np.float64)
        n = len(given)
        given = _array(given, "values", (n, n_players, n_outputs))
        sizes, cuts = np.asarray(sizes, dtype=np.float64), np.asarray(edges, dtype=np.float64)
        if sizes.shape != (n, n_players) or cuts.ndim != 2 or len(cuts) != n_players:
            raise ValueError(
                f"sizes must be ({n}, {n_players}) and edges ({n_players}, B - 1), got {sizes.shape} and {cuts.shape}"
            )
        exact = _rounded(given)
        n_bins = cuts.shape[1] + 1
        counts, sums = np.zeros((n_players, n_bins), np.int64), np.zeros((n_players, n_bins, n_outputs))
        for player in range(n_players):
            known = np.isfinite(sizes[:, player])
            index = np.searchsorted(cuts[player], sizes[known, player], side="right")
            np.add.at(counts[player], index, 1)
            np.add.at(sums[player], index, exact[known, player])
        return ShapleyTable(
            players=tuple(names[0]),
            outputs=tuple(names[1]),
            n=n,
            absolute_sum=np.abs(exact).sum(axis=0),
            value_sum=exact.sum(axis=0),
            square_sum=_rounded(exact**2).sum(axis=0),
            output_sum=_rounded(_array(outputs, "outputs", (n, n_outputs))).sum(axis=0),
            bin_counts=counts,
            bin_sums=sums,
        )

    def __add__(self, other: ShapleyTable) -> ShapleyTable:
        """The table of the cases of both.

        Raises:
            ValueError: if they have other players, outputs or numbers of bins.
        """
        if not isinstance(other, ShapleyTable):
            return NotImplemented
        same = (self.players, self.outputs, self.bin_counts.shape) == (
            other.players,
            other.outputs,
            other.bin_counts.shape,
        )
        if not same:
            raise ValueError("tables to be added need the same players, outputs and number of bins")
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)[2:]}
        return ShapleyTable(self.players, self.outputs, **sums)

    def told(self, least: int = LEAST_CASES) -> ShapleyTable:
        """The table without bins that tell of few cases: what may leave a site.

        Args:
            least: cases that a bin needs to be told, and that those not told need to be together.

        Raises:
            ValueError: if the table has fewer cases than ``least``, or ``least`` is below 2.
        """
        if least < 2:
            raise ValueError(f"least must be 2 or more, or a bin tells of one case; got {least}")
        if self.n < least:
            raise ValueError(f"attributions of fewer than {least} cases are not told; more cases have to be explained")
        counts, sums = self.bin_counts.copy(), self.bin_sums.copy()
        for player, row in enumerate(counts):
            hidden = _hidden(row, self.n, least)
            row[hidden] = 0
            sums[player, hidden] = 0.0
        return replace(self, bin_counts=counts, bin_sums=sums)

    def importance(self, output: str) -> list[Importance]:
        """Players by the mean size of their values for one output, the largest first.

        Raises:
            ValueError: if there is no such output, or no case.
        """
        if output not in self.outputs or self.n == 0:
            raise ValueError(f"importance needs a case and one of the outputs {list(self.outputs)}, got {output!r}")
        column = self.outputs.index(output)
        size, mean = self.absolute_sum[:, column] / self.n, self.value_sum[:, column] / self.n
        spread = np.sqrt(np.maximum(self.square_sum[:, column] / self.n - size**2, 0.0) / self.n)
        total = size.sum() or 1.0
        rows = zip(self.players, size.tolist(), mean.tolist(), (size / total).tolist(), spread.tolist(), strict=True)
        return sorted((Importance(*row) for row in rows), key=lambda row: -row.mean_absolute)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, one entry for each attribute."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {k: v.tolist() if isinstance(v, np.ndarray) else list(v) if k != "n" else v for k, v in values}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ShapleyTable:
        """The table that ``to_json`` wrote.

        Raises:
            ValueError: if it is no mapping, an entry is missing, unknown or malformed.
        """
        names = {f.name for f in fields(ShapleyTable)}
        if not isinstance(value, Mapping) or set(value) != names:
            raise ValueError(f"a table of attributions must be a mapping with exactly the entries {sorted(names)}")
        return ShapleyTable(**value)


def quantile_edges(mean: ArrayLike, scale: ArrayLike, n_bins: int) -> NDArray[np.float64]:
    """``(P, n_bins - 1)`` inner edges of bins that would be equally filled if the features were normal.

    Args:
        mean: ``(P,)`` over the federation.
        scale: ``(P,)`` standard deviations, likewise.
        n_bins: 2 or more.

    Raises:
        ValueError: if there are fewer than two bins.
    """
    if n_bins < 2:
        raise ValueError(f"n_bins must be 2 or more, got {n_bins}")
    cuts = np.array([NormalDist().inv_cdf(k / n_bins) for k in range(1, n_bins)])
    return np.asarray(mean, dtype=np.float64)[:, None] + np.asarray(scale, dtype=np.float64)[:, None] * cuts


def _hidden(counts: NDArray[np.int64], n: int, least: int) -> NDArray[np.bool_]:
    """Bins of one strip that are not told; cases that are in no bin are not told either."""
    hidden = (counts > 0) & (counts < least)
    untold = int(n - counts[~hidden].sum())
    for index in np.argsort(counts, kind="stable"):
        if not 0 < untold < least:
            break
        if counts[index] > 0 and not hidden[index]:
            hidden[index] = True
            untold += int(counts[index])
    return hidden


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.round(values * _FINEST) / _FINEST


def _names(value: Any, name: str) -> tuple[str, ...]:
    fits = isinstance(value, list | tuple) and 0 < len(value) <= MOST_NAMES
    if not fits or not all(isinstance(v, str) and 0 < len(v) <= MOST_LETTERS and v.isprintable() for v in value):
        raise ValueError(f"{name} must be 1 to {MOST_NAMES} names of up to {MOST_LETTERS} printable letters")
    if len(set(value)) != len(value):
        raise ValueError(f"{name} must be different from each other")
    return tuple(value)


def _array(value: Any, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """A read-only float64 copy in ``shape``, where None stands for any length but 0."""
    try:
        array = np.array(value)
    except ValueError:
        raise ValueError(f"{name} must be an array, got rows of unequal length") from None
    fits = array.ndim == len(shape) and all(
        got > 0 if want is None else got == want for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers of the shape {shape}, got {array.shape}")
    array = array.astype(np.float64)
    array.flags.writeable = False
    return array


def _whole(counts: NDArray[np.float64]) -> NDArray[np.int64]:
    if (counts < 0).any() or (counts != np.floor(counts)).any() or counts.max() > MOST_CASES:
        raise ValueError(f"bin_counts must be whole numbers from 0 to {MOST_CASES}")
    whole = counts.astype(np.int64)
    whole.flags.writeable = False
    return whole
