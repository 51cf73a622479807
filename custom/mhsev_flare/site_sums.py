"""What a site sums over its training cases before round 0. No FLARE in here."""

from __future__ import annotations

import numpy as np
from torch import nn

from mhsev_flare.protocol import Moments
from mhsev_flare.site_data import SiteData, grade_counts
from mhsev_flare.standardisation import Asked
from mhsev_monai.familiarity import scan_means
from mhsev_monai.severity import GradingScale
from mhsev_monai.training import FeatureMoments
from mhsev_monai.volume_scale import volume_landmark_sums


def site_sums(network: nn.Module, data: SiteData, scale: GradingScale) -> dict[str, np.ndarray]:
    """The arrays of ``Moments``: of the features, twins included, of the grades, and of what else the network asks for.

    Args:
        network: to be trained.
        data: of the site.
        scale: grades the cases.
    """
    moments = FeatureMoments.of(data.lessons.features)
    sums = {
        Moments.N: np.array([moments.n], dtype=np.float64),
        Moments.MEAN: moments.mean,
        Moments.SQUARED_DEVIATION: moments.squared_deviation,
        Moments.CLASS_COUNTS: grade_counts(data.train, scale).astype(np.float64),
    }
    asked = Asked.by(network)
    if asked.landmark_channels:
        sums[Moments.LANDMARK_CASES], sums[Moments.LANDMARK_SUMS] = volume_landmark_sums(data.train.features)
    if asked.scan_moments:
        # Twins are no scans of any scanner: with them a real one of coarse voxels would pass for usual.
        usual = FeatureMoments.of(scan_means(data.train.features))
        sums[Moments.SCAN_N] = np.array([usual.n], dtype=np.float64)
        sums[Moments.SCAN_MEAN] = usual.mean
        sums[Moments.SCAN_SQUARED_DEVIATION] = usual.squared_deviation
    return sums
