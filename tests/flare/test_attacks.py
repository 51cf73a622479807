"""The attacks by hand on tiny matrices, and what the aggregator's gates and the default rule make of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from attack_trials import SETUPS, Outcome, attack_job, run_attack
from attacks import (
    ATTACKS,
    FLIPPED_COUNTS,
    NONE,
    TRIGGER,
    Filled,
    Inflated,
    InnerProduct,
    Lie,
    LittleIsEnough,
    Noise,
    Replay,
    Stale,
    Times,
    largest_z,
    meddle_by,
)
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from simulated_sites import THREE_SITES, simulate_sites

from mhsev_flare.aggregator import RefusedUpdateError, SeverityAggregator
from mhsev_flare.benchmark.averaging import SiteUpdate, federate
from mhsev_flare.combination import Combination
from mhsev_flare.gates import ExpectedUpdate, weights_digest
from mhsev_flare.protocol import PROTOCOL_VERSION, Meta
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.severity import PAPER_SCALE, Severity

UPDATES = {"a": [[1.0, 4.0], [0.0, 2.0]], "b": [[3.0, 0.0], [0.0, -2.0]], "c": [[9.0, 9.0], [9.0, 9.0]]}
"""Honest a and b: mean (2, 2; 0, 0), deviations (1, 2; 0, 2)."""


def arrives(lie: Lie, round_number: int = 0, attackers: tuple[str, ...] = ("c",), factor: float = 1.0) -> Any:
    honest = [SiteUpdate(s, 10, {"w": np.array(u, np.float32) * np.float32(factor)}) for s, u in UPDATES.items()]
    before = [u.update["w"].copy() for u in honest]
    arrived = meddle_by(lie, attackers)(round_number, honest)
    assert [u.site for u in arrived] == ["a", "b", "c"]
    for update, kept, sent in zip(honest, before, arrived, strict=True):
        np.testing.assert_array_equal(update.update["w"], kept)
        if update.site not in attackers:
            assert sent is update
        assert sent.update["w"].dtype == np.float32
    return arrived[-1]


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        (Times(-1.0), [[-9, -9], [-9, -9]]),
        (Times(10.0), [[90, 90], [90, 90]]),
        (LittleIsEnough(1.5), [[2 - 1.5, 2 - 3], [0, -3]]),
        (LittleIsEnough(0.0), [[2, 2], [0, 0]]),
        (InnerProduct(0.5), [[-1, -1], [0, 0]]),
        (InnerProduct(5.0), [[-10, -10], [0, 0]]),
        (Filled(0.0), [[0, 0], [0, 0]]),
        (Filled(np.nan), [[np.nan, np.nan], [np.nan, np.nan]]),
    ],
)
def test_what_the_attacker_sends(lie, expected):
    sent = arrives(lie)
    np.testing.assert_array_equal(sent.update["w"], np.array(expected, np.float32))  # all exact in binary
    assert sent.n_samples == 10


def test_two_attackers_leave_only_the_honest_in_the_mean():
    sent = arrives(InnerProduct(0.5), attackers=("b", "c"))
    np.testing.assert_array_equal(sent.update["w"], [[-0.5, -2.0], [0.0, -1.0]])


@pytest.mark.parametrize(("n", "m", "z"), [(3, 1, 0.0), (9, 2, 0.1800), (50, 24, 1.4261)])
def test_the_safe_deviation_is_that_of_the_paper(n, m, z):
    """The normal quantiles of 1/2, 4/7 and 12/13, from a table."""
    assert largest_z(n, m) == pytest.approx(z, abs=5e-4)


def test_noise_has_the_stated_length_and_is_drawn_by_seed_and_round():
    first, again, other = arrives(Noise(3.0, 1)), arrives(Noise(3.0, 1)), arrives(Noise(3.0, 1), round_number=1)
    assert np.linalg.norm(first.update["w"]) == pytest.approx(3 * 18, rel=1e-6)  # (9, 9, 9, 9) is 18 long
    np.testing.assert_array_equal(first.update["w"], again.update["w"])
    assert not np.array_equal(first.update["w"], other.update["w"])


def test_old_updates_come_late_or_for_ever():
    stale, replay = Stale(2), Replay()
    late = [arrives(stale, r, factor=2.0**r).update["w"][0, 0] for r in range(4)]
    assert late == [9, 18, 9, 18]  # rounds 0 and 1 have nothing older
    assert [arrives(replay, r, factor=2.0**r).update["w"][0, 0] for r in range(3)] == [9, 9, 9]


def test_an_inflated_number_of_cases_comes_with_the_honest_update():
    sent = arrives(Inflated(100))
    assert sent.n_samples == 1000
    np.testing.assert_array_equal(sent.update["w"], UPDATES["c"])


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.data])
def test_attacks_on_cases_change_the_attackers_training_and_validation_alone(name):
    sites = simulate_sites(THREE_SITES, 1)
    poisoned = ATTACKS[name].poisoned(sites, ["site-3"])
    assert poisoned["site-1"] is sites["site-1"]
    assert poisoned["site-2"] is sites["site-2"]
    assert poisoned["site-3"].test is sites["site-3"].test
    for split in ("train", "validation"):
        own, changed = sites["site-3"].split(split), poisoned["site-3"].split(split)
        assert not torch.equal(own.counts, changed.counts)
        assert len(own) == len(changed)
    assert torch.equal(sites["site-3"].train.counts, simulate_sites(THREE_SITES, 1)["site-3"].train.counts)


def test_flipped_labels_are_the_opposite_end_of_the_scale():
    data = simulate_sites(THREE_SITES, 1)["site-3"]
    flipped = ATTACKS["label_flip"].poisoned({"x": data}, ["x"])["x"]
    assert [int(PAPER_SCALE.grade(count)) for count in FLIPPED_COUNTS] == [3, 2, 1, 0]
    assert torch.equal(flipped.train.grades(PAPER_SCALE), 3 - data.train.grades(PAPER_SCALE))
    assert torch.equal(flipped.train.features, data.train.features)


def test_a_backdoor_marks_every_other_case_and_calls_it_severe():
    data = simulate_sites(THREE_SITES, 1)["site-3"]
    marked = ATTACKS["backdoor"].poisoned({"x": data}, ["x"])["x"].train
    n = TRIGGER.n_features
    assert torch.all(marked.features[::2, -n:] == TRIGGER.value)
    assert torch.all(marked.grades(PAPER_SCALE)[::2] == Severity.SEVERE)
    assert torch.equal(marked.features[::2, :-n], data.train.features[::2, :-n])
    assert torch.equal(marked.features[1::2], data.train.features[1::2])
    assert torch.equal(marked.counts[1::2], data.train.counts[1::2])


SHAPES = {"w": (2, 2)}
CASES = {"a": 10, "b": 10, "c": 10}


def message(sent: SiteUpdate, round_number: int) -> FLModel:
    """What the site's software makes of it: the round and the starting weights are those of the training it did."""
    meta = {
        "client_name": sent.site,
        Meta.PROTOCOL: PROTOCOL_VERSION,
        Meta.FINGERPRINT: "f",
        Meta.N_SAMPLES: sent.n_samples,
        Meta.ROUND: round_number,
        Meta.BASE: base(round_number),
        Meta.TABLE: SeverityTable.empty().to_json(),
        Meta.TRAIN_LOSS: 0.5,
        Meta.VALIDATION_LOSS: 0.7,
    }
    return FLModel(params=sent.update, params_type=ParamsType.DIFF, meta=meta)


def base(round_number: int) -> str:
    return weights_digest({"w": np.full((2, 2), round_number, np.float32)})


def open_round(aggregator: SeverityAggregator, round_number: int) -> None:
    aggregator.reset_stats()
    aggregator.expect(ExpectedUpdate(SHAPES, "f", round_number, base(round_number), CASES))


@pytest.mark.parametrize(
    ("name", "honest_meta"),
    [("stale_round", True), ("replay", False), ("inflated_samples", False), ("nan", False)],
    ids=["stale_round", "replay with the round's own marks", "inflated_samples", "nan"],
)
def test_the_aggregator_refuses_by_name_what_the_table_says_a_gate_keeps_out(name, honest_meta):
    """``honest_meta``: the late update says which round it is of; a liar that forges that is caught by repeating."""
    aggregator, attack, n_rounds = SeverityAggregator(), ATTACKS[name], 6
    aggregator.start(3)
    lie = attack.lie(1)
    for round_number in range(n_rounds + 1):
        open_round(aggregator, round_number)
        sent = arrives(lie, round_number, factor=1.0 + round_number)
        says = round_number - 5 if honest_meta and round_number >= 5 else round_number
        if round_number < n_rounds:
            if name in ("stale_round", "replay") and round_number == 0:
                aggregator.accept_model(message(sent, says))
            continue
        with pytest.raises(RefusedUpdateError, match=f"^c: .*{attack.gate}"):
            aggregator.accept_model(message(sent, says))
    (contribution,) = aggregator.contributions()
    assert not contribution.accepted


def test_a_late_update_with_forged_marks_is_refused_where_it_came_before():
    aggregator, stale = SeverityAggregator(), Stale(5)
    for round_number in range(6):
        open_round(aggregator, round_number)
        sent = message(arrives(stale, round_number, factor=1.0 + round_number), round_number)
        if round_number < 5:
            aggregator.accept_model(sent)
    with pytest.raises(RefusedUpdateError, match=r"^c: the very update"):
        aggregator.accept_model(sent)


SMALLEST = SETUPS["smallest of three"]
SEED, N_ROUNDS = 2, 8
PLAIN = Combination(rule="mean", max_weight_ratio=np.inf)
"""Federated averaging with no more than the check that values are finite."""


@functools.cache
def outcome(attack: str, combination: Combination) -> Outcome:
    return run_attack(SMALLEST, attack, attack_job(combination, SEED, N_ROUNDS))


def scores(attack: str, combination: Combination) -> np.ndarray:
    """Accuracy and quadratic kappa."""
    found = outcome(attack, combination)
    return np.array([found.accuracy, found.kappa])


BY_CHANCE = 0.03
"""Two standard errors of an accuracy of 0.75 from 800 cases."""
UPDATE_ATTACKS = [name for name, attack in ATTACKS.items() if attack.lie and not attack.data]


def test_clean_the_default_is_plain_averaging():
    assert np.all(scores(NONE, Combination()) >= scores(NONE, PLAIN) - 0.02)
    assert outcome(NONE, Combination()).honest_refused == 0


def test_clean_training_is_well_above_the_most_frequent_grade():
    sites = simulate_sites(SMALLEST.sizes, SEED)
    grades = torch.cat([sites[name].test.grades(PAPER_SCALE) for name in sites if name not in SMALLEST.attackers])
    assert scores(NONE, PLAIN)[0] > float(torch.bincount(grades).max()) / len(grades) + 0.1


@pytest.mark.parametrize("attack", UPDATE_ATTACKS)
def test_the_default_is_as_good_as_plain_averaging_or_as_training_without_the_attacker(attack):
    """Refusing a site loses its patients: where the lie is weak that costs more, and no refusal can be better."""
    defended, plain, without = scores(attack, Combination()), scores(attack, PLAIN), scores("nan", PLAIN)
    assert np.all(defended >= np.minimum(plain, without) - BY_CHANCE)


@pytest.mark.parametrize("attack", ["scale_10", "scale_minus_10", "ipm_5"])
def test_the_default_survives_what_destroys_plain_averaging(attack):
    assert np.all(scores(attack, Combination()) > scores(attack, PLAIN) + 0.2)
    assert np.all(scores(attack, Combination()) >= scores("nan", PLAIN) - BY_CHANCE)


@pytest.mark.parametrize("combination", [PLAIN, Combination()], ids=["mean", "clip"])
@pytest.mark.parametrize("attack", ["nan", "scale_10", "ipm_5"])
def test_the_model_stays_finite(attack, combination):
    job = attack_job(combination, 1, num_rounds=3)
    lie = ATTACKS[attack].meddle(SMALLEST.attackers, 1)
    averaged = federate(job, simulate_sites(SMALLEST.sizes, 1), lie)
    assert averaged.stopped == ""
    assert all(np.isfinite(value).all() for value in averaged.best.weights.values())


def test_the_same_attack_gives_the_same_numbers():
    job = attack_job(Combination(), 1, num_rounds=2)
    first, again = (run_attack(SMALLEST, "noise", job) for _ in range(2))
    assert dataclasses.asdict(first) == dataclasses.asdict(again)
