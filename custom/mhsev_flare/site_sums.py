"""What a site sums over its training cases before round 0. No FLARE in here."""

from __future__ import annotations

import numpy as np
from torch import nn

from mhsev_flare.protocol import Moments
from mhsev_flare.site_data import SiteData, grade_counts
from mhsev_monai.severity import GradingScale
from mhsev_monai.training import FeatureMoments
from mhsev_monai.volume_network import nyul_channels
from mhsev_monai.volume_scale import volume_landmark_sums


def site_sums(network: nn.Module, data: SiteData, scale: GradingScale) -> dict[str, np.ndarray]:
    """The arrays of ``Moments``: of the features, twins included, of the grades, and of landmarks where they are asked.

    Args:
        network: to be trained; one that reads Nyul's standard scale asks for landmarks.
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
    if nyul_channels(network):
        sums[Moments.LANDMARK_CASES], sums[Moments.LANDMARK_SUMS] = volume_landmark_sums(data.train.features)
    return sums
