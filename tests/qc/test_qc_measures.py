"""The measures against simulated truth, numbers by hand, and scans that do not allow them."""

from __future__ import annotations

import numpy as np
import pytest
from qc_phantoms import SPACING, phantom, rician

from mhsev_monai.qc.measures import (
    cut_faces,
    dropout_share,
    field_agreement,
    field_spread,
    find_air,
    ghost_level,
    slice_signal,
    snr_background,
    snr_difference,
)

SIGMA = 4.0


@pytest.fixture(scope="module")
def head():
    return phantom()


@pytest.fixture(scope="module")
def noisy(head):
    return rician(head.b0, SIGMA, seed=1)


def with_ghost(image, share, axis):
    return image + share * np.roll(image, image.shape[axis] // 2, axis=axis)


def test_snr_of_repeated_volumes_is_signal_over_planted_noise(head):
    volumes = np.stack([rician(head.b0, SIGMA, seed) for seed in (1, 2, 3)], axis=-1)
    # 14 000 voxels of brain: the median absolute deviation is known to about 1 %.
    assert snr_difference(volumes, head.brain).value == pytest.approx(head.b0[head.brain].mean() / SIGMA, rel=0.04)


def test_snr_of_repeated_volumes_does_not_take_pulsating_fluid_for_noise(head):
    volumes = np.stack([rician(head.b0, SIGMA, seed) for seed in (1, 2)], axis=-1)
    calm = snr_difference(volumes, head.brain).value
    volumes[head.b0 > 200, 1] *= 1.3
    assert snr_difference(volumes, head.brain).value == pytest.approx(calm, rel=0.25)


@pytest.mark.parametrize(
    ("n", "size", "reason"),
    [(1, 1.0, "one b0 volume"), (2, 0.0, "too small"), (2, 1.0, "copies")],
)
def test_snr_of_repeated_volumes_says_why_there_is_none(head, noisy, n, size, reason):
    found = snr_difference(np.repeat(noisy[..., None], n, axis=-1), head.brain & (size > 0))
    assert found.value is None
    assert reason in found.reason


def test_snr_by_air_is_signal_over_planted_noise(head, noisy):
    air = find_air(noisy, head.brain, SPACING)
    # The signal of the brain is rectified by less than 1 %; thousands of voxels of air.
    assert snr_background(noisy, head.brain, air).value == pytest.approx(head.b0[head.brain].mean() / SIGMA, rel=0.04)


def test_snr_by_air_is_not_fooled_by_a_ghost_nor_by_a_few_spikes(head):
    image = rician(with_ghost(head.b0, 0.1, 1), SIGMA, seed=1)
    air = find_air(image, head.brain, SPACING)
    places = np.argwhere(air.mask)[:: len(np.argwhere(air.mask)) // 10]
    image[tuple(places.T)] = 30.0
    assert snr_background(image, head.brain, air).value == pytest.approx(head.b0[head.brain].mean() / SIGMA, rel=0.1)


def test_air_that_the_scanner_has_masked_tells_nothing(head, noisy):
    masked = np.where(head.b0 > 0, noisy, 0.0)
    air = find_air(masked, head.brain, SPACING)
    for found in (snr_background(masked, head.brain, air), ghost_level(masked, head.brain, air)):
        assert found.value is None
        assert "set the air to zero" in found.reason


def test_weak_noise_with_many_zeros_is_not_taken_for_masked_air(head):
    image = np.floor(rician(head.b0, 0.7, seed=1))
    share_of_zeros = (image[head.b0 == 0] == 0).mean()
    assert share_of_zeros > 0.5
    assert find_air(image, head.brain, SPACING).reason == ""


def test_air_begins_beyond_what_is_bright_and_connected_with_the_head(head, noisy):
    neck = np.zeros_like(head.brain)
    neck[20:28, :30, 16:20] = True
    air = find_air(np.where(neck, 100.0, noisy), head.brain, SPACING)
    assert not (air.mask & neck).any()
    assert (find_air(noisy, head.brain, SPACING).mask & neck).any()


def test_a_head_that_fills_the_volume_leaves_no_air(head, noisy):
    cut = (slice(12, 36), slice(14, 42))
    air = find_air(noisy[cut], head.brain[cut], SPACING)
    assert "too little air" in air.reason
    assert ghost_level(noisy[cut], head.brain[cut], air).value is None
    assert "too small" in find_air(noisy, np.zeros_like(head.brain), SPACING).reason


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("share", [0.05, 0.1])
def test_a_planted_ghost_is_found_with_its_level_and_axis(head, share, axis):
    image = rician(with_ghost(head.b0, share, axis), 0.5, seed=1)
    found = ghost_level(image, head.brain, find_air(image, head.brain, SPACING))
    # The ghost's mean is that of the brain, the level is over the brain's median, and air shows a part of the ghost.
    truth = share * head.b0[head.brain].mean() / np.median(head.b0[head.brain])
    assert found.axis == axis
    assert found.value == pytest.approx(truth, rel=0.35)


def test_without_a_ghost_the_level_is_about_nothing(head, noisy):
    assert abs(ghost_level(noisy, head.brain, find_air(noisy, head.brain, SPACING)).value) < 0.005


def test_lost_slices_are_counted(head):
    volumes = np.stack([rician(head.dwi, 1.0, seed) for seed in range(6)], axis=-1)
    n_slices = slice_signal(volumes, head.brain).shape[0]
    assert dropout_share(volumes, head.brain).value == 0.0
    volumes[:, :, 14:17, 2] *= 0.5
    assert dropout_share(volumes, head.brain).value == pytest.approx(3 / (6 * n_slices))


def test_what_direction_does_to_a_slice_is_no_dropout(head):
    factors = np.array([0.9, 1.0, 1.1, 0.95, 1.05])
    volumes = head.dwi[..., None] * factors
    assert slice_signal(volumes, head.brain).min(axis=0) == pytest.approx(factors)
    assert dropout_share(volumes, head.brain).value == 0.0


def test_dropout_needs_three_volumes(head):
    assert "fewer than 3" in dropout_share(np.repeat(head.dwi[..., None], 2, axis=-1), head.brain).reason


def test_agreement_of_fields_is_their_correlation():
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(2, 30, 30, 30))
    mask = np.ones((30, 30, 30), dtype=bool)
    # r of x and 0.8 x + 0.6 y is 0.8 for independent x and y of equal spread; 27 000 voxels know it to 0.003.
    assert field_agreement(common, 0.8 * common + 0.6 * own, mask).value == pytest.approx(0.8, abs=0.01)
    assert field_agreement(common, np.zeros_like(common), mask).value is None
    assert field_agreement(common, own, mask & False).value is None


def test_spread_of_a_field_is_a_ratio_of_its_percentiles():
    log_bias = np.linspace(0.0, np.log(2.0), 101)[:, None, None]
    assert field_spread(log_bias, np.ones_like(log_bias, dtype=bool)).value == pytest.approx(2.0**0.9)


@pytest.mark.parametrize(
    ("codes", "index", "side_cm", "faces"),
    [
        ("LAS", (slice(2, 5), slice(2, 5), 0), 1.0, ()),  # 9 cm2 at the lowest face: the cord
        ("LAS", (slice(2, 5), slice(2, 5), 0), 1.5, ("first z",)),  # 20 cm2: brain
        ("LAI", (slice(2, 5), slice(2, 5), 0), 1.0, ("first z",)),  # the same face on top
        ("LAI", (slice(2, 5), slice(2, 5), -1), 1.0, ()),
        ("PSL", (slice(2, 5), 0, slice(2, 5)), 1.0, ()),
        ("PSL", (0, slice(2, 5), slice(2, 5)), 1.0, ("first x",)),
    ],
)
def test_only_the_cord_may_leave_and_only_below(codes, index, side_cm, faces):
    brain = np.zeros((8, 8, 8), dtype=bool)
    brain[index] = True
    assert cut_faces(brain, (10.0 * side_cm,) * 3, codes) == faces
