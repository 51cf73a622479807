"""Where a place of one head lies in another image of a head: rigid and affine registration of brains, by SimpleITK.

Mattes' mutual information (Mattes et al., IEEE TMI 2003;22:120-128) in and around the brain, so that contrasts may
differ. One thread, samples on a regular grid and a fixed seed: equal images give equal bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.errors import ScanError

MARGIN_MM = 6.0
"""How far beyond the brain voxels count, so that its edge guides too."""

_BINS, _SEED = 32, 1
_CEILING = 3.0
_BESIDE_MM = 10.0
# Coarse to fine: smoothing, mm; shrink factor; share of the voxels.
_FIRST, _SECOND = (4.0, 2, 0.5), (2.0, 1, 0.2)
_FIRST_STEP, _NEXT_STEP = 2.0, 1.0
_FIRST_LEAST_STEP, _LEAST_STEP = 0.05, 0.02
_ITERATIONS = (60, 100)
_FLAT = 1e-5
# ITK's world runs left and posterior where NIfTI's runs right and anterior.
_TURN = np.diag([-1.0, -1.0, 1.0])

Matrix = NDArray[np.float64]


class Brain(NamedTuple):
    """An image of a head and where its brain is.

    Attributes:
        image: ``(X, Y, Z)``, any positive unit.
        mask: same shape.
        affine: ``(4, 4)``, voxel indices to RAS+ mm.
    """

    image: NDArray[np.floating]
    mask: NDArray[np.bool_]
    affine: Matrix

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size, mm, ``(3,)``."""
        spacing: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    @property
    def centre(self) -> NDArray[np.float64]:
        """RAS+ position of the middle of the mask, ``(3,)``."""
        middle: NDArray[np.float64] = self.affine[:3, :3] @ np.argwhere(self.mask).mean(axis=0) + self.affine[:3, 3]
        return middle


def moved(matrix: NDArray[Any], positions: NDArray[Any]) -> NDArray[np.float64]:
    """``(n, 3)`` positions after a ``(4, 4)`` transform."""
    result: NDArray[np.float64] = positions @ matrix[:3, :3].T + matrix[:3, 3]
    return result


def rigid(fixed: Brain, moving: Brain) -> Matrix:
    """Rotation and shift from ``fixed`` to ``moving``, ``(4, 4)``, RAS+ mm.

    Args:
        fixed: where positions come from; its voxels are compared.
        moving: where they go to.

    Raises:
        ScanError: if SimpleITK is not installed, or finds no overlap.
    """
    sitk = require_simpleitk()
    transform = sitk.Euler3DTransform()
    images = _Images(fixed, moving)
    _start(transform, fixed, moving)
    _run(images, transform, [_FIRST], (_FIRST_STEP, _FIRST_LEAST_STEP, _ITERATIONS[0]))
    _run(images, transform, [_FIRST, _SECOND], (_NEXT_STEP, _LEAST_STEP, _ITERATIONS[1]))
    return _as_matrix(transform)


def affine(fixed: Brain, moving: Brain) -> Matrix:
    """Affine map from ``fixed`` to ``moving``, ``(4, 4)``, RAS+ mm; found by way of a rigid map with one scale.

    Args:
        fixed: where positions come from; its voxels are compared, so it may cover a part of the head only.
        moving: where they go to.

    Raises:
        ScanError: if SimpleITK is not installed, or finds no overlap.
    """
    sitk = require_simpleitk()
    similarity = sitk.Similarity3DTransform()
    images = _Images(fixed, moving)
    _start(similarity, fixed, moving)
    _run(images, similarity, [_FIRST], (_FIRST_STEP, _FIRST_LEAST_STEP, _ITERATIONS[0]))
    transform = sitk.AffineTransform(3)
    transform.SetCenter(similarity.GetCenter())
    transform.SetMatrix(similarity.GetMatrix())
    transform.SetTranslation(similarity.GetTranslation())
    _run(images, transform, [_FIRST, _SECOND], (_NEXT_STEP, _LEAST_STEP, _ITERATIONS[1]))
    return _as_matrix(transform)


def overlap(fixed: Brain, moving: Brain, matrix: Matrix) -> float:
    """Dice of the two masks after the map, counted on the voxels of ``fixed``: what it did not scan does not count."""
    voxels = np.stack(np.meshgrid(*map(np.arange, fixed.mask.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    to_voxel = np.linalg.inv(moving.affine) @ matrix @ fixed.affine
    index = np.rint(moved(to_voxel, voxels)).astype(np.intp)
    within = ((index >= 0) & (index < moving.mask.shape)).all(axis=1)
    warped = np.zeros(len(voxels), dtype=bool)
    warped[within] = moving.mask[tuple(index[within].T)]
    mask = fixed.mask.reshape(-1)
    total = int(warped.sum()) + int(mask.sum())
    return 2 * float((warped & mask).sum()) / total if total else 0.0


def peakedness(fixed: Brain, moving: Brain, matrix: Matrix) -> float:
    """Mutual information of two brains under a map, over its mean 10 mm beside it; near 1 where nothing fits.

    Overlap of masks says little: a head upside down fills a template well. Inside the brains, tissue lies on tissue or
    it does not.
    """
    voxels = np.argwhere(fixed.mask)
    intensity = _brain_alone(fixed)[fixed.mask]
    places, to_voxel = moved(matrix @ fixed.affine, voxels), np.linalg.inv(moving.affine)
    other = _brain_alone(moving)
    shifts = [np.zeros(3), *(side * _BESIDE_MM * axis for axis in np.eye(3) for side in (-1, 1))]
    found = []
    for shift in shifts:
        index = np.rint(moved(to_voxel, places + shift)).astype(np.intp)
        within = np.asarray(((index >= 0) & (index < moving.mask.shape)).all(axis=1))
        within[within] = moving.mask[tuple(index[within].T)]
        found.append(_mutual_information(intensity[within], other[tuple(index[within].T)]))
    return found[0] / max(float(np.mean(found[1:])), 1e-6)


def _mutual_information(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """In nats, of intensities over their medians."""
    edges = np.linspace(0, _CEILING, 3 * _BINS // 2)
    joint = np.histogram2d(first, second, bins=(edges, edges))[0]
    joint /= max(joint.sum(), 1.0)
    independent = joint.sum(axis=1)[:, None] * joint.sum(axis=0)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / independent[there])).sum())


class _Images:
    """Both brains as ITK takes them: intensities over the brain's median, fluid cut, nothing outside the mask."""

    def __init__(self, fixed: Brain, moving: Brain) -> None:
        self.fixed, self.moving = _itk_image(_brain_alone(fixed), fixed), _itk_image(_brain_alone(moving), moving)
        near = ndimage.distance_transform_edt(~fixed.mask, sampling=fixed.spacing) <= MARGIN_MM
        self.near = _itk_image(near.astype(np.uint8), fixed)


def _brain_alone(brain: Brain) -> NDArray[np.float32]:
    level = float(np.median(brain.image[brain.mask])) if brain.mask.any() else 0.0
    if not level > 0:
        raise ScanError("the brain to be registered is empty; look at the scan and at its brain mask")
    alone: NDArray[np.float32] = (np.clip(brain.image / level, 0, _CEILING) * brain.mask).astype(np.float32)
    return alone


def _itk_image(values: NDArray[Any], brain: Brain) -> Any:
    sitk = require_simpleitk()
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    image.SetSpacing(brain.spacing.tolist())
    image.SetDirection((_TURN @ brain.affine[:3, :3] / brain.spacing).ravel().tolist())
    image.SetOrigin((_TURN @ brain.affine[:3, 3]).tolist())
    return image


def _start(transform: Any, fixed: Brain, moving: Brain) -> None:
    """Put the middle of one brain onto that of the other; how the heads are turned is left as the scans say."""
    transform.SetCenter((_TURN @ fixed.centre).tolist())
    transform.SetTranslation((_TURN @ (moving.centre - fixed.centre)).tolist())


def _run(
    images: _Images, transform: Any, levels: list[tuple[float, int, float]], steps: tuple[float, float, int]
) -> None:
    """Improve ``transform`` in place; ``steps``: the largest, the least, and how many at most."""
    sitk = require_simpleitk()
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricFixedMask(images.near)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentagePerLevel([share for *_, share in levels], _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([shrink for _, shrink, _ in levels])
    method.SetSmoothingSigmasPerLevel([sigma for sigma, *_ in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    largest, least, n = steps
    method.SetOptimizerAsRegularStepGradientDescent(largest, least, n, gradientMagnitudeTolerance=_FLAT)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    # The method's own number does not reach all of its parts, and sums over threads differ in their last bits.
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        method.Execute(images.fixed, images.moving)
    except RuntimeError:
        raise ScanError(
            "the scan cannot be laid on the other image: their brains have no overlap; look at their orientation"
        ) from None
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _as_matrix(transform: Any) -> Matrix:
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    centre, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    matrix = np.eye(4)
    matrix[:3, :3] = _TURN @ linear @ _TURN
    matrix[:3, 3] = _TURN @ (shift + centre - linear @ centre)
    return matrix


def require_simpleitk() -> Any:
    """SimpleITK, imported at need; raises ``ScanError`` where it is not installed."""
    try:
        import SimpleITK
    except ImportError:
        raise ScanError(
            "registration needs a package that is not installed; install mhsev with its extra regions"
        ) from None
    return SimpleITK
