"""Players of a candidate network: groups of descriptors with the number of candidates, or the candidates themselves."""

from __future__ import annotations

import pytest
import torch
from shapley_games import by_all_orders, draw, seeded

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.networks import predict_severity
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.shapley import exact_shapley, sample_shapley
from mhsev_monai.shapley_background import common_background
from mhsev_monai.shapley_candidates import (
    NUMBER,
    DescriptorGame,
    LesionGame,
    evenly,
    explain_descriptors,
    explain_lesions,
)
from mhsev_monai.shapley_explain import explain
from mhsev_monai.shapley_groups import FeatureGroups
from mhsev_monai.shapley_outputs import COUNT_OUTPUTS, count_outputs

GROUPS = (0, 0, 1, 1, 2)
"""Of five descriptors; the last is a context that all candidates of a scan share."""
COUNT, SEVERITY = COUNT_OUTPUTS.index("expected count"), COUNT_OUTPUTS.index("expected severity")


def candidate_network(yardstick: str = "scan", members: int = 2) -> CandidateMLP:
    """Scores that vary: some five bleeds among forty candidates."""
    network = CandidateMLP(
        in_features=5, hidden_features=[8], members=members, num_classes=4, lower_bounds=[1, 6, 11], dropout=0.0,
        noise=0.3, grade_weight=1.0, mark_weight=0.0, yardstick=yardstick, context_features=[4],
        max_deviation=8.0, seed=3,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for scorer in network.scorers:
            scorer[0].weight.mul_(2.0)
            scorer[-1].weight.mul_(6.0)
            scorer[-1].bias.add_(1.0)
        network.missed_by_context.fill_(0.5)
        network.feature_mean.copy_(torch.tensor([1.0, -1.0, 0.0, 2.0, 0.3]))
        network.feature_scale.copy_(torch.tensor([2.0, 0.5, 1.0, 3.0, 0.1]))
    return network


def scan(n_candidates: int, seed: int = 0, n_filled: int = 4) -> torch.Tensor:
    """``(n_candidates + n_filled, 5)`` descriptors of one scan; rows of NaN fill up."""
    network = candidate_network()
    features = network.feature_mean + network.feature_scale * draw(n_candidates, 5, seed)
    features[:, 4] = features[:1, 4]
    return torch.cat([features, torch.full((n_filled, 5), torch.nan)])


@pytest.mark.parametrize("yardstick", ["scan", "federation", "both"])
@pytest.mark.parametrize("n_candidates", [0, 1, 40, 90])
def test_groups_and_number_add_up_to_what_the_network_says_of_the_scan(yardstick, n_candidates):
    network, own = candidate_network(yardstick), scan(n_candidates)
    background = common_background(network, 3, seed=1, n_candidates=40)
    found = explain_descriptors(network, own[None], background, GROUPS, n_passes=2, seed=0)
    assert found.values.shape == (1, 4, len(COUNT_OUTPUTS))
    assert found.additivity_error() < 1e-12
    told = count_outputs(network.count_distribution(own[None]), network.lower_bounds).detach()
    # Single precision: probabilities to 1e-6, a count of up to 90 to its 24 bits and those of 100 additions.
    torch.testing.assert_close(found.outputs[:, :5], told[:, :5], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.outputs[:, 5], told[:, 5], rtol=1e-5, atol=1e-6)
    prediction = predict_severity(network, own[None], PAPER_SCALE)
    torch.testing.assert_close(found.outputs[:, :4].float(), prediction.probabilities, rtol=0, atol=1e-5)


def test_the_base_is_one_for_all_scans_and_that_of_the_background():
    network = candidate_network()
    background = common_background(network, 4, seed=1, n_candidates=30)
    scans = torch.stack([scan(12, seed=1, n_filled=60), scan(72, seed=2, n_filled=0)])
    found = explain_descriptors(network, scans, background, GROUPS, n_passes=1, seed=0)
    assert torch.equal(found.base[0], found.base[1])
    usual = count_outputs(network.count_distribution(background), network.lower_bounds).mean(dim=0).detach()
    torch.testing.assert_close(found.base[0], usual, rtol=1e-5, atol=1e-6)


def test_a_set_of_groups_has_the_backgrounds_own_columns_in_all_others():
    """Against whole scans put together by hand, which the network measures against themselves."""
    network, own = candidate_network(), scan(30, n_filled=0)
    background = common_background(network, 1, seed=5, n_candidates=30)
    game = DescriptorGame(network, own, background, GROUPS)
    mixed = torch.cat([background[0, :, :2], own[:, 2:4], background[0, :, 4:]], dim=1)
    by_hand = count_outputs(network.count_distribution(mixed[None]), network.lower_bounds)
    answer = game.answers(range(1), torch.tensor([[False, True, False, True]]))
    torch.testing.assert_close(answer[0], by_hand, rtol=1e-5, atol=1e-6)
    # As many candidates as usual: the player of their number changes nothing.
    without = game.answers(range(1), torch.tensor([[False, True, False, False]]))
    torch.testing.assert_close(without[0], by_hand, rtol=1e-5, atol=1e-6)


def test_a_group_that_no_perceptron_reads_gets_nothing_and_more_spots_of_a_kind_go_to_their_number():
    network = candidate_network()
    with torch.no_grad():
        for scorer in network.scorers:
            scorer[0].weight[:, 2:4] = 0
    background = common_background(network, 2, seed=1, n_candidates=20)
    found = explain_descriptors(network, scan(25)[None], background, GROUPS, 3, seed=0).values
    # Single precision: the same sum over other rows of a batch may be rounded otherwise, on one processor or another.
    assert found[0, 1].abs().max() < 1e-6
    # Three times the background's own candidates: nothing is left for the descriptors.
    tripled = background[:1].repeat_interleave(3, dim=1)
    found = explain_descriptors(network, tripled, background[:1], GROUPS, 3, seed=0).values
    assert found[0, :3].abs().max() < 1e-4
    assert found[0, 3, COUNT] > 1


def test_without_candidates_all_is_their_number():
    network = candidate_network()
    background = common_background(network, 2, seed=1, n_candidates=20)
    found = explain_descriptors(network, scan(0)[None], background, GROUPS, 2, seed=0)
    assert (found.values[0, :3] == 0).all()
    assert found.values[0, 3, COUNT] < 0


def test_groups_and_lesions_get_what_the_definition_gives():
    network = candidate_network()
    game = DescriptorGame(network, scan(9), common_background(network, 2, seed=1, n_candidates=7), GROUPS)
    assert game.n_players == 4
    # Single precision: the definition asks for one set at a time, where sums have another order.
    torch.testing.assert_close(sample_shapley(game, 3, seeded()).values, by_all_orders(game), rtol=1e-5, atol=2e-6)
    lesions = LesionGame(network, scan(6), 4)
    assert lesions.n_players == 5
    torch.testing.assert_close(
        sample_shapley(lesions, 4, seeded()).values, by_all_orders(lesions), rtol=1e-5, atol=2e-6
    )


def test_few_at_a_time_is_the_same():
    network, own = candidate_network(), scan(20)
    background = common_background(network, 2, seed=1, n_candidates=10)
    found = [
        exact_shapley(DescriptorGame(network, own, background, GROUPS, most_candidates=most)).values
        for most in (1, 10**6)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_of_the_expected_count_a_candidate_gets_its_probability_and_what_is_missed_for_it():
    network, own = candidate_network(members=1), scan(40)
    rows, found = explain_lesions(network, own, n_passes=1, seed=0, most_lesions=6)
    probabilities = network.candidate_probabilities(own[None])[0].detach().double()
    assert rows == probabilities.argsort(descending=True)[:6].tolist()
    context = network.standardised(own[None])[0, 0, 4]
    per_found = torch.nn.functional.softplus(network.missed_per_found + network.missed_by_context[:, 0] * context)
    missed_for_each = (1 + per_found.detach().double()).item()
    # Counts above 100 share a bin, which moves the mean by next to nothing; the network is in single precision.
    expected = probabilities[rows] * missed_for_each
    torch.testing.assert_close(found.values[0, :6, COUNT], expected, rtol=1e-4, atol=1e-5)
    rest = probabilities.sum() - probabilities[rows].sum()
    assert found.values[0, 6, COUNT].item() == pytest.approx(rest.item() * missed_for_each, rel=1e-4)
    base = torch.nn.functional.softplus(network.missed_base).item()
    assert found.base[0, COUNT].item() == pytest.approx(base, rel=1e-4)
    assert found.additivity_error() < 1e-12


def test_lesions_of_equal_scores_get_the_same_and_all_raise_the_severity():
    network, own = candidate_network(), scan(8)
    own[3] = own[2]
    rows, found = explain_lesions(network, own, n_passes=200, seed=0, most_lesions=8)
    # Eight players: all sets, no draw.
    assert (found.standard_error == 0).all()
    first, second = rows.index(2), rows.index(3)
    torch.testing.assert_close(found.values[0, first], found.values[0, second], rtol=0, atol=1e-7)
    assert (found.values[0, :, SEVERITY] > 0).all()


def test_an_absent_candidate_stays_in_the_clutter_that_others_are_measured_against():
    network, own = candidate_network(), scan(30)
    game = LesionGame(network, own, 30)
    probabilities = network.candidate_probabilities(own[None])[0]
    alone = torch.eye(30, dtype=torch.bool)[4:5]
    none = game.answers(range(1), torch.zeros(1, 30, dtype=torch.bool))
    added = (game.answers(range(1), alone) - none)[0, 0, COUNT]
    assert added > probabilities[game.candidates[4]] * 0.99


def test_equal_seeds_give_equal_values():
    network, own = candidate_network(), scan(40)
    found = [explain_lesions(network, own, 2, seed=seed)[1].values for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_explain_names_groups_number_and_outputs():
    network = candidate_network().train()
    background = common_background(network, 2, seed=1, n_candidates=10)
    found = explain(network, scan(10)[None], background, FeatureGroups(("depth", "place", "protocol"), GROUPS))
    assert found.players == ("depth", "place", "protocol", NUMBER)
    assert found.outputs == ("none", "mild", "moderate", "severe", "expected severity", "expected count")
    # Noise of training is off: the same again.
    again = explain(network, scan(10)[None], background, FeatureGroups(("depth", "place", "protocol"), GROUPS))
    assert torch.equal(found.values.values, again.values.values)


@pytest.mark.parametrize(("n_from", "n_to", "expected"), [
    (4, 4, [0, 1, 2, 3]),
    (6, 3, [1, 3, 5]),
    (2, 5, [0, 0, 1, 1, 1]),
    (1, 3, [0, 0, 0]),
])  # fmt: skip
def test_candidates_are_chosen_evenly_along_their_order(n_from, n_to, expected):
    assert evenly(n_from, n_to).tolist() == expected


def test_what_does_not_fit_is_refused():
    network, own = candidate_network(), scan(5)
    background = common_background(network, 1, seed=0, n_candidates=4)
    with pytest.raises(ValueError, match=r"a scan must be \(N, 5\)"):
        DescriptorGame(network, own[:, :4], background, GROUPS)
    with pytest.raises(ValueError, match="finite, at least one scan"):
        DescriptorGame(network, own, own[None], GROUPS)
    with pytest.raises(ValueError, match="one index for each of 5"):
        DescriptorGame(network, own, background, GROUPS[:4])
    with pytest.raises(ValueError, match="with a candidate"):
        LesionGame(network, scan(0), 4)
    with pytest.raises(ValueError, match="most_lesions at least 1"):
        LesionGame(network, own, 0)
