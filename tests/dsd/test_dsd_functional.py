from __future__ import annotations

import numpy as np
import pytest
import torch
from dsd_phantoms import wavy_head
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_dsd import reference_dsd, taper, window_at

from mhsev_monai.dsd.functional import DSDParameters, dsd_maps, dynamic_spectral_decomposition

DOUBLE = {"dtype": "float64", "acquired": 0.5}


def decompose(image, spacing, mask, engine=None, **settings):
    return dynamic_spectral_decomposition(image, spacing, mask, DSDParameters(**settings), engine)


def relative_difference(ours, theirs):
    return np.abs(np.asarray(ours) - np.asarray(theirs)).max() / np.abs(np.asarray(theirs)).max()


def same_ranks(ours, reference):
    clear = reference.margin > 1e-5
    np.testing.assert_array_equal(ours.rank.numpy()[clear], reference.rank[clear])
    return clear


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gain": "hard"},
        {"gain": "soft", "kappa": 1.0},
        {"gain": "none", "energy": 0.8},
        {"eigenvalues": "singular"},
        {"acquired": 0.25},
        {"dynamic": False, "clip": 1.2},
    ],
    ids=str,
)
def test_map_and_ranks_agree_with_the_loops_of_the_reference(settings):
    image, mask = wavy_head((26, 23, 2))
    ours = decompose(image, (2.1, 2.3, 4.0), mask, **{**DOUBLE, **settings})
    theirs = reference_dsd(image, (2.1, 2.3, 4.0), mask, base=8, **settings)
    assert same_ranks(ours, theirs).mean() > 0.99
    np.testing.assert_array_equal(ours.window_size.numpy(), theirs.window_size)
    assert relative_difference(ours.map, theirs.map) <= 1e-12
    assert relative_difference(ours.noise_scale, theirs.noise_scale) <= 1e-12
    np.testing.assert_allclose(ours.retained_energy.numpy(), theirs.retained_energy, atol=1e-10)


def test_larger_windows_of_three_sizes_agree_with_the_reference():
    image, mask = wavy_head((56, 40, 1), seed=3)
    image[:20] = np.where(mask[:20], 100 + 0.05 * (image[:20] - 100), image[:20])
    image[40:] = np.where(mask[40:], 100 + 3 * (image[40:] - 100), image[40:])
    settings = {"clip": 2.0}
    ours = decompose(image, (1.0, 1.0, 4.0), mask, **DOUBLE, **settings)
    theirs = reference_dsd(image, (1.0, 1.0, 4.0), mask, base=16, **settings)
    assert set(np.unique(ours.window_size)) == {0, 8, 16, 32}
    np.testing.assert_array_equal(ours.window_size.numpy(), theirs.window_size)
    same_ranks(ours, theirs)
    assert relative_difference(ours.map, theirs.map) <= 1e-12


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_single_precision_is_within_5e_6_of_double(engine):
    image, mask = wavy_head((60, 52, 3), seed=1)
    single = decompose(image, (2.0, 2.0, 4.0), mask, engine=engine)
    double = decompose(image, (2.0, 2.0, 4.0), mask, dtype="float64")
    assert (single.map.dtype, double.map.dtype) == (torch.float32, torch.float64)
    assert torch.equal(single.rank, double.rank)
    assert torch.equal(single.window_size, double.window_size)
    assert relative_difference(single.map, double.map) <= 5e-6


def test_literal_route_has_the_ranks_of_a_reference_without_the_tie_rule():
    image, mask = wavy_head((26, 23, 1))
    ours = decompose(image, (2.1, 2.1, 4.0), mask, literal=True, **DOUBLE)
    theirs = reference_dsd(image, (2.1, 2.1, 4.0), mask, base=8, tie=0)
    same_ranks(ours, theirs)


def test_literal_route_gives_the_same_map_where_no_ties_occur():
    image, mask = wavy_head((30, 26, 1))
    # Without a threshold the windows are noise, whose singular values differ.
    both = [decompose(image, (2.0, 2.0, 4.0), mask, gain="none", literal=way, **DOUBLE) for way in (False, True)]
    assert torch.equal(both[0].rank, both[1].rank)
    assert relative_difference(both[0].map, both[1].map) <= 1e-10


def test_without_threshold_and_truncation_the_map_is_the_weighted_mean_contrast():
    """map(x) = sum_j w_j^2(x) (I(x) / mu_j - 1) / sum_j w_j^2(x), over the windows j that cover x."""
    image, mask = wavy_head((22, 19, 1))
    mask[:] = True
    ours = decompose(image, (2.0, 2.0, 4.0), mask, gain="none", energy=1 - 1e-15, clip=10.0, dynamic=False, **DOUBLE)
    plane = image[:, :, 0] / np.sort(image.ravel())[(image.size - 1) // 2]
    total, weight, w2 = np.zeros((80, 80)), np.zeros((80, 80)), taper(8)
    for i, j in np.ndindex(*ours.window_size.shape[:2]):
        mean = (w2 * window_at(plane, 8, 2 * i, 2 * j)).sum() / w2.sum()
        at = np.s_[20 + 2 * i - 4 : 20 + 2 * i + 4, 20 + 2 * j - 4 : 20 + 2 * j + 4]
        total[at] += w2**2 / mean
        weight[at] += w2**2
    inner = np.s_[20:42, 20:39]
    expected = plane * total[inner] / weight[inner] - 1
    # Components of less than 1e-15 of the energy may go: 3e-8 of the amplitude.
    assert np.abs(ours.map[..., 0].numpy() - expected).max() <= 1e-7


def test_window_of_one_oblique_wave_comes_back_whole():
    n = np.arange(64)
    wave = 0.05 * np.cos(2 * np.pi * (3 * n[:, None] + n[None]) / 16)
    image = 100 * (1 + wave)[..., None]
    kept = decompose(image, (1.0, 1.0, 4.0), None, energy=0.4, dynamic=False, clip=10.0, **DOUBLE)
    inner = np.s_[24:40, 24:40, 0]
    # Rank 1 would keep one of two equal terms, and half of the energy; the rest is the change of the local mean.
    assert np.abs(kept.map[inner].numpy() - wave[24:40, 24:40]).max() < 0.1 * 0.05


@pytest.mark.parametrize("value", [1.0, 250.0])
def test_constant_image_has_an_empty_map(value):
    result = decompose(np.full((24, 24, 2), value), (2.0, 2.0, 4.0), None)
    assert result.map.abs().max() == 0
    assert result.rank.max() == 0
    assert (result.window_size > 0).all()


@pytest.mark.parametrize(("factor", "tolerance"), [(8.0, 0.0), (7.3, 1e-10)])
def test_gain_of_the_scanner_does_not_matter(factor, tolerance):
    image, mask = wavy_head((40, 36, 2))
    plain, scaled = (decompose(i, (2.0, 2.0, 4.0), mask, dtype="float64") for i in (image, factor * image))
    assert torch.equal(plain.rank, scaled.rank)
    assert relative_difference(scaled.map, plain.map) <= tolerance


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 4.0), (1.8, 2.4, 4.0), (1.0, 1.0, 4.0)])
def test_transposed_image_has_the_transposed_map(spacing):
    image, mask = wavy_head((40, 33, 2))
    swapped = (spacing[1], spacing[0], spacing[2])
    plain = decompose(image, spacing, mask, dtype="float64")
    turned = decompose(image.swapaxes(0, 1), swapped, mask.swapaxes(0, 1), dtype="float64")
    assert torch.equal(turned.window_size, plain.window_size.swapaxes(0, 1))
    assert torch.equal(turned.rank, plain.rank.swapaxes(0, 1))
    assert relative_difference(turned.map.swapaxes(0, 1), plain.map) <= 1e-10
    assert turned.acquired == plain.acquired[::-1]


def test_voxels_outside_the_mask_have_no_influence():
    image, mask = wavy_head((40, 36, 2))
    other = np.where(mask, image, np.random.default_rng(0).random(image.shape) * 1e4)
    plain, changed = (decompose(i, (2.0, 2.0, 4.0), mask) for i in (image, other))
    assert torch.equal(plain.map, changed.map)
    assert plain.map[~torch.from_numpy(mask)].abs().max() == 0
    assert plain.acquired == changed.acquired


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_skipping_windows_outside_the_mask_does_not_change_the_map_inside(engine):
    """The fill outside is the median, so that a filled image without a mask has the same contrast, and every window."""
    image, mask = wavy_head((64, 60, 2))
    ordered = np.sort(image[mask])
    filled = np.where(mask, image, ordered[(len(ordered) - 1) // 2])
    settings = {"dynamic": False, "acquired": 0.5, "least_brain": 0.0}
    skipped = decompose(image, (2.0, 2.0, 4.0), mask, engine=engine, **settings)
    whole = decompose(filled, (2.0, 2.0, 4.0), None, engine=engine, **settings)
    assert (whole.window_size > 0).all()
    assert (skipped.window_size > 0).float().mean() < 0.85
    # Windows come in other groups, and sums within a group of torch may round differently.
    torch.testing.assert_close(skipped.map, whole.map * torch.from_numpy(mask), atol=1e-7, rtol=0)


def test_least_brain_sets_which_windows_are_left_out():
    image, mask = wavy_head((40, 36, 1))
    kept = [(decompose(image, (2.0, 2.0, 4.0), mask, least_brain=b).window_size > 0).sum() for b in (0, 0.25, 0.5, 1)]
    assert kept == sorted(kept, reverse=True)
    assert len(set(map(int, kept))) == 4
    theirs = reference_dsd(image, (2.0, 2.0, 4.0), mask, base=8, least_brain=0.0)
    ours = decompose(image, (2.0, 2.0, 4.0), mask, least_brain=0.0, **DOUBLE)
    np.testing.assert_array_equal(ours.window_size.numpy(), theirs.window_size)


def test_fluid_brighter_than_the_brain_leaves_no_dark_rim():
    image, mask = wavy_head((48, 48, 1), noise=0.0)
    image[mask] = 100.0
    bright = image.copy()
    bright[20:28, 20:28] = 400.0
    assert decompose(bright, (2.0, 2.0, 4.0), mask).map.min() > -1e-6
    # Without clipping the same fluid digs a ditch around itself.
    assert decompose(bright, (2.0, 2.0, 4.0), mask, clip=10.0).map.min() < -0.2


def test_dark_spot_is_the_minimum_of_the_map_and_most_of_its_depth_is_kept():
    x, y = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    rng = np.random.default_rng(0)
    spot = 0.6 * np.exp(-((x - 31.0) ** 2 + (y - 28.0) ** 2) / 2)
    image = 100 * (1 - spot + 0.02 * rng.standard_normal(spot.shape))[..., None]
    result = decompose(image, (2.0, 2.0, 4.0), None)
    assert np.unravel_index(int(result.map.argmin()), result.map.shape) == (31, 28, 0)
    assert -0.7 < result.map.min() < -0.4


@pytest.mark.parametrize("shape", [(33, 27, 3), (48, 48, 1), (8, 8, 2), (9, 40, 1), (17, 8, 1), (9, 9)])
@pytest.mark.parametrize("spacing", [2.0, 0.5])
@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_any_shape_works_and_keeps_its_shape(shape, spacing, engine):
    image = 100 + np.random.default_rng(0).standard_normal(shape)
    result = decompose(image, (spacing,) * len(shape), None, engine=engine)
    assert result.map.shape == shape
    assert result.map.isfinite().all()
    n_z = shape[2] if len(shape) == 3 else 1
    expected = (-(-shape[0] // result.stride) + 1, -(-shape[1] // result.stride) + 1, n_z)
    assert result.rank.shape == result.window_size.shape == result.noise_scale.shape == expected
    assert (result.window_size > 0).all()
    assert result.stride * 4 == result.base_window_size


def test_planar_image_is_a_volume_of_one_slice():
    image, mask = wavy_head((30, 30, 1))
    volume = decompose(image, (2.0, 2.0, 5.0), mask)
    plane = decompose(image[..., 0], (2.0, 2.0), mask[..., 0])
    assert torch.equal(volume.map[..., 0], plane.map)


def test_slices_do_not_see_each_other_with_a_fixed_window():
    image, mask = wavy_head((30, 30, 3))
    settings = {"dynamic": False, "acquired": 0.5}
    whole = decompose(image, (2.0, 2.0, 4.0), mask, **settings)
    alone = image[:, :, 1:2].copy()
    median = torch.from_numpy(image)[torch.from_numpy(mask)].median().item()
    own = torch.from_numpy(alone)[torch.from_numpy(mask[:, :, 1:2])].median().item()
    part = decompose(alone, (2.0, 2.0, 4.0), mask[:, :, 1:2], clip=median / own, **settings)
    # Both clip at the same intensity, and windows divide by their own mean; only the fill outside differs.
    inner = np.s_[12:18, 12:18]
    np.testing.assert_allclose(whole.map[inner][..., 1], part.map[inner][..., 0], atol=1e-5)


def test_double_stride_fraction_halves_the_stride():
    image, mask = wavy_head((40, 36, 1))
    coarse, fine = (decompose(image, (2.0, 2.0, 4.0), mask, stride_fraction=n) for n in (4, 8))
    assert (coarse.stride, fine.stride) == (2, 1)
    # 3 % rms were measured; the window twice as far apart costs detail, not structure.
    assert (coarse.map - fine.map).norm() / fine.map.norm() < 0.1


def test_chunks_do_not_change_the_result(monkeypatch):
    image, mask = wavy_head((40, 36, 2))
    whole = decompose(image, (2.0, 2.0, 4.0), mask, dtype="float64")
    monkeypatch.setattr("mhsev_monai.dsd.engines.portable.CHUNK_VALUES", 7 * 32**2)
    parts = decompose(image, (2.0, 2.0, 4.0), mask, dtype="float64")
    assert torch.equal(whole.rank, parts.rank)
    assert relative_difference(parts.map, whole.map) < 1e-12


def test_result_is_the_same_on_every_run_and_leaves_its_inputs_alone():
    image, mask = (torch.from_numpy(a) for a in wavy_head((40, 36, 2)))
    kept = image.clone(), mask.clone()
    first, second = (decompose(image, (2.0, 2.0, 4.0), mask) for _ in range(2))
    assert torch.equal(first.map, second.map)
    assert torch.equal(first.band_energy, second.band_energy)
    assert torch.equal(image, kept[0])
    assert torch.equal(mask, kept[1])


def test_mask_too_small_for_any_window_gives_an_empty_map():
    image, mask = wavy_head((40, 36, 1))
    mask[:] = False
    mask[20, 20] = True
    result = decompose(image, (2.0, 2.0, 4.0), mask)
    assert result.window_size.max() == 0
    assert result.map.abs().max() == 0


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(8, 24), st.integers(8, 24), st.integers(1, 3)),
    spacing=st.tuples(*[st.floats(0.4, 5.0)] * 3),
    seed=st.integers(0, 2**16),
    gain=st.sampled_from(["wiener", "hard", "soft", "none"]),
    contrast=st.floats(0.0, 0.9),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_every_volume_obeys_the_bounds_of_the_result(shape, spacing, seed, gain, contrast, dtype):
    rng = np.random.default_rng(seed)
    image = 50 * (1 + contrast * rng.uniform(-1, 1, shape))
    mask = rng.random(shape) < 0.8
    mask.flat[rng.integers(mask.size)] = True
    # Numba decomposes float32, torch float64.
    result = decompose(image, spacing, mask, gain=gain, dtype=dtype)
    rounding = {"float32": 1e-5, "float64": 1e-12}[dtype]
    assert result.map.isfinite().all()
    assert (result.map[~torch.from_numpy(mask)] == 0).all()
    assert ((result.rank >= 0) & (result.rank <= result.window_size)).all()
    assert ((result.retained_energy >= 0) & (result.retained_energy <= 1 + rounding)).all()
    assert (result.band_energy.sum(-1) <= result.retained_energy + rounding).all()
    scaled = decompose(4 * image, spacing, mask, gain=gain, dtype=dtype)
    assert torch.equal(scaled.map, result.map)


def test_image_darker_than_a_tenth_of_the_brain_has_no_windows_there():
    image, mask = wavy_head((40, 36, 1))
    # The background of 10 is the median here: 0.9 is 9 % of it.
    image[:12] = 0.9
    result = decompose(image, (2.0, 2.0, 4.0), np.ones_like(mask))
    assert (result.window_size[1:4] == 0).all()
    assert (result.window_size[8:] > 0).all()
    for field in (result.rank, result.noise_scale, result.retained_energy, result.band_energy):
        assert (field[result.window_size == 0] == 0).all()


@pytest.mark.parametrize(("leading", "spacing"), [((2, 3), (2.0, 2.0, 4.0)), ((4,), (2.0, 2.0)), ((), (2.0, 2.0, 4.0))])
def test_batch_is_decomposed_image_by_image(leading, spacing):
    shape = (20, 18, 2)[: len(spacing)]
    images = 100 + 5 * np.random.default_rng(0).standard_normal((*leading, *shape))
    mask = np.ones(shape)
    mask[:3] = 0
    maps = dsd_maps(images, spacing, mask)
    assert maps.shape == images.shape
    for place in np.ndindex(*leading):
        assert torch.equal(maps[place], decompose(images[place], spacing, mask).map)


@pytest.mark.parametrize(
    ("shape", "spacing", "mask", "message"),
    [
        ((2, 9, 9), (1.0,), None, r"images must be \(\.\.\., X, Y\) with two spacings"),
        ((9,), (1.0, 1.0), None, "got shape .9,. and 2 spacings"),
        ((0, 9, 9), (1.0, 1.0), None, "and not empty"),
        ((2, 9, 9), (1.0, 1.0), np.ones((3, 9, 9)), r"mask must broadcast to the images' shape \(2, 9, 9\)"),
    ],
)
def test_batch_that_cannot_be_used_is_refused_in_one_sentence(shape, spacing, mask, message):
    with pytest.raises(ValueError, match=message):
        dsd_maps(np.ones(shape), spacing, mask)
