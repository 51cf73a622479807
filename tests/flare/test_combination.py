"""From a round's updates to one: federated averaging where nothing is odd, and only the odd one out where one is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mhsev_flare.combination import CLIP, MEAN, Combination, TooFewUpdatesError
from mhsev_flare.robust import RULES
from mhsev_flare.weighting import WEIGHTINGS, weighted_mean

CASES = [200, 180, 120]
EXACT = {"rtol": 2e-7}  # results are float32: two roundings


def updates_of(rows) -> list[dict[str, np.ndarray]]:
    """Updates of two arrays whose entries are those of a row."""
    matrix = np.array(rows, dtype=np.float32)
    return [{"w": row[:-1].reshape(-1, 1), "b": row[-1:]} for row in matrix]


def vector(update) -> np.ndarray:
    return np.append(update["w"].ravel(), update["b"])


def combine(rows, cases=None, rule=CLIP, n_refused=0, **changes):
    counts = [10] * len(rows) if cases is None else cases
    return Combination(rule=rule, **changes).combine(updates_of(rows), counts, counts, n_refused)


def honest(seed: int = 0, n: int = 3, d: int = 12) -> np.ndarray:
    """Updates that point roughly one way."""
    rng = np.random.default_rng(seed)
    return 1.0 + 0.5 * rng.normal(size=(n, d))


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
@pytest.mark.parametrize("rule", [MEAN, CLIP])
@pytest.mark.parametrize("seed", range(3))
def test_mean_and_clip_are_federated_averaging_bit_for_bit_where_nothing_is_odd(rule, weighting, seed):
    updates = updates_of(honest(seed))
    combined = Combination(weighting, rule).combine(updates, CASES, CASES)
    expected = weighted_mean(updates, WEIGHTINGS[weighting](CASES))
    assert set(combined.update) == {"w", "b"}
    for key, value in expected.items():
        assert combined.update[key].tobytes() == value.tobytes()
        assert combined.update[key].shape == value.shape
    assert combined.shares == tuple(WEIGHTINGS[weighting](CASES))


def test_median_and_trimmed_mean_are_those_of_numpy_and_scipy():
    rows = honest(n=5).astype(np.float32)
    found = {rule: vector(combine(rows, rule=rule, tolerated=1).update) for rule in ("median", "trimmed_mean")}
    np.testing.assert_allclose(found["median"], np.median(rows, axis=0), **EXACT)
    np.testing.assert_allclose(found["trimmed_mean"], stats.trim_mean(rows, 0.2, axis=0), **EXACT)


def test_clip_shortens_one_long_update_to_the_median_length():
    """Lengths 5, 5, 5 and 50: the last counts as (3, 4)."""
    rows = [[3, 4], [4, 3], [5, 0], [30, 40]]
    combined = combine(rows)
    np.testing.assert_allclose(vector(combined.update), [(3 + 4 + 5 + 3) / 4, (4 + 3 + 0 + 4) / 4], **EXACT)
    assert [o.clipped for o in combined.oddities] == [False, False, False, True]
    assert combined.shares == (0.25,) * 4
    # Of ten times the median and no more, it is as long as the limit and not longer.
    np.testing.assert_allclose(vector(combine(rows, norm_limit=10.0).update), [42 / 4, 47 / 4], **EXACT)


@pytest.mark.parametrize("factor", [2.1, 5.0, 19.9])
def test_a_longer_lie_gains_nothing(factor):
    rows = [[3, 4], [4, 3], [5, 0], [3 * factor, 4 * factor]]
    np.testing.assert_allclose(vector(combine(rows).update), [3.75, 2.75], **EXACT)


@pytest.mark.parametrize("liar", range(3))
@pytest.mark.parametrize("cases", [[10, 10, 10], CASES])
def test_of_three_exactly_the_one_that_flips_its_sign_is_refused(liar, cases):
    rows = honest()
    rows[liar] *= -1
    combined = combine(rows, cases)
    assert [bool(o.reason) for o in combined.oddities] == [row == liar for row in range(3)]
    assert combined.oddities[liar].reason.startswith("an update against most others")
    others = [row for row in range(3) if row != liar]
    shares = np.array([cases[row] for row in others]) / sum(cases[row] for row in others)
    np.testing.assert_allclose(vector(combined.update), shares @ rows[others], **EXACT)
    assert combined.shares[liar] == 0
    np.testing.assert_allclose([combined.shares[row] for row in others], shares, rtol=1e-15)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ([0, 0], "an update of zeros, where the others changed the model"),
        ([63, 84], "an update 21 times as long as the median, where 20 is the limit"),
        ([-3, -4], "an update against most others"),
    ],
)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != MEAN])
def test_what_is_refused_leaves_no_trace(odd, words, rule):
    rows = [[3, 4], [4, 3], [5, 0], odd]
    combined = combine(rows, [10, 20, 30, 40], rule)
    assert [o.reason == "" for o in combined.oddities] == [True, True, True, False]
    assert combined.oddities[3].reason.startswith(words)
    assert combined.shares[3] == 0
    alone = Combination(rule=rule).combine(updates_of(rows[:3]), [10, 20, 30], [10, 20, 30, 40])
    assert all(combined.update[key].tobytes() == value.tobytes() for key, value in alone.update.items())


def test_gates_open_as_far_as_they_are_set():
    rows = [[3, 4], [4, 3], [5, 0], [-300, -400]]
    assert combine(rows, norm_gate=100.0, opposition=1.0).oddities[3].reason == ""
    assert combine(rows, norm_gate=99.0, opposition=1.0).oddities[3].reason.startswith("an update 100 times")


def test_the_mean_compares_nothing():
    combined = combine([[3, 4], [4, 3], [-3000, 0]], rule=MEAN)
    assert combined.oddities == (None, None, None)
    np.testing.assert_allclose(vector(combined.update), [-2993 / 3, 7 / 3], **EXACT)


@pytest.mark.parametrize("rule", list(RULES))
def test_one_update_is_the_result_where_no_liar_is_borne(rule):
    row = honest(n=1)
    if RULES[rule].least_sites(0) > 1:
        with pytest.raises(TooFewUpdatesError, match=f"1 acceptable updates in this round are too few for {rule}"):
            combine(row, rule=rule)
    else:
        assert np.array_equal(vector(combine(row, rule=rule).update), row[0].astype(np.float32))


@pytest.mark.parametrize("rule", list(RULES))
def test_no_update_is_too_few_for_any_rule(rule):
    with pytest.raises(TooFewUpdatesError, match=f"^0 acceptable updates in this round are too few for {rule}$"):
        combine([], rule=rule)


@pytest.mark.parametrize(
    ("n", "tolerated", "n_refused", "enough"),
    [
        (3, 1, 0, True),
        (2, 1, 0, False),
        (2, 1, 1, True),  # the liar was caught: the two that are left need no tolerance
        (4, 2, 0, False),
        (4, 2, 1, True),
        (2, 2, 1, False),
        (1, 1, 5, True),  # more were caught than were feared
    ],
)
def test_liars_that_were_caught_need_no_tolerance(n, tolerated, n_refused, enough):
    rows = honest(n=5)[:n]
    if enough:
        assert combine(rows, rule="median", tolerated=tolerated, n_refused=n_refused).shares
    else:
        with pytest.raises(TooFewUpdatesError, match=f"{n} acceptable updates"):
            combine(rows, rule="median", tolerated=tolerated, n_refused=n_refused)


def test_the_trim_is_that_of_the_liars_that_are_left():
    """Trimming one at each end of 1, 2, 9 leaves 2; trimming none, 4."""
    rows = [[1, 1], [2, 2], [9, 9]]
    for n_refused, expected in [(0, 2.0), (1, 4.0), (3, 4.0)]:
        combined = combine(rows, rule="trimmed_mean", tolerated=1, n_refused=n_refused)
        np.testing.assert_allclose(vector(combined.update), [expected] * 2, **EXACT)
    # One that is refused beside the others counts as caught, too.
    combined = combine([*rows, [0, 0]], rule="trimmed_mean", tolerated=1)
    np.testing.assert_allclose(vector(combined.update), [4.0] * 2, **EXACT)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("samples", [0.2, 0.2, 0.6]),  # 10, 10 and, for 1000, three times the median: 30
        ("uniform", [1 / 3] * 3),
        # A high number weighs little here; a low one is what must not be believed, see below.
        ("inverse", [100 / 201, 100 / 201, 1 / 201]),
        ("literal", [1 / 10, 1 / 10, 1 / 30]),
    ],
)
def test_a_site_counts_for_three_times_the_median_at_most(weighting, expected):
    combination = Combination(weighting)
    np.testing.assert_allclose(combination.weights([10, 10, 1000], [10, 10, 1000]), expected, rtol=1e-15)


def test_where_few_cases_weigh_most_a_third_of_the_median_is_the_least():
    # 30, 30 and, for 1, a third of the median: 10; their inverses over the sum of these.
    np.testing.assert_allclose(Combination("inverse").weights([30, 30, 1], [30, 30, 1]), [0.2, 0.2, 0.6], rtol=1e-15)


@pytest.mark.parametrize(
    ("ratio", "cases", "expected"),
    [
        (1.0, [10, 20, 60], [1 / 5, 2 / 5, 2 / 5]),  # 10, 20, 20
        (2.0, [10, 20, 60], [1 / 7, 2 / 7, 4 / 7]),  # 10, 20, 40
        (3.0, [10, 20, 60], [1 / 9, 2 / 9, 6 / 9]),  # 60 is the limit
        (3.0, [10, 60], [1 / 7, 6 / 7]),  # the median is that of the study: 20, though its site did not answer
    ],
)
def test_the_limit_is_a_multiple_of_the_median_over_the_study(ratio, cases, expected):
    weights = Combination(max_weight_ratio=ratio).weights(cases, [10, 20, 60])
    np.testing.assert_allclose(weights, expected, rtol=1e-15)


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
@pytest.mark.parametrize("all_cases", [CASES, [10, 10, 1000], [1, 50, 50, 50, 200]])
def test_a_raw_weight_is_proportional_to_the_weight(weighting, all_cases):
    combination = Combination(weighting)
    raw = np.array([combination.raw_weight(n, all_cases) for n in all_cases])
    for answered in (slice(None), slice(0, 2), slice(1, None)):
        weights = combination.weights(all_cases[answered], all_cases)
        ratios = raw[answered] / weights
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-14)  # a quotient of quotients


@pytest.mark.parametrize("weighting", ["samples", "uniform", "inverse"])
@pytest.mark.parametrize("rule", list(RULES))
def test_shares_sum_to_one_whoever_is_refused(weighting, rule):
    rows = honest(n=5)
    for refused in (None, 2):
        if refused is not None:
            rows[refused] *= -30
        shares = combine(rows, [5, 10, 20, 40, 1000], rule, weighting=weighting).shares
        assert sum(shares) == pytest.approx(1.0, rel=1e-15)
        assert all(share > 0 for i, share in enumerate(shares) if i != refused or rule == MEAN)


def test_the_literal_weights_do_not_sum_to_one():
    shares = combine(honest(), CASES, weighting="literal").shares
    assert sum(shares) == pytest.approx(17 / 900, rel=1e-15)


@pytest.mark.parametrize("rule", list(RULES))
def test_updates_are_not_changed(rule):
    updates = updates_of([[3, 4], [4, 3], [5, 0], [30, 40], [-3, -4]])
    for update in updates:
        for value in update.values():
            value.setflags(write=False)
    Combination(rule=rule).combine(updates, [10] * 5, [10] * 5)


def test_a_rule_is_checked_against_the_number_of_sites():
    Combination(rule="median", tolerated=1).check(3)
    with pytest.raises(ValueError, match="needs n = 3 sites or more, got n = 2"):
        Combination(rule="median", tolerated=1).check(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weighting": "fair"}, "weighting must be one of .*got 'fair'"),
        ({"rule": "krum"}, "rule must be one of .*got 'krum'"),
        ({"max_weight_ratio": 0.5}, "max_weight_ratio must be 1 or more, got 0.5"),
        ({"tolerated": -1}, "tolerated must be 0 or more, got -1"),
        ({"norm_limit": 0.5}, "norm_limit and norm_gate must be 1 or more, got 0.5"),
        ({"norm_gate": 0.0}, "norm_limit and norm_gate must be 1 or more"),
        ({"opposition": 2.0}, "opposition must be between 0 and 1, got 2.0"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_is_accepted(arguments, message):
    with pytest.raises(ValueError, match=message):
        Combination(**arguments)


def test_the_refused_do_not_measure_the_others():
    """Lengths 1, 2, 4.5, 100: once 100 is refused, the median of the rest is 2, and 4.5 is more than twice of it."""
    combined = combine([[1, 0], [2, 0], [4.5, 0], [100, 0]], weighting="uniform", opposition=1.0)
    assert [bool(o.reason) for o in combined.oddities] == [False, False, False, True]
    assert [o.clipped for o in combined.oddities] == [False, False, True, False]
    np.testing.assert_allclose(vector(combined.update), [(1 + 2 + 2) / 3, 0], **EXACT)
