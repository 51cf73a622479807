"""Cubic B-spline lattices over the grid of an image: fit to values at some of its voxels, and evaluation there.

The fit is the scattered-data approximation of Lee et al. (IEEE TVCG 3:228, 1997). On a voxel grid its weights are
products of one factor per axis, so the fit and the evaluation are three small matrix products instead of a scatter
over voxels; the idea of that separable form is n4ax's (https://pypi.org/project/n4ax).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SplineBasis:
    """Cubic B-splines over the whole image, seen at some of its voxels: one small matrix for each axis.

    Args:
        shape: of the whole image.
        axes: indices of the voxels that are seen, along each axis.
        mesh: spans of the lattice along each axis; it has ``mesh + 3`` control points.
    """

    def __init__(self, shape: Sequence[int], axes: Sequence[Tensor], mesh: int) -> None:
        self.weights = [_axis_weights(n, index, mesh) for n, index in zip(shape, axes, strict=True)]
        squares = [w**2 for w in self.weights]
        self.squares = squares
        # Lee's phi_c = w_c z / sum(w^2), weighted by w_c^2: both sums are products of one factor an axis.
        self.fit_weights = [w**3 / s.sum(1, keepdim=True) for w, s in zip(self.weights, squares, strict=True)]

    def evaluate(self, lattice: Tensor) -> Tensor:
        """Field at the voxels from the lattice of control points."""
        return _along_axes(lattice, [w.T for w in self.weights])

    def fit(self, residual: Tensor, support: Tensor) -> Tensor:
        """Control points that approximate a residual, zero where the mask says nothing about them."""
        known = support > support.max() * 1e-12
        return torch.where(known, _along_axes(residual, self.fit_weights) / support.clamp_min(1e-30), 0.0)

    def support(self, inside: Tensor) -> Tensor:
        """Sum over the mask of each control point's squared weights."""
        return _along_axes(inside.float(), self.squares)


def _axis_weights(n: int, index: Tensor, mesh: int) -> Tensor:
    """``(len(index), mesh + 3)`` cubic B-spline weights of voxels along an axis of ``n``; each row sums to 1."""
    # ITK's place for the last voxel: a thousandth of a voxel inside the lattice.
    position = index.double().clamp(max=n - 1 - 1e-3) / max(n - 1, 1) * mesh
    span = position.floor().clamp(0, mesh - 1)
    t = position - span
    cubic = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    weights = torch.zeros(len(index), mesh + 3, dtype=torch.float64, device=index.device)
    columns = span.long()[:, None] + torch.arange(4, device=index.device)
    return weights.scatter_(1, columns, torch.stack(cubic, 1) / 6).float()


def _along_axes(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply a matrix ``(n, m)`` into every axis of ``values``."""
    # Each product takes the first axis away and puts its image last: after one round the order is as before.
    for matrix in matrices:
        values = torch.tensordot(values, matrix, dims=([0], [0]))
    return values
