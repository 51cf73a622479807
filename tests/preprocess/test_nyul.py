"""Nyul's standard scale: learnt from sums as from all scans at once, and what it does to two scanners."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from head_phantoms import crisp_head
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from scipy.stats import wasserstein_distance

import mhsev_monai.preprocess as room
from mhsev_monai.errors import CohortError, ScanError
from mhsev_monai.preprocess.functional import LandmarkSums, landmarks, nyul_standardize, standard_scale
from mhsev_monai.preprocess.nyul import PERCENTILES, read_landmark_sums, read_scale, write_scale

SHAPE = (32, 36, 28)
SCALE = (0.0, 12.0, 20.0, 28.0, 35.0, 43.0, 50.0, 58.0, 67.0, 80.0, 100.0)
AFFINE = torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0], dtype=torch.float64))


def scan(seed, gain=1.0, gamma=1.0, offset=0.0):
    head = crisp_head(SHAPE, seed=seed)
    image = offset + gain * torch.from_numpy(head.image) ** gamma
    return image, torch.from_numpy(head.brain)


@pytest.fixture(scope="module")
def scans():
    return [scan(seed, gain=100.0 * (seed + 1), gamma=1 + 0.1 * seed) for seed in range(7)]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_landmarks_are_the_percentiles_of_numpy(size):
    values = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 100.0, size + 5))
    mask = torch.ones(size + 5)
    mask[-3:] = 0
    values[0] = torch.nan
    expected = np.percentile(values[1:-3].numpy(), PERCENTILES)
    assert landmarks(values, mask).numpy() == pytest.approx(expected, rel=1e-12)


def test_landmarks_of_more_voxels_than_torch_s_quantile_accepts():
    image = torch.arange(2**24 + 5000, dtype=torch.float32)
    # float32 holds whole numbers up to 2**24 exactly, and every second one beyond.
    assert landmarks(image, torch.ones_like(image)).numpy() == pytest.approx(
        np.array(PERCENTILES) / 100 * (2**24 + 4999), rel=1e-6
    )


@pytest.mark.parametrize("value", ["empty", "constant", "nan"])
def test_landmarks_of_nothing_are_refused(value):
    image = torch.full((8, 8), torch.nan if value == "nan" else 3.0)
    with pytest.raises(ScanError, match="no spread"):
        landmarks(image, torch.zeros(8, 8) if value == "empty" else torch.ones(8, 8))
    with pytest.raises(ValueError, match="shape"):
        landmarks(image, torch.ones(8))


@pytest.mark.parametrize("cuts", [(1, 3), (2, 4), (5, 6)])
def test_a_scale_of_several_sites_is_that_of_one_with_all_scans(scans, cuts):
    found = [landmarks(*s) for s in scans]
    parts = [found[: cuts[0]], found[cuts[0] : cuts[1]], found[cuts[1] :]]
    # To the last bit: the sums are exact.
    assert standard_scale([LandmarkSums.of(part) for part in parts]) == standard_scale([LandmarkSums.of(found)])
    assert standard_scale([LandmarkSums.of(part) for part in parts[::-1]]) == standard_scale([LandmarkSums.of(found)])


def test_a_scale_is_the_mean_of_the_scaled_landmarks(scans):
    found = np.stack([landmarks(*s).numpy() for s in scans])
    scaled = 100 * (found - found[:, :1]) / (found[:, -1:] - found[:, :1])
    assert standard_scale([LandmarkSums.of(list(found))]) == pytest.approx(scaled.mean(axis=0), abs=1e-6)


@pytest.mark.parametrize(
    ("n", "sums"),
    [
        (0, SCALE),
        (1, SCALE[:-1]),
        (2, SCALE),
        (1, SCALE[::-1]),
        (1, (*SCALE[:5], float("nan"), *SCALE[6:])),
        (1, (1.0, *SCALE[1:])),
    ],
)
def test_sums_that_no_landmarks_can_have_are_refused(n, sums):
    with pytest.raises(ValueError, match="sums of landmarks"):
        LandmarkSums(n, sums)


def test_an_image_s_landmarks_come_to_lie_on_the_scale(scans):
    image, mask = scans[2]
    mapped = nyul_standardize(image, mask, SCALE)
    # Percentiles between two voxels are interpolated before and after a map that bends there: off by at most one gap.
    assert landmarks(mapped, mask).numpy() == pytest.approx(SCALE, abs=0.1)
    assert mapped.dtype == torch.float32


def test_the_map_goes_on_beyond_the_ends_with_the_slope_of_the_last_piece():
    mask = torch.ones(101)
    image = torch.arange(101, dtype=torch.float64)
    mapped = nyul_standardize(image, mask, SCALE)
    # Landmarks are 1, 10, 20, ..., 90, 99; the first piece rises by 12 over 9, the last by 20 over 9.
    assert mapped[0] == pytest.approx(-12 / 9, abs=1e-5)
    assert mapped[100] == pytest.approx(100 + 20 / 9, abs=1e-5)
    assert mapped[25] == pytest.approx(24.0, abs=1e-5)


@pytest.mark.filterwarnings("ignore:Nyul")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=12, max_size=60), st.integers(0, 10**6))
def test_the_map_never_falls(values, seed):
    """Whatever is tied: coarse images have equal landmarks."""
    image = torch.tensor(values, dtype=torch.float32)
    probe = torch.linspace(-3, 10, 400)
    whole, mask = torch.cat([image, probe]), torch.cat([torch.ones(len(image)), torch.zeros(400)])
    steps = np.random.default_rng(seed).gamma(1.0, 1.0, 10)
    mapped = nyul_standardize(whole, mask, [0.0, *np.cumsum(steps)])
    assert torch.isfinite(mapped).all()
    assert (mapped[len(values) :].diff() >= -1e-5).all()


@pytest.mark.parametrize("kind", ["empty", "constant"])
def test_nothing_to_map_gives_zero_and_says_so(kind):
    image = torch.full((4, 4, 4), 5.0)
    mask = torch.zeros(4, 4, 4) if kind == "empty" else torch.ones(4, 4, 4)
    with pytest.warns(RuntimeWarning, match="no spread"):
        assert not nyul_standardize(image, mask, SCALE).any()


def test_what_is_not_finite_becomes_zero_and_touches_nothing_else(scans):
    image, mask = scans[0]
    spoilt = image.clone()
    spoilt[0, 0, 0], spoilt[0, 0, 1] = torch.nan, torch.inf
    mapped = nyul_standardize(spoilt, mask, SCALE)
    assert mapped[0, 0, 0] == mapped[0, 0, 1] == 0
    assert torch.equal(mapped[1:], nyul_standardize(image, mask, SCALE)[1:])


def test_two_scanners_come_together():
    """Another gain, offset and gamma, other heads: distance over spread falls below a tenth."""
    first = [scan(seed) for seed in range(5)]
    second = [scan(seed, gain=700.0, gamma=1.3, offset=50.0) for seed in range(5, 10)]
    scale = standard_scale([LandmarkSums.of([landmarks(*s) for s in site]) for site in (first, second)])

    def distance(sites):
        pooled = [np.concatenate([image[mask > 0].numpy() for image, mask in site]) for site in sites]
        low, high = np.percentile(np.concatenate(pooled), [25, 75])
        return wasserstein_distance(*pooled) / (high - low)

    def mapped(site):
        return [(nyul_standardize(image, mask, scale), mask) for image, mask in site]

    before, after = distance((first, second)), distance((mapped(first), mapped(second)))
    # What is left lies beyond the first and the last percentile, where a gamma cannot be followed by a line.
    assert before > 0.5
    assert after < 0.1


def site_file(path, entry):
    path.write_text(json.dumps({"landmarks": {"b0": entry}}))
    return path


def test_sites_files_are_pooled_and_the_scale_is_read_again(tmp_path, scans):
    found = [landmarks(*s) for s in scans] * 2
    sites = []
    for i, part in enumerate((found[:5], found[5:])):
        sums = LandmarkSums.of(part)
        path = site_file(tmp_path / f"site-{i}.json", {"n_scans": sums.n_scans, "sums": list(sums.sums)})
        sites.append(read_landmark_sums(path, "b0"))
        assert sites[-1] == sums
    write_scale(tmp_path / "scale.json", "b0", sites)
    assert read_scale(tmp_path / "scale.json", "b0") == standard_scale([LandmarkSums.of(found)])
    stored = json.loads((tmp_path / "scale.json").read_text())
    assert (stored["n_sites"], stored["n_scans"]) == (2, 14)
    with pytest.raises(CohortError, match="not a standard scale of trace"):
        read_scale(tmp_path / "scale.json", "trace")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"absent": "3 scans are too few"}, "3 scans are too few"),
        (None, "holds no landmarks"),
        ({"n_scans": 5, "sums": [1, 2]}, "holds no landmarks"),
        ({"n_scans": 1, "sums": SCALE}, "5 or more are accepted"),
    ],
)
def test_a_file_without_good_sums_is_refused_with_its_reason(tmp_path, entry, words):
    with pytest.raises(CohortError, match=words):
        read_landmark_sums(site_file(tmp_path / "qc.json", entry), "b0")


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "qc.json"
    for content in ("{", "[1]", json.dumps({"landmarks": 3})):
        path.write_text(content)
        with pytest.raises(CohortError, match="landmarks"):
            read_landmark_sums(path, "b0")
    with pytest.raises(CohortError, match="FileNotFoundError"):
        read_scale(tmp_path / "none.json", "b0")
    path.write_text(json.dumps({"image": "b0", "percentiles": PERCENTILES, "scale": [1]}))
    with pytest.raises(CohortError, match="damaged"):
        read_scale(path, "b0")


KINDS = {
    "numpy": lambda image: image.numpy(),
    "tensor": lambda image: image,
    "MetaTensor": lambda image: MetaTensor(image, affine=AFFINE, meta={"note": "kept"}),
}


@pytest.fixture(scope="module")
def entries():
    image, mask = scan(3, gain=300.0)
    return {"b0": image[None], "brain_mask": mask[None].float()}


@pytest.fixture
def transform():
    config = {"_target_": "mhsev_monai.preprocess.NyulStandardized", "keys": ["b0"], "scale": list(SCALE)}
    return ConfigParser({"transform": json.loads(json.dumps(config))}).get_parsed_content("transform")


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_kind_give_the_same_image_with_its_metadata(entries, transform, kind):
    data = {"case": "a", **{key: KINDS[kind](image.clone()) for key, image in entries.items()}}
    before = deepcopy(data)
    result = transform(data)["b0"]
    assert np.array_equal(np.asarray(data["b0"]), np.asarray(before["b0"]))
    assert isinstance(result, MetaTensor)
    assert result.dtype == torch.float32
    expected = nyul_standardize(entries["b0"][0], entries["brain_mask"][0], SCALE)
    assert torch.equal(result.as_tensor()[0], expected)
    if kind == "MetaTensor":
        assert torch.equal(result.affine, AFFINE)
        assert result.meta["note"] == "kept"


def test_channels_have_masks_of_their_own_or_share_one(entries):
    stack = torch.cat([entries["b0"], 2 * entries["b0"]])
    both = room.NyulStandardize(SCALE)(stack, entries["brain_mask"])
    assert torch.allclose(both[0], both[1], atol=1e-3)  # a gain is undone
    with pytest.raises(ValueError, match="1 channel or 2"):
        room.NyulStandardize(SCALE)(stack, torch.ones(3, *SHAPE))


def test_a_pickled_transform_does_the_same_and_a_missing_image_is_named_or_passed_over(entries, transform):
    copy = pickle.loads(pickle.dumps(transform))
    assert torch.equal(copy(entries)["b0"], transform(entries)["b0"])
    with pytest.raises(KeyError, match="trace"):
        room.NyulStandardized("trace", SCALE)(entries)
    assert "trace" not in room.NyulStandardized("trace", SCALE, allow_missing_keys=True)(entries)


def test_it_works_in_workers(entries, transform):
    batch = next(iter(DataLoader(Dataset([entries] * 2, transform), batch_size=2, num_workers=1)))
    assert torch.equal(batch["b0"][1], transform(entries)["b0"].as_tensor())


@pytest.mark.parametrize("scale", [SCALE[:-1], SCALE[::-1], (0.0,) * 11, (*SCALE[:-1], float("inf"))])
def test_what_is_no_scale_is_refused(scale):
    with pytest.raises(ValueError, match="11 finite rising numbers"):
        room.NyulStandardize(scale)


def test_the_dictionary_transform_has_monai_s_three_names():
    assert room.NyulStandardized is room.NyulStandardizeD is room.NyulStandardizeDict
    names = {"NyulStandardize", "NyulStandardized", "NyulStandardizeD", "NyulStandardizeDict"}
    assert names <= set(room.__all__)
