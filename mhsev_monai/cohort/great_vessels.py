"""The great arteries and veins of the brain: flow voids that every head has, at places that anatomy gives.

Blood that leaves the slice between excitation and refocusing gives no signal in a spin echo, so that the large vessels
are dark on every volume. Cut across they look like microbleeds: the straight sinus, the vein of Galen, the basilar
artery. Courses are approximate, drawn in the coordinates of the template by textbook anatomy (Osborn, Diagnostic
Cerebral Angiography, 2nd ed. 1999); calibres are those of adults, loss of signal is assumed, that of veins after real
b = 0 heads, whose straight sinus keeps a fifth. Arteries and the basal veins run in cisterns and sulci: where a course,
moved and bent with the head, would cross brain tissue, the vessel is not drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from mhsev_monai.cohort.anatomy import Anatomy
from mhsev_monai.cohort.lesions import Tube
from mhsev_monai.cohort.placement import nearest_to_template, nearest_voxels, template_distance
from mhsev_monai.cohort.smooth_fields import VoxelGrid

Place = tuple[float, float, float]

# Points of a curve are about this share of the radius apart. Tubes come in pieces of this length, mm, since each is
# painted by looking at all voxels of the box around it.
_STEP, _PIECE = 0.7, 8.0
# How far a vessel strays from its course, mm; how calibres differ, logarithm; beyond this a place is not in the scan.
_STRAY, _CALIBRE_SD, _OUTSIDE = 1.5, 0.15, 4.0


class VesselPiece(NamedTuple):
    """A piece of a dark tube.

    Attributes:
        body: the tube.
        loss: share of the signal that is lost inside.
        name: of the vessel, in ``COURSES``; empty for one without a name.
    """

    body: Tube
    loss: float
    name: str = ""


class Course(NamedTuple):
    """Where a vessel runs.

    Attributes:
        places: MNI mm, at least two; of the right side where there are two.
        radius: range, mm.
        loss: range of the share of the signal that is lost.
        paired: whether there is one on each side.
        in_fluid: whether it is drawn only where there is no brain tissue; sinuses have walls of their own.
    """

    places: tuple[Place, ...]
    radius: tuple[float, float]
    loss: tuple[float, float]
    paired: bool = False
    in_fluid: bool = False


_VEIN, _ARTERY = (0.75, 0.98), (0.7, 0.98)
_TISSUE = 0.5

COURSES: dict[str, Course] = {
    "internal cerebral vein": Course(((3, 0, 10), (2.5, -15, 13), (2, -28, 11), (1, -37, 8)), (0.9, 1.5), _VEIN, True),
    "basal vein": Course(
        ((10, -4, -15), (14, -18, -12), (13, -29, -4), (7, -38, 3), (1, -41, 6)), (0.7, 1.2), _VEIN, True, True
    ),
    "inferior sagittal sinus": Course(
        ((0, 42, 14), (0, 28, 34), (0, 4, 42), (0, -20, 37), (0, -37, 21), (0, -45, 8)), (0.5, 1.0), _VEIN
    ),
    "vein of Galen": Course(((0, -36, 7), (0, -42, 5), (0, -48, 8)), (1.8, 2.8), _VEIN),
    "straight sinus": Course(((0, -47, 8), (0, -60, -2), (0, -75, -11), (0, -89, -17)), (1.7, 2.8), _VEIN),
    "superior sagittal sinus": Course(
        (
            *((0, 66, 8), (0, 60, 30), (0, 44, 52), (0, 20, 68), (0, -10, 78), (0, -40, 77)),
            *((0, -66, 64), (0, -86, 42), (0, -99, 14), (0, -97, -8)),
        ),
        (2.0, 3.5),
        _VEIN,
    ),
    "transverse sinus": Course(
        ((6, -94, -17), (35, -84, -26), (55, -62, -32), (58, -46, -38)), (2.0, 3.5), _VEIN, True
    ),
    "basilar artery": Course(
        ((0, -25, -52), (0, -12, -40), (0, -8, -30), (0, -10, -15)), (1.4, 2.1), _ARTERY, in_fluid=True
    ),
    "vertebral artery": Course(((1, -25, -52), (6, -30, -58), (11, -34, -64)), (1.2, 1.9), _ARTERY, True, True),
    "internal carotid artery": Course(((15, 2, -32), (13, 8, -22), (12, 4, -14)), (1.7, 2.4), _ARTERY, True, True),
    "middle cerebral artery": Course(
        ((12, 4, -14), (22, 4, -17), (34, 4, -16), (40, 2, -9), (41, -8, 2), (41, -20, 11)),
        (0.9, 1.5),
        _ARTERY,
        True,
        True,
    ),
    "anterior cerebral artery": Course(
        ((11, 5, -14), (4, 14, -14), (2, 24, -8), (2, 37, 6), (2, 34, 19), (2, 18, 29), (2, 0, 36)),
        (0.7, 1.2),
        _ARTERY,
        True,
        True,
    ),
    "posterior cerebral artery": Course(
        ((1, -11, -14), (12, -16, -12), (19, -28, -8), (16, -40, -2), (12, -56, 3)), (0.7, 1.2), _ARTERY, True, True
    ),
}
"""By name."""


def draw_great_vessels(rng: np.random.Generator, anatomy: Anatomy, grid: VoxelGrid) -> tuple[VesselPiece, ...]:
    """The vessels of one head in pieces; parts that lie beyond the scan are left out.

    Args:
        rng: where calibres and ways aside come from; the number of draws is the same in every head.
        anatomy: of the subject, on ``grid``.
        grid: voxels of the scan.
    """
    pieces: list[VesselPiece] = []
    for name, course in COURSES.items():
        for side in (1.0, -1.0) if course.paired else (1.0,):
            radius = float(np.mean(course.radius) * np.exp(rng.normal(0, _CALIBRE_SD)))
            radius, loss = float(np.clip(radius, *course.radius)), float(rng.uniform(*course.loss))
            stray = rng.normal(0, _STRAY, size=(len(course.places), 3))
            places = [np.array(place) * (side, 1, 1) + by for place, by in zip(course.places, stray, strict=True)]
            for curve in _curves(places, _STEP * radius, anatomy, grid):
                parts = _cut(curve, _STEP * radius)
                if course.in_fluid:
                    parts = [part[~_in_tissue(part, anatomy, grid)] for part in parts]
                pieces += [VesselPiece(Tube(part, radius), loss, name) for part in parts if len(part)]
    return tuple(pieces)


def _curves(
    places: list[NDArray[np.float64]], step: float, anatomy: Anatomy, grid: VoxelGrid
) -> list[NDArray[np.float64]]:
    """Smooth curves in the scan, one for each run of two or more places that the scan holds."""
    runs: list[list[NDArray[np.float64]]] = [[]]
    for place in places:
        found = nearest_to_template(anatomy, grid, place)
        if template_distance(found, place, anatomy, grid) < _OUTSIDE:
            runs[-1].append(found)
        else:
            runs.append([])
    return [_smooth_curve(np.array(run), step) for run in runs if len(run) > 1]


def _smooth_curve(places: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """``(n, 3)`` points about a ``step`` apart on a spline through the places."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=1) + 1e-3)])
    spline = make_interp_spline(along, places, k=min(3, len(places) - 1))
    points: NDArray[np.float64] = spline(np.arange(0.0, along[-1] + step / 2, step))
    return points


def _in_tissue(curve: NDArray[np.float64], anatomy: Anatomy, grid: VoxelGrid) -> NDArray[np.bool_]:
    """Which points lie in voxels that are mostly grey or white matter, ``(n,)``."""
    tissue: NDArray[np.bool_] = anatomy.parenchyma[nearest_voxels(curve, grid)] > _TISSUE
    return tissue


def _cut(curve: NDArray[np.float64], step: float) -> list[NDArray[np.float64]]:
    n_pieces = max(1, round(len(curve) * step / _PIECE))
    return [piece for piece in np.array_split(curve, n_pieces) if len(piece)]
