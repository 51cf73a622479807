"""The brain mask against dipy's ``median_otsu``: dark spots, coil fields, published masks, phantoms."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mhsev_monai.preprocess import morphology
from mhsev_monai.preprocess.brain_mask import dwi_brain_mask

sys.path.append(str(Path(__file__).resolve().parents[1] / "preprocess"))
from head_phantoms import coil_log_bias, head_with_skull
from real_heads import SPOT_DIAMETERS, RealHead, load_dwi, load_t2, lobar_spots, planted

Mask = NDArray[np.bool_]
Row = Sequence[object]
SHADING = 0.7
"""Greatest logarithm of the coil field that is put over a scan."""
PLANTINGS = 2
SPOTS_EACH = 10


def dipy_mask(b0: torch.Tensor) -> Mask | None:
    """``median_otsu`` with its defaults; None where dipy is not installed."""
    try:
        from dipy.segment.mask import median_otsu
    except ImportError:
        return None
    return np.asarray(median_otsu(b0.numpy(), median_radius=4, numpass=4)[1]) > 0


def dice(first: Mask, second: Mask) -> float:
    """Overlap, 0 to 1."""
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def widened(mask: Mask, head: RealHead) -> Mask:
    """The mask dilated as the search mask is."""
    return morphology.dilate(torch.from_numpy(mask), max(3.0, min(head.spacing)), head.spacing).numpy()


def under_a_coil(head: RealHead, brain: Mask) -> RealHead:
    """The head under a further field of four coils, the same on b0 and trace."""
    field = torch.from_numpy(np.exp(coil_log_bias(tuple(head.b0.shape), brain, SHADING)))
    return head._replace(b0=head.b0 * field, trace=None if head.trace is None else head.trace * field)


def masks(head: RealHead) -> tuple[dict[str, Mask], float, float]:
    """The masks of a scan by each method, and the processor seconds of dipy and of ours; without dipy none."""
    start = time.process_time()
    theirs = dipy_mask(head.b0)
    middle = time.process_time()
    if theirs is None:
        return {}, 0.0, 0.0
    ours = dwi_brain_mask(*head)
    end = time.process_time()
    found = {
        "dipy": theirs,
        "dipy, dilated by 3 mm": widened(theirs, head),
        "mhsev, brain": ours.mask.numpy(),
        "mhsev, search": ours.search_mask.numpy(),
    }
    return found, middle - start, end - middle


def scan_rows(folder: Path, name: str) -> Iterator[Row]:
    """Volume, time, the share of spots kept, and agreement under a further coil field, for each mask of a scan."""
    if not (folder / "nifti_dwi" / f"{name}.nii.gz").exists():
        return
    head = load_dwi(folder, name)
    plain, dipy_seconds, our_seconds = masks(head)
    if not plain:
        return
    kept = {method: dict.fromkeys(SPOT_DIAMETERS, 0) for method in plain}
    count = dict.fromkeys(SPOT_DIAMETERS, 0)
    for seed in range(PLANTINGS):
        spots = lobar_spots(plain["dipy"] & plain["mhsev, brain"], head.spacing, seed, SPOTS_EACH)
        found = masks(planted(head, spots))[0]
        for diameter, voxels in spots.items():
            count[diameter] += int(voxels.sum())
            for method, mask in found.items():
                kept[method][diameter] += int(mask[voxels].sum())
    shaded = masks(under_a_coil(head, plain["dipy"] | plain["mhsev, brain"]))[0]
    millilitres = float(np.prod(head.spacing)) / 1000
    for method, mask in plain.items():
        seconds = dipy_seconds if method.startswith("dipy") else our_seconds
        shares = [f"{kept[method][diameter] / count[diameter]:.3f}" for diameter in SPOT_DIAMETERS]
        same = f"{dice(mask, shaded[method]):.3f}"
        yield f"`{name}`", method, f"{mask.sum() * millilitres:.0f}", f"{seconds:.1f}", *shares, same


def t2_rows(folder: Path, patient: str) -> Iterator[Row]:
    """Dice of both with a published mask, on means of four by four voxels."""
    if not (folder / "t2w_brainmask" / f"{patient}_T2W.nii.gz").exists():
        return
    image, reference, (x, y, z) = load_t2(folder, patient)
    coarse, truth = (
        F.avg_pool3d(volume[None], (4, 4, 1))[0] for volume in (image, torch.from_numpy(reference).float())
    )
    theirs = dipy_mask(coarse)
    if theirs is not None:
        ours = dwi_brain_mask(coarse, None, (4 * x, 4 * y, z)).mask.numpy()
        expected = (truth > 0.5).numpy()
        yield patient, f"{dice(theirs, expected):.3f}", f"{dice(ours, expected):.3f}"


def phantom_rows() -> Iterator[Row]:
    """Dice of both with the exact brain, under growing shading."""
    shape, spacing = (72, 81, 63), (2.4, 2.4, 2.4)
    for amplitude in (0.0, 0.4, 1.0):
        contrasts = []
        for levels in ((1.0, 0.5, 0.4), (0.06, 0.36, 0.40)):
            head = head_with_skull(shape, levels)
            field = coil_log_bias(shape, head.brain, amplitude) if amplitude else 0.0
            contrasts.append(torch.from_numpy((head.image * np.exp(field)).astype(np.float32)))
        theirs = dipy_mask(contrasts[0])
        if theirs is not None:
            ours = dwi_brain_mask(*contrasts, spacing).mask.numpy()
            yield amplitude, f"{dice(theirs, head.brain):.3f}", f"{dice(ours, head.brain):.3f}"
