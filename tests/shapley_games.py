"""Games with known answers, and a reference that knows only the definition of the Shapley value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mhsev_monai.networks import SeverityMLP
from mhsev_monai.shapley import Game


class TabledGame:
    """Answers looked up in a table of all sets, ``(n_cases, 2**n_players, n_outputs)``; bit i is player i."""

    def __init__(self, table: Tensor) -> None:
        self.table = table.double()
        self.n_cases, self.n_players = len(table), int(math.log2(table.shape[1]))
        self.sets_at_once = 7

    def answers(self, cases: range, players: Tensor) -> Tensor:
        assert len(players) <= self.sets_at_once
        return self.table[cases.start : cases.stop, (players * 2 ** torch.arange(self.n_players)).sum(dim=1)]


def random_game(n_players: int, n_cases: int = 2, n_outputs: int = 3, seed: int = 0) -> TabledGame:
    """Answers without any structure."""
    generator = torch.Generator().manual_seed(seed)
    return TabledGame(torch.rand(n_cases, 2**n_players, n_outputs, generator=generator))


def by_all_orders(game: Game) -> Tensor:
    """``(n_cases, n_players, n_outputs)``: what each adds, mean over all orders, in plain loops."""
    found = []
    for case in range(game.n_cases):

        def answer(taking_part: tuple[int, ...], case: int = case) -> Tensor:
            marked = torch.zeros(1, game.n_players, dtype=torch.bool)
            marked[0, list(taking_part)] = True
            return game.answers(range(case, case + 1), marked)[0, 0]

        orders = list(itertools.permutations(range(game.n_players)))
        total = [torch.zeros_like(answer(())) for _ in range(game.n_players)]
        for order in orders:
            for place, player in enumerate(order):
                total[player] = total[player] + answer(order[: place + 1]) - answer(order[:place])
        found.append(torch.stack(total) / len(orders))
    return torch.stack(found)


def uneven_mlp(in_features: int, seed: int = 1, hidden: Sequence[int] = (16, 16)) -> SeverityMLP:
    """A network whose features work together, and whose clamp is felt."""
    network = SeverityMLP(in_features, hidden, 4, dropout=0.3, max_deviation=2.0, seed=seed).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.5)
        network.feature_mean.copy_(torch.linspace(-1, 1, in_features))
        network.feature_scale.copy_(torch.linspace(0.5, 1.5, in_features))
    return network


def draw(n: int, n_features: int, seed: int) -> Tensor:
    """``(n, n_features)`` normal numbers."""
    return torch.randn(n, n_features, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)
