"""How much a scan looks like those that a federation trained on, from 0 (unlike them) to 1.

The score of a scan is the root mean square, over descriptors, of the distance between the mean of its candidates and
the mean of such means over the training scans, in standard deviations between training scans: about 1 for a usual one.
It goes by the spread between scans, ``oddness`` by that between candidates: a network that chooses by it must know what
is usual before it has met any validation case.
"""

from __future__ import annotations

from torch import Tensor

FAMILIAR = 2.0
"""Up to this score a scan counts as one like the training scans."""
UNFAMILIAR = 3.0
"""From this score on it counts as one unlike them; in between, as something of both."""
_MOST_DEVIATION = 10.0
"""Of one descriptor, so that none makes a scan unfamiliar by itself."""


def scan_means(features: Tensor) -> Tensor:
    """``(n, F)`` means over each scan's candidates, of ``(n, N, F)``; rows of NaN stand for none."""
    return features.nanmean(dim=1)


def familiarity(means: Tensor, scan_mean: Tensor, scan_scale: Tensor) -> Tensor:
    """``(n,)`` in [0, 1]; 0 for a scan without candidates, of which nothing is known.

    Args:
        means: ``(n, F)`` from :func:`scan_means`.
        scan_mean: ``(F,)`` mean of such means over the training scans.
        scan_scale: ``(F,)`` their standard deviation.
    """
    far = ((means - scan_mean) / scan_scale).clamp(-_MOST_DEVIATION, _MOST_DEVIATION)
    score = far.square().mean(dim=1).sqrt()
    return ((UNFAMILIAR - score) / (UNFAMILIAR - FAMILIAR)).clamp(0, 1).nan_to_num(nan=0.0)
