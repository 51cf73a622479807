"""Nyul's standard scale of a federation, made of its sites' landmark sums before round 0. No FLARE in here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhsev_flare.protocol import Moments
from mhsev_monai.preprocess.nyul import FEWEST_SCANS, LandmarkSums, standard_scale
from mhsev_monai.volume_scale import even_scale


def pool_landmarks(messages: Mapping[str, Mapping[str, np.ndarray]], n_channels: int) -> tuple[np.ndarray, list[int]]:
    """The scale of each channel, and over how many cases it is the mean.

    Args:
        messages: site name to its arrays of ``Moments``.
        n_channels: that each must tell of.

    Returns:
        ``(n_channels, 11)`` float32, a row of even steps where no site tells of any case; and the numbers of cases.

    Raises:
        ValueError: if a site's sums cannot be those of landmarks.
    """
    told = [_site_sums(site, messages[site], n_channels) for site in sorted(messages)]
    scale, cases = even_scale(n_channels).numpy().copy(), []
    for channel in range(n_channels):
        sums = [site[channel] for site in told]
        present = [own for own in sums if own is not None]
        if present:
            scale[channel] = standard_scale(present)
        cases.append(sum(own.n_scans for own in present))
    return scale, cases


def _site_sums(site: str, message: Mapping[str, np.ndarray], n_channels: int) -> list[LandmarkSums | None]:
    cases, sums = message.get(Moments.LANDMARK_CASES), message.get(Moments.LANDMARK_SUMS)
    # Complex numbers have no order, and would end the study where they are compared.
    if not (isinstance(cases, np.ndarray) and isinstance(sums, np.ndarray)) or not {
        cases.dtype.kind,
        sums.dtype.kind,
    } <= set("fiu"):
        raise ValueError(
            f"{site} sent no sums of landmarks, which this job asks for; install the same mhsev everywhere"
        )
    if cases.shape != (n_channels,) or sums.ndim != 2 or len(sums) != n_channels:
        raise ValueError(f"{site} sent sums of landmarks whose shapes do not fit {n_channels} channels")
    return [_channel_sums(site, n, row) for n, row in zip(cases.astype(float).tolist(), sums.tolist(), strict=True)]


def _channel_sums(site: str, n: float, row: list[float]) -> LandmarkSums | None:
    if n == 0:
        return None
    if not n.is_integer() or n < FEWEST_SCANS:
        raise ValueError(f"{site} sent landmarks of fewer than {FEWEST_SCANS} cases, or of no whole number of them")
    try:
        return LandmarkSums(int(n), tuple(row))
    except ValueError:
        raise ValueError(f"{site} sent sums that cannot be those of landmarks") from None
