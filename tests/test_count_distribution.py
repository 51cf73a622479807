"""The distribution of the count against SciPy, enumeration and its moments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from mhsev_monai.count_distribution import (
    EXACT_TRIALS,
    MOST_COUNTED,
    add_poisson,
    candidate_count,
    count_log_likelihood,
    count_quantile,
    grade_logits,
    poisson_binomial,
)
from mhsev_monai.ordinal import corn_probabilities

NONE = torch.zeros(1, dtype=torch.float64)
NO_MORE = torch.zeros((), dtype=torch.float64)


def test_few_trials_agree_with_the_sum_over_all_outcomes():
    p = [0.1, 0.5, 0.85, 0.3]
    expected = np.zeros(5)
    for outcome in itertools.product((0, 1), repeat=4):
        expected[sum(outcome)] += math.prod(q if hit else 1 - q for q, hit in zip(p, outcome, strict=True))
    found = poisson_binomial(torch.tensor([p], dtype=torch.float64))[0]
    np.testing.assert_allclose(found[:5], expected, atol=1e-15)
    assert found[5:].abs().max() == 0


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (7, 0.5), (64, 0.07), (90, 0.6)])
def test_equal_trials_are_binomial(n, p):
    found = poisson_binomial(torch.full((1, n), p, dtype=torch.float64))[0]
    np.testing.assert_allclose(found[: n + 1], stats.binom.pmf(np.arange(n + 1), n, p), atol=1e-14)


def test_more_than_the_last_bin_stays_in_it():
    found = poisson_binomial(torch.full((1, 180), 0.7, dtype=torch.float64))[0]
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert found[MOST_COUNTED] == pytest.approx(stats.binom.sf(MOST_COUNTED - 1, 180, 0.7), abs=1e-12)


def test_missed_bleeds_of_a_scan_without_findings_are_poisson():
    found = poisson_binomial(torch.zeros(1, 3, dtype=torch.float64))
    total = add_poisson(found, NONE + 1.7, NO_MORE)[0]
    np.testing.assert_allclose(total[:30], stats.poisson.pmf(np.arange(30), 1.7), atol=1e-12)


def test_means_add_up():
    p = torch.rand(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.3
    base = torch.linspace(0.1, 1.0, 5, dtype=torch.float64)
    total = add_poisson(poisson_binomial(p), base, torch.tensor(0.25, dtype=torch.float64))
    counts = torch.arange(MOST_COUNTED + 1, dtype=torch.float64)
    np.testing.assert_allclose(total.sum(dim=1), 1, atol=1e-12)
    # Every found one brings a quarter of a missed one along.
    np.testing.assert_allclose(total @ counts, 1.25 * p.sum(dim=1) + base, rtol=1e-9)


def test_the_improbable_rest_as_poisson_is_within_le_cams_bound():
    generator = torch.Generator().manual_seed(3)
    likely = torch.rand(4, 20, dtype=torch.float64, generator=generator)
    rest = 0.02 * torch.rand(4, 150, dtype=torch.float64, generator=generator)
    p = torch.cat([rest, likely], dim=1)
    short = candidate_count(p, NO_MORE, NO_MORE)
    exact = poisson_binomial(p)
    cut = p.topk(EXACT_TRIALS, dim=1).values[:, -1:]
    bound = (p[p <= cut.expand_as(p)].square()).sum()
    worst = (short - exact).abs().max()
    assert 0 < worst < bound
    assert bound < 0.05


def test_grades_are_sums_over_their_counts():
    pmf = torch.from_numpy(stats.poisson.pmf(np.arange(MOST_COUNTED + 1), [[2.0], [7.5]]))
    grades = corn_probabilities(grade_logits(pmf, (1, 6, 11)))
    expected = [[pmf[i, low:high].sum() for low, high in ((0, 1), (1, 6), (6, 11), (11, None))] for i in (0, 1)]
    np.testing.assert_allclose(grades, expected, atol=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_quantiles_are_those_of_scipy(share):
    means = np.array([0.4, 3.0, 20.0])
    pmf = torch.from_numpy(stats.poisson.pmf(np.arange(MOST_COUNTED + 1), means[:, None]))
    assert count_quantile(pmf, share).tolist() == stats.poisson.ppf(share, means).tolist()


def test_counts_beyond_the_last_bin_have_its_probability():
    pmf = torch.full((2, MOST_COUNTED + 1), 1 / (MOST_COUNTED + 1))
    found = count_log_likelihood(pmf, torch.tensor([3.0, 4000.0]))
    np.testing.assert_allclose(found, -math.log(MOST_COUNTED + 1), rtol=1e-6)


def test_the_likelihood_of_counts_alone_finds_out_which_kind_of_candidate_counts():
    """Scans with two kinds of candidates, of which one is a bleed with probability 0.9 and the other with 0.05."""
    rng = np.random.default_rng(1)
    kinds = rng.random((400, 30)) < 0.3
    counts = torch.from_numpy((rng.random((400, 30)) < np.where(kinds, 0.9, 0.05)).sum(axis=1)).double()
    logits = torch.tensor([-1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=50)

    def loss():
        optimiser.zero_grad()
        p = torch.sigmoid(logits)[torch.from_numpy(kinds).long()]
        value = -count_log_likelihood(candidate_count(p, NO_MORE, NO_MORE), counts).mean()
        value.backward()
        return value

    optimiser.step(loss)
    # Three standard errors of each share, from 8400 and 3600 candidates seen through sums of thirty: about 0.02.
    np.testing.assert_allclose(torch.sigmoid(logits).detach(), [0.05, 0.9], atol=0.03)
