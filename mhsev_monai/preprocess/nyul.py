"""Intensities on a standard scale, learnt from sums of histogram landmarks.

The method is that of Nyul, Udupa and Zhang (IEEE TMI 19:143, 2000), which learns from a pool of images.

A scan's landmarks are percentiles of its brain. Each scan's are scaled linearly so that the first is 0 and the last is
100, and their mean over all scans is the standard scale. A mean needs sums only, so each site gives the sum of its
scans' landmarks and their number, and nothing of a single scan; the pooled scale is that of one site with all scans.
A scan is then mapped piecewise linearly, its landmarks onto the scale's.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mhsev_monai.errors import CohortError, ScanError

PERCENTILES = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
"""Of the voxels in the mask; the first and the last are the ends of the scale."""

FEWEST_SCANS = 5
"""A sum over fewer scans says too much about each of them. Whoever sees two sums of one site, the second with one scan
more, still learns that scan's landmarks: publish a site's sums once, or add several scans at a time."""

SCALE_END = 100.0

# Scaled landmarks are whole multiples of this: their sums are exact in any order and grouping, up to 2**26 scans.
_GRID = 2.0**-20
_SCHEMA = 1


@dataclass(frozen=True)
class LandmarkSums:
    """What a site tells about the landmarks of its scans.

    Attributes:
        n_scans: number of scans.
        sums: of their 11 landmarks, each scan's scaled to 0..100.

    Raises:
        ValueError: if the sums cannot be those of landmarks.
    """

    n_scans: int
    sums: tuple[float, ...]

    def __post_init__(self) -> None:
        sums, end = self.sums, SCALE_END * self.n_scans
        rising = all(a <= b for a, b in pairwise(sums))
        if self.n_scans < 1 or len(sums) != len(PERCENTILES) or not rising or sums[0] != 0 or sums[-1] != end:
            raise ValueError(
                f"sums of landmarks are {len(PERCENTILES)} rising numbers from 0 to {SCALE_END:g} times the number of "
                f"scans, got {len(sums)} for {self.n_scans} scans"
            )

    @classmethod
    def of(cls, scans: Sequence[Sequence[float] | Tensor]) -> LandmarkSums:
        """Sums over the landmarks of scans, each from ``landmarks``; raises ``ValueError`` for none."""
        scaled = [_scaled(torch.as_tensor(scan, dtype=torch.float64)) for scan in scans]
        if not scaled:
            raise ValueError("sums need the landmarks of at least one scan, got none")
        return cls(len(scaled), tuple(torch.stack(scaled).sum(0).tolist()))


def landmarks(image: Tensor, mask: Tensor) -> Tensor:
    """The 11 percentiles of an image's finite voxels in a mask, ``(11,)`` float64, rising.

    Between two voxels a percentile is interpolated linearly, as NumPy does; images of any size are accepted.

    Args:
        image: any shape, any unit, corrected for the bias field.
        mask: same shape; voxels above 0 count.

    Raises:
        ScanError: if the mask holds no voxel, or the first and the last percentile are equal.
        ValueError: if the shapes differ.
    """
    found = _percentiles(image, mask)
    if found is None:
        raise ScanError("the intensities in the brain mask have no spread; check the mask and the scan")
    return found


def standard_scale(sites: Sequence[LandmarkSums]) -> tuple[float, ...]:
    """The standard scale, 11 numbers from 0 to 100: the mean over the scans of all sites, whatever their grouping.

    Raises:
        ValueError: if there is no site.
    """
    if not sites:
        raise ValueError("a standard scale needs the sums of at least one site, got none")
    n_scans = sum(site.n_scans for site in sites)
    return tuple(math.fsum(column) / n_scans for column in zip(*(site.sums for site in sites), strict=True))


def nyul_standardize(image: Tensor, mask: Tensor, scale: Sequence[float]) -> Tensor:
    """Map an image so that its landmarks in a mask come to lie on a standard scale.

    Between landmarks the map is linear, beyond the first and the last it goes on with the slope of the first and the
    last piece, so it never falls and cuts nothing off. Landmarks of equal intensity share the mean of theirs.

    Args:
        image: any shape, any unit.
        mask: same shape; voxels above 0 count.
        scale: from ``standard_scale``.

    Returns:
        float32, the mask's 1st percentile at 0 and its 99th at 100; mapped outside the mask as well, 0 where the image
        is not finite. All 0, with a ``RuntimeWarning``, where the mask is empty or the image constant in it.

    Raises:
        ValueError: if the shapes differ or ``scale`` is not 11 finite rising numbers.
    """
    levels = check_scale(scale)
    own = _percentiles(image, mask)
    if own is None:
        warnings.warn("Nyul: no spread inside the mask; the result is zero", RuntimeWarning, stacklevel=2)
        return torch.zeros(image.shape, dtype=torch.float32, device=image.device)
    own, index = torch.unique_consecutive(own, return_inverse=True)
    counts = torch.bincount(index, minlength=len(own))
    target = torch.zeros_like(own).index_add_(0, index, torch.tensor(levels, dtype=torch.float64)) / counts
    own, target = own.to(image.device), target.to(image.device)
    slopes = target.diff() / own.diff()
    finite = torch.isfinite(image)
    values = torch.where(finite, image, 0.0).double()
    piece = (torch.searchsorted(own, values, right=True) - 1).clamp(0, len(slopes) - 1)
    return torch.where(finite, target[piece] + slopes[piece] * (values - own[piece]), 0.0).float()


def check_scale(scale: Sequence[float]) -> tuple[float, ...]:
    """The scale as 11 floats; raises ``ValueError`` for anything that is none."""
    levels = tuple(float(level) for level in scale)
    rising = all(a <= b for a, b in pairwise(levels))
    if len(levels) != len(PERCENTILES) or not all(map(math.isfinite, levels)) or not rising or levels[0] == levels[-1]:
        raise ValueError(f"a standard scale is {len(PERCENTILES)} finite rising numbers, got {list(levels)}")
    return levels


def read_landmark_sums(path: Path, image: str) -> LandmarkSums:
    """The sums of a site from the ``qc.json`` that ``mhsev qc`` has written there.

    Args:
        path: the file.
        image: ``b0`` or ``trace``.

    Raises:
        CohortError: if the file cannot be read, is none of these, or holds no sums of this image; with its reason.
    """
    try:
        entry = _read_json(path)["landmarks"][image]
        if "absent" in entry:
            raise CohortError(f"the file holds no landmarks of {image}: {entry['absent']}")
        sums = LandmarkSums(int(entry["n_scans"]), tuple(float(value) for value in entry["sums"]))
    except CohortError:
        raise
    except (TypeError, KeyError, ValueError):
        raise CohortError(f"the file holds no landmarks of {image}; write it with `mhsev qc`") from None
    if sums.n_scans < FEWEST_SCANS:
        raise CohortError(f"landmarks of {sums.n_scans} scans came, {FEWEST_SCANS} or more are accepted")
    return sums


def write_scale(path: Path, image: str, sites: Sequence[LandmarkSums]) -> None:
    """Write the pooled scale of an image (``b0`` or ``trace``) as JSON; a file that is there is replaced whole."""
    stored = {
        "schema": _SCHEMA,
        "image": image,
        "n_sites": len(sites),
        "n_scans": sum(site.n_scans for site in sites),
        "percentiles": PERCENTILES,
        "scale": standard_scale(sites),
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(stored, indent=1) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_scale(path: Path, image: str) -> tuple[float, ...]:
    """The scale that ``write_scale`` wrote for an image.

    Raises:
        CohortError: if the file cannot be read, or is not the scale of this image.
    """
    stored = _read_json(path)
    if stored.get("image") != image or list(stored.get("percentiles", ())) != list(PERCENTILES):
        raise CohortError(f"the file is not a standard scale of {image}")
    try:
        return check_scale(stored["scale"])
    except (TypeError, KeyError, ValueError):
        raise CohortError("the standard scale in the file is damaged; write it again") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise CohortError(f"the file of landmarks cannot be read ({type(error).__name__})") from None
    if not isinstance(stored, dict):
        raise CohortError("the file of landmarks holds no JSON object")
    return stored


def _percentiles(image: Tensor, mask: Tensor) -> Tensor | None:
    """``(11,)`` float64 on the host; None without spread. By sorting, since ``torch.quantile`` refuses large images."""
    if mask.shape != image.shape:
        raise ValueError(f"mask must have the image's shape {tuple(image.shape)}, got {tuple(mask.shape)}")
    values = image[(mask > 0) & torch.isfinite(image)].sort().values
    if values.numel() == 0:
        return None
    place = torch.tensor(PERCENTILES, dtype=torch.float64) / 100.0 * (len(values) - 1)
    below = place.floor().long()
    low, high = (values[i.to(values.device)].double().cpu() for i in (below, (below + 1).clamp_max(len(values) - 1)))
    found = low + (high - low) * (place - below)
    return found if bool(found[-1] > found[0]) else None


def _scaled(found: Tensor) -> Tensor:
    """Landmarks of one scan from 0 to 100, on the grid on which sums are exact."""
    if found.shape != (len(PERCENTILES),) or not bool(torch.isfinite(found).all()) or not bool(found[-1] > found[0]):
        raise ValueError(f"landmarks must be {len(PERCENTILES)} finite rising numbers, got {found.tolist()}")
    return ((found - found[0]) * (SCALE_END / (found[-1] - found[0])) / _GRID).round() * _GRID
