"""Which scans are like those of the training, and what a network with two yardsticks makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mhsev_monai.candidate_network import CandidateMLP, against_scan
from mhsev_monai.familiarity import familiarity, scan_means
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import FeatureMoments, LabelledFeatures, TrainingParameters, severity_loss, train_severity

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
    """Of the two networks inside, each answers alone where the scan is its own; in between both do, by share.

    The one for usual scans reads both measures side by side: it is one of eight descriptors over the federation.
    """
    both = network()
    judges = {"scan": network("scan"), "usual": network("federation", in_features=8)}
    for number, judge in enumerate(judges.values()):
        part = slice(2 * number, 2 * number + 2)
        judge.scorers.load_state_dict(torch.nn.ModuleList(both.scorers[part]).state_dict())
        for entry in ("missed_base", "missed_per_found", "missed_by_context"):
            getattr(judge, entry).data.copy_(getattr(both, entry).data[part])
    for middle, share in ((0.0, 1.0), (1.25, 0.5), (4.0, 0.0)):
        features = scan(middle)
        assert both.familiarity(features).item() == pytest.approx(share, abs=1e-4)
        for ask in (CandidateMLP.count_distribution, CandidateMLP.candidate_probabilities):
            told = {"scan": ask(judges["scan"], features), "usual": ask(judges["usual"], side_by_side(features))}
            expected = share * told["usual"] + (1 - share) * told["scan"]
            torch.testing.assert_close(ask(both, features), expected, rtol=0, atol=1e-4)
            assert (told["usual"] - told["scan"]).abs().max() > 1e-3


def side_by_side(features: torch.Tensor) -> torch.Tensor:
    """Descriptors, and their distance from the scan's median in its spread, but for the one of the whole scan."""
    within = against_scan(features)
    within[..., 3] = features[..., 3].clamp(-2, 2)
    return torch.cat([features, within], dim=-1)


def gradients(made: CandidateMLP, data: LabelledFeatures) -> list[torch.Tensor]:
    made.zero_grad()
    severity_loss(made, data, PAPER_SCALE, 1.0).backward()
    return [scorer[0].weight.grad.clone() for scorer in made.scorers]


def test_what_is_for_usual_scans_learns_nothing_from_twins():
    own, twin, other = (torch.cat([scan(0.0, seed), scan(0.5, seed + 1)]) for seed in (1, 3, 5))
    counts, marks = torch.tensor([3.0, 8.0]), (torch.rand(2, 35, generator=torch.manual_seed(7)) < 0.2).float()
    made = network(mark_weight=0.5)
    usual = LabelledFeatures(own, counts, marks)
    of_own, of_twin, of_other = (
        gradients(made, data)
        for data in (
            usual,
            LabelledFeatures(twin, counts, 1 - marks, usual=usual),
            LabelledFeatures(other, counts, usual=usual),
        )
    )
    for n in (2, 3):
        torch.testing.assert_close(of_own[n], of_twin[n])
        torch.testing.assert_close(of_own[n], of_other[n])
    for n in (0, 1):
        assert not torch.allclose(of_own[n], of_twin[n], rtol=0.01)
        assert not torch.allclose(of_other[n], of_twin[n], rtol=0.01)


def test_marks_of_twins_say_nothing_of_the_scans_themselves():
    own, twin, counts = scan(0.0, 1), scan(0.0, 3), torch.tensor([3.0])
    made, unmarked = network(mark_weight=0.5), LabelledFeatures(own, counts)
    marked = LabelledFeatures(twin, counts, torch.ones(1, 35), usual=unmarked)
    torch.testing.assert_close(gradients(made, marked)[2:], gradients(made, unmarked)[2:])


def test_scans_as_they_are_stay_with_their_twins():
    own, twin, counts = torch.cat([scan(0.0, 1), scan(0.0, 2)]), torch.cat([scan(0.0, 3)] * 2), torch.tensor([3.0, 1.0])
    plain = LabelledFeatures(own, counts)
    joined = LabelledFeatures.join([plain, LabelledFeatures(twin, counts, usual=plain)])
    assert joined.usual is not None
    torch.testing.assert_close(joined.usual.features, torch.cat([own, own]), equal_nan=True)
    taken = joined.take(torch.tensor([3, 0]))
    assert taken.usual is not None
    torch.testing.assert_close(taken.features, torch.stack([twin[1], own[0]]), equal_nan=True)
    torch.testing.assert_close(taken.usual.features, torch.stack([own[1], own[0]]), equal_nan=True)
    assert LabelledFeatures.join([plain, plain]).usual is None


def test_the_limit_of_either_yardstick_is_its_own():
    both = network(max_deviation=6.0, max_federation_deviation=2.0, context_features=[])
    features = scan(0.0)
    features[0, 0] = 1e4
    for_any, for_usual = both._read(both.standardised(features))
    assert for_any[0, 0].tolist() == [6.0] * 4
    assert for_usual[0, 0].tolist() == [2.0] * 4 + [6.0] * 4


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
