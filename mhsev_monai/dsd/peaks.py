"""Places that may be microbleeds: peaks of darkness in the feature map or in the fused contrast, joined in 3-D.

Thresholding the map cuts a bleed that touches a sulcus out of the list, so every local peak is taken here, however
faint its outline, and what it is gets decided from its descriptors (``descriptors.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

DEEP_MM = 4.0
"""From this far inside the search mask peaks are also sought in the image whose rim was not cleared: clearing lifts a
bleed, too, that a dark bridge joins with the rim. Nearer to the edge the skull would give peaks and nothing else."""
LEAST_DEPTH = 0.03
"""Fraction of the surrounding signal from which a peak is looked at."""
SEPARATION_MM = 3.5
"""Of two peaks nearer than this the deeper one is kept: they are one spot on neighbouring voxels."""
MOST_PEAKS = 512
"""Peaks that a scan may have; the deepest are kept."""
SPOT_SIGMAS_MM = (1.2, 2.0)
"""Scales at which spots are sought: about 2.8 and 4.7 mm full width at half depth."""


class Peaks(NamedTuple):
    """Peaks of one scan, deepest first.

    Attributes:
        voxel: ``(K, 3)`` indices.
        depth: ``(K,)`` the greater of the two depths.
    """

    voxel: NDArray[np.intp]
    depth: NDArray[np.float64]


class Curvature(NamedTuple):
    """Eigenvalues of the in-plane Hessian times sigma^2, ``(X, Y, Z)`` each: positive where the image is a dip.

    A round dip has two large ones, a line one. Four times the mean of the two is the scale-normalised Laplacian
    (Lindeberg, Int J Comput Vis 1998;30:79-116), by which a Gaussian spot of that scale shows its own depth.
    """

    large: NDArray[np.float32]
    small: NDArray[np.float32]

    @property
    def laplacian_depth(self) -> NDArray[np.float32]:
        """Depth of a Gaussian spot of that scale; edges and lines show too."""
        return 2 * (self.large + self.small)

    @property
    def spot_depth(self) -> NDArray[np.float32]:
        """Depth by the smaller eigenvalue: the same for a round spot, none for an edge or a line."""
        return 4 * self.small


def in_plane_curvature(image: NDArray[np.float32], spacing: Sequence[float], sigma_mm: float) -> Curvature:
    """Curvature of Gaussian-smoothed slices.

    Args:
        image: ``(X, Y, Z)``, 1 at the level of parenchyma.
        spacing: mm.
        sigma_mm: scale, mm.
    """
    scale = (sigma_mm / spacing[0], sigma_mm / spacing[1])

    def derivative(along_x: int, along_y: int) -> NDArray[np.float32]:
        order = (along_x, along_y, 0)
        values: NDArray[np.float32] = ndimage.gaussian_filter(image, (*scale, 0.0), order=order, mode="mirror")
        return values * np.float32(scale[0] ** along_x * scale[1] ** along_y)

    xx, xy, yy = derivative(2, 0), derivative(1, 1), derivative(0, 2)
    middle: NDArray[np.float32] = (xx + yy) / np.float32(2)
    half: NDArray[np.float32] = np.hypot((xx - yy) / np.float32(2), xy)
    return Curvature(middle + half, middle - half)


def spot_maps(
    dsd_map: NDArray[np.float32],
    cleared: NDArray[np.float32],
    fused: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing: Sequence[float],
) -> tuple[NDArray[np.float32], ...]:
    """The maps that peaks are sought in: round dips of the feature map, and their twins in the images themselves.

    Args:
        dsd_map: ``(X, Y, Z)``, negative where dark.
        cleared: what was decomposed, 1 at the level of parenchyma.
        fused: the same before its rim was cleared.
        inside: where peaks may lie.
        spacing: mm.
    """
    deep = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing)[1:-1, 1:-1, 1:-1] > DEEP_MM
    twins = [in_plane_curvature(cleared, spacing, sigma).spot_depth for sigma in SPOT_SIGMAS_MM]
    twins += [np.where(deep, in_plane_curvature(fused, spacing, sigma).spot_depth, 0) for sigma in SPOT_SIGMAS_MM]
    return (in_plane_curvature(dsd_map, spacing, SPOT_SIGMAS_MM[0]).spot_depth, *twins)


def find_peaks(depths: Sequence[NDArray[np.float32]], inside: NDArray[np.bool_], spacing: Sequence[float]) -> Peaks:
    """Local maxima, over the 26 neighbours, of the greatest of several depth maps.

    Args:
        depths: maps ``(X, Y, Z)``, fractions of the surrounding signal, positive where dark.
        inside: same shape, where peaks may lie.
        spacing: mm.

    Returns:
        At most ``MOST_PEAKS`` peaks above ``LEAST_DEPTH``, ``SEPARATION_MM`` apart.
    """
    score = np.where(inside, np.maximum.reduce(list(depths)), 0.0).astype(np.float32)
    highest = ndimage.maximum_filter(score, size=3, mode="constant")
    voxel = np.argwhere((score >= highest) & (score > LEAST_DEPTH))
    depth = score[tuple(voxel.T)].astype(np.float64)
    # Equal depths are told apart by their place, so that the order does not depend on the machine.
    order = np.lexsort((*voxel.T[::-1], -depth))
    voxel, depth = voxel[order], depth[order]
    places = voxel.astype(np.float64) * np.asarray(spacing, dtype=np.float64)
    kept = _apart(places)[:MOST_PEAKS]
    return Peaks(voxel[kept], depth[kept])


def _apart(places: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the places that no earlier kept place is near to."""
    if len(places) == 0:
        return np.zeros(0, dtype=np.intp)
    near = cKDTree(places).query_ball_point(places, SEPARATION_MM)
    dropped = np.zeros(len(places), dtype=bool)
    for index, others in enumerate(near):
        if not dropped[index]:
            dropped[[other for other in others if other > index]] = True
    return np.flatnonzero(~dropped)
