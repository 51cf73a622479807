"""Federated standardisation and class weights: what the server makes of the sites' sums before round 0. No FLARE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from mhsev_flare.landmark_pooling import pool_landmarks
from mhsev_flare.protocol import Moments
from mhsev_flare.scan_moment_pooling import pool_scan_moments
from mhsev_monai.severity import Severity
from mhsev_monai.training import FeatureMoments, balanced_class_weights
from mhsev_monai.volume_network import nyul_channels


@dataclass(frozen=True)
class Asked:
    """What a network asks the sites for beside the moments of its features and the numbers of cases by grade.

    Attributes:
        landmark_channels: channels whose landmarks each site must tell, for Nyul's standard scale; 0: none.
        scan_moments: moments of the scans' mean features, which say how scans differ from each other.
    """

    landmark_channels: int = 0
    scan_moments: bool = False

    @staticmethod
    def by(network: nn.Module) -> Asked:
        """What ``network`` asks for."""
        return Asked(nyul_channels(network), "scan_mean" in dict(network.named_buffers(recurse=False)))


@dataclass(frozen=True)
class Standardisation:
    """Entries of the global model that come from all sites' training cases, and their twins, together.

    Attributes:
        feature_mean: ``(n_features,)``.
        feature_scale: ``(n_features,)``.
        class_weights: ``(n_grades,)``.
        standard_scale: Nyul's, ``(n_channels, 11)``, of the training cases alone; None where no job asks for it.
        landmark_cases: over how many cases each channel's scale is the mean.
        scan_mean: ``(n_features,)`` mean over training cases of their mean features; None where no job asks for it.
        scan_scale: ``(n_features,)`` their standard deviation, likewise.
        scan_cases: over how many cases they are.
    """

    feature_mean: np.ndarray
    feature_scale: np.ndarray
    class_weights: np.ndarray
    standard_scale: np.ndarray | None = None
    landmark_cases: tuple[int, ...] = ()
    scan_mean: np.ndarray | None = None
    scan_scale: np.ndarray | None = None
    scan_cases: int = 0

    def buffers(self) -> dict[str, np.ndarray]:
        """The entries by the names that they have in the model."""
        entries = {
            "feature_mean": self.feature_mean,
            "feature_scale": self.feature_scale,
            "class_weights": self.class_weights,
            "standard_scale": self.standard_scale,
            "scan_mean": self.scan_mean,
            "scan_scale": self.scan_scale,
        }
        return {name: values.astype(np.float32) for name, values in entries.items() if values is not None}


NOTHING_MORE = Asked()


def pool_standardisation(
    messages: Mapping[str, Mapping[str, np.ndarray]], asked: Asked = NOTHING_MORE
) -> Standardisation:
    """Global mean, scale and class weights from per-site counts, means and sums of squared deviations.

    Args:
        messages: site name to the arrays of ``Moments``; added in order of the names, so the result does not depend on
            which site answered first.
        asked: what else the network asks for.

    Returns:
        The mean and standard deviation over all sites' training cases and twins, equal to those of the pooled ones.

    Raises:
        ValueError: if no site sent anything, or a site's numbers are not finite or do not fit the others' shape.
    """
    if not messages:
        raise ValueError("standardisation needs the sums of at least one site, got none")
    pooled: FeatureMoments | None = None
    class_counts: np.ndarray | None = None
    for site in sorted(messages):
        moments = _moments(site, messages[site])
        counts = np.asarray(messages[site][Moments.CLASS_COUNTS], dtype=np.float64)
        if pooled is not None and moments.mean.shape != pooled.mean.shape:
            raise ValueError(
                f"{site} sent moments of {moments.mean.size} features where {pooled.mean.size} are expected"
            )
        pooled = moments if pooled is None else pooled + moments
        class_counts = counts if class_counts is None else class_counts + counts
    assert pooled is not None
    assert class_counts is not None
    whole = Standardisation(pooled.mean, pooled.scale(), balanced_class_weights(class_counts))
    if asked.landmark_channels:
        standard_scale, cases = pool_landmarks(messages, asked.landmark_channels)
        whole = replace(whole, standard_scale=standard_scale, landmark_cases=tuple(cases))
    if asked.scan_moments:
        scans = pool_scan_moments(messages, len(whole.feature_mean))
        whole = replace(whole, scan_mean=scans.mean, scan_scale=scans.scale(), scan_cases=scans.n)
    return whole


def _moments(site: str, message: Mapping[str, np.ndarray]) -> FeatureMoments:
    missing = [key for key in ENTRIES if key not in message]
    if missing:
        raise ValueError(f"{site} sent no {', '.join(missing)}")
    # Only what is ours is looked at, and no message of NumPy's goes on: it would repeat what came.
    arrays = {key: message[key] for key in ENTRIES}
    if not all(isinstance(a, np.ndarray) and np.issubdtype(a.dtype, np.number) and a.size for a in arrays.values()):
        raise ValueError(f"{site} sent moments that are not arrays of numbers")
    numbers = {key: value.astype(np.float64) for key, value in arrays.items()}
    if not all(np.isfinite(value).all() for value in numbers.values()):
        raise ValueError(f"{site} sent moments that are not finite")
    mean, squares, counts = (numbers[key] for key in (Moments.MEAN, Moments.SQUARED_DEVIATION, Moments.CLASS_COUNTS))
    if mean.ndim != 1 or squares.shape != mean.shape or counts.shape != (len(Severity),):
        raise ValueError(f"{site} sent moments whose shapes do not fit each other")
    if (squares < 0).any() or (counts < 0).any() or counts.sum() < 1:
        raise ValueError(f"{site} sent sums of squares or numbers of cases that cannot be")
    n = int(numbers[Moments.N].ravel()[0])
    if n < 1:
        raise ValueError(f"{site} sent moments of {n} cases where at least one is expected")
    return FeatureMoments(n, mean, squares)


ENTRIES = (Moments.N, Moments.MEAN, Moments.SQUARED_DEVIATION, Moments.CLASS_COUNTS)
