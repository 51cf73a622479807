"""Findings of a scan with their place in the source and the extent that the feature map gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.pacs.geometry import Affine, PixelPlace, to_patient
from mhsev_monai.pacs.source_series import SourceSeries
from mhsev_monai.prediction import Finding

LARGEST_RADIUS_MM = 5.0
"""Microbleeds are up to 10 mm across (Greenberg et al., Lancet Neurology 8:165, 2009)."""
_HALF = 0.5


@dataclass(frozen=True, eq=False)
class MarkedFinding:
    """A finding and its places.

    Attributes:
        number: from 1, as in every result.
        point: LPS mm.
        slice_index: of the marked volume.
        pixel: in the slice's own pixels.
        region: ``(N, 3)`` voxels of the processed volume: those around the spot where the feature map is at least
            half as deep; at least one.
        volume_mm3: of the region; None where there is no feature map, or it has no depth there.
        diameter_mm: extent of its darkness in the slice, not of the lesion; None where it is not known.
        depth: signal loss, fraction of the surroundings.
        probability: that it is a microbleed.
        part: label of the part of the brain; None where it is not known.
    """

    number: int
    point: tuple[float, float, float]
    slice_index: int
    pixel: PixelPlace
    region: NDArray[np.int64]
    volume_mm3: float | None
    diameter_mm: float | None
    depth: float
    probability: float
    part: str | None

    @property
    def label(self) -> str:
        """Its name in every result."""
        return f"finding {self.number}"


def processed_to_lps(entries: Mapping[str, Any], source: SourceSeries) -> Affine:
    """``(4, 4)`` from voxels of the processed volumes to LPS mm as the source's headers have it."""
    return np.asarray(source.to_source @ np.asarray(entries[Keys.B0].affine, dtype=np.float64))


def mark_findings(
    findings: Sequence[Finding], entries: Mapping[str, Any], source: SourceSeries
) -> tuple[MarkedFinding, ...]:
    """Findings with their places in the source.

    Spots without a probability are left out: the model judges such a scan as a whole, and points at nothing.

    Args:
        findings: of the scan, in the order in which they are to be numbered.
        entries: the data dictionary of :func:`mhsev_monai.prediction.grade_scan`.
        source: of the scan.
    """
    affine = processed_to_lps(entries, source)
    shape = tuple(entries[Keys.B0].shape[1:])
    feature_map = np.asarray(entries[Keys.DSD])[0] if Keys.DSD in entries else None
    judged = [(finding, finding.probability) for finding in findings if finding.probability is not None]
    centres = {_centre(finding.voxel, shape) for finding, _ in judged}
    taken: set[tuple[int, ...]] = set()
    marked = []
    for number, (finding, probability) in enumerate(judged, start=1):
        point = to_patient(affine, finding.voxel)
        index = min(range(len(source.slices)), key=lambda n: abs(source.slices[n].plane.distance(point)))
        region, is_known = _region(finding.voxel, feature_map, shape, np.linalg.norm(affine[:3, :3], axis=0))
        own = _centre(finding.voxel, shape)
        region = _exclusive(region, own, taken | centres - {own})
        taken |= set(map(tuple, region.tolist()))
        voxel_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
        marked.append(
            MarkedFinding(
                number=number,
                point=point,
                slice_index=index,
                pixel=source.slices[index].plane.pixel(point),
                region=region,
                volume_mm3=len(region) * voxel_mm3 if is_known else None,
                diameter_mm=finding.diameter_mm,
                depth=finding.depth,
                probability=probability,
                part=finding.region,
            )
        )
    return tuple(marked)


def _centre(voxel: Sequence[float], shape: Sequence[int]) -> tuple[int, ...]:
    """The voxel that a spot lies in."""
    return tuple(np.clip(np.rint(voxel).astype(int), 0, np.array(shape) - 1).tolist())


def _exclusive(region: NDArray[np.int64], centre: tuple[int, ...], others: set[tuple[int, ...]]) -> NDArray[np.int64]:
    """A region without voxels that belong to other findings; its centre stays."""
    return np.array([voxel for voxel in map(tuple, region.tolist()) if voxel == centre or voxel not in others])


def _region(
    voxel: Sequence[float], feature_map: NDArray[Any] | None, shape: Sequence[int], spacing: NDArray[np.float64]
) -> tuple[NDArray[np.int64], bool]:
    """Voxels of a spot, and whether the feature map tells them."""
    centre = np.array(_centre(voxel, shape))
    alone = centre[None]
    if feature_map is None or not feature_map[tuple(centre)] < 0:
        return alone, False
    reach = np.ceil(LARGEST_RADIUS_MM / spacing).astype(int)
    low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, shape)
    box = feature_map[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    grid = np.moveaxis(np.indices(box.shape), 0, -1) + low
    near = np.linalg.norm((grid - centre) * spacing, axis=-1) <= LARGEST_RADIUS_MM
    labels, _ = ndimage.label((box <= _HALF * feature_map[tuple(centre)]) & near)
    return grid[labels == labels[tuple(centre - low)]], True
