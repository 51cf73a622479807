"""The sampling engine: the laws of the Shapley value, the definition as oracle, and exact sums."""

from __future__ import annotations

import pytest
import torch
from shapley_games import TabledGame, by_all_orders, draw, random_game, seeded, uneven_mlp

from mhsev_monai.networks import predict_severity
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.shapley import (
    FeatureGame,
    ShapleyValues,
    exact_shapley,
    permutation_shapley,
    sample_shapley,
)
from mhsev_monai.shapley_outputs import grade_outputs
from mhsev_monai.shapley_perceptron import PerceptronGame

# Sums of some hundred doubles of size 1.
ROUNDING = {"rtol": 0, "atol": 1e-12}


@pytest.mark.parametrize("n_players", [1, 2, 5])
def test_all_sets_give_what_the_definition_gives(n_players):
    game = random_game(n_players)
    torch.testing.assert_close(exact_shapley(game).values, by_all_orders(game), **ROUNDING)


def test_enough_passes_evaluate_all_sets_and_are_exact():
    game = random_game(6)
    assert (sample_shapley(game, 2, seeded()).standard_error > 0).any()
    enough = sample_shapley(game, 7, seeded())
    torch.testing.assert_close(enough.values, by_all_orders(game), **ROUNDING)
    assert (enough.standard_error == 0).all()


def test_drawn_orders_are_within_their_own_error_of_the_exact_values():
    game = random_game(10, n_cases=6, n_outputs=4, seed=3)
    drawn, exact = sample_shapley(game, 40, seeded(1)), exact_shapley(game)
    deviations = (drawn.values - exact.values) / drawn.standard_error
    # 240 means of 40 normal-like pairs: Student's t with 39 degrees of freedom exceeds 5 once in 80,000 draws, and the
    # mean square is 39 / 37; four standard errors of it, if no two were related, are 0.37.
    assert deviations.abs().max() < 5
    assert 0.68 < (deviations**2).mean() < 1.42


def test_one_pair_of_orders_is_exact_where_at_most_two_players_act_together():
    """Antithetic orders: of two players one joins first in one order, the other in its reverse."""
    alone, together = torch.rand(9, generator=seeded(2)).double(), torch.rand(9, 9, generator=seeded(3)).double()
    marked = ((torch.arange(512)[:, None] >> torch.arange(9)) % 2).double()
    table = marked @ alone + torch.einsum("si,ij,sj->s", marked, together, marked)
    game = TabledGame(table[None, :, None])
    drawn = sample_shapley(game, 1, seeded())
    assert drawn.standard_error.isnan().all()
    torch.testing.assert_close(drawn.values, exact_shapley(game).values, **ROUNDING)


@pytest.mark.parametrize("n_passes", [1, 3])
def test_values_add_up_to_the_networks_answer(n_passes):
    network, rows = uneven_mlp(40), draw(12, 40, 0)
    found = permutation_shapley(lambda part: grade_outputs(network, part), rows, draw(30, 40, 1), n_passes, seeded())
    assert found.values.abs().max() > 0.05
    assert found.additivity_error() < 1e-12
    # The network itself, asked in one batch: single precision, in which the order of its sums depends on the batch.
    outputs = grade_outputs(network, rows).detach()
    torch.testing.assert_close(found.base + found.values.sum(dim=1), outputs, rtol=0, atol=1e-6)
    probabilities = predict_severity(network, rows, PAPER_SCALE).probabilities.double()
    torch.testing.assert_close(outputs[:, :4], probabilities, rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs[:, 4], probabilities @ torch.arange(4.0).double(), rtol=0, atol=3e-6)
    # Grades are certain together, with and without any feature.
    torch.testing.assert_close(found.values[..., :4].sum(dim=-1), torch.zeros(12, 40).double(), **ROUNDING)


@pytest.mark.parametrize("hidden", [[], [16], [16, 16, 8]])
@pytest.mark.parametrize("groups", [None, [0, 1, 2, 0, 1, 2, 3, 3, 3]])
def test_what_is_known_of_a_perceptron_saves_time_and_changes_nothing(hidden, groups):
    network, rows, background = uneven_mlp(9, hidden=hidden), draw(70, 9, 0), draw(11, 9, 1)
    slow = FeatureGame(lambda part: grade_outputs(network, part), rows, background, groups)
    fast = PerceptronGame(network, rows, background, groups, most_rows=50)
    assert (slow.n_players, slow.n_cases) == (fast.n_players, fast.n_cases)
    expected, found = sample_shapley(slow, 2, seeded()), sample_shapley(fast, 2, seeded())
    # Single precision, with sums of some ten numbers in another order.
    for name in ("values", "base", "outputs"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=2e-6)
    assert found.additivity_error() < 1e-12
    outputs = grade_outputs(network, rows).detach()
    torch.testing.assert_close(found.base + found.values.sum(dim=1), outputs, rtol=0, atol=1e-6)


def test_a_player_that_does_nothing_gets_nothing_and_equal_players_get_the_same():
    def predict(rows):
        return torch.stack([(rows[:, 0] + rows[:, 1]).tanh() * rows[:, 2], rows[:, 0] * rows[:, 1]], dim=1)

    rows, background = draw(5, 4, 0).double(), draw(9, 4, 1).double()
    rows[:, 1], background[:, 1] = rows[:, 0], background[:, 0]
    found = exact_shapley(FeatureGame(predict, rows, background)).values
    assert (found[:, 3] == 0).all()
    torch.testing.assert_close(found[:, 0], found[:, 1], **ROUNDING)
    # Dummies get nothing from drawn orders either, whatever is drawn.
    drawn = sample_shapley(FeatureGame(predict, rows, background), 1, seeded()).values
    assert (drawn[:, 3] == 0).all()


def test_values_of_a_sum_are_the_sum_of_the_values():
    first, second = uneven_mlp(12, seed=1), uneven_mlp(12, seed=2)
    rows, background = draw(3, 12, 0), draw(8, 12, 1)

    def explained(predict):
        return permutation_shapley(predict, rows, background, 2, seeded()).values

    both = explained(lambda part: 2 * grade_outputs(first, part) - grade_outputs(second, part))
    parts = (explained(lambda part, net=net: grade_outputs(net, part)) for net in (first, second))
    torch.testing.assert_close(both, 2 * next(parts) - next(parts), **ROUNDING)


def test_a_linear_function_gives_each_feature_its_distance_from_the_background():
    weights = torch.tensor([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]]).double()
    rows, background = draw(4, 3, 0).double(), draw(6, 3, 1).double()
    found = permutation_shapley(lambda part: part @ weights, rows, background, 1, seeded())
    by_hand = (rows - background.mean(dim=0))[:, :, None] * weights
    torch.testing.assert_close(found.values, by_hand, **ROUNDING)
    torch.testing.assert_close(found.base, (background.mean(dim=0) @ weights).expand(4, 2), **ROUNDING)


def test_groups_are_sums_of_their_members_and_play_as_one_where_they_do():
    network, rows, background = uneven_mlp(6), draw(4, 6, 0), draw(10, 6, 1)
    groups = [0, 1, 0, 2, 2, 2]

    def predict(part):
        return grade_outputs(network, part)

    single = exact_shapley(FeatureGame(predict, rows, background))
    summed = single.summed(groups)
    torch.testing.assert_close(summed.values[:, 0], single.values[:, 0] + single.values[:, 2], **ROUNDING)
    torch.testing.assert_close(summed.values[:, 2], single.values[:, 3:].sum(dim=1), **ROUNDING)
    assert summed.additivity_error() < 1e-12
    as_one = FeatureGame(predict, rows, background, groups)
    assert as_one.n_players == 3
    played = exact_shapley(as_one)
    torch.testing.assert_close(played.values, by_all_orders(as_one), **ROUNDING)
    torch.testing.assert_close(played.outputs, single.outputs, rtol=0, atol=1e-6)
    assert not torch.allclose(played.values, summed.values, atol=1e-3)


def test_seeds_fix_the_values_and_the_size_of_parts_does_not_change_them():
    network, rows, background = uneven_mlp(20), draw(3, 20, 0), draw(11, 20, 1)

    def explained(seed, most_rows=4096):
        predict = lambda part: grade_outputs(network, part)  # noqa: E731
        return permutation_shapley(predict, rows, background, 2, seeded(seed), most_rows).values

    assert torch.equal(explained(1), explained(1))
    assert not torch.equal(explained(1), explained(2))
    # Single precision sums in another order.
    torch.testing.assert_close(explained(1, most_rows=12), explained(1), rtol=0, atol=1e-6)


def test_a_network_never_sees_more_rows_at_once_than_it_should():
    seen = []

    def predict(part):
        seen.append(len(part))
        return part[:, :1]

    permutation_shapley(predict, draw(2, 30, 0), draw(10, 30, 1), 2, seeded(), most_rows=64)
    assert max(seen) == 60
    # Every set once: two pairs of orders of 30 have 29 sets each on the way, and two ends in common.
    assert sum(seen) == 2 * 10 * (4 * 29 + 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_processor_gives():
    network, rows, background = uneven_mlp(30), draw(4, 30, 0), draw(20, 30, 1)
    found = []
    for device in ("cpu", "cuda"):
        network.to(device)
        predict = lambda part: grade_outputs(network, part)  # noqa: E731
        found.append(permutation_shapley(predict, rows.to(device), background.to(device), 3, seeded()))
    # Single precision in another order, through three layers.
    torch.testing.assert_close(found[1].values, found[0].values, rtol=0, atol=1e-5)
    assert found[1].additivity_error() < 1e-12


@pytest.mark.parametrize(
    ("rows", "background", "groups", "message"),
    [
        ((3, 4), (5, 3), None, "rows must be"),
        ((3, 4), (0, 4), None, "m at least 1"),
        ((3, 4), (5, 4), [0, 1], "one index for each of 4"),
        ((3, 4), (5, 4), [0, 1, 1, 3], "without gaps"),
    ],
)
def test_what_does_not_fit_is_refused(rows, background, groups, message):
    with pytest.raises(ValueError, match=message):
        FeatureGame(lambda part: part, torch.zeros(rows), torch.zeros(background), groups)


def test_missing_values_no_passes_and_too_many_players_are_refused():
    with pytest.raises(ValueError, match="must be finite"):
        FeatureGame(lambda part: part, torch.full((1, 2), torch.nan), torch.zeros(1, 2))
    game = FeatureGame(lambda part: part, torch.zeros(1, 17), torch.zeros(1, 17))
    with pytest.raises(ValueError, match="n_passes must be 1 or more, got 0"):
        sample_shapley(game, 0, seeded())
    with pytest.raises(ValueError, match="up to 16 players, got 17"):
        exact_shapley(game)
    with pytest.raises(ValueError, match="no cases"):
        ShapleyValues.join([])
