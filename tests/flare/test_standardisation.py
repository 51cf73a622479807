"""Federated standardisation equals that of the pooled cases."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_flare.standardisation import pool_standardisation


def message(features: np.ndarray, class_counts: list[int]) -> dict[str, np.ndarray]:
    mean = features.mean(0)
    return {
        "n": np.array([float(len(features))]),
        "mean": mean,
        "squared_deviation": ((features - mean) ** 2).sum(0),
        "class_counts": np.array(class_counts, dtype=np.float64),
    }


def three_sites() -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    generator = np.random.default_rng(0)
    parts = [generator.normal(i, 1 + i, size=(20 + i, 3)) for i in range(3)]
    counts = [[5, 10, 3, 2], [0, 11, 5, 5], [4, 4, 4, 10]]
    return {f"site-{i}": message(p, c) for i, (p, c) in enumerate(zip(parts, counts, strict=True))}, np.concatenate(
        parts
    )


def test_pooled_mean_and_scale_equal_those_of_all_cases():
    messages, features = three_sites()
    pooled = pool_standardisation(messages)
    np.testing.assert_allclose(pooled.feature_mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(pooled.feature_scale, features.std(0), rtol=1e-12)
    # 9, 25, 12 and 17 cases of the four grades: 63 / (4 * n).
    np.testing.assert_allclose(pooled.class_weights, 63 / (4 * np.array([9, 25, 12, 17])))


def test_order_of_arrival_does_not_matter_to_the_last_bit():
    messages, _ = three_sites()
    forward = pool_standardisation(messages).buffers()
    backward = pool_standardisation(dict(reversed(messages.items()))).buffers()
    assert all(np.array_equal(forward[key], backward[key]) for key in forward)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": np.array([np.nan, 0, 0])}, "site-1 sent moments that are not finite"),
        ({"n": np.array([0.0])}, "site-1 sent moments of 0 cases"),
        ({"mean": np.zeros(2), "squared_deviation": np.zeros(2)}, "2 features where 3 are expected"),
    ],
)
def test_a_site_with_odd_sums_is_named(change, words):
    messages, _ = three_sites()
    messages["site-1"] = {**messages["site-1"], **change}
    with pytest.raises(ValueError, match=words):
        pool_standardisation(messages)


def test_a_site_that_leaves_something_out_is_named():
    messages, _ = three_sites()
    del messages["site-2"]["mean"]
    with pytest.raises(ValueError, match="site-2 sent no mean"):
        pool_standardisation(messages)
