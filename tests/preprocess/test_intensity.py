"""Intensities: hand-made tissues with known levels, and laws."""

from __future__ import annotations

import pytest
import torch
from head_phantoms import coil_log_bias, crisp_head

from mhsev_monai.preprocess.intensity import clear_rim, fuse_contrasts, relative_to_parenchyma, z_score_in_mask

SHAPE = (48, 56, 44)
SPACING = (3.0, 3.0, 3.0)


def test_z_scores_have_mean_zero_and_spread_one_in_the_mask():
    image = torch.randn(20, 20, 20, generator=torch.Generator().manual_seed(0)) * 7 + 300
    mask = torch.zeros(20, 20, 20)
    mask[5:15, 5:15, 5:15] = 1
    scores = z_score_in_mask(image, mask, clip=None)
    inside = scores[mask > 0].double()
    assert float(inside.mean()) == pytest.approx(0, abs=1e-6)
    assert float(inside.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(z_score_in_mask(image * 40 - 9, mask, clip=None), scores, atol=1e-4)


def test_z_scores_by_hand_are_clipped_and_spare_broken_voxels():
    image = torch.tensor([1.0, 3.0, 103.0, float("nan"), float("-inf")])
    mask = torch.tensor([1, 1, 0, 1, 1])
    assert z_score_in_mask(image, mask).tolist() == [-1.0, 1.0, 6.0, 0.0, 0.0]
    assert z_score_in_mask(image, mask, clip=None).tolist() == [-1.0, 1.0, 101.0, 0.0, 0.0]


@pytest.mark.parametrize("image", [torch.full((4, 4), 300.1), torch.zeros(4, 4)])
@pytest.mark.parametrize("mask", [torch.ones(4, 4), torch.zeros(4, 4)], ids=["full", "empty"])
def test_without_spread_the_scores_are_zero_with_a_warning(image, mask):
    with pytest.warns(RuntimeWarning, match="no spread"):
        assert torch.equal(z_score_in_mask(image, mask), torch.zeros(4, 4))


def test_the_level_is_that_of_parenchyma_whatever_the_share_of_fluid():
    image = torch.full((30, 30, 30), 80.0)
    image[10:20, 10:20, 8:22] = 400.0  # fluid
    image[4:7, 4:7, 4:7] = 8.0  # a bleed
    mask = torch.ones(30, 30, 30)
    relative = relative_to_parenchyma(image, mask, SPACING)
    assert torch.allclose(relative, image / 80.0, atol=1e-4)


def test_the_level_follows_shading():
    head = crisp_head(SHAPE)
    brain = torch.from_numpy(head.brain)
    flat = torch.from_numpy(head.image)
    shaded = flat * torch.from_numpy(coil_log_bias(SHAPE, head.brain, 0.4)).exp()
    tissue = torch.from_numpy(head.white | head.grey)
    difference = relative_to_parenchyma(shaded, brain, SPACING) / relative_to_parenchyma(flat, brain, SPACING)
    assert float((shaded / flat)[tissue].log().std()) > 0.12
    assert float(difference[tissue].log().std()) < 0.04


def test_the_unit_of_a_contrast_does_not_matter():
    head = crisp_head(SHAPE)
    b0, brain = torch.from_numpy(head.image), torch.from_numpy(head.brain)
    fused = fuse_contrasts(b0, b0.sqrt(), brain, SPACING)
    assert torch.allclose(fuse_contrasts(b0 * 1e5, b0.sqrt() * 1e-3, brain, SPACING), fused, atol=1e-4)


def test_only_what_is_dark_on_both_contrasts_stays_dark():
    b0, trace = torch.full((30, 30, 30), 100.0), torch.full((30, 30, 30), 40.0)
    b0[5:8, 5:8, 5:8], trace[5:8, 5:8, 5:8] = 20.0, 8.0  # a bleed: 0.2 on both
    b0[20:24, 20:24, 20:24], trace[20:24, 20:24, 20:24] = 300.0, 4.0  # fluid: bright on b0, dark on trace
    b0[5:8, 20:24, 5:8] = 60.0  # dark on b0 alone
    mask = torch.ones(30, 30, 30)
    mask[:, :, 28:] = 0
    fused = fuse_contrasts(b0, trace, mask, SPACING)
    assert torch.allclose(fused[5:8, 5:8, 5:8], torch.tensor(0.2), atol=1e-3)
    assert torch.equal(fused[20:24, 20:24, 20:24], torch.full((4, 4, 4), 1.12))
    assert torch.allclose(fused[5:8, 20:24, 5:8], torch.tensor(1.0), atol=5e-3)
    assert torch.equal(fused[:, :, 28:], torch.ones(30, 30, 2))


def test_b0_alone_gives_the_clipped_relative_b0():
    head = crisp_head(SHAPE)
    b0, brain = torch.from_numpy(head.image), torch.from_numpy(head.brain)
    expected = relative_to_parenchyma(b0, brain, SPACING).clamp(0, 1.3)
    assert torch.equal(fuse_contrasts(b0, None, brain, SPACING, ceiling=1.3), expected)


def test_broken_voxels_are_no_findings_and_an_empty_mask_gives_ones():
    b0 = torch.full((12, 12, 12), 50.0)
    b0[6, 6, 6] = float("nan")
    before = b0.clone()
    assert torch.allclose(fuse_contrasts(b0, None, torch.ones(12, 12, 12), SPACING), torch.ones(12, 12, 12))
    assert torch.equal(b0.nan_to_num(), before.nan_to_num())
    with pytest.warns(RuntimeWarning, match="no positive voxel"):
        assert torch.equal(fuse_contrasts(b0, None, torch.zeros(12, 12, 12), SPACING), torch.ones(12, 12, 12))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"ceiling": 1.0}, "ceiling"),
        ({"sigma": 0.0}, "sigma"),
        ({"spacing": (1.0, 1.0)}, "spacing"),
        ({"trace": torch.ones(3, 3, 3)}, "trace"),
        ({"mask": torch.ones(3, 3, 3)}, "mask"),
    ],
    ids=["ceiling", "sigma", "spacing", "trace", "mask"],
)
def test_wrong_arguments_are_named(wrong, reason):
    right = {"b0": torch.ones(4, 4, 4), "trace": None, "mask": torch.ones(4, 4, 4), "spacing": SPACING}
    with pytest.raises(ValueError, match=reason):
        fuse_contrasts(**{**right, **wrong})
    with pytest.raises(ValueError, match="clip"):
        z_score_in_mask(torch.ones(2), torch.ones(2), clip=0.0)


def test_darkness_from_outside_is_lifted_and_an_enclosed_spot_stays():
    """One row by hand: outside | dark rim .4 .7 | parenchyma | spot .3 | parenchyma | outside."""
    image = torch.tensor([[1.0, 0.4, 0.7, 1.0, 0.3, 1.0, 1.1, 1.0]] * 3)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 0]] * 3)
    # Padding keeps the rows' own ends from being an edge of the mask that the hand calculation does not have.
    cleared = clear_rim(image, mask, (1.0, 1.0), reach=8.0)
    torch.testing.assert_close(cleared[1], torch.tensor([1.0, 1.0, 1.0, 1.0, 0.3, 1.0, 1.1, 1.0]))


def test_a_spot_that_hangs_on_the_rim_keeps_its_depth_over_the_bridge():
    """Rim .5, bridge .8, spot .2: darkness .2 passes the bridge, so .2 of the spot's .8 is taken."""
    image = torch.tensor([[1.0, 0.5, 0.8, 0.2, 1.0, 1.0]] * 3)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1]] * 3)
    cleared = clear_rim(image, mask, (1.0, 1.0), reach=10.0)
    torch.testing.assert_close(cleared[1], torch.tensor([1.0, 1.0, 1.0, 0.4, 1.0, 1.0]))


def test_darkness_is_followed_no_further_than_the_reach():
    image = torch.full((3, 12), 0.5)
    mask = torch.ones(3, 12)
    mask[:, 0] = 0
    cleared = clear_rim(image, mask, (2.0, 2.0), reach=6.0)
    assert cleared[1].tolist() == [1.0] * 4 + [0.5] * 8


@pytest.mark.parametrize("ndim", [2, 3])
def test_clearing_only_ever_brightens_up_to_the_parenchyma(ndim):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((9,) * ndim, generator=generator) * 1.2
    mask = torch.rand((9,) * ndim, generator=generator) > 0.1
    cleared = clear_rim(image, mask, (1.0,) * ndim, reach=5.0)
    assert (cleared[mask] >= image[mask]).all()
    assert (cleared[mask] <= image[mask].clamp_min(1.0)).all()
    assert (cleared[~mask] == 1).all()
    torch.testing.assert_close(clear_rim(image, mask, (1.0,) * ndim, 0.0)[mask], image[mask])


def test_a_negative_reach_is_refused():
    with pytest.raises(ValueError, match="reach must be 0 mm or more"):
        clear_rim(torch.ones(3, 3), torch.ones(3, 3), (1.0, 1.0), -1.0)
