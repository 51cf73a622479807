"""The transforms as MONAI uses them: dictionary in, dictionary out, metadata read, missing keys named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import mhsev_monai
from mhsev_monai.radiomics import (
    FEATURE_NAMES,
    RadiomicsFeatures,
    RadiomicsFeaturesD,
    RadiomicsFeaturesd,
    RadiomicsParameters,
    radiomics_features,
)

SPACING = (2.0, 2.0, 5.0)


def two_channels() -> MetaTensor:
    volume = torch.from_numpy(np.random.default_rng(0).gamma(4, 25, (2, 6, 7, 5)))
    return MetaTensor(volume, affine=torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64)))


def ball() -> torch.Tensor:
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (6, 7, 5)], indexing="ij"))
    return ((grid**2).sum(0) < 1.2)[None]


def test_each_channel_has_its_own_row_with_the_spacing_of_the_metadata():
    image, mask = two_channels(), ball()
    transform = RadiomicsFeatures({"bin_count": 8})
    rows = transform(image, mask)
    assert rows.shape == (2, 93)
    assert rows.dtype == np.float64
    for channel, row in zip(image, rows, strict=True):
        expected = radiomics_features(channel, mask[0], SPACING, RadiomicsParameters(bin_count=8))
        assert dict(zip(transform.feature_names, row.tolist(), strict=True)) == expected


def test_a_plain_array_needs_the_spacing():
    image, mask = two_channels().numpy(), ball().numpy()
    with pytest.raises(ValueError, match="spacing must be given"):
        RadiomicsFeatures()(image, mask)
    np.testing.assert_array_equal(
        RadiomicsFeatures(spacing=SPACING)(image, mask), RadiomicsFeatures()(two_channels(), mask)
    )


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="1 or 2 channels"):
        RadiomicsFeatures()(two_channels(), torch.ones(3, 6, 7, 5))


def test_the_dictionary_gains_the_features_and_keeps_the_rest():
    data = {"b0": two_channels()[:1], "trace": two_channels()[1:], "mask": ball()}
    result = RadiomicsFeaturesd(keys=["b0", "trace"], mask_key="mask")(data)
    assert set(data) == {"b0", "trace", "mask"}
    assert set(result) - set(data) == {"b0_radiomics", "trace_radiomics"}
    assert result["b0"] is data["b0"]
    np.testing.assert_array_equal(result["trace_radiomics"], RadiomicsFeatures()(data["trace"], data["mask"]))


def test_an_absent_key_is_named_or_passed_over():
    data = {"b0": two_channels()[:1], "mask": ball()}
    with pytest.raises(KeyError, match="trace"):
        RadiomicsFeaturesd(keys=["b0", "trace"], mask_key="mask")(data)
    passed = RadiomicsFeaturesd(keys=["b0", "trace"], mask_key="mask", allow_missing_keys=True)(data)
    assert passed["b0_radiomics"].shape == (1, len(FEATURE_NAMES))
    with pytest.raises(KeyError, match="'brain' is not in the data"):
        RadiomicsFeaturesd(keys=["b0"], mask_key="brain")(data)


def test_features_never_replace_the_image():
    with pytest.raises(ValueError, match="postfix must not be empty"):
        RadiomicsFeaturesd(keys=["b0"], mask_key="mask", postfix="")


def test_the_house_exports_the_transforms():
    assert mhsev_monai.RadiomicsFeatures is RadiomicsFeatures
    assert mhsev_monai.RadiomicsFeaturesd is RadiomicsFeaturesd is RadiomicsFeaturesD
