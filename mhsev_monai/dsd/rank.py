"""How many components a window keeps, and the window rebuilt from them.

The paper truncates the SVD of the spectrum ``F``. The unitary FFT is a change of basis on both sides, ``F = D x D``,
hence F and the real window x share their singular values, and the truncated spectrum transforms back to the truncated
window wherever ``s_K > s_(K+1)``. So K and the projection come from the eigenvectors of the small real matrix
``x^T x``, and no complex SVD is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TIE = 1e-3
"""Singular values closer than this fraction count as one: an oblique wave has two exactly equal ones."""

MAX_BATCH = 16384
"""Most matrices of one ``eigh`` call; cuSOLVER's batched routine fails near 32k."""


class RankProjection(NamedTuple):
    """A batch of matrices rebuilt from their leading components."""

    projected: Tensor
    """``(..., m, n)``, same type as the matrices that came."""
    rank: Tensor
    """``(...)`` integers, components kept."""


def select_rank(eigenvalues: Tensor, energy: float) -> Tensor:
    """Count the leading eigenvalues that hold more than a fraction of their sum.

    Args:
        eigenvalues: ``(..., n)``, non-negative, in falling order.
        energy: fraction in (0, 1); the paper's criterion is 0.95 (section 2.1, step 4).

    Returns:
        ``(...)`` integers from 1 to ``n``; 1 where all eigenvalues are zero.

    Raises:
        ValueError: if ``energy`` is outside (0, 1).
    """
    if not 0 < energy < 1:
        raise ValueError(f"energy must be between 0 and 1, both excluded, got {energy}")
    cumulative = eigenvalues.cumsum(-1)
    total = cumulative[..., -1:]
    rank = (cumulative <= energy * total).sum(-1) + 1
    return torch.where(total[..., 0] > 0, rank.clamp(max=eigenvalues.shape[-1]), torch.ones_like(rank))


def extend_ties(singular_values: Tensor, rank: Tensor, tie: float = TIE) -> Tensor:
    """Rank moved to the end of the cluster of equal singular values that it would cut.

    Without it the kept subspace of a tie is arbitrary: it changes with rounding, and the map with the scanner's gain.

    Args:
        singular_values: ``(..., n)``, non-negative, in falling order.
        rank: ``(...)`` integers from 1 to ``n``.
        tie: relative distance within which two singular values count as equal; 0: no two do.
    """
    if tie == 0:
        return rank
    last = singular_values.gather(-1, rank[..., None] - 1)
    return (singular_values >= (1 - tie) * last).sum(-1)


def project_by_torch(matrices: Tensor, energy: float, eigenvalues: str, tie: float) -> RankProjection:
    """Matrices ``(n, r, c)`` rebuilt from their leading components, by batched ``eigh`` of their Gram matrices.

    The singular reading takes the SVD itself: the squares of small singular values are lost in the rounding of large
    ones, and their roots would add up to a visible share of the sum.

    Args:
        matrices: real; any device, any floating type.
        energy: see :func:`select_rank`.
        eigenvalues: ``squared`` or ``singular``.
        tie: see :func:`extend_ties`.
    """
    project = _project_by_svd if eigenvalues == "singular" else _project_by_eigh
    parts = [project(chunk, energy, tie) for chunk in matrices.split(MAX_BATCH)]
    return RankProjection(torch.cat([part.projected for part in parts]), torch.cat([part.rank for part in parts]))


def _project_by_svd(matrices: Tensor, energy: float, tie: float) -> RankProjection:
    left, singular, right = torch.linalg.svd(matrices, full_matrices=False)
    rank = extend_ties(singular, select_rank(singular, energy), tie)
    kept = torch.arange(singular.shape[-1], device=rank.device) < rank[:, None]
    return RankProjection((left * (singular * kept)[:, None, :]) @ right, rank)


def _project_by_eigh(matrices: Tensor, energy: float, tie: float) -> RankProjection:
    squared, vectors = _eigenvectors(matrices.mT @ matrices)
    # eigh returns rising order; the criterion counts from the largest. Rounding may leave tiny negative values.
    squared, vectors = squared.flip(-1).clamp(min=0), vectors.flip(-1)
    singular = squared.sqrt()
    rank = extend_ties(singular, select_rank(squared, energy), tie)
    kept = torch.arange(vectors.shape[-1], device=rank.device) < rank[:, None]
    vectors = vectors * kept[:, None, :]
    return RankProjection((matrices @ vectors) @ vectors.mT, rank)


def _eigenvectors(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in rising order, over the trace, and eigenvectors of a batch of Gram matrices."""
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    # A single faint wave has eigenvalues whose squares underflow, and LAPACK then gives NaN or gives up: so scale.
    scaled = gram / torch.where(trace > 0, trace, 1.0)
    try:
        values, vectors = torch.linalg.eigh(scaled)
        if vectors.isfinite().all():
            return values, vectors
    except torch.linalg.LinAlgError:
        pass
    values, vectors = torch.linalg.eigh(scaled.double())
    return values.to(gram), vectors.to(gram)
