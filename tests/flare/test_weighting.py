"""The weights of the average, against the paper's own numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_flare.weighting import (
    WEIGHTINGS,
    inverse_weights,
    literal_weights,
    sample_weights,
    uniform_weights,
    weighted_mean,
)

PAPER_SITES = [200, 180, 120]


def test_sample_weights_are_shares():
    np.testing.assert_allclose(sample_weights(PAPER_SITES), [0.4, 0.36, 0.24])


def test_inverse_weights_are_in_the_ratio_of_the_reciprocals():
    weights = inverse_weights(PAPER_SITES)
    np.testing.assert_allclose(weights / weights[0], [1.0, 200 / 180, 200 / 120])
    assert weights.sum() == pytest.approx(1.0)


def test_the_formula_as_printed_shrinks_a_model_to_2_percent():
    """1/200 + 1/180 + 1/120 = 0.018889: equal models average to 1.9 % of themselves."""
    weights = literal_weights(PAPER_SITES)
    mean = weighted_mean([{"w": np.ones(2)}] * 3, weights)
    np.testing.assert_allclose(mean["w"], 17 / 900, rtol=1e-6)


@pytest.mark.parametrize("name", ["samples", "uniform", "inverse"])
def test_equal_updates_average_to_themselves(name):
    update = {"w": np.array([1.5, -2.0], np.float32)}
    mean = weighted_mean([update] * 3, WEIGHTINGS[name](PAPER_SITES))
    np.testing.assert_allclose(mean["w"], update["w"], rtol=1e-7)


def test_equal_sites_make_every_weighting_but_the_literal_one_uniform():
    for weights in (sample_weights, uniform_weights, inverse_weights):
        np.testing.assert_allclose(weights([7, 7, 7]), [1 / 3] * 3)


@pytest.mark.parametrize("counts", [[], [3, 0], [3, -1], [float("nan")]])
@pytest.mark.parametrize("weighting", list(WEIGHTINGS.values()))
def test_numbers_that_are_no_case_counts_are_refused(weighting, counts):
    with pytest.raises(ValueError, match="one positive number per site"):
        weighting(counts)


def test_updates_with_other_keys_are_refused():
    with pytest.raises(ValueError, match="same keys"):
        weighted_mean([{"a": np.ones(1)}, {"b": np.ones(1)}], np.array([0.5, 0.5]))
