"""Shapley values by batched permutation sampling: what each player adds to a network's answer on a case.

A game says what the answer would be if only some players took part; the Shapley value of a player is what its joining
adds, averaged over all orders in which the players could join (Shapley 1953). Orders are drawn in pairs, one and its
reverse (antithetic; Mitchell, Cooper, Frank, Holmes, JMLR 2022;23:1-46), which is exact where at most two players act
together. The drawn orders are the same for all cases, so each set of players is evaluated once a case, however many
orders pass through it; and where all sets are fewer than those, all are evaluated and the values are exact.

Values add up to the answer to rounding in double precision, whatever the number of orders: what an order's players
add telescopes from the answer with none to the answer with all, and these two are evaluated once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""From rows ``(k, n_features)`` to their outputs ``(k, n_outputs)``."""

MOST_ROWS = 4096
"""Rows that a network is given at once: with 100 features they and its hidden layers stay in the cache of a processor.
A GPU wants more."""
_CASES_TOGETHER = 64
"""Cases whose answers are held at once: 26 MB with 100 features and 5 passes."""
MOST_ENUMERATED = 16
"""Players of whom all sets can be evaluated: 65,536 of them."""


class Game(Protocol):
    """What a network would answer on a case with some players only.

    Attributes:
        n_players: the players of a case.
        n_cases: the cases.
        sets_at_once: how many sets :meth:`answers` is given in one call, so that memory is bounded.
    """

    n_players: int
    n_cases: int
    sets_at_once: int

    def answers(self, cases: range, players: Tensor) -> Tensor:
        """``(len(cases), k, n_outputs)`` float64 answers with each of the sets ``(k, n_players)`` of players."""
        ...


@dataclass(frozen=True, eq=False)
class ShapleyValues:
    """Attributions of ``n`` cases; all float64 on the CPU.

    Attributes:
        values: ``(n, n_players, n_outputs)``.
        base: ``(n, n_outputs)`` the answer without any player.
        outputs: ``(n, n_outputs)`` the answer with all; ``base`` and the sum of ``values``, to rounding.
        standard_error: ``(n, n_players, n_outputs)`` of ``values``, from the spread over pairs of orders; 0 where they
            are exact, NaN where there was one pair only.
    """

    values: Tensor
    base: Tensor
    outputs: Tensor
    standard_error: Tensor

    def additivity_error(self) -> float:
        """The largest distance of base and values from the outputs; 0 without cases."""
        gap = (self.base + self.values.sum(dim=1) - self.outputs).abs()
        return float(gap.max()) if gap.numel() else 0.0

    def summed(self, groups: Sequence[int]) -> ShapleyValues:
        """Values of groups of players: sums over their members.

        A group that plays as one has another value where members of different groups act together unevenly; the sum
        is the one that agrees with the members' own. Errors of a sum are not known from those of its parts: NaN.

        Args:
            groups: for each player the index of its group, from 0 on without gaps.
        """
        index = group_index(groups, self.values.shape[1])
        shape = (len(self.values), int(index.max()) + 1, self.values.shape[2])
        values = torch.zeros(shape, dtype=torch.float64).index_add_(1, index, self.values)
        return ShapleyValues(values, self.base, self.outputs, torch.full(shape, torch.nan, dtype=torch.float64))

    @staticmethod
    def join(parts: Sequence[ShapleyValues]) -> ShapleyValues:
        """The cases of all parts, in the order given; raises ``ValueError`` where there is no part."""
        if not parts:
            raise ValueError("there are no cases to join; explain at least one")
        names = ("values", "base", "outputs", "standard_error")
        return ShapleyValues(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def group_index(groups: Sequence[int], n_members: int) -> Tensor:
    """``groups`` as a tensor; raises ``ValueError`` unless it has one index a member, from 0 on without gaps."""
    index = torch.as_tensor(list(groups), dtype=torch.long)
    if index.shape != (n_members,) or not n_members or set(index.tolist()) != set(range(int(index.max()) + 1)):
        raise ValueError(
            f"groups must hold one index for each of {n_members} members, from 0 on without gaps; got {len(index)} "
            f"with the values {sorted(set(index.tolist()))[:20]}"
        )
    return index


class FeatureGame:
    """Features, or groups of them, as players: those that do not take part have the values of the background's rows.

    The answer is the mean over the background (interventional values; Janzing, Minorics, Bloebaum, AISTATS 2020).

    Args:
        predict: from rows to outputs, on the device of ``rows``.
        rows: ``(n, n_features)`` cases to explain.
        background: ``(m, n_features)``, on the same device; the same for all cases, and for all sites, or values
            cannot be compared.
        groups: for each feature the index of the player that it belongs to; None: each is a player.
        most_rows: rows that ``predict`` is given at once, at least; more only where the background is longer.

    Raises:
        ValueError: if the shapes do not fit each other, or a value is not finite.
    """

    def __init__(
        self,
        predict: Predict,
        rows: Tensor,
        background: Tensor,
        groups: Sequence[int] | None = None,
        most_rows: int = MOST_ROWS,
    ) -> None:
        if rows.ndim != 2 or background.ndim != 2 or rows.shape[1] != background.shape[1] or not len(background):
            raise ValueError(
                "rows must be (n, n_features) and background (m, n_features) with m at least 1, "
                f"got {tuple(rows.shape)} and {tuple(background.shape)}"
            )
        if not (rows.isfinite().all() and background.isfinite().all()):
            raise ValueError("rows and background must be finite; replace missing values as in training first")
        self._predict, self._rows, self._background = predict, rows, background
        n_features = rows.shape[1]
        self._groups = group_index(range(n_features) if groups is None else groups, n_features).to(rows.device)
        self.n_players, self.n_cases = int(self._groups.max()) + 1, len(rows)
        self.sets_at_once = max(most_rows // len(background), 1)

    def answers(self, cases: range, players: Tensor) -> Tensor:
        """See :class:`Game`."""
        kept = players.to(self._rows.device)[:, self._groups]
        found = []
        for case in cases:
            mixed = torch.where(kept[:, None], self._rows[case], self._background)
            outputs = self._predict(mixed.flatten(0, 1)).reshape(len(kept), len(self._background), -1)
            found.append(outputs.mean(dim=1, dtype=torch.float64))
        return torch.stack(found)


def permutation_shapley(
    predict: Predict,
    rows: Tensor,
    background: Tensor,
    n_passes: int,
    generator: torch.Generator,
    most_rows: int = MOST_ROWS,
) -> ShapleyValues:
    """Shapley values of single features; see :class:`FeatureGame` and :func:`sample_shapley`."""
    return sample_shapley(FeatureGame(predict, rows, background, most_rows=most_rows), n_passes, generator)


@torch.no_grad()
def sample_shapley(game: Game, n_passes: int, generator: torch.Generator) -> ShapleyValues:
    """Shapley values from drawn orders; exact where all sets of players are no more than those on the way.

    Args:
        game: what is explained.
        n_passes: pairs of an order and its reverse. With 100 features and 10 passes the values correlate by 0.993 with
            those of 100 passes, and are 12 % of their size off (docs/benchmarks/shapley.md).
        generator: on the CPU, whatever the device of the game.

    Raises:
        ValueError: if ``n_passes`` is not positive.
    """
    if n_passes < 1:
        raise ValueError(f"n_passes must be 1 or more, got {n_passes}")
    n_players = game.n_players
    if n_players <= MOST_ENUMERATED and 2**n_players <= 2 + 2 * n_passes * (n_players - 1):
        return exact_shapley(game)
    forward = torch.stack([torch.randperm(n_players, generator=generator) for _ in range(n_passes)])
    orders = torch.stack([forward, forward.flip(1)], dim=1).flatten(0, 1)
    sets, steps = _sets_on_the_way(orders)
    return ShapleyValues.join([_from_orders(answers, orders, steps) for answers in _evaluate(game, sets)])


def _sets_on_the_way(orders: Tensor) -> tuple[Tensor, Tensor]:
    """Different sets of players ``(s, n_players)``, and ``(n_orders, n_players + 1)``: which of them each step meets.

    The first set is that of nobody, the last that of everybody.
    """
    n_players = orders.shape[1]
    place = orders.argsort(dim=1)
    met = place[:, None, :] < torch.arange(n_players + 1)[None, :, None]
    sets, steps = met.flatten(0, 1).unique(dim=0, return_inverse=True)
    return sets, steps.reshape(len(orders), n_players + 1)


def _evaluate(game: Game, sets: Tensor) -> Iterator[Tensor]:
    """Case by case, ``(s, n_outputs)`` answers with each of the sets."""
    for first in range(0, game.n_cases, _CASES_TOGETHER):
        cases = range(first, min(first + _CASES_TOGETHER, game.n_cases))
        yield from torch.cat([game.answers(cases, part).cpu() for part in sets.split(game.sets_at_once)], dim=1)


def _from_orders(answers: Tensor, orders: Tensor, steps: Tensor) -> ShapleyValues:
    added = answers[steps[:, 1:]] - answers[steps[:, :-1]]
    # From the order of joining to the order of the players.
    by_player = torch.empty_like(added).scatter_(1, orders[..., None].expand_as(added), added)
    pairs = by_player.unflatten(0, (-1, 2)).mean(dim=1)
    error = pairs.std(dim=0) / len(pairs) ** 0.5 if len(pairs) > 1 else torch.full_like(pairs[0], torch.nan)
    return ShapleyValues(pairs.mean(dim=0)[None], answers[:1], answers[-1:], error[None])


@torch.no_grad()
def exact_shapley(game: Game) -> ShapleyValues:
    """Shapley values from all sets of players.

    Raises:
        ValueError: if there are more than ``MOST_ENUMERATED`` players.
    """
    n_players = game.n_players
    if n_players > MOST_ENUMERATED:
        raise ValueError(f"all sets are evaluated for up to {MOST_ENUMERATED} players, got {n_players}; draw orders")
    numbers = torch.arange(2**n_players)
    sets = (numbers[:, None] >> torch.arange(n_players)) % 2 == 1
    weights = _set_weights(n_players)[sets.sum(dim=1)]
    parts = []
    for answers in _evaluate(game, sets):
        values = []
        for player in range(n_players):
            without = numbers[~sets[:, player]]
            added = answers[without + 2**player] - answers[without]
            values.append((weights[without, None] * added).sum(dim=0))
        stacked = torch.stack(values)[None]
        parts.append(ShapleyValues(stacked, answers[:1], answers[-1:], torch.zeros_like(stacked)))
    return ShapleyValues.join(parts)


def _set_weights(n_players: int) -> Tensor:
    """Share of all orders in which a player joins just after a given set of 0 to ``n_players - 1`` others."""
    weights = [1 / (n_players * math.comb(n_players - 1, size)) for size in range(n_players)]
    # Nobody is left to join a set of all.
    return torch.tensor([*weights, 0.0], dtype=torch.float64)
