"""Which candidates count as focal: each limit with a spot just inside and one just outside of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from dsd_phantoms import spotted_head

from mhsev_monai.dsd import DSDParameters, dynamic_spectral_decomposition
from mhsev_monai.dsd.candidates import Candidate
from mhsev_monai.dsd.features import FEATURE_NAMES, dsd_features
from mhsev_monai.dsd.focal import focal_candidates

SPOT = Candidate(
    centre_voxel=(2.0, 2.0, 1.0),
    peak_voxel=(2, 2, 1),
    depth=0.4,
    mean_depth=0.3,
    volume_mm3=40.0,
    diameter_mm=4.2,
    n_slices=1,
    symmetry=0.7,
    elongation=1.2,
    distance_to_surface_mm=20.0,
)


def image_with(value: float) -> np.ndarray:
    image = np.full((5, 5, 3), 200.0)
    image[2, 2, 1] = value
    return image


@pytest.mark.parametrize(
    ("change", "signal", "is_focal"),
    [
        ({}, 100.0, True),
        ({"symmetry": 0.39}, 100.0, False),
        ({"elongation": 3.0}, 100.0, True),
        ({"elongation": 3.1}, 100.0, False),
        ({}, 119.0, True),
        ({}, 121.0, False),
    ],
)
def test_each_limit(change, signal, is_focal):
    """The image's level is 200, so the limit of 0.6 lies at 120."""
    spot = dataclasses.replace(SPOT, **change)
    assert focal_candidates([spot], image_with(signal), 200.0) == ((spot,) if is_focal else ())


@pytest.mark.parametrize("n_spots", [0, 4, 9])
def test_focal_counts_are_the_planted_numbers_and_know_no_gain(n_spots):
    spacing = (1.5, 1.5, 3.0)
    image, mask = spotted_head(spacing, n_spots, depth=0.7)
    parameters = DSDParameters(kappa=1.0)
    vectors = [
        dsd_features(dynamic_spectral_decomposition(scan, spacing, mask, parameters), scan, spacing, mask, parameters)
        for scan in (image, 7.3 * image)
    ]
    for vector in vectors:
        named = dict(zip(FEATURE_NAMES, vector, strict=True))
        assert np.expm1(named["focal_count_20"]) == pytest.approx(n_spots)
