"""FedProx and SCAFFOLD at a site: against algorithm 1 in plain numbers, and by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mhsev_flare.control_variates import added_controls, control_arrays, zero_controls
from mhsev_flare.site_optimisers import ScaffoldRound, fedprox_penalty
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures, TrainingHooks, TrainingParameters, train_severity

PARAMETERS = TrainingParameters(epochs=3, learning_rate=1e-2, weight_decay=0.0, batch_size=10, count_weight=1.0)
N_STEPS = 9  # three passes over 24 cases, ten a step


def mlp(dropout: float = 0.0) -> SeverityMLP:
    return SeverityMLP(3, [8], 4, dropout=dropout, max_deviation=8.0, seed=3)


def cases(seed: int = 0) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    counts = torch.tensor(rng.integers(0, 20, 24), dtype=torch.float32)
    return LabelledFeatures(torch.log1p(counts)[:, None] + torch.tensor(rng.normal(size=(24, 3))).float(), counts)


def trained(network: nn.Module, hooks: TrainingHooks | None = None) -> nn.Module:
    changed = copy.deepcopy(network)
    assert train_severity(changed, cases(), PAPER_SCALE, PARAMETERS, seed=5, hooks=hooks) == N_STEPS
    return changed


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    return {key: value.detach().numpy().copy() for key, value in network.named_parameters()}


def distance(one: nn.Module, other: nn.Module) -> float:
    first, second = arrays(one), arrays(other)
    return float(np.sqrt(sum(((first[key] - second[key]) ** 2).sum() for key in first)))


def controls_of(network: nn.Module, value: float = 0.0) -> dict[str, np.ndarray]:
    return {key: np.full_like(array, value) for key, array in arrays(network).items()}


class Point(nn.Module):
    """A network that is one number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.y = nn.Parameter(torch.tensor([value], dtype=torch.float64))


def test_the_penalty_is_half_mu_times_the_squared_distance():
    network = nn.Linear(2, 1)
    penalty = fedprox_penalty(network, 0.5)
    assert penalty(network).item() == 0.0
    with torch.no_grad():
        network.weight += torch.tensor([[3.0, -1.0]])
        network.bias += 2.0
    # 0.5 / 2 * (9 + 1 + 4); 1e-5: float32 sums of numbers of about 1, cancelled down from the weights.
    assert penalty(network).item() == pytest.approx(3.5, rel=1e-5)
    penalty(network).backward()
    np.testing.assert_allclose(network.weight.grad, [[1.5, -0.5]], rtol=1e-5)
    np.testing.assert_allclose(network.bias.grad, [1.0], rtol=1e-5)


def test_the_penalty_is_about_what_training_changes():
    network = mlp()
    penalty = fedprox_penalty(network, 1.0)
    network.feature_mean += 100.0
    assert penalty(network).item() == 0.0


@pytest.mark.parametrize("mu", [None, 0, 0.0])
def test_no_weight_is_no_penalty(mu):
    assert fedprox_penalty(mlp(), mu) is None


def test_the_more_it_weighs_the_nearer_training_stays_to_the_start():
    start = mlp()
    distances = [
        distance(trained(start, TrainingHooks(penalty=fedprox_penalty(start, mu))), start)
        for mu in (0.0, 0.1, 1.0, 10.0, 100.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.8 * distances[0]


Site = tuple[float, float]
"""Curvature a and target t of the loss a / 2 * (y - t)^2."""

SITES: list[Site] = [(1.0, -1.0), (5.0, 2.0), (2.0, 0.5)]
OPTIMUM = sum(a * t for a, t in SITES) / sum(a for a, _ in SITES)
RATE, STEPS = 0.05, 10


def reference_scaffold(sites: list[Site], n_rounds: int, joins: Callable[[int, int], bool]) -> list[float]:
    """Algorithm 1 of Karimireddy et al. (2020), option II, global step 1, in plain numbers: x after each round."""
    x, c, own, found = 0.0, 0.0, [0.0] * len(sites), []
    for round_number in range(n_rounds):
        moves, changes = [], []
        for i, (a, t) in enumerate(sites):
            if not joins(round_number, i):
                continue
            y = x
            for _ in range(STEPS):
                y = y - RATE * (a * (y - t) - own[i] + c)
            new = own[i] - c + (x - y) / (STEPS * RATE)
            moves.append(y - x)
            changes.append(new - own[i])
            own[i] = new
        x += sum(moves) / len(moves)
        c += sum(changes) / len(sites)
        found.append(x)
    return found


def scaffold(sites: list[Site], n_rounds: int, joins: Callable[[int, int], bool], folder: Path) -> list[float]:
    """The same by ``ScaffoldRound`` and ``added_controls``."""
    x, found = 0.0, []
    extra = zero_controls({"y": np.zeros(1)})
    for round_number in range(n_rounds):
        ends, deltas = [], []
        for i, (a, t) in enumerate(sites):
            if not joins(round_number, i):
                continue
            network = Point(x)
            optimiser = torch.optim.SGD(network.parameters(), lr=RATE)
            site = ScaffoldRound(network, control_arrays(extra), RATE, folder / f"site-{i}.npz")
            for _ in range(STEPS):
                optimiser.zero_grad()
                (a / 2 * (network.y - t) ** 2).sum().backward()
                optimiser.step()
                site.after_step(network)
            deltas.append(site.finish(network))
            ends.append(network.y.item())
        x = sum(ends) / len(ends)
        extra = added_controls(extra, deltas, len(sites))
        found.append(x)
    return found


def everyone(round_number: int, site: int) -> bool:
    return True


def all_but_one_in_turn(round_number: int, site: int) -> bool:
    return round_number % len(SITES) != site


@pytest.mark.parametrize("joins", [everyone, all_but_one_in_turn])
def test_rounds_are_those_of_the_papers_algorithm(joins, tmp_path):
    expected = reference_scaffold(SITES, 12, joins)
    # 1e-5: variates travel as float32, 6e-8 of some 5, through twelve rounds of ten steps.
    np.testing.assert_allclose(scaffold(SITES, 12, joins, tmp_path), expected, atol=1e-5)


def test_sites_unlike_each_other_arrive_at_the_optimum_of_all(tmp_path):
    """Without variates each drifts towards its own: the fixed point of ten local steps is another."""
    pulls = [1 - (1 - RATE * a) ** STEPS for a, _ in SITES]
    drifted = sum(p * t for p, (_, t) in zip(pulls, SITES, strict=True)) / sum(pulls)
    assert abs(drifted - OPTIMUM) > 0.1
    assert scaffold(SITES, 60, everyone, tmp_path)[-1] == pytest.approx(OPTIMUM, abs=1e-4)  # variates are float32


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_first_round_trains_as_if_there_were_no_variates(dropout, tmp_path):
    start = mlp(dropout)
    expected = arrays(trained(start))
    site = ScaffoldRound(start, controls_of(start), PARAMETERS.learning_rate, tmp_path / "controls.npz")
    end = trained(start, TrainingHooks(after_step=site.after_step))
    assert all(np.array_equal(array, expected[key]) for key, array in arrays(end).items())
    delta = site.finish(end)
    assert set(delta) == set(expected)
    for key, array in arrays(start).items():
        step = (array - expected[key]) / (N_STEPS * PARAMETERS.learning_rate)
        np.testing.assert_allclose(delta[key], step, rtol=1e-5, atol=1e-6, err_msg=key)  # float32 quotients of about 1
        assert delta[key].dtype == np.float32
        assert np.abs(delta[key]).max() > 0.01


def test_the_second_round_begins_with_what_the_first_one_kept(tmp_path):
    """Two steps that only correct: y moves by -2 * 0.1 * (c - c_i), and c_i becomes 0, so its change is -c_i."""
    file, start = tmp_path / "run" / "controls.npz", Point(1.0)
    first = ScaffoldRound(start, {"y": np.zeros(1)}, 0.1, file)
    end = Point(0.5)
    first.after_step(start)
    assert first.finish(end)["y"] == pytest.approx(0.5 / 0.1)  # one step
    network = Point(1.0)
    second = ScaffoldRound(network, {"y": np.array([2.0])}, 0.1, file)
    for _ in range(2):
        second.after_step(network)
    assert network.y.item() == pytest.approx(1.0 - 2 * 0.1 * (2.0 - 5.0))
    assert second.finish(network)["y"] == pytest.approx(-5.0)
    with np.load(file) as kept:
        assert kept["y"] == pytest.approx(0.0, abs=1e-12)  # float64 roundings of about 1


def test_another_site_has_variates_of_its_own(tmp_path):
    first = ScaffoldRound(start := Point(1.0), {"y": np.zeros(1)}, 0.1, tmp_path / "a.npz")
    first.after_step(start)
    first.finish(Point(0.0))
    network = Point(1.0)
    ScaffoldRound(network, {"y": np.zeros(1)}, 0.1, tmp_path / "b.npz").after_step(network)
    assert network.y.item() == 1.0


def test_the_starting_point_is_a_copy(tmp_path):
    """The network that is handed over is the one that is trained."""
    network = Point(1.0)
    site = ScaffoldRound(network, {"y": np.zeros(1)}, 0.1, tmp_path / "c.npz")
    with torch.no_grad():
        network.y -= 0.25
    site.after_step(network)
    assert site.finish(network)["y"] == pytest.approx(2.5)
