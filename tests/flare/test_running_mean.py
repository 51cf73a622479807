"""The running mean against exact fractions, whatever the order of arrival."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from mhsev_flare.running_mean import RunningMean
from mhsev_flare.weighting import sample_weights, weighted_mean

CANCELLING = [0.1, 1e15, 1e8, -1e15, -1e8]
"""In float64 1e15 keeps eighths behind the point: a plain sum in this order makes 0.125 of 0.1."""


def mean(updates, weights, order=None) -> dict[str, np.ndarray]:
    made = RunningMean()
    for i in order if order is not None else range(len(updates)):
        made.add(updates[i], weights[i])
    return made.result(float(sum(weights)))


def scalars(values) -> list[dict[str, np.ndarray]]:
    return [{"w": np.array([value], np.float32)} for value in values]


def updates_of(seed: int, n: int = 6, spread: int = 3) -> list[dict[str, np.ndarray]]:
    """Float32 updates whose entries differ by ``2 * spread`` powers of ten."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-spread, spread, size=(n, 4, 5))
    return [{"w": (rng.normal(size=(4, 5)) * size).astype(np.float32), "b": np.float32(size[0, 0])} for size in sizes]


def exact(updates, weights, key, index) -> Fraction:
    """The mean of one entry without any rounding."""
    terms = [Fraction(float(w)) * Fraction(float(u[key][index])) for w, u in zip(weights, updates, strict=True)]
    return sum(terms) / Fraction(float(sum(weights)))


def assert_within_one_rounding(found: np.float32, expected: Fraction) -> None:
    """The nearest float32 or its neighbour."""
    nearest = np.float32(float(expected))
    assert np.nextafter(nearest, np.float32(-np.inf)) <= found <= np.nextafter(nearest, np.float32(np.inf))


@pytest.mark.parametrize("seed", range(3))
def test_each_entry_is_the_exact_mean_to_one_float32_rounding(seed):
    updates, weights = updates_of(seed), [200, 180, 120, 7, 1, 33]
    found = mean(updates, weights)
    for index in np.ndindex(4, 5):
        assert_within_one_rounding(found["w"][index], exact(updates, weights, "w", index))
    assert_within_one_rounding(found["b"], exact(updates, weights, "b", ()))


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [2, 3, 7, 3, 7]])  # what cancels has equal weights
def test_what_cancels_leaves_the_small_number_whole_in_every_order(weights):
    updates = scalars(CANCELLING)
    expected = exact(updates, weights, "w", 0)
    for order in itertools.permutations(range(5)):
        assert_within_one_rounding(mean(updates, weights, order)["w"][0], expected)


def test_a_plain_sum_would_not():
    """Else the test before could not fail."""
    plain = sum(float(np.float32(value)) for value in CANCELLING)
    assert plain == 0.125
    assert mean(scalars(CANCELLING), [1] * 5)["w"][0] * 5 == pytest.approx(0.1, rel=1e-6)  # some float32 roundings


@pytest.mark.parametrize("seed", range(3))
def test_every_order_of_arrival_gives_the_same_bits(seed):
    updates, weights = updates_of(seed), [200, 180, 120, 7, 1, 33]
    first = mean(updates, weights)
    for order in itertools.permutations(range(6)):
        other = mean(updates, weights, order)
        assert all(first[key].tobytes() == other[key].tobytes() for key in ("w", "b"))


def test_it_is_the_weighted_mean_of_federated_averaging():
    updates, cases = updates_of(7, n=3, spread=1), [200, 180, 120]
    expected = weighted_mean(updates, sample_weights(cases))
    found = mean(updates, cases)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype == np.float32
        assert found[key].shape == value.shape
        # 1e-7 is one float32 rounding: dividing at the end and at the start differ in the last of 53 bits.
        largest = np.max([np.abs(update[key]) for update in updates], axis=0)
        assert (np.abs(found[key] - value) <= 1e-7 * largest).all()


def test_mean_by_hand():
    """(200 * 1 + 180 * 2 + 120 * 4) / 500 = 2.08; the divisor is the caller's."""
    made = RunningMean()
    for value, n in [(1, 200), (2, 180), (4, 120)]:
        made.add({"w": np.array([value], np.float32)}, n)
    assert made.n_updates == 3
    assert made.result(500)["w"].tolist() == [np.float32(2.08)]
    assert made.result(1)["w"].tolist() == [1040]


def test_updates_are_not_changed_and_not_kept():
    update = {"w": np.array([1.0, 2.0])}
    made = RunningMean()
    made.add(update, 3.0)
    assert update["w"].tolist() == [1, 2]
    update["w"][:] = 99
    made.add({"w": np.array([1.0, 2.0])}, 1.0)
    assert made.result(4)["w"].tolist() == [1, 2]


@pytest.mark.parametrize("other", [{"w": 1.0}, {"w": 1.0, "c": 1.0}, {"w": 1.0, "b": 1.0, "c": 1.0}, {}])
def test_updates_with_other_keys_are_refused_and_change_nothing(other):
    made = RunningMean()
    made.add({"w": np.ones(1), "b": np.ones(1)}, 1.0)
    with pytest.raises(ValueError, match="same keys"):
        made.add({key: np.full(1, value) for key, value in other.items()}, 1.0)
    assert made.n_updates == 1
    assert made.result(1)["w"].tolist() == [1]


def test_the_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="mean of no update"):
        RunningMean().result(1.0)
