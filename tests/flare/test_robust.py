"""Robust aggregation against Flower, byzpy and SciPy, the laws that such rules obey, and numbers worked out by hand.

Stored numbers are those of ``UPDATES``, by flwr 1.42.0 (``server/strategy/aggregate.py``, numpy 2.4.6) and byzpy 0.1.4:

    results = [([row], 1) for row in UPDATES]
    aggregate_median(results), aggregate_trimmed_avg(results, f / 7 + 1e-9), aggregate_krum(results, f, 7 - f)
    distances = np.sort(_compute_distances([[row] for row in UPDATES])); distances[:, 1 : 7 - f - 1].sum(axis=1)
    NearestNeighborMixing(f=2).pre_aggregate(rows)         # byzpy, on torch float64 rows
    GeometricMedian(tol=1e-14, max_iter=10000).aggregate(rows)
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.optimize import minimize

from mhsev_flare import robust, weighting
from mhsev_flare.robust import RULES, check_tolerance, clip_to_median_norm, geometric_median, opposing

UPDATES = np.array(
    [
        [0.0, 0.3, -0.27, -0.89],
        [-0.45, -0.99, 0.06, 1.34],
        [-0.49, -0.62, 0.49, 0.36],
        [0.11, -0.93, -0.03, 0.7],
        [-1.34, -0.46, -1.9, -1.29],
        [-1.84, -0.24, -1.27, 0.27],
        [-1.28, 1.52, 20.16, 4.32],
    ]
)
WEIGHTS = np.array([3, 1, 2, 5, 4, 2, 3]) / 20
for constant in (UPDATES, WEIGHTS):
    constant.setflags(write=False)  # a rule that wrote into its input would raise
BEARING = [name for name in RULES if name not in ("mean", "clip")]
EXACT = {"rtol": 0, "atol": 1e-13}  # the same sums in another order


def combine(name, matrix, weights=WEIGHTS, f=2):
    return RULES[name].combine(matrix, weights, f)


@pytest.mark.parametrize(
    ("name", "f", "expected"),
    [
        ("mean", 0, [-0.688, -0.187, 2.521, 0.5615]),  # aggregate([([row], count), ...])
        ("median", 3, [-0.49, -0.46, -0.03, 0.36]),
        ("trimmed_mean", 1, [-0.712, -0.39, -0.204, 0.356]),
        ("trimmed_mean", 2, [-0.74, -0.44, -0.08, 1.33 / 3]),
        ("trimmed_mean", 3, [-0.49, -0.46, -0.03, 0.36]),
        ("multi_krum", 1, [-4.01 / 6, -0.49, -2.92 / 6, 0.49 / 6]),
        ("multi_krum", 2, [-0.534, -0.496, -0.204, 0.356]),
    ],
)
def test_rules_agree_with_flower(name, f, expected):
    np.testing.assert_allclose(combine(name, UPDATES, f=f), expected, **EXACT)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (1, [18.5502, 14.3755, 10.4251, 11.6888, 27.2821, 19.611, 1704.0045]),
        (2, [12.5274, 7.4271, 5.3525, 5.6877, 17.5017, 13.6099, 1256.3487]),
    ],
)
def test_krum_scores_agree_with_flower(f, expected):
    np.testing.assert_allclose(robust.krum_scores(UPDATES, f), expected, rtol=1e-12)  # two decimals squared: exact


def test_mixing_agrees_with_byzpy():
    one, other = [-0.712, -0.39, -0.596, -0.17], [-0.534, -0.496, -0.204, 0.356]
    last = [[-0.8019999999999999, -0.648, -0.53, 0.276], [-0.422, -0.144, 4.082, 1.166]]
    mixed = robust.nearest_neighbour_mixing(UPDATES, 2)
    np.testing.assert_allclose(mixed, [one, other, other, other, one, *last], **EXACT)


def test_geometric_median_agrees_with_byzpy():
    expected = [-0.4744150581244105, -0.6007691300046685, 0.13562141795835425, 0.39305119155204576]
    np.testing.assert_allclose(
        geometric_median(UPDATES, np.ones(7)), expected, atol=1e-11
    )  # both stop at 1e-12 or less


def sum_of_distances(point, matrix, weights):
    return weights @ np.linalg.norm(matrix - point, axis=1)


@pytest.mark.parametrize("n", [3, 4, 9])
@pytest.mark.parametrize("far", [1.0, 1e3])
def test_geometric_median_is_the_minimum_that_scipy_finds(n, far):
    rng = np.random.default_rng(n)
    matrix, weights = rng.normal(size=(n, 5)), rng.uniform(0.8, 1.2, n)
    matrix[0] *= far
    options = {"gtol": 1e-12, "maxiter": 10_000}

    def slope(point, matrix, weights):
        offsets = point - matrix
        return weights @ (offsets / np.linalg.norm(offsets, axis=1, keepdims=True))

    start = np.median(matrix, axis=0)
    found = minimize(sum_of_distances, start, (matrix, weights), jac=slope, method="BFGS", options=options)
    # BFGS stalls once the sum stops falling in its last digits, at about the root of the rounding: 1e-8.
    np.testing.assert_allclose(geometric_median(matrix, weights), found.x, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "weights", "expected"),
    [
        ([[0, 0], [1, 0], [0.5, 3**0.5 / 2]], [1, 1, 1], [0.5, 3**0.5 / 6]),  # equal sides: the centroid
        ([[0, 0], [2, 0], [-1, 0.5]], [1, 1, 1], [0, 0]),  # 120 degrees or more: that corner
        ([[0, 0], [8, 1], [3, 9]], [2, 1, 0.9], [0, 0]),  # a row with more than half of the weight
        ([[1], [2], [7], [9]], [1, 1, 1, 4], [9]),  # on a line: the weighted median
        ([[0, 0], [4, 2]], [1, 1], [2, 1]),  # every point between ties: the middle
        ([[0, 0], [0, 0], [0, 0], [6, 1], [5, 5]], [1] * 5, [0, 0]),  # coincident rows count together
        ([[0, 0], [1, 1], [-1, 1], [1, -1], [-1, -1]], [0, 1, 1, 1, 1], [0, 0]),  # weight 0, yet where the rest meet
    ],
)
def test_geometric_medians_known_from_geometry(rows, weights, expected):
    result = geometric_median(np.array(rows, np.float64), np.array(weights, np.float64))
    np.testing.assert_allclose(result, expected, atol=1e-11)  # steps end at 1e-12


@pytest.mark.parametrize("matrix", [UPDATES, np.array([[0.0, 0.0], [1.0, 0.0], [-0.49, 0.87]])])  # 119.4 degrees
def test_a_search_cut_short_still_betters_every_site(matrix):
    weights = np.ones(len(matrix))
    cut = geometric_median(matrix, weights, n_steps=0)
    assert sum_of_distances(cut, matrix, weights) < min(sum_of_distances(row, matrix, weights) for row in matrix)


@pytest.mark.parametrize("name", RULES)
def test_the_order_of_sites_does_not_matter(name):
    order = [4, 2, 6, 0, 5, 1, 3]
    permuted = combine(name, UPDATES[order], WEIGHTS[order])
    np.testing.assert_allclose(permuted, combine(name, UPDATES), atol=1e-11)  # geometric median: steps end at 1e-12


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("factor", [-2.0, 1e-6, 1e4])
def test_scaled_updates_give_the_scaled_result(name, factor):
    # 1e-10: the geometric median's stop is relative to the distances, so scale changes only its last steps.
    result = combine(name, factor * UPDATES) / factor
    np.testing.assert_allclose(result, combine(name, UPDATES), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in RULES if name != "clip"])  # lengths depend on where zero is
def test_shifted_updates_give_the_shifted_result(name):
    shift = np.array([100.0, -3.0, 0.5, 7.0])
    # 1e-10: 100 + u keeps u to 1e-14, and distances magnify that a little.
    np.testing.assert_allclose(combine(name, UPDATES + shift) - shift, combine(name, UPDATES), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", RULES)
def test_equal_updates_give_that_update(name):
    row = np.array([0.1, -0.7, 3.3])
    np.testing.assert_allclose(combine(name, np.tile(row, (7, 1))), row, rtol=1e-15)  # sum of seven, over seven


@pytest.mark.parametrize("lie", [(1e30, 1e30), (1e30, -1e30), (1e8, 1e30)])
@pytest.mark.parametrize("name", BEARING)
def test_two_liars_of_seven_cannot_leave_the_neighbourhood_of_the_honest(name, lie):
    matrix, honest = UPDATES.copy(), UPDATES[:5]
    matrix[5:] = np.array(lie)[:, None]
    spread = max(np.linalg.norm(honest - row, axis=1).max() for row in honest)
    assert np.linalg.norm(combine(name, matrix) - honest, axis=1).max() < 2 * spread
    assert np.linalg.norm(combine("mean", matrix)) > 1e6 * spread or sum(lie) == 0


@pytest.mark.parametrize("name", RULES)
def test_columns_count_alike_however_many_there_are(name):
    result = combine(name, np.repeat(UPDATES, 3000, axis=1))  # several blocks of columns, none like another
    np.testing.assert_allclose(result, np.repeat(combine(name, UPDATES), 3000), atol=1e-11)  # 12 000 roundings of 1e-16


@pytest.mark.parametrize("name", RULES)
def test_weights_count_where_the_rule_says_so(name):
    """The mean keeps the size of the weights, the geometric median their ratios, the others nothing."""
    changed = not np.allclose(combine(name, UPDATES, WEIGHTS[::-1]), combine(name, UPDATES))
    assert changed == RULES[name].uses_weights
    ratio = 0.25 if name in ("mean", "clip") else 1.0
    np.testing.assert_allclose(combine(name, UPDATES, WEIGHTS / 4), ratio * combine(name, UPDATES), rtol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_memory_stays_within_a_few_copies(name):
    matrix = np.random.default_rng(0).normal(size=(40, 20_000))  # (n, n, d) would be 40 copies
    tracemalloc.start()
    combine(name, matrix, np.ones(40))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * matrix.nbytes


@pytest.mark.parametrize("weights", [weighting.sample_weights([200, 180, 120]), weighting.literal_weights([9, 5, 2])])
@pytest.mark.parametrize("name", ["mean", "clip"])
def test_clip_and_mean_are_the_plain_average_bit_for_bit_when_nothing_is_odd(name, weights):
    rng = np.random.default_rng(3)
    updates = [{"b": rng.normal(size=(3, 2, 5)).astype(np.float32), "a": np.float32(1.1 * i)} for i in range(3)]
    matrix, layout = robust.flatten(updates)
    result = robust.unflatten(combine(name, matrix, weights), layout)
    for key, array in weighting.weighted_mean(updates, weights).items():
        assert result[key].tobytes() == array.tobytes()
        assert result[key].shape == array.shape


def test_clipping_shortens_to_the_median_norm_only_what_exceeds_the_limit():
    matrix = np.array([[3.0, 4.0], [0.0, 10.0], [0.1, 0.0], [-30.0, 40.0], [0.0, 4.0]])  # norms 5, 10, 0.1, 50, 4
    np.testing.assert_allclose(robust.norm_ratios(matrix), [1, 2, 0.02, 10, 0.8], **EXACT)
    clipped = clip_to_median_norm(matrix, 2.0)
    np.testing.assert_allclose(clipped[3], [-3, 4], **EXACT)
    assert np.array_equal(np.delete(clipped, 3, 0), np.delete(matrix, 3, 0))


def test_an_endless_update_counts_in_clip_as_one_of_median_norm():
    matrix = np.vstack([UPDATES[:6], [-1e30, 0, 0, 0]])
    median_norm = np.median(np.linalg.norm(matrix, axis=1))
    expected = WEIGHTS[:6] @ UPDATES[:6] - WEIGHTS[6] * median_norm * np.eye(4)[0]
    np.testing.assert_allclose(combine("clip", matrix), expected, **EXACT)


def test_a_median_norm_of_zero_lets_nothing_through():
    matrix = np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    assert robust.norm_ratios(matrix).tolist() == [1, 1, np.inf]
    assert not clip_to_median_norm(matrix, 2.0).any()
    assert robust.norm_ratios(matrix * 0).tolist() == [1, 1, 1]


def test_cosines_by_hand_and_nan_at_zero():
    matrix = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, -3.0], [0.0, 0.0]])
    half = 0.5**0.5
    expected = [[1, 0, -half, np.nan], [0, 1, -half, np.nan], [-half, -half, 1, np.nan], [np.nan] * 4]
    np.testing.assert_allclose(robust.pairwise_cosines(matrix), expected, **EXACT)
    np.testing.assert_allclose(robust.cosines_to_median(matrix[:3]), [np.nan] * 3)  # the median is zero
    aligned = np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 0.0], [-1.0, 1.0], [9.0, 3.0]])  # the median is (1, 1)
    np.testing.assert_allclose(robust.cosines_to_median(aligned), [half, 1, np.nan, 0, 12 / 180**0.5], **EXACT)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1, 0], [0, 1], [-1, -1]], [0, 0, 1]),  # cosines 0 between the honest, -0.71 from both to the liar
        ([[1, 0], [0, 1], [1, 1]], [0, 0, 0]),  # the same before the flip
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 0, 0]),  # unlike is not opposed
        ([[1, 0], [0, 0], [-1, 0]], [0, 0, 0]),  # a zero row opposes none, so no row opposes both
        ([[1, 0], [1, 0], [1, 0], [-1, 0], [-1, 0]], [0, 0, 0, 1, 1]),
        ([[1, 0], [1, 0], [-1, 0], [-1, 0]], [1, 1, 1, 1]),  # half and half: nobody knows
        ([[1, 0], [-1, 0]], [0, 0]),
        ([[1, 0]], [0]),
    ],
)
def test_only_the_one_that_flips_its_sign_opposes_most_of_the_others(rows, expected):
    assert opposing(np.array(rows, np.float64), threshold=0.2).tolist() == [bool(value) for value in expected]


def test_flattening_sorts_keys_and_is_undone():
    updates = [{"w": np.array([[i, 2], [3, 4]], np.float32), "b": np.array(-i, np.float32)} for i in (5, 6)]
    matrix, layout = robust.flatten(updates)
    assert matrix.tolist() == [[-5, 5, 2, 3, 4], [-6, 6, 2, 3, 4]]
    assert matrix.dtype == np.float64
    back = robust.unflatten(matrix[1], layout)
    assert list(back) == ["b", "w"]
    assert all(back[key].dtype == np.float32 and np.array_equal(back[key], updates[1][key]) for key in back)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: robust.flatten([]), "at least one update"),
        (lambda: robust.flatten([{"a": np.ones(1)}, {"b": np.ones(1)}]), r"update 1 .* same keys .*\['a', 'b'\]"),
        (lambda: robust.flatten([{"a": np.ones(2)}, {"a": np.ones((2, 1))}]), r"a of update 1 .*\(2,\).*\(2, 1\)"),
        (lambda: robust.unflatten(np.ones(3), robust.Layout(("a",), ((2,),))), r"shape \(2,\), got \(3,\)"),
        (lambda: combine("mean", UPDATES, np.ones(6)), "weights must be 7 numbers"),
        (lambda: geometric_median(UPDATES, -WEIGHTS), "from 0 up"),
        (lambda: geometric_median(UPDATES, 0 * WEIGHTS), "not all 0"),
        (lambda: robust.trimmed_mean(UPDATES, 4), "trimming .* 9 rows or more, got f = 4 and 7"),
        (lambda: robust.multi_krum(UPDATES[:3], 1), "Krum score .* 4 rows or more, got f = 1 and 3"),
        (lambda: robust.nearest_neighbour_mixing(UPDATES, -1), "f >= 0.*got f = -1"),
        (lambda: clip_to_median_norm(UPDATES, 0.5), "limit must be 1 or more median norms, got 0.5"),
        (lambda: opposing(UPDATES, 1.0), r"threshold must be in \[0, 1\), got 1.0"),
        (lambda: check_tolerance("krum", 5, 1), "one of mean, clip, .*got 'krum'.*n = 5.*f = 1"),
        (lambda: check_tolerance("median", 5, -1), "rule median with n = 5 .*f from 0 up, got f = -1"),
        (lambda: check_tolerance("multi_krum", 3, 1), "multi_krum with f = 1 .*n = 5 .*got n = 3.*lower f.*median"),
    ],
)
def test_errors_say_what_came_and_what_is_accepted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "least"), [(name, 5) for name in BEARING if name != "multi_krum"] + [("multi_krum", 7)]
)
def test_a_rule_is_accepted_from_its_least_number_of_sites_on(name, least):
    check_tolerance(name, least, 2)
    assert np.isfinite(combine(name, UPDATES[:least], np.ones(least))).all()
    with pytest.raises(ValueError, match=f"needs n = {least}"):
        check_tolerance(name, least - 1, 2)
    check_tolerance("clip", 1, 2)
