"""Synthetic backgrounds: the federation's moments, the same rows everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.shapley_background import SecondMoments, common_background, synthetic_rows, synthetic_scans

MEAN, SCALE = np.array([1.0, -2.0, 0.0, 5.0]), np.array([0.5, 2.0, 0.0, 1.0])


def test_rows_have_the_moments_that_were_given():
    rows = synthetic_rows(MEAN, SCALE**2, 20_000, seed=1)
    assert rows.dtype == np.float32
    # Standard errors of 20,000 draws: s / 141 of a mean, s / 200 of a deviation; five of them.
    np.testing.assert_allclose(rows.mean(axis=0), MEAN, rtol=0, atol=5 * 2 / 141)
    np.testing.assert_allclose(rows.std(axis=0), SCALE, rtol=0, atol=5 * 2 / 200)
    assert (rows[:, 2] == 0).all()
    assert np.abs(np.corrcoef(rows[:, [0, 1, 3]].T) - np.eye(3)).max() < 5 / 141


def test_covariances_are_kept_but_for_the_share_that_is_taken_away():
    covariance = np.array([[0.25, 0.6, 0.0, 0.0], [0.6, 4.0, 0.0, -1.0], [0.0] * 4, [0.0, -1.0, 0.0, 1.0]])
    rows = synthetic_rows(MEAN, covariance, 20_000, seed=2, shrinkage=0.25)
    expected = 0.75 * covariance + 0.25 * np.diag(np.diagonal(covariance))
    np.testing.assert_allclose(np.cov(rows.T), expected, rtol=0, atol=5 * 4 * 2**0.5 / 141)
    all_of_it = synthetic_rows(MEAN, covariance, 50, seed=3, shrinkage=1.0)
    np.testing.assert_array_equal(all_of_it, synthetic_rows(MEAN, SCALE**2, 50, seed=3))


def test_second_moments_of_fewer_cases_than_features_still_give_rows():
    cases = np.random.default_rng(0).normal(size=(3, 12))
    rows = synthetic_rows(cases.mean(axis=0), np.cov(cases.T), 10, seed=0)
    assert np.isfinite(rows).all()


def test_every_site_draws_the_same_rows_from_the_model():
    first, second = (SeverityMLP(4, [3], 4, dropout=0.0, max_deviation=3.0, seed=seed) for seed in (1, 2))
    for network in (first, second):
        network.feature_mean.copy_(torch.from_numpy(MEAN))
        network.feature_scale.copy_(torch.from_numpy(SCALE))
    rows = common_background(first, 30, seed=7)
    assert torch.equal(rows, common_background(second, 30, seed=7))
    assert not torch.equal(rows, common_background(first, 30, seed=8))
    np.testing.assert_array_equal(rows.numpy(), synthetic_rows(MEAN, SCALE**2, 30, seed=7))
    # A golden number: another generator, or another order of its draws, would set sites with it apart.
    assert rows[0, 0].item() == pytest.approx(1 + 0.5 * 0.0012301533, abs=1e-6)


def test_second_moments_of_sites_add_up_to_those_of_all_cases():
    cases = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    )
    pooled = SecondMoments.of(cases[:7]) + SecondMoments.of(cases[7:40]) + SecondMoments.of(cases[40:])
    assert pooled.n == 60
    np.testing.assert_allclose(pooled.mean, cases.double().mean(dim=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(pooled.covariance(), np.cov(cases.double().numpy().T, bias=True), rtol=0, atol=1e-11)
    filled = torch.cat([cases.reshape(6, 10, 4), torch.full((6, 3, 4), torch.nan)], dim=1)
    np.testing.assert_allclose(SecondMoments.of(filled).covariance(), pooled.covariance(), rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match="need a vector"):
        SecondMoments.of(torch.full((2, 3), torch.nan))


def test_a_background_takes_the_covariances_that_it_is_given():
    cases = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    cases[:, 1] = 0.9 * cases[:, 0] + 0.3 * cases[:, 1]
    moments = SecondMoments.of(cases)
    network = SeverityMLP(4, [3], 4, dropout=0.0, max_deviation=3.0, seed=1)
    rows = common_background(network, 4000, seed=2, moments=moments).numpy()
    expected = 0.8 * np.corrcoef(cases.numpy().T)[0, 1]
    assert np.corrcoef(rows.T)[0, 1] == pytest.approx(expected, abs=5 / 4000**0.5)
    scans = synthetic_scans(moments.mean, moments.covariance(), [3], (40, 100), seed=2)
    assert np.corrcoef(scans.reshape(-1, 4).T)[0, 1] == pytest.approx(expected, abs=5 / 4000**0.5)


def test_spots_of_a_scan_share_what_the_scan_has_and_nothing_else():
    scans = synthetic_scans(MEAN, SCALE**2, [3], (5, 40), seed=1)
    assert scans.shape == (5, 40, 4)
    assert (scans[:, :, 3] == scans[:, :1, 3]).all()
    assert len(np.unique(scans[:, 0, 3])) == 5
    assert len(np.unique(scans[:, :, 0])) == 200


def test_a_candidate_network_gets_scans_with_its_own_context():
    network = CandidateMLP(
        in_features=4, hidden_features=[3], members=1, num_classes=4, lower_bounds=[1, 6, 11], dropout=0.0, noise=0.0,
        grade_weight=1.0, mark_weight=0.0, yardstick="scan", context_features=[1, 3], max_deviation=4.0, seed=1,
    )  # fmt: skip
    scans = common_background(network, 3, seed=0, n_candidates=17)
    assert scans.shape == (3, 17, 4)
    assert (scans[:, :, [1, 3]] == scans[:, :1, [1, 3]]).all()


def test_the_background_of_a_network_that_asks_which_scans_are_usual_is_usual():
    network = CandidateMLP(
        in_features=3, hidden_features=[2], members=1, num_classes=4, lower_bounds=[1, 6, 11], dropout=0.0, noise=0.0,
        grade_weight=1.0, mark_weight=0.0, yardstick="both", context_features=[2], max_deviation=4.0, seed=1,
    ).eval()  # fmt: skip
    federation = {"feature_mean": [9.0, -4.0, 7.0], "feature_scale": [2.0, 0.5, 3.0]}
    for name, values in {**federation, "scan_mean": [5.0, -3.0, 2.0], "scan_scale": [0.6, 0.2, 0.1]}.items():
        network.get_buffer(name).copy_(torch.tensor(values))
    scans = common_background(network, 200, seed=1, n_candidates=100)
    assert (scans[..., 2] == scans[:, :1, 2]).all()
    np.testing.assert_allclose(scans.mean(dim=(0, 1)), [5.0, -3.0, 2.0], rtol=0, atol=0.1)
    assert scans[:, 0, 2].std().item() == pytest.approx(0.1, rel=0.2)
    assert network.familiarity(scans).mean().item() > 0.95


@pytest.mark.parametrize(
    ("moments", "shrinkage", "message"),
    [
        (np.ones(3), 0.2, "second_moments"),
        (-np.ones(4), 0.2, "no variance negative"),
        (np.full((4, 4), np.nan), 0.2, "must be finite"),
        (np.eye(4), 0.0, r"shrinkage must be in \(0, 1\]"),
        (np.eye(4) + 5 * (1 - np.eye(4)) * np.array([[1, -1, 1, 1]] * 4), 0.2, "no covariances"),
    ],
)
def test_moments_that_cannot_be_are_refused(moments, shrinkage, message):
    with pytest.raises(ValueError, match=message):
        synthetic_rows(MEAN, moments, 5, 0, shrinkage)


def test_networks_without_moments_and_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="Linear keeps no moments"):
        common_background(torch.nn.Linear(2, 2), 5, 0)
    with pytest.raises(ValueError, match="size must be positive"):
        synthetic_scans(MEAN, SCALE, [0], (0, 5), 0)
    with pytest.raises(ValueError, match="indices below 4"):
        synthetic_scans(MEAN, SCALE, [4], (1, 5), 0)
