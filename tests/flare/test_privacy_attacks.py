"""Attacks on privacy: that each works where it must, fails where it must, and sees what a server would see."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from privacy_attacks import (
    Search,
    case_from_moments,
    case_losses,
    cosine_distance,
    first_layer_inputs,
    gradient_simulation,
    likelihood_ratios,
    membership,
    nearest,
    squared_distance,
    standardised,
    training_simulation,
)
from privacy_trials import (
    WATCHED,
    Protection,
    as_sent,
    halves,
    local_update,
    memberships,
    parameters_of,
    statistics_of,
    update_length,
    watch,
    watched_job,
    watched_study,
    with_members,
)
from scipy.stats import mannwhitneyu
from torch import nn

from mhsev_flare.benchmark.averaging import federate, load_weights, start_weights
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.private_training import PrivacyParameters
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import FeatureMoments, LabelledFeatures, TrainingParameters, severity_loss, train_severity

PLAIN = Protection("none")
SPEC = watched_job(seed=1)
SITES, POOL = watched_study(seed=1)
SHORT = TrainingParameters(epochs=2, learning_rate=3e-3, weight_decay=0.1, batch_size=3, count_weight=3.0)


@pytest.fixture
def network() -> SeverityMLP:
    """The job's network as sites first get it."""
    made = copy.deepcopy(SPEC.network)
    load_weights(made, start_weights(SPEC, SITES))
    return made


def some(*cases: int) -> LabelledFeatures:
    return POOL.take(torch.tensor(cases))


def set_dropout(network: SeverityMLP, probability: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def gradient(network: SeverityMLP, cases: LabelledFeatures) -> list[torch.Tensor]:
    return [part.detach() for part in gradient_simulation(network, 3.0)(cases)]


@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("factor", [1.0, -3e-3, 0.1])
def test_one_cases_gradient_gives_its_features_away_however_it_is_scaled(network, case, factor):
    """Neither a learning rate nor a cut of the length hides the ratio of weights and bias."""
    sent = [factor * part for part in gradient(network, some(case))]
    truth = standardised(network, some(case).features)[0]
    # 1e-4: float32 quotients of gradients; the unit that changed most is the most exact.
    torch.testing.assert_close(first_layer_inputs(sent)[0], truth, rtol=0, atol=1e-4)


def test_a_plain_step_of_descent_gives_it_away_too(network):
    stepped, case = copy.deepcopy(network), some(3)
    optimiser = torch.optim.SGD(stepped.parameters(), lr=0.1)
    severity_loss(stepped, case, PAPER_SCALE, 3.0).backward()
    optimiser.step()
    pairs = zip(stepped.parameters(), network.parameters(), strict=True)
    sent = [after.detach() - before.detach() for after, before in pairs]
    # 1e-3: an update is the difference of float32 weights, which has fewer digits than a gradient.
    truth = standardised(network, case.features)[0]
    torch.testing.assert_close(first_layer_inputs(sent)[0], truth, rtol=0, atol=1e-3)


def test_a_step_of_adamw_tells_signs(network):
    parameters = replace(SHORT, epochs=1, weight_decay=1e-9)
    update, _ = local_update(network, some(3), parameters, seed=0, protection=PLAIN)
    truth = standardised(network, some(3).features)[0]
    told = first_layer_inputs(as_sent(update))[0]
    assert torch.equal(told.sign(), truth.sign())
    # AdamW's first step is its learning rate wherever the gradient is far above its epsilon of 1e-8.
    torch.testing.assert_close(told.abs(), torch.ones_like(told), rtol=0, atol=1e-2)


def test_two_handshakes_that_differ_by_a_case_give_its_features_away():
    with_case, without = FeatureMoments.of(POOL.features), FeatureMoments.of(POOL.features[1:])
    # 1e-11: double precision, times the number of cases.
    assert case_from_moments(with_case, without) == pytest.approx(POOL.features[0].double().numpy(), abs=1e-11)


def test_the_simulated_training_is_the_sites_own(network):
    """Also its dropout and its order, since the job tells the seed."""
    cases = some(*range(8))
    update, _ = local_update(network, cases, SHORT, seed=5, protection=PLAIN)
    made = training_simulation(network, SHORT, seed=5)(cases)
    for found, expected in zip(made, as_sent(update), strict=True):
        # 1e-6: a thousandth of what six steps change, in float32.
        torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("distance", "most"), [(squared_distance, 0.01), (cosine_distance, 0.05)])
def test_a_search_finds_the_case_behind_a_gradient(network, distance, most):
    """What it finds has lost a hundredth, or for a cosine a twentieth, of the case; another case has it all."""
    search, case = Search(n_steps=150, seed=0), some(7)
    simulate = gradient_simulation(network, 3.0)
    found, _ = search.find(gradient(network, case), simulate, distance, network, case.counts)
    assert nearest(found, standardised(network, case.features)).error[0] < most
    assert nearest(found, standardised(network, some(8).features)).error[0] > 0.5


def test_a_search_through_training_comes_closer_to_who_was_there(network):
    cases, absent = some(0, 1), some(2, 3)
    update, _ = local_update(network, cases, SHORT, seed=5, protection=PLAIN)
    simulate = training_simulation(network, SHORT, seed=5)
    found, _ = Search(100, seed=0).find(as_sent(update), simulate, cosine_distance, network, cases.counts)
    near, far = (nearest(found, standardised(network, each.features)) for each in (cases, absent))
    assert near.correlation.min() > 0.5 > far.correlation.max()
    assert near.error.max() < 0.8 < far.error.min()  # 1 is what the mean of all would get


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_noise_hides_what_cutting_alone_does_not(network, noise):
    pytest.importorskip("opacus.accountants", reason="needs opacus: pip install 'mhsev[dp]'")
    protection = Protection("private", PrivacyParameters(noise, max_grad_norm=1.0, delta=1e-3))
    parameters = replace(SHORT, epochs=1, weight_decay=1e-9)
    update, _ = local_update(network, some(3), parameters, seed=0, protection=protection)
    told = first_layer_inputs(as_sent(update))[0].sign()
    agree = float((told == standardised(network, some(3).features)[0].sign()).float().mean())
    assert agree == 1.0 if noise == 0 else agree < 0.8


def test_nearest_by_hand():
    cases = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, 0.0]])
    found = nearest(torch.tensor([[2.0, 0.0, -2.0], [0.0, 0.0, 0.1]]), cases)
    assert found.correlation == pytest.approx([1.0, np.sqrt(3) / 2])
    assert found.error == pytest.approx([1.0, 1.0])
    assert nearest(torch.zeros(0, 3), cases).error == pytest.approx([np.inf, np.inf])


def test_losses_of_cases_are_the_training_loss_of_each_alone(network):
    cases = some(*range(12))
    expected = [severity_loss(network.eval(), some(i), PAPER_SCALE, 3.0).item() for i in range(12)]
    # 1e-5: float32 in two orders.
    assert case_losses(network, cases, 3.0) == pytest.approx(expected, rel=1e-5)


def test_the_area_is_that_of_mann_and_whitney():
    random = np.random.default_rng(0)
    members, others = random.integers(0, 9, 30).astype(float), random.integers(0, 7, 20).astype(float)
    expected = mannwhitneyu(members, others).statistic / (30 * 20)
    found = membership([(members, others)], seed=0)
    assert found.auc.value == pytest.approx(expected)
    assert found.auc.low < expected < found.auc.high


@pytest.mark.parametrize(
    ("members", "rate"),
    [
        ([9.5] * 20, 1.0),  # above all others
        ([18.0] * 10 + [18.5] * 10, 0.5),  # one of 20 others may lie above the threshold, which is the second, 18
        ([-1.0] * 20, 0.0),
    ],
)
def test_true_positives_count_above_all_but_a_twentieth_of_the_others(members, rate):
    others = np.arange(20.0) if rate < 1 else np.linspace(0, 9, 20)
    assert membership([(np.array(members), others)], seed=0).true_positives.value == pytest.approx(rate)


def test_an_overfitted_model_knows_its_cases_and_one_that_never_saw_them_does_not(network):
    set_dropout(network, 0.0)
    members, others = POOL.take(torch.arange(34)), POOL.take(torch.arange(34, 68))
    elsewhere = SITES["site-2"].train
    parameters = TrainingParameters(100, 1e-2, 0.0, 64, 3.0)
    found = {}
    for name, cases in (("seen", members), ("never seen", elsewhere)):
        trained = copy.deepcopy(network)
        train_severity(trained, cases, PAPER_SCALE, parameters, seed=0)
        scores = (-case_losses(trained, members, 3.0), -case_losses(trained, others, 3.0))
        found[name] = membership([scores], seed=0).auc
    assert found["seen"].low > 0.7
    assert found["never seen"].low < 0.5 < found["never seen"].high


def test_likelihood_ratios_tell_members_where_the_loss_level_of_a_case_hides_them():
    """Cases differ by far more than membership moves them: a threshold is near chance, a ratio is not."""
    random = np.random.default_rng(0)
    inside = halves(12, 200, seed=0)
    statistics = random.normal(0, 10, 200) + random.normal(0, 1, (12, 200)) + 2.0 * inside
    scores = likelihood_ratios(statistics, inside)
    by_level, by_ratio = (
        membership([(s[i], s[~i]) for s, i in zip(each, inside, strict=True)], seed=0, n_draws=2).auc.value
        for each in (statistics, scores)
    )
    assert by_level < 0.6
    # Two normal distributions two standard deviations apart have 0.92; the means come of five trainings each.
    assert 0.85 < by_ratio < 0.93


def test_likelihood_ratios_of_what_knows_nothing_are_chance():
    """Many cases, so that the bias would show that the complement of a training brings."""
    inside = halves(6, 2000, seed=0)
    statistics = np.random.default_rng(1).normal(size=inside.shape)
    pairs = [(s[i], s[~i]) for s, i in zip(likelihood_ratios(statistics, inside), inside, strict=True)]
    # The standard error of the mean of six such areas is 0.005.
    assert membership(pairs, seed=0, n_draws=2).auc.value == pytest.approx(0.5, abs=0.02)


def test_halves_hold_every_case_as_often():
    inside = halves(6, 10, seed=3)
    assert inside.sum(axis=0).tolist() == [3] * 10
    assert inside.sum(axis=1).tolist() == [5] * 6


def test_who_watches_sees_what_a_federation_sends():
    spec, updates, sites = replace(SPEC, num_rounds=3), [], with_members(SITES, POOL, halves(2, 68, 0)[0])

    def note(_, arrived):
        updates.append(next(u.update for u in arrived if u.site == WATCHED))
        return arrived

    best, seen = federate(spec, sites, note).best, watch(spec, sites, PLAIN)
    assert len(seen.updates) == len(updates) == 3
    for own, other in zip(seen.updates, updates, strict=True):
        assert list(own) == list(other)
        assert all(np.array_equal(own[key], other[key]) for key in own)
    assert all(np.array_equal(seen.sent[best.round_number][key], value) for key, value in best.weights.items())


def test_a_cut_update_is_as_long_as_allowed():
    seen = watch(replace(SPEC, num_rounds=1), SITES, Protection("cut", longest=0.05))
    # 1e-5: float32.
    assert update_length(seen.updates[0]) == pytest.approx(0.05, rel=1e-5)


def test_the_noise_of_private_trainings_is_not_shared():
    """Where it is, LiRA sees through it, which nobody can who does not know it."""
    pytest.importorskip("opacus.accountants", reason="needs opacus: pip install 'mhsev[dp]'")
    spec, private = replace(SPEC, num_rounds=1, epochs=1), Protection("p", PrivacyParameters(1.0, 1.0, 1e-3))
    first, other = (watch(spec, SITES, private, secret).updates[0] for secret in (1, 2))
    assert not any(np.array_equal(first[key], other[key]) for key in first)


def test_every_attack_gets_a_number_for_every_training():
    spec, inside = replace(SPEC, num_rounds=2, epochs=1), halves(6, len(POOL), 0)
    told = [statistics_of(spec, watch(spec, with_members(SITES, POOL, i), PLAIN), POOL) for i in inside]
    found = memberships(told, inside, seed=0)
    assert len(found) == 6
    assert all(0 <= each.auc.low <= each.auc.value <= each.auc.high <= 1 for each in found.values())
    assert parameters_of(spec).epochs == 1
