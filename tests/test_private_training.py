"""Private training: the plain gradient where nothing is hidden, bounded records, and an account that lasts."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from mhsev_monai import private_training
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.private_training import PrivacyParameters, epsilon, train_severity_privately
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures, TrainingAbortedError, TrainingParameters, severity_loss

CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 1.5])
OPEN = PrivacyParameters(noise_multiplier=0.0, max_grad_norm=1e9, delta=1e-3)
NOISY = PrivacyParameters(noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-3)


@pytest.fixture
def accountants():
    return pytest.importorskip("opacus.accountants", reason="needs opacus: pip install 'mhsev[dp]'")


def perceptron() -> SeverityMLP:
    network = SeverityMLP(in_features=4, hidden_features=[8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=1)
    network.class_weights.copy_(CLASS_WEIGHTS)
    return network


def candidate_network() -> CandidateMLP:
    network = CandidateMLP(
        in_features=4,
        hidden_features=[8],
        members=2,
        num_classes=4,
        lower_bounds=[1, 6, 11],
        dropout=0.0,
        noise=0.0,
        grade_weight=1.0,
        mark_weight=1.0,
        yardstick="scan",
        context_features=[3],
        max_deviation=4.0,
        seed=1,
    )
    network.class_weights.copy_(CLASS_WEIGHTS)
    return network


def vectors(n: int) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(5)
    counts = torch.randint(0, 20, (n,), generator=generator).float()
    return LabelledFeatures(torch.randn(n, 4, generator=generator), counts)


def sets(n: int) -> LabelledFeatures:
    """Scans with different numbers of candidates, of which one has none and some have marks."""
    generator = torch.Generator().manual_seed(6)
    features = torch.randn(n, 12, 4, generator=generator)
    for scan in range(n):
        features[scan, 3 + scan % 9 :] = torch.nan
    features[0] = torch.nan
    marks = (features[..., 0] > 0).float()
    marks[features[..., 0].isnan()] = torch.nan
    marks[::2] = torch.nan
    # Counts that an untrained network holds for possible: where it gives 1e-12, single precision has no gradient left.
    return LabelledFeatures(features, torch.randint(0, 7, (n,), generator=generator).float(), marks)


KINDS = pytest.mark.parametrize(
    ("make", "data"), [(perceptron, vectors), (candidate_network, sets)], ids=["mlp", "sets"]
)


def parameters(batch_size: int, epochs: int = 1, weight_decay: float = 0.0) -> TrainingParameters:
    return TrainingParameters(epochs, 1e-2, weight_decay, batch_size, count_weight=0.7)


def loss_of_records(network: nn.Module, data: LabelledFeatures) -> torch.Tensor:
    """The mean over records of the loss of a batch of each alone, times the weight of its grade."""
    grades = data.grades(PAPER_SCALE)
    losses = [
        CLASS_WEIGHTS[grades[i]] * severity_loss(network, data.take(torch.tensor([i])), PAPER_SCALE, 0.7)
        for i in range(len(data))
    ]
    return torch.stack(losses).mean()


@KINDS
def test_without_noise_and_bound_a_full_batch_makes_the_plain_step(accountants, make, data):
    cases, private, plain = data(10), make(), make()
    n_steps, _ = train_severity_privately(private, cases, PAPER_SCALE, parameters(10), OPEN, seed=0)
    assert n_steps == 1
    plain.train()
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.0)
    loss_of_records(plain, cases).backward()
    optimiser.step()
    for (name, found), expected in zip(private.named_parameters(), plain.parameters(), strict=True):
        # AdamW's first step is nearly the sign of the gradient, so the gradients are compared too.
        gradient = torch.zeros_like(expected) if expected.grad is None else expected.grad
        # Sums of ten float32 gradients in two orders.
        torch.testing.assert_close(found.grad, gradient, rtol=1e-6, atol=1e-6, msg=name)
        settled = gradient.abs() > 1e-4
        torch.testing.assert_close(found[settled], expected[settled], rtol=0, atol=1e-6, msg=name)


@KINDS
def test_the_loss_of_all_records_together_mixes_them_and_ours_does_not(make, data):
    """Why a record's loss is that of a batch of it alone: the plain loss changes with whom a record is drawn."""
    network, cases = make().eval(), data(6)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    def plain(*records: int) -> torch.Tensor:
        return len(records) * gradient(severity_loss(network, cases.take(torch.tensor(records)), PAPER_SCALE, 0.7))

    def ours(*records: int) -> torch.Tensor:
        loss_of = private_training._record_loss(network, cases, PAPER_SCALE, 0.7)
        return sum(gradient(loss_of(i)) for i in records)

    assert not torch.allclose(plain(1, 2, 3) - plain(2, 3), plain(1, 4, 5) - plain(4, 5), atol=1e-3)
    torch.testing.assert_close(ours(1, 2, 3) - ours(2, 3), ours(1, 4, 5) - ours(4, 5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [3.0, 1e6, 1e30, torch.inf])
def test_no_record_moves_the_sum_by_more_than_the_bound(accountants, count):
    """The gradient of an enormous record is cut; of one whose loss is no number nothing is left."""
    cases = vectors(8)
    other = LabelledFeatures(cases.features * (1.0 if count < 1e5 else 1e4), cases.counts.clone())
    other.counts[3] = count if math.isfinite(count) else 5.0
    if math.isinf(count):
        other.features[3] = torch.nan
    bound = 0.25
    sums = {}
    for who in ("all", "without"):
        network = perceptron()
        loss_of = private_training._record_loss(network, other, PAPER_SCALE, 1e6)
        drawn = torch.tensor([i for i in range(8) if who == "all" or i != 3])
        weights = list(network.parameters())
        sums[who] = private_training._clipped_sum(loss_of, drawn, weights, bound)
    moved = math.sqrt(sum(float((a - b).double().square().sum()) for a, b in zip(*sums.values(), strict=True)))
    # 1e-6: float32 sums of eight records.
    assert moved <= bound + 1e-6
    assert all(part.isfinite().all() for part in sums["all"])
    assert moved == 0 if math.isinf(count) else moved > bound / 2


def test_a_clipped_gradient_keeps_its_direction(accountants):
    network, cases = perceptron(), vectors(1)
    weights = list(network.parameters())
    loss_of = private_training._record_loss(network, cases, PAPER_SCALE, 1.0)
    whole = torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(0), weights)])
    cut = torch.cat([g.flatten() for g in private_training._clipped(loss_of(0), weights, 0.01)])
    assert float(cut.norm()) == pytest.approx(0.01, rel=1e-5)
    assert float(nn.functional.cosine_similarity(whole, cut, dim=0)) == pytest.approx(1.0, abs=1e-6)


def test_the_noise_has_the_deviation_that_the_account_says(accountants):
    """An update of no record at all: seeds are looked for in which nobody is drawn, and what is left is noise."""
    privacy = PrivacyParameters(noise_multiplier=1.5, max_grad_norm=2.0, delta=1e-3)
    found = []
    for seed in range(60):
        network = perceptron()
        train_severity_privately(network, vectors(2), PAPER_SCALE, parameters(1), privacy, seed=seed)
        found += [float(g) for p in network.parameters() for g in p.grad.flatten()]
    # Two records of at most 2.0 lie in it, spread over 76 weights: a share of 1/76 x (2 x 2)^2 at most in the variance.
    assert np.std(found) == pytest.approx(1.5 * 2.0, rel=0.05)


def test_a_batch_in_which_nobody_is_drawn_still_steps(accountants, monkeypatch):
    monkeypatch.setattr(
        private_training, "_clipped_sum", lambda loss, drawn, weights, longest: [w * 0 for w in weights]
    )
    network = perceptron()
    before = copy.deepcopy(network.state_dict())
    n_steps, state = train_severity_privately(network, vectors(40), PAPER_SCALE, parameters(1), NOISY, seed=0)
    assert n_steps == state["history"][0][2] == 40
    assert any(not torch.equal(before[key], value) for key, value in network.named_parameters())


@KINDS
def test_buffers_stay_and_equal_seeds_give_equal_weights(accountants, make, data):
    results = []
    for seed in (4, 4, 5):
        network = make()
        train_severity_privately(network, data(12), PAPER_SCALE, parameters(4), NOISY, seed=seed)
        results.append(network.state_dict())
        assert not network.training
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
    assert any(not torch.equal(results[0][key], results[2][key]) for key in results[0])
    for key, buffer in make().named_buffers():
        assert torch.equal(results[0][key], buffer)


def test_without_a_seed_nobody_can_repeat_the_noise(accountants):
    first, second = perceptron(), perceptron()
    for network in (first, second):
        torch.manual_seed(0)
        train_severity_privately(network, vectors(12), PAPER_SCALE, parameters(4), NOISY)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_epsilon_is_that_of_opacus_and_grows_with_every_round(accountants):
    oracle, state, spent = accountants.RDPAccountant(), None, []
    for _ in range(4):
        _, state = train_severity_privately(
            perceptron(), vectors(20), PAPER_SCALE, parameters(5, epochs=2), NOISY, 0, state
        )
        state = json.loads(json.dumps(state))
        for _ in range(8):
            oracle.step(noise_multiplier=1.0, sample_rate=0.25)
        assert epsilon(state, 1e-3) == pytest.approx(oracle.get_epsilon(1e-3), rel=1e-12)
        spent.append(epsilon(state, 1e-3))
    assert spent == sorted(set(spent))


def test_two_rounds_spend_what_one_of_as_many_steps_does(accountants):
    _, first = train_severity_privately(perceptron(), vectors(20), PAPER_SCALE, parameters(5), NOISY, 0)
    _, both = train_severity_privately(perceptron(), vectors(20), PAPER_SCALE, parameters(5), NOISY, 1, first)
    _, once = train_severity_privately(perceptron(), vectors(20), PAPER_SCALE, parameters(5, epochs=2), NOISY, 2)
    assert both == once
    assert first["history"] == [[1.0, 0.25, 4]]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"mechanism": "prv", "history": []},
        {"mechanism": "rdp"},
        {"mechanism": "rdp", "history": [[1.0, 0.5]]},
        {"mechanism": "rdp", "history": [[1.0, 1.5, 3]]},
        {"mechanism": "rdp", "history": [[-1.0, 0.5, 3]]},
        {"mechanism": "rdp", "history": [["much", 0.5, 3]]},
    ],
)
def test_a_damaged_account_is_refused_before_training(accountants, state):
    with pytest.raises(ValueError, match="accountant_state must hold"):
        train_severity_privately(perceptron(), vectors(20), PAPER_SCALE, parameters(5), NOISY, 0, state)
    with pytest.raises(ValueError, match="accountant_state must hold"):
        epsilon(state, 1e-3)


MIXING = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize(
    ("network", "n", "delta", "named"),
    [
        (perceptron(), 10, 0.1, "below one over the 10 records"),
        (MIXING, 10, 1e-3, "mixes records"),
        (perceptron(), 0, 1e-3, "at least one case"),
    ],
)
def test_what_cannot_be_private_is_refused(accountants, network, n, delta, named):
    data = LabelledFeatures(torch.zeros(n, 4), torch.zeros(n))
    with pytest.raises(ValueError, match=named):
        train_severity_privately(network, data, PAPER_SCALE, parameters(5), PrivacyParameters(1.0, 1.0, delta), 0)


def test_a_stop_ends_training(accountants):
    with pytest.raises(TrainingAbortedError, match="stopped after 0 steps"):
        train_severity_privately(
            perceptron(), vectors(20), PAPER_SCALE, parameters(5), NOISY, 0, None, should_stop=lambda: True
        )
