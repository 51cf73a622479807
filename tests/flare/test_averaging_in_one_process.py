"""The federation in one process with sites that lie: what is refused, when it stops, and that honest sites go on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_study import tiny_spec

from mhsev_flare.benchmark.averaging import SiteUpdate, average_federated, federate, load_weights, start_weights
from mhsev_flare.combination import TooFewUpdatesError
from mhsev_flare.job_spec import OPTIMISERS
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.site_data import SiteData
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures, severity_loss

SPEC = tiny_spec(num_rounds=3, rule="clip")


def cases(seed: int, n: int) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    counts = torch.tensor(rng.integers(0, 20, n), dtype=torch.float32)
    noise = torch.tensor(rng.normal(scale=0.3, size=(n, 3)), dtype=torch.float32)
    return LabelledFeatures(torch.log1p(counts)[:, None] + noise, counts)


SITES = {
    name: SiteData(cases(seed, n), cases(seed + 10, 12), cases(seed + 20, 4), excluded={})
    for seed, (name, n) in enumerate([("a", 24), ("b", 20), ("c", 28)])
}


def spoil(site: str, change: Callable[[SiteUpdate], SiteUpdate]):
    """An attacker who changes what one site sends."""
    return lambda _, updates: [change(u) if u.site == site else u for u in updates]


def filled(value: float) -> Callable[[SiteUpdate], SiteUpdate]:
    return lambda u: dataclasses.replace(u, update={k: np.full_like(v, value) for k, v in u.update.items()})


def scaled(factor: float) -> Callable[[SiteUpdate], SiteUpdate]:
    return lambda u: dataclasses.replace(u, update={k: v * np.float32(factor) for k, v in u.update.items()})


def silence(site: str):
    return lambda _, updates: [u for u in updates if u.site != site]


def test_an_attacker_who_changes_nothing_changes_nothing():
    expected, found = average_federated(SPEC, SITES), federate(SPEC, SITES, lambda _, updates: updates)
    assert found.stopped == ""
    assert found.best.round_number == expected.round_number
    assert all(np.array_equal(found.best.weights[key], value) for key, value in expected.weights.items())
    assert [set(one) for one in found.oddities] == [set(SITES)] * SPEC.num_rounds


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_site_that_sends_no_numbers_is_left_out_and_the_others_go_on(value):
    found, without = federate(SPEC, SITES, spoil("b", filled(value))), federate(SPEC, SITES, silence("b"))
    assert found.stopped == ""
    assert [sorted(one) for one in found.oddities] == [["a", "c"]] * SPEC.num_rounds
    assert found.best.round_number == without.best.round_number > 0
    for key, array in without.best.weights.items():
        assert np.isfinite(array).all()
        assert np.array_equal(found.best.weights[key], array)


@pytest.mark.parametrize("change", [scaled(-1.0), scaled(1e6), filled(0.0)])
def test_what_is_odd_beside_the_others_is_refused_as_if_it_had_not_come(change):
    found, without = federate(SPEC, SITES, spoil("b", change)), federate(SPEC, SITES, silence("b"))
    assert all(one["b"].reason and not one["a"].reason and not one["c"].reason for one in found.oddities)
    assert all(np.array_equal(found.best.weights[key], value) for key, value in without.best.weights.items())


def test_whose_update_is_refused_does_not_judge_the_round():
    """Its loss comes with its update. The last aggregate, with which no update comes, is judged by all sites."""
    flipped = dataclasses.replace(SITES["b"].validation, counts=19 - SITES["b"].validation.counts)
    sites = {**SITES, "b": dataclasses.replace(SITES["b"], validation=flipped)}
    found = federate(SPEC, sites, spoil("b", scaled(-1.0)))
    assert found.best.round_number < SPEC.num_rounds
    network = copy.deepcopy(SPEC.network)
    load_weights(network, found.best.weights)
    network.eval()
    with torch.no_grad():
        losses = [severity_loss(network, SITES[n].validation, PAPER_SCALE, SPEC.count_weight) for n in ("a", "c")]
    # Both have 12 cases, so the mean over cases is that of the sites; 1e-6: float32.
    assert -found.best.score[0] == pytest.approx(float(sum(losses)) / 2, rel=1e-6)


def test_keys_that_are_not_the_models_are_left_out():
    def more(u: SiteUpdate) -> SiteUpdate:
        return dataclasses.replace(u, update={**u.update, "DOE^JANE_19500101": np.zeros(1, np.float32)})

    found = federate(SPEC, SITES, spoil("a", more))
    assert [sorted(one) for one in found.oddities] == [["b", "c"]] * SPEC.num_rounds
    assert set(found.best.weights) == set(SPEC.network.state_dict())


def test_where_all_are_bad_it_stops_and_keeps_the_last_good_model():
    def bad_from_round_1(round_number: int, updates: list[SiteUpdate]) -> list[SiteUpdate]:
        return [filled(np.nan)(u) for u in updates] if round_number else updates

    found = federate(SPEC, SITES, bad_from_round_1)
    assert found.stopped == "0 acceptable updates in this round are too few for clip"
    assert len(found.oddities) == 1
    assert found.best.round_number == 0  # round 1 was not closed, so its model was not judged
    start = start_weights(SPEC, SITES)
    assert all(np.array_equal(found.best.weights[key], value) for key, value in start.items())


@pytest.mark.parametrize("rule", ["mean", "clip"])
@pytest.mark.parametrize("sent", [True, False], ids=["refused", "silent"])
def test_it_stops_where_the_quorum_of_the_policy_is_missed(rule, sent):
    """FLARE stops such a study; the rule by itself would go on with one site's update."""

    def a_alone_in_round_2(round_number: int, updates: list[SiteUpdate]) -> list[SiteUpdate]:
        others = [filled(np.nan)(u) for u in updates[1:]] if sent else []
        return updates if round_number < 2 else [updates[0], *others]

    found = federate(dataclasses.replace(SPEC, rule=rule), SITES, a_alone_in_round_2)
    assert found.stopped == "1 usable answers where 2 are needed"
    assert len(found.oddities) == 2
    assert found.best.round_number < 2
    alone = dataclasses.replace(SPEC, rule=rule, policy=RoundPolicy(min_sites=1))
    assert federate(alone, SITES, a_alone_in_round_2).stopped == ""


def test_fewer_sites_than_the_quorum_are_trained_where_all_answer():
    """FLARE would not begin; a benchmark leaves out one of two sites and trains the other alone."""
    assert average_federated(SPEC, {"a": SITES["a"]}).round_number > 0


def test_a_rule_stops_where_too_few_are_left_for_it():
    spec = dataclasses.replace(SPEC, rule="median", tolerated=1)
    assert federate(spec, SITES, spoil("b", filled(np.nan))).stopped == ""  # the liar was caught
    assert federate(spec, SITES, silence("b")).stopped == (
        "2 acceptable updates in this round are too few for median"
    )  # nobody knows who of the two lies


def test_without_an_attacker_too_few_updates_are_an_error():
    spec = dataclasses.replace(SPEC, rule="median", tolerated=1)
    with pytest.raises(TooFewUpdatesError, match="2 acceptable updates in this round are too few for median"):
        average_federated(spec, {name: SITES[name] for name in ("a", "b")})


def test_patience_ends_training_early_and_keeps_the_best():
    """Steps that go back improve nothing after the first: two losses are waited for.

    As in FLARE's processes a loss comes with the update of its round, so the round that tells is trained too.
    """
    spec = dataclasses.replace(SPEC, num_rounds=12, policy=RoundPolicy(min_sites=2, patience=2))
    n_asked = []

    def worse_each_time(round_number: int, updates: list[SiteUpdate]) -> list[SiteUpdate]:
        n_asked.append(round_number)
        return [scaled(1.0 if round_number == 0 else -1.0)(u) for u in updates]

    found = federate(spec, SITES, worse_each_time)
    assert found.stopped == ""
    assert found.best.round_number == 1
    assert n_asked == [0, 1, 2, 3]
    assert len(found.oddities) == 4
    patient = dataclasses.replace(spec, policy=RoundPolicy(min_sites=2, patience=0), num_rounds=6)
    assert len(federate(patient, SITES, worse_each_time).oddities) == 6


@pytest.mark.parametrize("name", [name for name in OPTIMISERS if name != "fedavg"])
def test_other_optimisers_are_left_to_flares_processes(name):
    with pytest.raises(ValueError, match="one process trains by FedAvg alone"):
        federate(dataclasses.replace(SPEC, optimiser=OPTIMISERS[name]), SITES)
