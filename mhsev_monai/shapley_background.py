"""The background that attributions are measured against: synthetic cases from the federation's moments, no patient's.

Values of two sites can be compared, and added, only if both take away a player in the same way; with a site's own cases
as background, what its scanner does to all of them drops out of its values. So a normal distribution with the
federation's moments stands in. They are in the model, as ``feature_mean`` and ``feature_scale``: every site draws the
same rows from the model and a seed, and none sends anything more.

The model knows deviations alone, and synthetic features then do not depend on each other as those of real cases do: on
simulated sites that puts values off by half of their size; covariances bring it to a third, where another sample of
real cases is off by a fifth (docs/benchmarks/shapley.md). ``SecondMoments`` are what sites would send for them; those
of few cases tell of the cases, so that it is for a site to decide.

Background scans of a candidate network are sets of dark spots drawn in the same way, each the mixture of all spots that
the federation has seen, nearly all of them no bleed. What all spots of a scan share, noise and spacing, is drawn once a
scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

USUAL_CANDIDATES = 200
"""Candidates of a background scan, where the federation's mean number is not known."""


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """Count, mean and scatter of feature vectors: what a background with covariances needs of a site.

    Attributes:
        n: number of vectors, of cases or of the candidates of all cases; at least 1.
        mean: ``(n_features,)`` float64.
        scatter: ``(n_features, n_features)`` float64, sum over vectors of the outer product of x - mean with itself.
    """

    n: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @staticmethod
    def of(features: Tensor) -> SecondMoments:
        """Moments of the vectors along the last axis; rows of NaN, which only fill up a set, do not count.

        Raises:
            ValueError: if there is no vector.
        """
        values = features.reshape(-1, features.shape[-1]).double().cpu().numpy()
        values = values[~np.isnan(values).all(axis=1)]
        if not len(values):
            raise ValueError("second moments need a vector, got none")
        mean = values.mean(axis=0)
        return SecondMoments(len(values), mean, (values - mean).T @ (values - mean))

    def __add__(self, other: SecondMoments) -> SecondMoments:
        """Moments of the union (Chan, Golub and LeVeque 1979)."""
        n, shift = self.n + other.n, other.mean - self.mean
        between = np.outer(shift, shift) * (self.n * other.n / n)
        return SecondMoments(n, self.mean + shift * (other.n / n), self.scatter + other.scatter + between)

    def covariance(self) -> NDArray[np.float64]:
        """``(n_features, n_features)`` about the mean."""
        return self.scatter / self.n


def synthetic_rows(
    mean: ArrayLike, second_moments: ArrayLike, n_rows: int, seed: int, shrinkage: float = 0.2
) -> NDArray[np.float32]:
    """Normal rows with given moments, ``(n_rows, n_features)``; equal arguments give equal rows at every site.

    Args:
        mean: ``(n_features,)``.
        second_moments: ``(n_features,)`` variances, or ``(n_features, n_features)`` covariances about the mean.
        n_rows: 100 to 200 are usual.
        seed: of the draw.
        shrinkage: share of the covariances that is taken away, in (0, 1]; the variances stay (Ledoit and Wolf 2004,
            with the target of their diagonal). Not used where only variances are given.

    Raises:
        ValueError: if the shapes do not fit, a number is not finite, a variance is negative, or the covariances are
            not those of any distribution.
    """
    middle, moments = np.asarray(mean, dtype=np.float64), np.asarray(second_moments, dtype=np.float64)
    d = middle.size
    if middle.ndim != 1 or not d or moments.shape not in ((d,), (d, d)) or n_rows < 1:
        raise ValueError(
            "mean must be (n_features,), second_moments (n_features,) or (n_features, n_features) and n_rows at least "
            f"1, got {middle.shape}, {moments.shape} and {n_rows}"
        )
    variances = moments if moments.ndim == 1 else np.diagonal(moments)
    if not (np.isfinite(middle).all() and np.isfinite(moments).all()) or (variances < 0).any():
        raise ValueError("moments must be finite, and no variance negative")
    draws = np.random.default_rng(seed).standard_normal((n_rows, d))
    if moments.ndim == 2:
        draws = draws @ _correlation_root(moments, shrinkage).T
    return (middle + draws * np.sqrt(variances)).astype(np.float32)


def _correlation_root(covariance: NDArray[np.float64], shrinkage: float) -> NDArray[np.float64]:
    """Lower triangular root of the shrunk correlations; a feature that never varies goes with nothing."""
    if not 0 < shrinkage <= 1:
        raise ValueError(f"shrinkage must be in (0, 1], got {shrinkage}")
    scale = np.sqrt(np.diagonal(covariance))
    varies = scale > 0
    divisor = np.where(varies, scale, 1.0)
    correlation = covariance / np.outer(divisor, divisor) * np.outer(varies, varies)
    shrunk = (1 - shrinkage) * (correlation + correlation.T) / 2
    np.fill_diagonal(shrunk, 1.0)
    try:
        # Cholesky's root is unique; eigenvectors have signs that differ between libraries, and so between sites.
        return np.linalg.cholesky(shrunk)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"second_moments are no covariances, even shrunk by {shrinkage:g}; send a matrix from one set of cases"
        ) from None


def synthetic_scans(
    mean: ArrayLike, second_moments: ArrayLike, shared: Sequence[int], size: tuple[int, int], seed: int
) -> NDArray[np.float32]:
    """Scans of normal dark spots, ``(n_scans, n_candidates, n_features)``.

    Args:
        mean: ``(n_features,)`` over all candidates of the federation.
        second_moments: variances or covariances, likewise; see :func:`synthetic_rows`.
        shared: indices of descriptors that all spots of a scan have in common, as ``CandidateMLP.context_features``.
        size: number of scans and number of candidates of each.
        seed: of the draw.

    Raises:
        ValueError: as :func:`synthetic_rows`, if a size is not positive or an index is none of a descriptor.
    """
    n_scans, n_candidates = size
    n_features = np.asarray(mean).size
    if min(size) < 1 or any(not 0 <= index < n_features for index in shared):
        raise ValueError(
            f"size must be positive and shared hold indices below {n_features}, got {size} and {list(shared)}"
        )
    scans = synthetic_rows(mean, second_moments, n_scans * n_candidates, seed)
    scans = scans.reshape(n_scans, n_candidates, n_features)
    columns = list(shared)
    scans[:, :, columns] = scans[:, :1, columns]
    return scans


def common_background(
    network: nn.Module,
    n_rows: int,
    seed: int,
    n_candidates: int = USUAL_CANDIDATES,
    moments: SecondMoments | None = None,
) -> Tensor:
    """The background that goes with a model, float32 on the CPU: the same wherever the model is.

    Args:
        network: with the federation's ``feature_mean`` and ``feature_scale``.
        n_rows: rows, or scans of a candidate network; 100 and 8 are usual.
        seed: of the draw.
        n_candidates: of each scan; take the federation's mean number, where it is known.
        moments: of the federation's cases or candidates, for features that depend on each other.

    Returns:
        ``(n_rows, in_features)``, or ``(n_rows, n_candidates, in_features)`` for a candidate network.

    Raises:
        ValueError: if the network has no moments, or as :func:`synthetic_rows` and :func:`synthetic_scans`.
    """
    try:
        mean, scale = (network.get_buffer(name).cpu().double().numpy() for name in ("feature_mean", "feature_scale"))
    except AttributeError:
        raise ValueError(f"{type(network).__name__} keeps no moments of its features to make a background of") from None
    context = getattr(network, "context_features", None)
    spread = scale.copy()
    usual = dict(network.named_buffers(recurse=False))
    if context is not None and "scan_mean" in usual:
        # The background must be usual scans to a network that asks whether they are: without twins, and with what all
        # candidates of a scan share as it varies between scans.
        mean = usual["scan_mean"].cpu().double().numpy()
        spread[context] = usual["scan_scale"].cpu().double().numpy()[context]
    second = spread**2
    if moments is not None:
        mean, second = moments.mean, moments.covariance()
    if context is None:
        return torch.from_numpy(synthetic_rows(mean, second, n_rows, seed))
    return torch.from_numpy(synthetic_scans(mean, second, context, (n_rows, n_candidates), seed))
