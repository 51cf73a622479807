"""Where in the template the voxels of a real head lie, what they hold, and how noisy they are; all approximate.

A real scan brings no tissue maps and may be pitched or cut off below. Its brain mask is laid over the template's brain
by translation, rotation and one scale an axis (no warp), which is enough to tell lobes from deep grey matter and from
what lies below the tentorium. Fluid is told by its diffusion: of two compartments of known ADC the share follows from
the ratio of the two contrasts, in which coil shading cancels. Cortex is told by its place alone, next to fluid; deep
grey matter counts as white.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from mhsev_monai.cohort.anatomy import TISSUES
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.template import CHANNELS, load_head_template

# The match looks at points this far apart, and at edges this soft, mm.
_LATTICE, _SOFTNESS = 6.0, 3.0
# Heads are smaller than ICBM152, as in ``anatomy``; the start of the match and what holds it where a scan is cut off.
_USUAL_SCALE = np.array((0.91, 0.91, 0.87))
_SCALE_SD, _ANGLE_SD_DEGREES = 0.08, 15.0
_PRIOR_WEIGHT = 1.5
# Steps of the parameters that change the overlap about equally: mm, radians, log scale.
_STEPS = np.array([4.0] * 3 + [0.06] * 3 + [0.05] * 3)

# ADC of free water at body temperature, mm^2/s, and how much brighter than tissue fluid is on b = 0: real scans of five
# vendors give 1.8 to 3.4.
_FLUID_ADC, _FLUID_BRIGHTNESS = 3.0e-3, 2.5
# Of the tissue's mean around it, the b = 0 signal below which a voxel is a vessel, dura or a susceptibility void, where
# little is left that a bleed could darken; mm of the neighbourhood. Iron-rich nuclei stay above.
_VOID, _NEIGHBOURHOOD = 0.5, 12.0
# Cortex is what lies this close to fluid or to the brain's surface, mm; fluid deeper than the other is ventricle.
_CORTEX, _CORTEX_EDGE, _SULCI_DEPTH = 3.5, 1.0, 25.0
_FLUID_FROM = 0.3

# Second differences along two axes remove edges of either direction (Immerkaer, Comput Vis Image Underst
# 1996;64:300-302); the sum of squared weights is 36. The factor turns the median deviation of a normal to its SD.
_DIFFERENCES = np.outer((1.0, -2.0, 1.0), (1.0, -2.0, 1.0))[:, :, None]
_NORMAL_MAD = 0.6745


class TemplateMatch(NamedTuple):
    """An affine map from a scan's grid to the template.

    Attributes:
        matrix: ``(3, 3)``.
        origin: ``(3,)`` position on the grid, mm, that comes to lie at ``target``.
        target: ``(3,)`` MNI mm.
    """

    matrix: NDArray[np.float64]
    origin: NDArray[np.float64]
    target: NDArray[np.float64]

    def positions(self, grid: VoxelGrid) -> NDArray[np.float32]:
        """MNI positions of the voxels' middles, ``(X, Y, Z, 3)``, mm."""
        x, y, z = (grid.axis(axis) - self.origin[axis] for axis in range(3))
        position = np.empty((*grid.shape, 3), dtype=np.float32)
        for axis, (along_x, along_y, along_z) in enumerate(self.matrix):
            flat = (along_x * x)[:, None, None] + (along_y * y)[None, :, None] + (along_z * z)[None, None, :]
            position[..., axis] = flat + self.target[axis]
        return position


def match_to_template(brain: NDArray[np.bool_], grid: VoxelGrid) -> TemplateMatch:
    """Lay a brain mask over the template's brain by least squares; only what the scan covers is compared.

    It begins with the highest point and the middle of the bounding box, so a scan that is cut off below is fine.

    Args:
        brain: ``(X, Y, Z)``, not empty.
        grid: of the mask; its axes point about right, anterior and superior.
    """
    step = [max(1, round(_LATTICE / size)) for size in grid.spacing]
    soft = ndimage.gaussian_filter(brain.astype(np.float32), [_SOFTNESS / size for size in grid.spacing])
    wanted = soft[tuple(slice(None, None, n) for n in step)].reshape(-1)
    axes = [grid.axis(axis)[::n] for axis, n in enumerate(step)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    origin, target = _bounding_box_anchor(brain, grid), _template_anchor()

    def differences(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        match = _match(parameters, origin, target)
        membership = _template_membership((points - match.origin) @ match.matrix.T + match.target)
        angles, log_scales = parameters[3:6] * _STEPS[3:6], parameters[6:] * _STEPS[6:]
        held = np.concatenate([angles / np.deg2rad(_ANGLE_SD_DEGREES), log_scales / _SCALE_SD])
        return np.concatenate([membership - wanted, _PRIOR_WEIGHT * held])

    found = optimize.least_squares(differences, np.zeros(9), diff_step=0.1, max_nfev=40, xtol=1e-3, ftol=1e-4)
    # Rounded, so that the last bits of a processor's arithmetic do not move a bleed.
    return _match(np.round(found.x, 2), origin, target)


def _match(parameters: NDArray[np.float64], origin: NDArray[np.float64], target: NDArray[np.float64]) -> TemplateMatch:
    shift, angles, log_scales = np.split(parameters * _STEPS, 3)
    rotation = Rotation.from_euler("xyz", angles).as_matrix()
    return TemplateMatch(np.diag(np.exp(log_scales) / _USUAL_SCALE) @ rotation, origin + shift, target)


def _bounding_box_anchor(brain: NDArray[np.bool_], grid: VoxelGrid) -> NDArray[np.float64]:
    """Middle of the mask from side to side and from front to back, and its highest point, mm."""
    ends = []
    for axis in range(3):
        occupied = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
        ends.append(grid.axis(axis)[occupied[[0, -1]]])
    return np.array([ends[0].mean(), ends[1].mean(), ends[2][1]])


@lru_cache(maxsize=1)
def _coarse_template() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Distance to the template's brain, mm, on every second voxel, and the MNI position of the first."""
    template = load_head_template()
    distance = template.channels[:, CHANNELS.index("brain_distance")].reshape(template.shape)
    return distance[::2, ::2, ::2].astype(np.float32), np.array(template.origin)


def _template_anchor() -> NDArray[np.float64]:
    """The place of the template's brain that answers to :func:`_bounding_box_anchor`, MNI mm."""
    distance, first = _coarse_template()
    shape = (distance.shape[0], distance.shape[1], distance.shape[2])
    x, y, z = (start + n - 1 for start, n in zip(first, shape, strict=True))
    return _bounding_box_anchor(distance < 0, VoxelGrid(shape, (2.0, 2.0, 2.0), (x, y, z)))


def _template_membership(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 inside the template's brain, 0 outside, with a soft edge, at ``(n, 3)`` MNI positions."""
    distance, first = _coarse_template()
    at = ndimage.map_coordinates(distance, ((positions - first) / 2).T, order=1, mode="nearest")
    return 0.5 - 0.5 * np.tanh(at.astype(np.float64) / _SOFTNESS)


def fluid_share(
    b0: NDArray[np.float32], trace: NDArray[np.float32], brain: NDArray[np.bool_], b: float
) -> NDArray[np.float32]:
    """Share of each voxel that is CSF, ``(X, Y, Z)`` in 0 to 1; 0 outside the brain.

    The tissue's own ratio of the two contrasts is the median in the brain, so that kurtosis at high b does no harm.

    Args:
        b0: ``(X, Y, Z)``.
        trace: same shape, diffusion-weighted.
        brain: same shape.
        b: difference of the two b-values, s/mm^2.
    """
    ratio = trace / np.maximum(b0, 1e-6)
    tissue = float(np.median(ratio[brain]))
    fluid = min(float(np.exp(-b * _FLUID_ADC)), 0.5 * tissue)
    ratio = np.clip(ratio, fluid, tissue)
    share = (tissue - ratio) / (tissue - ratio + _FLUID_BRIGHTNESS * (ratio - fluid))
    inside: NDArray[np.float32] = np.where(brain, share, 0).astype(np.float32)
    return inside


def signal_voids(
    b0: NDArray[np.float32],
    fluid: NDArray[np.float32],
    brain: NDArray[np.bool_],
    spacing: tuple[float, float, float],
) -> NDArray[np.bool_]:
    """Voxels of the brain, ``(X, Y, Z)``, that are dark on b = 0 against the tissue around them.

    Args:
        b0: ``(X, Y, Z)``.
        fluid: same shape, share of CSF, which is left out of the mean.
        brain: same shape.
        spacing: mm.
    """
    sigma = [_NEIGHBOURHOOD / size for size in spacing]
    solid = (brain & (fluid < _FLUID_FROM)).astype(np.float32)
    mean = ndimage.gaussian_filter(solid * b0, sigma) / np.maximum(ndimage.gaussian_filter(solid, sigma), 1e-3)
    return brain & (b0 < _VOID * mean)


def cortex_share(
    fluid: NDArray[np.float32], depth: NDArray[np.float32], spacing: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Share of parenchyma that is cortex, ``(X, Y, Z)``: what lies next to the surface or to the fluid of a sulcus.

    Args:
        fluid: ``(X, Y, Z)`` share of CSF.
        depth: same shape, mm below the brain's surface.
        spacing: mm.
    """
    bright = (depth > 0) & (depth < _SULCI_DEPTH) & (fluid > _FLUID_FROM)
    to_fluid = ndimage.distance_transform_edt(~bright, sampling=spacing) if bright.any() else np.inf
    distance = np.minimum(to_fluid, depth)
    share: NDArray[np.float32] = (0.5 - 0.5 * np.tanh((distance - _CORTEX) / _CORTEX_EDGE)).astype(np.float32)
    return share


def tissue_fractions(
    fluid: NDArray[np.float32], cortex: NDArray[np.float32], tissue: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """``(6, X, Y, Z)``, see ``anatomy.TISSUES``: CSF, cortex as grey matter, all other tissue as white matter.

    Args:
        fluid: ``(X, Y, Z)`` share of CSF.
        cortex: same shape, share of the parenchyma.
        tissue: same shape, where the rest of the voxel is parenchyma.
    """
    fractions = np.zeros((len(TISSUES), *fluid.shape), dtype=np.float32)
    solid = np.where(tissue, 1 - fluid, 0)
    fractions[TISSUES.index("csf")] = fluid
    fractions[TISSUES.index("grey")] = solid * cortex
    fractions[TISSUES.index("white")] = solid * (1 - cortex)
    return fractions


def brain_depth(brain: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """Depth in mm below the mask's surface, negative outside; where the mask leaves the scan is no surface."""
    inside = ndimage.distance_transform_edt(brain, sampling=spacing)
    outside = ndimage.distance_transform_edt(~brain, sampling=spacing)
    # The surface lies between voxels, half of one from either middle.
    half = min(spacing) / 2
    depth: NDArray[np.float32] = np.where(brain, inside - half, half - outside).astype(np.float32)
    return depth


def noise_sd(volume: NDArray[np.float32], tissue: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise, told from second differences along X and Y.

    Approximate: fine structure counts as noise, so a diffusion-weighted volume, which has less of it, tells more; and
    what a scanner interpolated or smoothed comes out too low.

    Args:
        volume: ``(X, Y, Z)``.
        tissue: same shape, where to look; not empty.
    """
    # Where the differences do not reach over the tissue's edge, if there is such a place.
    within = ndimage.binary_erosion(tissue, np.ones(_DIFFERENCES.shape))
    where = within if within.any() else tissue
    differences = ndimage.convolve(volume.astype(np.float32), _DIFFERENCES.astype(np.float32))[where]
    return float(np.median(np.abs(differences))) / _NORMAL_MAD / float(np.sqrt((_DIFFERENCES**2).sum()))
