"""Nyul's standard scale in the 3D CNN: what a site tells of its volumes, and what the network makes of a scanner."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import norm

from mhsev_monai.model_file import build, class_config
from mhsev_monai.preprocess.functional import LandmarkSums, landmarks, standard_scale
from mhsev_monai.preprocess.nyul import PERCENTILES
from mhsev_monai.volume_network import SeverityCNN3d, nyul_channels
from mhsev_monai.volume_scale import even_scale, on_standard_scale, volume_landmark_sums

SIZE = (12, 14, 10)
BACKBONE = {"_target_": "resnet10", "widen_factor": 0.125, "conv1_t_stride": 2, "norm": ["group", {"num_groups": 4}]}


def make_volumes(n: int, seed: int = 0) -> torch.Tensor:
    """Brains of skewed intensities, NaN in the outer voxels."""
    volumes = np.random.default_rng(seed).gamma(3.0, size=(n, *SIZE, 2)).astype(np.float32)
    volumes[:, :2] = np.nan
    return torch.from_numpy(volumes)


def make_network(nyul: bool = True) -> SeverityCNN3d:
    return SeverityCNN3d(2, BACKBONE, (), 4, 1, nyul)


def test_sums_are_those_of_the_landmarks_of_the_brain():
    volumes = make_volumes(6)
    cases, sums = volume_landmark_sums(volumes)
    inside = volumes.numpy().reshape(6, -1, 2)
    found = np.nanpercentile(inside.astype(np.float64), PERCENTILES, axis=1)
    scaled = 100 * (found - found[:1]) / (found[-1:] - found[:1])
    assert cases.tolist() == [6, 6]
    np.testing.assert_allclose(sums, scaled.sum(axis=1).T, atol=1e-4)


def test_two_sites_make_the_scale_of_all_cases():
    volumes = make_volumes(13)
    parts = [volume_landmark_sums(part) for part in (volumes[:5], volumes[5:])]
    found = [standard_scale([LandmarkSums(int(n[c]), tuple(sums[c].tolist())) for n, sums in parts]) for c in range(2)]
    whole = [standard_scale([LandmarkSums.of([landmarks(v[..., c], torch.isfinite(v[..., c])) for v in volumes])])
             for c in range(2)]  # fmt: skip
    assert found == whole


def test_cases_without_a_trace_and_too_few_of_them_are_not_told():
    volumes = make_volumes(9)
    volumes[4:, ..., 1][torch.isfinite(volumes[4:, ..., 1])] = 0.0
    cases, sums = volume_landmark_sums(volumes)
    assert cases.tolist() == [9, 0]
    assert not sums[1].any()


def test_a_case_comes_to_lie_on_the_scale():
    """By percentiles of NumPy: a volume's own lie where the scale's levels do, in units of the scale's deviation."""
    levels = even_scale(2)
    levels[0] = torch.tensor([0.0, 5, 9, 14, 20, 27, 36, 47, 60, 78, 100])
    mapped = on_standard_scale(make_volumes(2), levels).numpy()
    for channel in range(2):
        level = levels[channel].numpy().astype(np.float64)
        expected = (level - level[5]) / ((level[9] - level[1]) / (norm.ppf(0.9) - norm.ppf(0.1)))
        own = np.nanpercentile(mapped[0, ..., channel], PERCENTILES)
        np.testing.assert_allclose(own, expected, atol=0.02)
    assert np.isnan(mapped[:, :2]).all()


def test_a_scanner_of_another_gain_offset_and_curve_looks_alike():
    """A gain and an offset make no difference at all; a monotone curve none at the landmarks, and little between."""
    volumes, scale = make_volumes(3), even_scale(2)
    expected = on_standard_scale(volumes, scale)
    straight = on_standard_scale(volumes * 37.0 - 250.0, scale)
    torch.testing.assert_close(straight, expected, rtol=0, atol=1e-3, equal_nan=True)
    curved = on_standard_scale(volumes**0.8, scale)
    between = torch.isfinite(expected) & (expected.abs() < 1.2)
    assert (curved - expected)[between].abs().max() < 0.05


def test_a_channel_without_spread_is_zero_and_says_nothing():
    volumes = make_volumes(1)
    volumes[..., 1] = torch.where(torch.isfinite(volumes[..., 1]), 0.0, torch.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapped = on_standard_scale(volumes, even_scale(2))
    assert mapped[0, 2:, ..., 1].eq(0).all()
    assert mapped[0, 2:, ..., 0].std() > 0.5


def test_a_scan_whose_brain_is_almost_all_of_one_value_is_zero_and_said():
    volumes = make_volumes(1)
    volumes[0, 2:, ..., 0] = 4.0
    volumes[0, 5, 5, 5, 0] = 9.0
    with pytest.warns(RuntimeWarning, match="no spread"):
        mapped = on_standard_scale(volumes, even_scale(2))
    assert mapped[0, 2:, ..., 0].eq(0).all()


def test_the_network_sees_one_scanner_where_there_are_two():
    """Gain and curve change the output without the scale, and next to nothing with it."""
    volumes = make_volumes(4)
    changes = []
    for nyul in (True, False):
        network = make_network(nyul).eval()
        with torch.no_grad():
            changes.append(float((network(volumes**0.8 * 3) - network(volumes)).abs().max()))
    assert changes[0] < 0.05 * changes[1]


def test_the_scale_is_asked_for_only_by_networks_that_read_it():
    assert nyul_channels(make_network()) == 2
    assert nyul_channels(make_network(nyul=False)) == 0
    assert nyul_channels(torch.nn.Linear(2, 2)) == 0
    assert "standard_scale" not in make_network(nyul=False).state_dict()


def test_a_network_is_made_again_with_its_scale_and_an_older_file_has_none():
    network = make_network()
    network.standard_scale[0] *= 2.0
    config = class_config(network)
    again = build(config)
    again.load_state_dict(network.state_dict())
    volumes = make_volumes(2)
    torch.testing.assert_close(again.eval()(volumes), network.eval()(volumes), rtol=0, atol=0)
    del config["args"]["nyul"]
    assert build(config).nyul is False
