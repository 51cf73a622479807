from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mhsev_monai.dsd.contrast import contrast_image
from mhsev_monai.dsd.functional import DSDParameters, dynamic_spectral_decomposition

IMAGE = np.full((8, 8, 2), 100.0)


@pytest.mark.parametrize(
    ("image", "spacing", "mask", "message"),
    [
        (IMAGE.astype(complex), (1, 1, 1), None, "image must be real"),
        (IMAGE[None], (1, 1, 1), None, r"image must be \(X, Y\) or \(X, Y, Z\)"),
        (IMAGE[:0], (1, 1, 1), None, "no empty axis"),
        (np.where(IMAGE > 0, np.nan, 0), (1, 1, 1), None, "image must be finite"),
        (np.where(IMAGE > 0, np.inf, 0), (1, 1, 1), None, "image must be finite"),
        (IMAGE, (1, 0, 1), None, "spacing must be 3 positive finite numbers in mm"),
        (IMAGE, (1, -2, 1), None, "spacing must be 3 positive"),
        (IMAGE, (1, 1, float("nan")), None, "spacing must be 3 positive"),
        (IMAGE, (1, 1), None, "spacing must be 3 positive"),
        (IMAGE, (1, 1, 1), np.zeros((8, 8, 2)), "mask must mark at least one voxel"),
        (IMAGE, (1, 1, 1), np.full((8, 8, 2), np.nan), "mask must be zero or not, got NaN voxels"),
        (
            np.where(np.arange(8) == 0, 1e10, 1e-303)[:, None].repeat(8, 1),
            (1, 1),
            None,
            "image must lie within the range",
        ),
        (IMAGE, (1, 1, 1), np.ones((8, 8, 1)), "mask must have the image's shape"),
        (-IMAGE, (1, 1, 1), None, "positive median inside the mask"),
        (0 * IMAGE, (1, 1, 1), None, "positive median inside the mask"),
        (IMAGE[:7], (1, 1, 1), None, "window_size must be at most the smaller side of a slice, 7 voxels, got 8"),
    ],
)
def test_unusable_input_is_refused_in_one_sentence(image, spacing, mask, message):
    with pytest.raises(ValueError, match=message) as caught:
        dynamic_spectral_decomposition(image, spacing, mask)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("energy", 1.0),
        ("kappa", -1.0),
        ("gain", "median"),
        ("eigenvalues", "cubed"),
        ("window_size", 12),
        ("stride_fraction", 2),
        ("clip", 0.0),
        ("least_brain", 1.5),
        ("acquired", 0.6),
        ("dtype", "float16"),
    ],
)
def test_setting_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value!r}"):
        DSDParameters(**{name: value})


@pytest.mark.parametrize("size", [16, 32])
def test_window_larger_than_the_image_is_refused(size):
    with pytest.raises(ValueError, match=f"window_size must be at most the smaller side of a slice, 15 .* got {size};"):
        dynamic_spectral_decomposition(np.full((15, 40, 2), 1.0), (1, 1, 1), None, DSDParameters(window_size=size))


def test_parameters_survive_json():
    parameters = DSDParameters(gain="hard", acquired=0.3, window_size=16)
    assert DSDParameters(**json.loads(json.dumps(parameters.as_dict()))) == parameters


def test_contrast_image_is_one_outside_and_at_most_clip_inside():
    volume = torch.tensor([2.0, 4.0, 8.0, 100.0])
    contrast, level = contrast_image(volume, torch.tensor([True, True, True, False]), 1.5)
    assert contrast.tolist() == [0.5, 1.0, 1.5, 1.0]
    assert level == 4
