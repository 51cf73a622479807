"""The shared candidate perceptron: invariances, and learning from counts alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mhsev_monai.candidate_network import CandidateMLP, against_scan
from mhsev_monai.networks import predict_severity, split_output
from mhsev_monai.severity import ARIA_H_COUNTS, PAPER_SCALE
from mhsev_monai.training import FeatureMoments, LabelledFeatures, TrainingParameters, severity_loss, train_severity

ARGUMENTS = {
    "in_features": 4,
    "hidden_features": [8],
    "members": 2,
    "num_classes": 4,
    "lower_bounds": [1, 6, 11],
    "dropout": 0.0,
    "noise": 0.0,
    "grade_weight": 1.0,
    "mark_weight": 1.0,
    "yardstick": "federation",
    "context_features": [],
    "max_deviation": 4.0,
    "seed": 1,
}


@pytest.fixture
def network():
    return CandidateMLP(**ARGUMENTS).eval()


def scans(n, n_candidates=30, seed=0):
    """Scans whose candidates are bleeds where the first descriptor is positive; NaN rows fill up."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, n_candidates, 4)).astype(np.float32)
    features[..., 0] -= 0.7
    features[:, n_candidates - 5 :] = np.nan
    return torch.from_numpy(features), torch.from_numpy((features[..., 0] > 0).sum(axis=1).astype(np.float32))


def test_order_and_filling_rows_change_nothing(network):
    features, _ = scans(3)
    shuffled = features[:, torch.randperm(features.shape[1], generator=torch.Generator().manual_seed(0))]
    filled = torch.cat([features, torch.full((3, 7, 4), torch.nan)], dim=1)
    for other in (shuffled, filled):
        torch.testing.assert_close(
            network.count_distribution(other), network.count_distribution(features), rtol=0, atol=1e-6
        )


def test_a_scan_without_candidates_has_what_may_be_missed_and_no_more(network):
    pmf = network.count_distribution(torch.full((1, 6, 4), torch.nan))
    missed = torch.nn.functional.softplus(network.missed_base).exp().reciprocal().mean()
    torch.testing.assert_close(pmf[0, 0], missed.detach(), rtol=1e-5, atol=1e-6)


def test_the_distribution_is_the_mean_of_the_members(network):
    features, _ = scans(2)
    single = []
    for scorer, base, per_found in zip(network.scorers, network.missed_base, network.missed_per_found, strict=True):
        one = CandidateMLP(**{**ARGUMENTS, "members": 1}).eval()
        one.scorers[0].load_state_dict(scorer.state_dict())
        one.missed_base.data[0], one.missed_per_found.data[0] = base, per_found
        single.append(one.count_distribution(features))
    torch.testing.assert_close(network.count_distribution(features), torch.stack(single).mean(dim=0))


def test_the_output_is_read_like_any_severity_network(network):
    features, _ = scans(5)
    output = split_output(network(features))
    assert output.ordinal_logits.shape == (5, 3)
    prediction = predict_severity(network, features, PAPER_SCALE)
    pmf = network.count_distribution(features)
    expected = torch.stack([pmf[:, :1].sum(1), pmf[:, 1:6].sum(1), pmf[:, 6:11].sum(1), pmf[:, 11:].sum(1)], dim=1)
    torch.testing.assert_close(prediction.probabilities, expected.detach(), rtol=1e-4, atol=1e-5)
    # The median grade is the grade of the median count.
    grades = [int(PAPER_SCALE.grade(float(count))) for count in prediction.counts]
    assert prediction.grades.tolist() == grades


def test_it_learns_which_candidates_count_from_counts_alone():
    features, counts = scans(120)
    network = CandidateMLP(**ARGUMENTS)
    data = LabelledFeatures(features, counts)
    moments = FeatureMoments.of(features)
    assert moments.n == 120 * 25
    network.feature_mean.copy_(torch.from_numpy(moments.mean))
    network.feature_scale.copy_(torch.from_numpy(moments.scale()))
    before = severity_loss(network, data, PAPER_SCALE, 1.0).item()
    train_severity(network, data, PAPER_SCALE, TrainingParameters(25, 2e-2, 0.0, 20, 1.0), seed=0)
    assert severity_loss(network, data, PAPER_SCALE, 1.0).item() < before / 2
    held_out, truth = scans(60, seed=9)
    scores = network.candidate_probabilities(held_out).detach()
    bleeds = held_out[..., 0] > 0
    present = ~held_out[..., 0].isnan()
    # No candidate was ever labelled; nine in ten are told apart nevertheless.
    assert ((scores > 0.5) == bleeds)[present].float().mean() > 0.9
    error = (predict_severity(network, held_out, PAPER_SCALE).counts - truth).abs().mean()
    assert error < 0.5 * (truth - truth.median()).abs().mean()


def test_marks_of_a_few_scans_help_and_unknown_ones_do_nothing(network):
    features, counts = scans(6)
    grades = LabelledFeatures(features, counts).grades(PAPER_SCALE)
    unknown = torch.full(features.shape[:2], torch.nan)
    plain = network.loss(network.standardised(features), counts, grades, PAPER_SCALE)
    torch.testing.assert_close(
        network.loss(network.standardised(features), counts, grades, PAPER_SCALE, unknown), plain
    )
    marks = torch.where(features[..., 0].isnan(), torch.nan, (features[..., 0] > 0).float())
    marks[1:] = torch.nan
    scores = network._member_scores(network.standardised(features))
    # By hand: minus the logarithms of the first scan's 25 candidates, over six scans, mean of two members.
    by_hand = 0.0
    for score in scores:
        first = score[0][:25].double()
        right = torch.where(features[0, :25, 0] > 0, first, 1 - first)
        by_hand -= right.log().sum().item() / 6 / 2
    found = network.loss(network.standardised(features), counts, grades, PAPER_SCALE, marks) - plain
    assert found.item() == pytest.approx(by_hand, rel=1e-4)


def test_against_its_scan_a_candidate_knows_no_scanner():
    """The same scan through another gain, offset and unit of every descriptor gives the same count."""
    features, _ = scans(4)
    network = CandidateMLP(**{**ARGUMENTS, "yardstick": "scan"}).eval()
    other = 3.0 * features + torch.tensor([5.0, -1.0, 0.2, 100.0])
    torch.testing.assert_close(
        network.count_distribution(other), network.count_distribution(features), rtol=0, atol=1e-4
    )
    constant = features.clone()
    constant[..., 1] = 7.0
    assert (against_scan(constant)[..., 1].nan_to_num() == 0).all()


def test_a_scan_is_measured_by_its_median_and_quartiles():
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 100.0, float("nan")])[None, :, None]
    # By hand: median 2, quartiles 1 and 3; half their distance is 0.6745 standard deviations of a normal variable.
    expected = (values - 2) / (2 / 1.349)
    torch.testing.assert_close(against_scan(values), expected, equal_nan=True)


def test_what_is_missed_follows_what_the_scan_can_show():
    """Two found and m1 = softplus(a + b x): the mean is 2 (1 + m1), with x limited to two standard deviations."""
    network = CandidateMLP(**{**ARGUMENTS, "members": 1, "yardstick": "scan", "context_features": [3]}).eval()
    with torch.no_grad():
        network.missed_base.fill_(-30.0)
        network.missed_per_found.fill_(0.5)
        network.missed_by_context.fill_(0.8)
        network.feature_mean[3], network.feature_scale[3] = 2.0, 0.5
    certain = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    for noise, x in ((2.0, 0.0), (2.5, 1.0), (1.0, -2.0), (9.0, 2.0)):
        features = torch.randn(1, 4, 4)
        features[..., 3] = noise
        standardised = network.standardised(features)
        torch.testing.assert_close(standardised[..., 3], torch.full((1, 4), x))
        (pmf,) = network._member_distributions(standardised, [certain])
        mean = (pmf[0].detach() * torch.arange(pmf.shape[1])).sum().item()
        assert mean == pytest.approx(2 * (1 + np.log1p(np.exp(0.5 + 0.8 * x))), rel=1e-4)


def test_sites_whose_scans_show_less_do_not_make_the_others_overcount():
    """Half of the scans hide half of their bleeds and have another noise: with it counts are right on both kinds."""
    rng = np.random.default_rng(3)
    features, visible = scans(160, seed=4)
    features[..., 3] = torch.where(features[..., 3].isnan(), features[..., 3], torch.zeros(()))
    poor = torch.arange(160) % 2 == 1
    features[poor, :25, 3] = 1.0
    hidden = torch.from_numpy(rng.poisson(visible.numpy())).float()
    counts = torch.where(poor, visible + hidden, visible)
    errors = {}
    for context in ([], [3]):
        network = CandidateMLP(**{**ARGUMENTS, "members": 1, "yardstick": "scan", "context_features": context})
        network.feature_mean[3], network.feature_scale[3] = 0.5, 0.5
        parameters = TrainingParameters(60, 2e-2, 0.0, 16, 1.0)
        train_severity(network, LabelledFeatures(features, counts), PAPER_SCALE, parameters, seed=1)
        found = predict_severity(network, features, PAPER_SCALE).counts
        errors[bool(context)] = float((found - counts)[~poor].mean())
    assert abs(errors[True]) < 0.5
    assert errors[False] > 2 * abs(errors[True])


@pytest.mark.parametrize("wrong", [[4], [-1], [0, 7]])
def test_context_that_is_no_descriptor_is_refused(wrong):
    with pytest.raises(ValueError, match="context_features must be indices below 4"):
        CandidateMLP(**{**ARGUMENTS, "context_features": wrong})


def test_equal_seeds_give_equal_weights():
    first, second = (CandidateMLP(**ARGUMENTS).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = CandidateMLP(**{**ARGUMENTS, "seed": 2}).state_dict()
    assert not torch.equal(first["scorers.0.0.weight"], other["scorers.0.0.weight"])
    assert not torch.equal(first["scorers.0.0.weight"], first["scorers.1.0.weight"])


def test_a_scale_with_other_bounds_is_refused(network):
    features, counts = scans(2)
    with pytest.raises(ValueError, match="the network grades at"):
        severity_loss(network, LabelledFeatures(features, counts), ARIA_H_COUNTS, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": 0}, "must be positive"),
        ({"lower_bounds": [1, 6]}, "4 grades need 3 lower_bounds"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"noise": -0.1}, "not negative"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CandidateMLP(**{**ARGUMENTS, **change})


def test_sets_and_counts_must_belong_together():
    features, counts = scans(3)
    data = LabelledFeatures(features, counts)
    assert len(data) == 3
    with pytest.raises(ValueError, match="features must be"):
        dataclasses.replace(data, counts=counts[:2])


def test_candidates_that_change_are_measured_again():
    values = torch.rand(2, 40, 3)
    before = against_scan(values).clone()
    assert against_scan(values) is against_scan(values)
    values[0, :, 1] = values[0, :, 1] ** 3
    after = against_scan(values)
    assert not torch.equal(after[0, :, 1], before[0, :, 1])
    torch.testing.assert_close(after[1], before[1])
    torch.testing.assert_close(after, against_scan(values.clone()))
    first = against_scan(values, 2)
    torch.testing.assert_close(first, after[..., :2])
    assert against_scan(values, 2) is first


def test_candidates_are_measured_under_inference_too():
    with torch.inference_mode():
        values = torch.rand(1, 20, 2)
        measured = against_scan(values)
    torch.testing.assert_close(measured, against_scan(values.clone()))
