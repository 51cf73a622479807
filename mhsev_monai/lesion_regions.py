"""The findings of a graded scan on the map: lobar, deep, infratentorial, or uncertain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mhsev_monai.errors import ScanError
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.mars_regions import mars_region
from mhsev_monai.prediction import Finding, ScanGrade
from mhsev_monai.regions import Region
from mhsev_monai.registration import Brain, moved
from mhsev_monai.template_registration import TemplateMap, map_to_template

STRICTLY_LOBAR_LIMIT = (
    "strictly lobar describes the findings of this scan only: DWI misses most microbleeds, so deep or infratentorial "
    "ones may be there unseen"
)


class RegionCounts(NamedTuple):
    """How the findings of a scan are spread.

    Attributes:
        counts: findings by the label of their region, each of ``Region``; empty where regions are not told.
        strictly_lobar: whether there is a finding and all are lobar; None where regions are not told. See
            ``STRICTLY_LOBAR_LIMIT``.
        overlap: Dice of brain and template; None where they were not laid on each other.
    """

    counts: Mapping[str, int]
    strictly_lobar: bool | None
    overlap: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values under stable names."""
        return {
            "counts": dict(self.counts),
            "strictly_lobar": self.strictly_lobar,
            "limit": STRICTLY_LOBAR_LIMIT if self.strictly_lobar else None,
            "template_overlap": None if self.overlap is None else round(self.overlap, 3),
        }


def scan_brain(entries: Mapping[str, Any]) -> Brain:
    """What of a processed scan is registered: b0, or what stands for it, and the tight brain mask."""
    b0 = entries[Keys.B0]
    return Brain(
        np.asarray(b0)[0], np.asarray(entries[Keys.BRAIN_MASK])[0] > 0, np.asarray(b0.affine, dtype=np.float64)
    )


def tell_regions(grade: ScanGrade, entries: Mapping[str, Any]) -> tuple[ScanGrade, RegionCounts]:
    """The grade with the region of each finding and possible finding; without any, and a flag, where the map failed.

    Args:
        grade: from ``grade_scan``.
        entries: from the same call.

    """
    try:
        found = map_to_template(scan_brain(entries))
    except ScanError as error:
        return _not_told(grade, str(error), None)
    if found.doubt is not None:
        return _not_told(grade, f"the scan does not fit the template: {found.doubt}", found.overlap)
    findings, possible = (with_regions(spots, found) for spots in (grade.findings, grade.possible))
    # Where the model judges the scan as a whole its spots are no findings, and their places mean little.
    named = dataclasses.replace(grade, findings=findings, possible=possible)
    if not grade.judges_spots:
        return named, RegionCounts({}, None, found.overlap)
    counts = {region.label: sum(spot.region == region.label for spot in findings) for region in Region}
    strictly = bool(findings) and counts[Region.LOBAR.label] == len(findings)
    return named, RegionCounts(counts, strictly, found.overlap)


def _not_told(grade: ScanGrade, reason: str, overlap: float | None) -> tuple[ScanGrade, RegionCounts]:
    flags = (*grade.flags, f"no region is told; {reason}")
    return dataclasses.replace(grade, flags=flags), RegionCounts({}, None, overlap)


def with_regions(spots: Sequence[Finding], found: TemplateMap) -> tuple[Finding, ...]:
    """The spots with the label of the region that each lies in."""
    if not spots:
        return ()
    places = moved(found.matrix, np.array([spot.position_mm for spot in spots]))
    return tuple(
        spot._replace(region=Region(int(region)).label) for spot, region in zip(spots, mars_region(places), strict=True)
    )
