"""The same features from pyradiomics itself, where it is installed (extra ``oracle``)."""

from __future__ import annotations

import numpy as np
import pytest
from pyradiomics_peer import AVAILABLE, pyradiomics_features, whole_brain

from mhsev_monai.radiomics import RadiomicsParameters, radiomics_features

pytestmark = pytest.mark.skipif(
    not AVAILABLE, reason="needs pyradiomics (extra oracle: pyradiomics-bhklab, which needs a compiler)"
)


def test_all_families_equal_those_of_pyradiomics_on_a_new_region():
    image, mask, spacing = whole_brain(6000)
    mask &= np.random.default_rng(3).random(mask.shape) > 0.1  # holes, so that neighbours are missing
    expected = pyradiomics_features(image, mask, spacing, 32)
    found = radiomics_features(image, mask, spacing, RadiomicsParameters(bin_count=32))
    assert len(expected) == 93
    assert {name: found[name] for name in expected} == pytest.approx(dict(expected), rel=1e-9)
