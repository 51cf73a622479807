"""One head on two dates: the rigid map between two scans, the same whichever date comes first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.linalg import inv, sqrtm

from mhsev_monai.errors import ScanError
from mhsev_monai.registration import Brain, Matrix, moved, overlap, peakedness, rigid

LEAST_OVERLAP = 0.85
"""Dice of the brain masks below which two scans are not compared."""
LEAST_PEAKEDNESS = 2.0
"""Of ``registration.peakedness``; below, tissue does not lie on tissue, and two scans are not compared."""
MOST_DISAGREEMENT_MM = 3.0
"""Between the map one way and the map back, mean over the brain; beyond, two scans are not compared."""
ONE_HEAD_PEAKEDNESS, ONE_HEAD_DISAGREEMENT_MM = 5.5, 0.5
"""Two scans of one head had 6.8 to 9.0 and up to 0.2 mm, those of two heads up to 4.8 and from 0.7 mm on
(docs/longitudinal.md); between them it is doubted that they are of one patient."""


class Alignment(NamedTuple):
    """How two scans of a head lie.

    Attributes:
        matrix: ``(4, 4)``, RAS+ mm of the first to those of the second.
        overlap: Dice of the brain masks, the lower of both ways.
        peakedness: the lower of both ways.
        disagreement_mm: how far a place comes back from where it started, mean over the brain.
    """

    matrix: Matrix
    overlap: float
    peakedness: float
    disagreement_mm: float

    @property
    def doubt(self) -> str | None:
        """Why the scans may not be of one head, a sentence; None where they fit as those of one head do."""
        if self.peakedness >= ONE_HEAD_PEAKEDNESS and self.disagreement_mm <= ONE_HEAD_DISAGREEMENT_MM:
            return None
        return (
            "the two scans do not fit as those of one head do: mutual information is "
            f"{self.peakedness:.1f} times that beside it (usual: {ONE_HEAD_PEAKEDNESS} and more), the maps there and "
            f"back differ by {self.disagreement_mm:.1f} mm (usual: up to {ONE_HEAD_DISAGREEMENT_MM}); look whether "
            "they are of one patient"
        )


def align(first: Brain, second: Brain) -> Alignment:
    """The rigid map between two scans: registered both ways, and the mean of the two.

    Swapping the scans gives the inverse, to rounding.

    Args:
        first: of one date.
        second: of the other.

    Raises:
        ScanError: if SimpleITK is not installed, or the scans do not fit.
    """
    there, back = rigid(first, second), rigid(second, first)
    round_trip = back @ there
    matrix: Matrix = np.real(there @ inv(sqrtm(round_trip)))
    places = moved(first.affine, np.argwhere(first.mask))
    returned = moved(round_trip, places)
    inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    found = Alignment(
        matrix=matrix,
        overlap=min(overlap(first, second, matrix), overlap(second, first, inverse)),
        peakedness=min(peakedness(first, second, matrix), peakedness(second, first, inverse)),
        disagreement_mm=float(np.linalg.norm(returned - places, axis=1).mean()),
    )
    _check(found)
    return found


def _check(found: Alignment) -> None:
    if (
        found.overlap >= LEAST_OVERLAP
        and found.peakedness >= LEAST_PEAKEDNESS
        and found.disagreement_mm <= MOST_DISAGREEMENT_MM
    ):
        return
    raise ScanError(
        f"the two scans do not fit each other: brains overlap by {found.overlap:.2f} (at least {LEAST_OVERLAP}), "
        f"mutual information is {found.peakedness:.1f} times that beside it (at least {LEAST_PEAKEDNESS}), the maps "
        f"there and back differ by {found.disagreement_mm:.1f} mm (at most {MOST_DISAGREEMENT_MM}); look whether both "
        "are of one patient, and at their orientation and brain masks"
    )


def covered(places: NDArray[np.float64], search: NDArray[np.bool_], affine: Matrix, reach_mm: float) -> list[bool]:
    """Whether a scan shows each place, or one at most ``reach_mm`` beside it.

    Args:
        places: ``(n, 3)``, RAS+ mm of the scan.
        search: ``(X, Y, Z)``, where the scan was searched for spots.
        affine: of ``search``.
        reach_mm: 0 or more.
    """
    if not len(places):
        return []
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    away = ndimage.distance_transform_edt(~search, sampling=spacing)
    voxels = moved(np.linalg.inv(affine), places)
    inside = np.clip(voxels, 0, np.array(search.shape) - 1)
    beyond = np.linalg.norm((voxels - inside) * spacing, axis=1)
    return [bool(value) for value in away[tuple(np.rint(inside).astype(np.intp).T)] + beyond <= reach_mm]
