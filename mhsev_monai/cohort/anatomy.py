"""A subject's head on a scanner's voxels: where in the template a voxel lies, and its share of each tissue."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mhsev_monai.cohort.clinical import AGE_SD, MEAN_AGE
from mhsev_monai.cohort.smooth_fields import SmoothField, VoxelGrid, random_field
from mhsev_monai.cohort.template import HeadTemplate, load_head_template

TISSUES = ("csf", "grey", "white", "iron_grey", "soft", "fluid")
"""Order of ``Anatomy.fractions``; what is missing to 1 is bone, dura and air, without signal."""

# Heads are smaller than ICBM152, more so along the body axis.
_MEAN_SCALE = (0.91, 0.91, 0.87)
_SCALE_SD = 0.025
_ROTATION_SD_DEGREES = 4.0
_SHIFT_SD = 2.0
_WARP_KNOTS, _WARP_SD = 34.0, 2.2
_FOLDING_KNOTS, _FOLDING_SD = 9.0, 0.10
# Small gyri, which the average of many heads has lost.
_FINE_KNOTS, _FINE_SD = 4.5, 0.09
# Where the ventricles lie, and how far their widening reaches, MNI mm.
_VENTRICLES = np.array((0.0, -14.0, 14.0))
_VENTRICLE_REACH = np.array((24.0, 42.0, 22.0))
# Widths over which one tissue turns into the next: scores, and mm.
_CSF_WIDTH, _WHITE_WIDTH, _EDGE_WIDTH = 0.09, 0.16, 0.5
# The template's brain mask takes a rim of CSF along, mm.
_RIM_IN_MASK = 1.0
_CISTERN_DEPTH = 3.5
# Beyond this distance from the skin, mm, a voxel is air and is not sampled.
_AIR_MARGIN = 3.0
_SAMPLE_SPACING = 1.0


class HeadShape(NamedTuple):
    """What makes one head differ from the template.

    Attributes:
        to_template: ``(3, 3)`` from world to template directions.
        shift: world position of the template's origin, mm.
        warp: displacement in the template along X, Y and Z, mm.
        folding: added to the CSF score, so that no two cortices fold alike.
        fine_folding: the same on the scale of small gyri.
        ventricle_growth: 0 for the template's ventricles; 0.2 enlarges their middle by a quarter.
        sulcal_threshold: CSF score from which a voxel is CSF; lower is wider.
        csf_rim: thickness of the CSF over the brain, mm.
        skull: thickness of the skull, mm.
    """

    to_template: NDArray[np.float64]
    shift: NDArray[np.float64]
    warp: tuple[SmoothField, SmoothField, SmoothField]
    folding: SmoothField
    fine_folding: SmoothField
    ventricle_growth: float
    sulcal_threshold: float
    csf_rim: float
    skull: float


class Anatomy(NamedTuple):
    """Tissues on the voxels of a scan.

    Attributes:
        fractions: ``(6, X, Y, Z)`` float32 in 0 to 1, see ``TISSUES``.
        template_position: ``(X, Y, Z, 3)`` float32, where in the template a voxel's middle lies, MNI mm.
        brain_depth: ``(X, Y, Z)`` float32, mm below the brain's surface; negative outside.
    """

    fractions: NDArray[np.float32]
    template_position: NDArray[np.float32]
    brain_depth: NDArray[np.float32]

    @property
    def parenchyma(self) -> NDArray[np.float32]:
        """Share of grey and white matter, ``(X, Y, Z)``."""
        share: NDArray[np.float32] = self.fractions[1:4].sum(axis=0)
        return share


def draw_head_shape(rng: np.random.Generator, age: float, grid: VoxelGrid) -> HeadShape:
    """A random head; ventricles and sulci widen with age.

    Args:
        rng: where the shape comes from.
        age: years.
        grid: voxels of the scan, whose box the random fields cover.
    """
    years = (age - MEAN_AGE) / AGE_SD
    scale = np.array(_MEAN_SCALE) * (1 + rng.normal(0, _SCALE_SD)) * (1 + rng.normal(0, _SCALE_SD / 2, size=3))
    rotation = Rotation.from_euler("xyz", rng.normal(0, _ROTATION_SD_DEGREES, size=3), degrees=True).as_matrix()
    first, second, third = (random_field(rng, grid, _WARP_KNOTS, _WARP_SD) for _ in range(3))
    return HeadShape(
        to_template=np.diag(1 / scale) @ rotation.T,
        shift=rng.normal(0, _SHIFT_SD, size=3),
        warp=(first, second, third),
        folding=random_field(rng, grid, _FOLDING_KNOTS, _FOLDING_SD),
        fine_folding=random_field(rng, grid, _FINE_KNOTS, _FINE_SD),
        ventricle_growth=float(np.clip(0.16 + 0.08 * years + rng.normal(0, 0.05), 0.0, 0.38)),
        sulcal_threshold=float(np.clip(0.42 - 0.05 * years + rng.normal(0, 0.03), 0.25, 0.6)),
        csf_rim=float(np.clip(0.6 + 0.4 * years + rng.normal(0, 0.3), 0.0, 2.0)),
        skull=float(np.clip(rng.normal(6.5, 0.8), 4.5, 9.0)),
    )


def head_anatomy(shape: HeadShape, grid: VoxelGrid, sample_spacing: float = _SAMPLE_SPACING) -> Anatomy:
    """Tissue fractions of a head on a grid: each voxel is the mean of evenly spread samples.

    Args:
        shape: from :func:`draw_head_shape`.
        grid: voxels of the scan.
        sample_spacing: about how far the samples are apart, mm.
    """
    template = load_head_template()
    position = _template_position(shape, grid)
    middle = _sample(template, position.reshape(-1, 3))
    inside = np.flatnonzero(middle[:, 4] < _AIR_MARGIN + max(grid.spacing))
    points = position.reshape(-1, 3)[inside]
    axes = _axes(grid)
    folding = (shape.folding.on_axes(axes) + shape.fine_folding.on_axes(axes)).reshape(-1)[inside]
    offsets = _subvoxel_offsets(grid.spacing, sample_spacing)
    total = np.zeros((inside.size, len(TISSUES)), dtype=np.float32)
    for offset in offsets:
        # Within a voxel the warp is taken as constant.
        moved = points + (shape.to_template @ offset).astype(np.float32)
        total += _tissues(_sample(template, moved), folding, shape)
    fractions = np.zeros((len(TISSUES), middle.shape[0]), dtype=np.float32)
    fractions[:, inside] = total.T / len(offsets)
    return Anatomy(fractions.reshape(-1, *grid.shape), position, -middle[:, 2].reshape(grid.shape))


def _axes(grid: VoxelGrid) -> tuple[NDArray[np.float64], ...]:
    return tuple(grid.axis(axis) for axis in range(3))


def _subvoxel_offsets(spacing: tuple[float, float, float], sample_spacing: float) -> NDArray[np.float64]:
    """``(n, 3)`` positions in mm, evenly spread over a voxel."""
    along = [(np.arange(n) + 0.5) / n - 0.5 for n in (max(round(size / sample_spacing), 1) for size in spacing)]
    return np.array(list(product(*along))) * np.array(spacing)


def _template_position(shape: HeadShape, grid: VoxelGrid) -> NDArray[np.float32]:
    """``(X, Y, Z, 3)`` MNI positions of the voxels' middles."""
    axes = _axes(grid)
    x, y, z = (positions - origin for positions, origin in zip(axes, shape.shift, strict=True))
    position = np.stack([field.on_axes(axes) for field in shape.warp], axis=-1)
    for axis, (along_x, along_y, along_z) in enumerate(shape.to_template):
        flat = (along_x * x)[:, None, None] + (along_y * y)[None, :, None] + (along_z * z)[None, None, :]
        position[..., axis] += flat.astype(np.float32)
    arm = position - _VENTRICLES.astype(np.float32)
    squared = ((arm / _VENTRICLE_REACH.astype(np.float32)) ** 2).sum(axis=-1, keepdims=True)
    # What is read nearer to the middle than it lies appears larger.
    grown: NDArray[np.float32] = position - arm * (np.float32(shape.ventricle_growth) * np.exp(-squared))
    return grown


def _sample(template: HeadTemplate, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """All channels at the voxels nearest to ``(n, 3)`` MNI positions; outside the template its border is continued."""
    last = np.array(template.shape, dtype=np.float32) - 1
    index = np.clip(np.rint(points - np.array(template.origin, dtype=np.float32)), 0, last).astype(np.int32)
    _, n_y, n_z = template.shape
    row = (index[:, 0] * n_y + index[:, 1]) * n_z + index[:, 2]
    return template.channels[row].astype(np.float32)


def _tissues(scores: NDArray[np.float32], folding: NDArray[np.float32], shape: HeadShape) -> NDArray[np.float32]:
    """``(n, 6)`` tissue fractions at points with these scores."""
    csf_score, white_score, brain_distance, hull_distance, head_distance, iron, eye, dura = scores.T
    brain = _step((-_RIM_IN_MASK - brain_distance) / _EDGE_WIDTH)
    csf = _step((csf_score + folding - shape.sulcal_threshold) / _CSF_WIDTH)
    white = _step((white_score + folding) / _WHITE_WIDTH)
    tissue = brain * (1 - csf)
    subarachnoid = _step((shape.csf_rim - _RIM_IN_MASK - hull_distance + 12 * folding) / _EDGE_WIDTH)
    subarachnoid *= _step((_CISTERN_DEPTH - brain_distance) / _EDGE_WIDTH)
    skin = _step(-head_distance / _EDGE_WIDTH)
    outside = (1 - brain) * skin
    texture = np.clip(0.7 + 4 * folding, 0.2, 1.3)
    soft = texture * outside * (1 - subarachnoid) * _step((hull_distance - shape.skull) / _EDGE_WIDTH)
    return np.stack(
        [
            (brain * csf + outside * subarachnoid) * (1 - dura),
            tissue * (1 - white) * (1 - iron),
            tissue * white * (1 - iron),
            tissue * iron,
            soft * (1 - eye),
            soft * eye,
        ],
        axis=-1,
    )


def _step(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """A smooth step from 0 to 1, one half at 0."""
    return np.float32(0.5) + np.float32(0.5) * np.tanh(x)
