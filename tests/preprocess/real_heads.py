"""Real heads of ../shared/data for the tests and benchmarks of the brain mask, and dark spots to plant in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

WHOLE_HEADS = (
    "philips_achieva_whole_b0_b1000",
    "philips_ingenia_mb2_b0_b1000",
    "siemens_prisma_ve11_sag_b0_b2000",
    "siemens_prisma_xa30_PA_b0_b2500",
    "ge_signauhp_seepi_b0like",
    "ge_signauhp_seepi_b0like_otherPE",
)
"""Spin-echo EPI from vertex to cerebellum; the last two without diffusion weighting."""
SLABS = ("philips_elition_mb3_b0_b1000", "uih_umr770_b0_b930")
"""Without cerebellum, and 84 mm of a head."""
T2_HEADS = ("p01", "p03", "p04")
SPOT_DIAMETERS = (4.0, 8.0, 12.0)
SPOT_LOSS = 0.8
"""Share of the signal that a spot loses, on b0 and on trace."""

Mask = NDArray[np.bool_]


class RealHead(NamedTuple):
    """One scan: mean b0, trace if it was acquired, mm along each axis."""

    b0: Tensor
    trace: Tensor | None
    spacing: tuple[float, float, float]


def load_dwi(folder: Path, name: str) -> RealHead:
    """A scan of the folder ``nifti_dwi``; without b-values the first volume stands for b0."""
    scan = nibabel.load(folder / "nifti_dwi" / f"{name}.nii.gz")
    x, y, z = (float(s) for s in scan.header.get_zooms()[:3])
    volumes = np.asarray(scan.dataobj, dtype=np.float32)
    table = folder / "nifti_dwi" / f"{name}.bval"
    if not table.exists():
        return RealHead(torch.from_numpy(volumes.reshape(*volumes.shape[:3], -1)[..., 0].copy()), None, (x, y, z))
    b_values = np.loadtxt(table).ravel()
    b0 = volumes[..., b_values <= 50].mean(-1)
    trace = np.exp(np.log(np.maximum(volumes[..., b_values > 100], 1)).mean(-1))
    return RealHead(torch.from_numpy(b0), torch.from_numpy(trace), (x, y, z))


def load_t2(folder: Path, patient: str) -> tuple[Tensor, Mask, tuple[float, float, float]]:
    """A head of ``t2w_brainmask``, its published mask, and mm along each axis."""
    scan = nibabel.load(folder / "t2w_brainmask" / f"{patient}_T2W.nii.gz")
    x, y, z = (float(s) for s in scan.header.get_zooms()[:3])
    reference = np.asarray(nibabel.load(folder / "t2w_brainmask" / f"{patient}_brainmask.nii.gz").dataobj) > 0
    return torch.from_numpy(np.asarray(scan.dataobj, dtype=np.float32)), reference, (x, y, z)


def lobar_spots(brain: Mask, spacing: Sequence[float], seed: int, n_each: int = 7) -> dict[float, Mask]:
    """Balls of each diameter whose centres lie 1.5 to 4 mm inside the surface of a brain, cut to the brain.

    Args:
        brain: ``(X, Y, Z)``; where it leaves the field of view is no surface.
        spacing: mm along each axis.
        seed: of the places.
        n_each: balls of each diameter; none comes closer than 20 mm to another, centre to centre.

    Returns:
        The voxels of all balls of each diameter in mm.

    Raises:
        ValueError: if the brain has no room for so many.
    """
    depth = ndimage.distance_transform_edt(brain, sampling=spacing)
    rim = np.argwhere((depth >= 1.5) & (depth <= 4.0))
    chosen: list[NDArray[np.int64]] = []
    for voxel in np.random.default_rng(seed).permutation(rim):
        if all(np.linalg.norm((voxel - other) * spacing) >= 20.0 for other in chosen):
            chosen.append(voxel)
        if len(chosen) == n_each * len(SPOT_DIAMETERS):
            break
    else:
        raise ValueError(f"the brain has room for {len(chosen)} spots")
    spots = {}
    for number, diameter in enumerate(SPOT_DIAMETERS):
        outside = np.ones(brain.shape, dtype=bool)
        outside[tuple(np.array(chosen[number :: len(SPOT_DIAMETERS)]).T)] = False
        spots[diameter] = (ndimage.distance_transform_edt(outside, sampling=spacing) <= diameter / 2) & brain
    return spots


def planted(head: RealHead, spots: dict[float, Mask]) -> RealHead:
    """The head with the spots in it."""
    dark = torch.from_numpy(np.logical_or.reduce(list(spots.values())))
    dimmed = torch.where(dark, 1.0 - SPOT_LOSS, 1.0)
    return head._replace(b0=head.b0 * dimmed, trace=None if head.trace is None else head.trace * dimmed)
