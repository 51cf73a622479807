"""Local training, moments and class weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mhsev_monai.networks import SeverityMLP, predict_severity, split_output
from mhsev_monai.severity import PAPER_SCALE, Severity
from mhsev_monai.training import (
    FeatureMoments,
    LabelledFeatures,
    TrainingAbortedError,
    TrainingHooks,
    TrainingParameters,
    balanced_class_weights,
    severity_loss,
    train_severity,
)


def network(seed: int = 0, dropout: float = 0.3) -> SeverityMLP:
    return SeverityMLP(
        in_features=5, hidden_features=[16, 8], num_classes=4, dropout=dropout, max_deviation=8.0, seed=seed
    )


def counted_cases(n: int, seed: int) -> LabelledFeatures:
    """Cases whose first feature is the log of the count: a task that a small network can learn."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 20, n).astype(np.float32)
    features = generator.normal(size=(n, 5)).astype(np.float32)
    features[:, 0] = np.log1p(counts)
    return LabelledFeatures(torch.from_numpy(features), torch.from_numpy(counts))


PARAMETERS = TrainingParameters(epochs=40, learning_rate=1e-2, weight_decay=1e-3, batch_size=16, count_weight=1.0)


def test_training_learns_what_the_features_say():
    model = network(dropout=0.0)
    train_severity(model, counted_cases(200, 1), PAPER_SCALE, PARAMETERS, seed=5)
    test = counted_cases(200, 2)
    prediction = predict_severity(model, test.features, PAPER_SCALE)
    accuracy = (prediction.grades == test.grades(PAPER_SCALE)).float().mean()
    # The feature holds the count exactly; the largest class is 45 %, and 9 seeds reached 0.92 to 0.97.
    assert accuracy > 0.8
    assert float((prediction.counts - test.counts).abs().mean()) < 1.5


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not():
    states = []
    for seed in (7, 7, 8):
        model = network()
        train_severity(model, counted_cases(40, 1), PAPER_SCALE, PARAMETERS, seed=seed)
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train_severity(network(), counted_cases(20, 1), PAPER_SCALE, PARAMETERS, seed=5)
    assert torch.equal(torch.rand(4), expected)


def test_one_full_batch_epoch_is_one_optimiser_step():
    one = TrainingParameters(epochs=1, learning_rate=1e-2, weight_decay=0.0, batch_size=10_000, count_weight=1.0)
    data, model, by_hand = counted_cases(30, 1), network(dropout=0.0), network(dropout=0.0)
    assert train_severity(model, data, PAPER_SCALE, one, seed=1) == 1
    optimiser = torch.optim.AdamW(by_hand.parameters(), lr=1e-2, weight_decay=0.0)
    severity_loss(by_hand, data, PAPER_SCALE, 1.0).backward()
    optimiser.step()
    for trained, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
        # The batch is shuffled, so sums differ in their last bits, which AdamW's first step can enlarge.
        torch.testing.assert_close(trained, expected, atol=1e-5, rtol=0)


def test_training_stops_when_asked():
    hooks = TrainingHooks(should_stop=lambda: True)
    with pytest.raises(TrainingAbortedError, match="after 0 steps"):
        train_severity(network(), counted_cases(20, 1), PAPER_SCALE, PARAMETERS, seed=5, hooks=hooks)


def test_training_on_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one case"):
        train_severity(network(), counted_cases(0, 1), PAPER_SCALE, PARAMETERS, seed=5)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(0, 1000))
def test_moments_of_parts_add_up_to_the_moments_of_the_whole(sizes, seed):
    generator = np.random.default_rng(seed)
    parts = [torch.from_numpy(generator.normal(100, 3, size=(n, 4))) for n in sizes]
    pooled = FeatureMoments.of(parts[0])
    for part in parts[1:]:
        pooled = pooled + FeatureMoments.of(part)
    whole = torch.cat(parts).numpy()
    assert pooled.n == len(whole)
    if len(whole):
        np.testing.assert_allclose(pooled.mean, whole.mean(0), rtol=1e-12)
        np.testing.assert_allclose(pooled.squared_deviation, whole.var(0) * len(whole), rtol=1e-9, atol=1e-9)


def test_a_feature_that_never_varies_has_scale_one():
    moments = FeatureMoments.of(torch.tensor([[1e4, 1.0], [1e4, 3.0]]))
    assert moments.scale().tolist() == [1.0, 1.0]
    assert FeatureMoments.of(torch.tensor([[0.0], [6.0]])).scale().tolist() == [3.0]


def test_class_weights_give_each_grade_the_same_total():
    counts = np.array([10, 0, 5, 1])
    weights = balanced_class_weights(counts)
    np.testing.assert_allclose(weights * counts, [16 / 3, 0, 16 / 3, 16 / 3])
    assert (weights * counts).sum() == pytest.approx(counts.sum())


def test_counts_agree_with_grades():
    model = network(seed=4)
    features = torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) * 5
    prediction = predict_severity(model, features, PAPER_SCALE)
    assert [PAPER_SCALE.grade(float(c)) for c in prediction.counts] == [Severity(int(g)) for g in prediction.grades]


def test_initial_weights_follow_from_the_arguments_alone():
    torch.manual_seed(1)
    first = network(seed=9).state_dict()
    torch.manual_seed(2)
    second = network(seed=9).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_feature_far_outside_moves_the_output_no_further():
    model = network()
    model.eval()
    far, farther = torch.full((1, 5), 1e3), torch.full((1, 5), 1e6)
    assert torch.equal(model(far), model(farther))
    assert split_output(model(far)).ordinal_logits.shape == (1, 3)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"in_features": 0}, "must be positive"),
        ({"num_classes": 1}, "must be positive"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
    ],
)
def test_impossible_networks_are_refused(changed, words):
    arguments = {
        "in_features": 5,
        "hidden_features": [4],
        "num_classes": 4,
        "dropout": 0.1,
        "max_deviation": 8.0,
        "seed": 0,
        **changed,
    }
    with pytest.raises(ValueError, match=words):
        SeverityMLP(**arguments)
