"""``explain`` against the ``shap`` package: its exact, permutation, deep and kernel explainers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shap
import torch
from shapley_games import draw, seeded, uneven_mlp
from torch import nn

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.shapley import FeatureGame, exact_shapley, permutation_shapley, sample_shapley
from mhsev_monai.shapley_explain import Effort, ExplainError, deep_shapley, explain
from mhsev_monai.shapley_groups import FeatureGroups, feature_groups
from mhsev_monai.shapley_outputs import GRADE_OUTPUTS, grade_outputs

EIGHT = FeatureGroups(tuple("abcdefgh"), tuple(range(8)))


def numpy_predict(network):
    def predict(rows):
        with torch.no_grad():
            return grade_outputs(network, torch.from_numpy(rows).float()).numpy()

    return predict


def spread_over_orders(game):
    """``(n_players, n_outputs)``: standard deviation of what one order and its reverse give, from all orders."""
    bits = 2 ** torch.arange(8)
    marked = torch.arange(256)[:, None] // bits % 2 == 1
    answers = game.answers(range(1), marked)[0]
    orders = torch.tensor(list(itertools.permutations(range(8))))
    before = bits[orders].cumsum(dim=1) - bits[orders]
    added = answers[before + bits[orders]] - answers[before]
    by_player = torch.zeros_like(added).scatter_(1, orders[..., None].expand_as(added), added)
    after = 255 - before - bits[orders]
    reverse = answers[after + bits[orders]] - answers[after]
    reverse = torch.zeros_like(added).scatter_(1, orders[..., None].expand_as(added), reverse)
    return ((by_player + reverse) / 2).std(dim=0)


def shap_permutation(network, rows, background, n_passes):
    masker = shap.maskers.Independent(background.numpy(), max_samples=len(background))
    explainer = shap.PermutationExplainer(numpy_predict(network), masker, seed=0)
    return explainer(rows.numpy(), max_evals=n_passes * (2 * rows.shape[1] + 1), silent=True).values


def test_on_eight_features_it_is_shaps_exact_explainer():
    network, rows, background = uneven_mlp(8), draw(4, 8, 0), draw(15, 8, 1)
    masker = shap.maskers.Independent(background.numpy(), max_samples=15)
    expected = shap.ExactExplainer(numpy_predict(network), masker)(rows.numpy()).values
    game = FeatureGame(lambda part: grade_outputs(network, part), rows, background)
    # Both go over all sets; the network is in single precision and shap's batches differ from ours.
    np.testing.assert_allclose(exact_shapley(game).values.numpy(), expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max() > 0.05
    n_passes = 15
    drawn = sample_shapley(game, n_passes, seeded(4))
    error = (drawn.values[0] - torch.from_numpy(expected[0])) / (spread_over_orders(game) / n_passes**0.5)
    # 40 means of 15 pairs, over the standard error that they have: a normal variable exceeds 4.5 once in 150,000 draws.
    assert error.abs().max() < 4.5
    assert drawn.additivity_error() < 1e-12


def test_it_agrees_with_shaps_permutation_explainer_within_both_errors():
    network, rows, background = uneven_mlp(20), draw(3, 20, 0), draw(12, 20, 1)
    ours = permutation_shapley(lambda part: grade_outputs(network, part), rows, background, 20, seeded())
    theirs = shap_permutation(network, rows, background, 20)
    # The same method with as many pairs of orders has the same error; the difference of both has sqrt(2) times it.
    error = (ours.values.numpy() - theirs) / (2**0.5 * ours.standard_error.numpy() + 1e-6)
    assert np.abs(error).max() < 5.5
    assert 0.7 < (error**2).mean() < 1.5


def test_deep_attributes_the_networks_own_output_and_leaves_it_as_it_was():
    network, rows, background = uneven_mlp(8), draw(6, 8, 0), draw(20, 8, 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # Beyond the limits of the network too, where a clamp would break the sum.
    assert ((rows - network.feature_mean) / network.feature_scale).abs().max() > network.max_deviation
    found = deep_shapley(network, rows, background)
    torch.testing.assert_close(found.outputs, network(rows).detach().double(), rtol=0, atol=1e-5)
    assert found.additivity_error() < 1e-4 * (1 + float(found.outputs.abs().max()))
    exact = exact_shapley(FeatureGame(network, rows, background)).values
    # DeepLIFT approximates: measured correlations with 100 features are .999; here 0.95 is asked for.
    assert np.corrcoef(found.values.flatten(), exact.flatten())[0, 1] > 0.95
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    explained = explain(network, rows, background, EIGHT, "deep")
    assert explained.outputs == ("output 0", "output 1", "output 2", "output 3")


@pytest.mark.parametrize("wrong", [nn.LayerNorm(8), nn.SiLU()])
def test_deep_is_refused_where_its_rules_are_wrong(wrong):
    network = nn.Sequential(nn.Linear(5, 8), wrong, nn.Linear(8, 3))
    with pytest.raises(ExplainError, match=f"not right for {type(wrong).__name__}; use permutation"):
        deep_shapley(network, draw(2, 5, 0), draw(3, 5, 1))


def test_deep_is_refused_where_its_values_do_not_add_up():
    class Squared(nn.Module):
        """A product that no module shows."""

        def __init__(self):
            super().__init__()
            self.first = nn.Linear(5, 3)

        def forward(self, rows):
            return self.first(rows) ** 2

    with pytest.raises(ExplainError, match="miss the output by"):
        deep_shapley(Squared(), draw(2, 5, 0), draw(3, 5, 1))


def test_kernel_is_exact_on_few_features_and_leaves_numpys_generator_alone():
    network, rows, background = uneven_mlp(6), draw(2, 6, 0), draw(5, 6, 1)
    groups = FeatureGroups(("left", "right"), (0, 0, 0, 1, 1, 1))
    state = np.random.get_state()[1].copy()
    found = explain(network, rows, background, groups, "kernel")
    assert (np.random.get_state()[1] == state).all()
    exact = explain(network, rows, background, groups, "permutation", Effort(n_passes=10))
    assert found.outputs == exact.outputs == GRADE_OUTPUTS
    assert found.players == exact.players == ("left", "right")
    # The kernel's weighted regression over all 62 sets is the Shapley value; its equations are solved in double.
    torch.testing.assert_close(found.values.values, exact.values.values, rtol=0, atol=1e-5)
    assert found.values.additivity_error() < 1e-6


def test_explain_says_what_it_cannot_do():
    network, rows = uneven_mlp(8), draw(2, 8, 0)
    with pytest.raises(ExplainError, match="permutation, deep, kernel, got 'lime'"):
        explain(network, rows, rows, EIGHT, "lime")
    with pytest.raises(ExplainError, match="reads volumes"):
        explain(network, torch.zeros(1, 4, 4, 4, 2), rows, EIGHT)
    candidates = CandidateMLP(
        in_features=8, hidden_features=[4], members=1, num_classes=4, lower_bounds=[1, 6, 11], dropout=0.0, noise=0.0,
        grade_weight=1.0, mark_weight=0.0, yardstick="federation", context_features=[], max_deviation=4.0, seed=1,
    )  # fmt: skip
    with pytest.raises(ExplainError, match="read one vector a case; use permutation"):
        explain(candidates, rows[None], rows[None], EIGHT, "deep")


def test_explaining_starts_without_shap():
    """It takes seconds to import, which only those wait for who ask for it."""
    import subprocess
    import sys

    script = "import sys\nimport mhsev_monai.shapley_explain\nassert 'shap' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_groups_of_a_vector_network_are_sums_over_its_features():
    names = ("band_1_mean", "band_1_p95", "window_small_share", "count_08", "deep_count", "snr")
    network = SeverityMLP(6, [8], 4, dropout=0.0, max_deviation=3.0, seed=0)
    rows, background = draw(3, 6, 0), draw(7, 6, 1)
    found = explain(network, rows, background, feature_groups(names))
    assert found.players == ("band 1", "window size", "count of the spots", "location", "protocol")
    single = exact_shapley(FeatureGame(lambda part: grade_outputs(network, part), rows, background))
    # Single precision, by two ways.
    torch.testing.assert_close(found.values.values[:, 0], single.values[:, :2].sum(dim=1), rtol=0, atol=1e-6)
