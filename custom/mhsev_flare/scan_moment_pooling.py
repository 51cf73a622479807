"""How the training scans of a federation differ from each other, pooled before round 0. No FLARE in here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add

import numpy as np

from mhsev_flare.protocol import Moments
from mhsev_monai.training import FeatureMoments

_ENTRIES = (Moments.SCAN_N, Moments.SCAN_MEAN, Moments.SCAN_SQUARED_DEVIATION)


def pool_scan_moments(messages: Mapping[str, Mapping[str, np.ndarray]], n_features: int) -> FeatureMoments:
    """Moments of all sites' training scans together, each scan with the mean of its features.

    Args:
        messages: site name to its arrays of ``Moments``; added in order of the names.
        n_features: that each must tell of.

    Raises:
        ValueError: if a site's numbers cannot be such moments.
    """
    return reduce(add, (_of_site(site, messages[site], n_features) for site in sorted(messages)))


def _of_site(site: str, message: Mapping[str, np.ndarray], n_features: int) -> FeatureMoments:
    arrays = [message.get(key) for key in _ENTRIES]
    if not all(isinstance(array, np.ndarray) and array.dtype.kind in "fiu" for array in arrays):
        raise ValueError(
            f"{site} sent no moments of its scans, which this job asks for; install the same mhsev everywhere"
        )
    number, mean, squares = (np.asarray(array, dtype=np.float64) for array in arrays)
    if number.shape != (1,) or mean.shape != (n_features,) or squares.shape != (n_features,):
        raise ValueError(f"{site} sent moments of scans whose shapes do not fit {n_features} features")
    if not (np.isfinite(number).all() and np.isfinite(mean).all() and np.isfinite(squares).all()):
        raise ValueError(f"{site} sent moments of scans that are not finite")
    if number[0] < 1 or not float(number[0]).is_integer() or (squares < 0).any():
        raise ValueError(f"{site} sent moments of scans that cannot be")
    return FeatureMoments(int(number[0]), mean, squares)
