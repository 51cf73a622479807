"""Which scans are like those of the training, and what a network with two yardsticks makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.familiarity import familiarity, scan_means
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import FeatureMoments, LabelledFeatures, TrainingParameters, train_severity

ARGUMENTS = {
    "in_features": 4, "hidden_features": [8], "members": 2, "num_classes": 4, "lower_bounds": [1, 6, 11],
    "dropout": 0.0, "noise": 0.0, "grade_weight": 1.0, "mark_weight": 0.0, "context_features": [3],
    "max_deviation": 8.0, "seed": 1,
}  # fmt: skip


def network(yardstick: str = "both", **changes: object) -> CandidateMLP:
    """With weights that let scores vary, and a federation whose scans have mean 0 and spread 0.5."""
    made = CandidateMLP(**{**ARGUMENTS, "yardstick": yardstick, **changes}).eval()
    with torch.no_grad():
        for scorer in made.scorers:
            scorer[-1].weight.mul_(4.0)
            scorer[-1].bias.add_(2.0)
    if yardstick == "both":
        made.scan_scale.fill_(0.5)
    return made


def scan(middle: float, seed: int = 0) -> torch.Tensor:
    """One scan of 30 candidates whose mean is ``middle`` in every descriptor, to rounding, and five filling rows."""
    values = torch.randn(1, 30, 4, generator=torch.Generator().manual_seed(seed))
    values = values - values.mean(dim=1, keepdim=True) + middle
    return torch.cat([values, torch.full((1, 5, 4), torch.nan)], dim=1)


@pytest.mark.parametrize(
    ("far", "expected"), [([0, 0, 0, 0], 1.0), ([2, 2, -2, 2], 1.0), ([2.5, -2.5, 2.5, 2.5], 0.5), ([3, 3, 3, 3], 0.0)]
)
def test_familiarity_falls_from_two_standard_deviations_to_three(far, expected):
    mean, scale = torch.tensor([1.0, -2.0, 0.0, 5.0]), torch.tensor([0.5, 2.0, 1.0, 10.0])
    means = (mean + scale * torch.tensor(far, dtype=torch.float32))[None]
    assert familiarity(means, mean, scale).item() == pytest.approx(expected, abs=1e-6)


def test_one_descriptor_alone_counts_ten_standard_deviations_at_most():
    # By hand: of 64 descriptors one counts sqrt(100 / 64) = 1.25, two sqrt(200 / 64) = 1.77, four 2.5.
    for n_far, expected in ((1, 1.0), (2, 1.0), (4, 0.5)):
        means = torch.zeros(1, 64)
        means[0, :n_far] = 1e6
        assert familiarity(means, torch.zeros(64), torch.ones(64)).item() == pytest.approx(expected, abs=1e-6)


def test_nothing_is_known_of_a_scan_without_candidates():
    empty = torch.full((1, 6, 4), torch.nan)
    assert familiarity(scan_means(empty), torch.zeros(4), torch.ones(4)).item() == 0.0
    assert network().familiarity(empty).item() == 0.0
    assert torch.isfinite(network().count_distribution(empty)).all()


def test_a_usual_scan_is_judged_over_the_federation_and_another_one_within_itself():
    """Of the two networks inside, each answers alone where the scan is its own; in between both do, by share."""
    both = network()
    judges = {name: network(name) for name in ("scan", "federation")}
    for number, judge in enumerate(judges.values()):
        part = slice(2 * number, 2 * number + 2)
        judge.scorers.load_state_dict(torch.nn.ModuleList(both.scorers[part]).state_dict())
        for entry in ("missed_base", "missed_per_found", "missed_by_context"):
            getattr(judge, entry).data.copy_(getattr(both, entry).data[part])
    for middle, share in ((0.0, 1.0), (1.25, 0.5), (4.0, 0.0)):
        features = scan(middle)
        assert both.familiarity(features).item() == pytest.approx(share, abs=1e-4)
        for ask in (CandidateMLP.count_distribution, CandidateMLP.candidate_probabilities):
            told = {name: ask(judge, features) for name, judge in judges.items()}
            expected = share * told["federation"] + (1 - share) * told["scan"]
            torch.testing.assert_close(ask(both, features), expected, rtol=0, atol=1e-4)
            assert (told["federation"] - told["scan"]).abs().max() > 1e-3


def test_the_limit_of_either_yardstick_is_its_own():
    both = network(max_deviation=6.0, max_federation_deviation=2.0, context_features=[])
    features = scan(0.0)
    features[0, 0] = 1e4
    within, over_all = both._read(both.standardised(features))
    assert within[0, 0].tolist() == [6.0] * 4
    assert over_all[0, 0].tolist() == [2.0] * 4


def test_a_foreign_gain_misleads_the_federation_and_not_the_scan_and_both_takes_the_right_one():
    """Bleeds stand out by 4 of their scan's own spreads; a foreign scanner has thrice the spread and another level."""
    rng = np.random.default_rng(5)

    def draw(n: int, gain: float, level: float) -> LabelledFeatures:
        features = rng.normal(size=(n, 60, 4)).astype(np.float32)
        bleeds = rng.random((n, 60)) < 0.1
        features[..., 0] += 5.0 * bleeds
        features[..., 3] = 0.0
        features[..., :3] = gain * features[..., :3] + level
        return LabelledFeatures(torch.from_numpy(features), torch.from_numpy(bleeds.sum(axis=1).astype(np.float32)))

    # Scans of one scanner differ from each other a little more than candidates drawn anew would make them.
    train, same, foreign = draw(150, 1.0, 0.0), draw(60, 1.0, 0.0), draw(60, 3.0, 4.0)
    pooled, usual = FeatureMoments.of(train.features), FeatureMoments.of(scan_means(train.features))
    errors: dict[tuple[str, str], float] = {}
    for yardstick in ("scan", "federation", "both"):
        made = CandidateMLP(**{**ARGUMENTS, "yardstick": yardstick, "members": 1})
        for name, moments in (("feature", pooled), ("scan", usual)):
            if f"{name}_mean" in dict(made.named_buffers()):
                made.get_buffer(f"{name}_mean").copy_(torch.from_numpy(moments.mean))
                made.get_buffer(f"{name}_scale").copy_(torch.from_numpy(moments.scale()))
        train_severity(made, train, PAPER_SCALE, TrainingParameters(40, 2e-2, 0.0, 16, 1.0), seed=1)
        for kind, data in (("same", same), ("foreign", foreign)):
            with torch.no_grad():
                found = made.candidate_probabilities(data.features).sum(dim=1)
            errors[yardstick, kind] = float((found - data.counts).abs().mean())
    assert errors["federation", "foreign"] > 3 * errors["scan", "foreign"]
    assert errors["both", "foreign"] < 2 * errors["scan", "foreign"] + 0.2
    assert errors["both", "same"] < errors["federation", "same"] + 0.2


def test_a_network_of_one_yardstick_asks_for_no_moments_of_scans():
    assert {"scan_mean", "scan_scale"} <= set(network().state_dict())
    assert not {"scan_mean", "scan_scale"} & set(network("federation").state_dict())
    assert network("federation").familiarity(scan(50.0)).item() == 1.0
    assert network("scan").familiarity(scan(0.0)).item() == 0.0


def test_a_yardstick_that_is_none_is_refused():
    with pytest.raises(ValueError, match="yardstick must be one of scan, federation, both, got 'within'"):
        network("within")
