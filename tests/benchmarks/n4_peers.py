"""N4 against SimpleITK at several shrink factors: processor time, and what is left of a known field."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mhsev_monai.preprocess.n4 import N4Parameters, estimate_log_bias

sys.path.append(str(Path(__file__).resolve().parents[1] / "preprocess"))
from head_phantoms import coil_log_bias, crisp_head
from real_heads import load_dwi

Array = NDArray[np.float32]
SHRINKS = (1, 2, 4)
SCANS = ("siemens_prisma_xa30_PA_b0_b2500", "philips_achieva_whole_b0_b1000")


def itk_log_bias(image: Array, mask: NDArray[np.bool_], shrink: int) -> Array | None:
    """The field as users of SimpleITK find it, one thread; None where it is not installed."""
    try:
        import SimpleITK as sitk  # noqa: N813 (its own documentation names it so)
    except ImportError:
        return None
    parameters = N4Parameters()
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations([parameters.iterations] * parameters.levels)
    n4.SetConvergenceThreshold(parameters.tolerance)
    whole = sitk.GetImageFromArray(np.ascontiguousarray(image.T))
    inside = sitk.GetImageFromArray(np.ascontiguousarray(mask.T, dtype=np.uint8))
    n4.Execute(sitk.Shrink(whole, [shrink] * 3), sitk.Shrink(inside, [shrink] * 3))
    return sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(whole)).T


def timed(work: Callable[[], Array | None], repeats: int = 1) -> tuple[float, Array | None]:
    """Least processor time, and the result."""
    seconds, result = float("inf"), None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds = min(seconds, time.process_time() - start)
    return seconds, result


def rows(name: str, image: Array, mask: NDArray[np.bool_], known: Array | None) -> Iterator[Sequence[object]]:
    """One row for each shrink factor; the residual is the spread of found minus known field in the mask."""
    as_tensor, inside = torch.from_numpy(image), torch.from_numpy(mask)
    estimate_log_bias(as_tensor[::4, ::4, ::4], inside[::4, ::4, ::4], N4Parameters(shrink=1))  # compiles
    for shrink in SHRINKS:
        theirs, expected = timed(lambda s=shrink: itk_log_bias(image, mask, s))
        if expected is None:
            return
        ours, found = timed(
            lambda s=shrink: estimate_log_bias(as_tensor, inside, N4Parameters(shrink=s)).numpy(), repeats=3
        )
        left = ["", ""] if known is None else [f"{(f - known)[mask].std():.3f}" for f in (expected, found)]
        yield name, shrink, f"{theirs:.2f}", f"{ours:.2f}", f"x{theirs / ours:.0f}", *left


def head_rows() -> Iterator[Sequence[object]]:
    """A phantom of 96 x 112 x 80 voxels with a known field."""
    head = crisp_head((96, 112, 80))
    known = coil_log_bias(head.image.shape, head.brain)
    yield from rows("phantom, 96 x 112 x 80", head.image * np.exp(known), head.brain, known)


def scan_rows(folder: Path) -> Iterator[Sequence[object]]:
    """Real scans, where the folder has them, in what is brighter than 15 % of their 99th percentile."""
    for name in SCANS:
        if (folder / "nifti_dwi" / f"{name}.nii.gz").exists():
            image = np.ascontiguousarray(load_dwi(folder, name).b0.numpy())
            size = " x ".join(map(str, image.shape))
            yield from rows(f"`{name}`, {size}", image, image > 0.15 * np.percentile(image, 99), None)
