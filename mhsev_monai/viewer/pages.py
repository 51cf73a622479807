"""The files of the page of one scan. They hold no name, path or date: the scan is called "scan"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.page_template import template_environment
from mhsev_monai.prediction import LIMITS, Finding, ScanGrade
from mhsev_monai.trust import ABSTENTIONS
from mhsev_monai.viewer.server import ServedFile
from mhsev_monai.viewer.volumes import Layer, nifti_bytes, scan_layers

_SCRIPTS = {
    "niivue.umd.js": "text/javascript; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
}
_AXES = (("L", "R"), ("P", "A"), ("I", "S"))


class Spot(NamedTuple):
    """A spot on the page.

    Attributes:
        number: beside its mark and its button; None for candidates that are not listed.
        kind: ``finding``, ``possible`` or ``candidate``.
        position_mm: RAS+.
        told: what the button says.
    """

    number: int | None
    kind: str
    position_mm: tuple[float, float, float]
    told: str


def viewer_files(grade: ScanGrade, entries: Mapping[str, Any]) -> dict[str, ServedFile]:
    """What ``ViewerServer`` serves, by name; the page itself is ``""``.

    Args:
        grade: what the model says of the scan.
        entries: the processed scan, from ``prediction.grade_scan``.

    Raises:
        ImportError: without jinja2 (the extra ``report``).
    """
    layers, spots = scan_layers(entries), page_spots(grade, entries)
    affine = np.asarray(entries[Keys.B0].affine, dtype=np.float64)
    described = json.dumps({"layers": [_described(layer) for layer in layers], "spots": [s._asdict() for s in spots]})
    served = {
        "": ServedFile("text/html; charset=utf-8", render_page(grade, layers, spots).encode()),
        "scan.json": ServedFile("application/json", described.encode()),
    }
    for name, content_type in _SCRIPTS.items():
        served[name] = ServedFile(content_type, (files("mhsev_monai.viewer") / name).read_bytes())
    for layer in layers:
        served[f"{layer.key}.nii"] = ServedFile("application/octet-stream", nifti_bytes(layer.volume, affine))
    return served


def _described(layer: Layer) -> dict[str, Any]:
    low, high = layer.shown
    return {
        "key": layer.key,
        "url": f"{layer.key}.nii",
        "colormap": layer.colormap,
        "cal_min": low,
        "cal_max": high,
        "opacity": layer.opacity,
    }


def page_spots(grade: ScanGrade, entries: Mapping[str, Any]) -> list[Spot]:
    """Findings, less likely spots, and the candidates that are neither, numbered in this order."""
    listed = [*grade.findings, *grade.possible]
    kinds = ["finding"] * len(grade.findings) + ["possible"] * len(grade.possible)
    spots = [
        Spot(number, kind, _rounded(spot.position_mm), _told(spot))
        for number, (kind, spot) in enumerate(zip(kinds, listed, strict=True), start=1)
    ]
    affine, known = np.asarray(entries[Keys.B0].affine), {spot.position_mm for spot in spots}
    for voxel in np.asarray(entries.get(Keys.CANDIDATE_VOXELS, np.zeros((0, 3))), dtype=np.float64):
        position = _rounded(affine[:3, :3] @ voxel + affine[:3, 3])
        if position not in known:
            spots.append(Spot(None, "candidate", position, ""))
    return spots


def _rounded(position: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (round(float(mm), 1) for mm in position)
    return x, y, z


def _told(spot: Finding) -> str:
    told = [] if spot.probability is None else [f"probability {chance(spot.probability)}"]
    told.append(f"{100 * spot.depth:.0f} % darker than around")
    if spot.diameter_mm is not None:
        told.append(f"dark over {spot.diameter_mm:.1f} mm")
    if spot.region is not None:
        told.append(spot.region)
    return ", ".join([*told, f"at {place(spot.position_mm)}"])


def chance(probability: float) -> str:
    """Two digits; nothing is certain."""
    rounded = f"{probability:.2f}"
    return {"0.00": "under 0.01", "1.00": "over 0.99"}.get(rounded, rounded)


def place(position_mm: Sequence[float]) -> str:
    """A RAS+ position with the letters of the directions, in mm: ``R 10.0, P 20.0, S 30.0 mm``."""
    parts = [f"{_AXES[axis][mm >= 0]} {abs(mm):.1f}" for axis, mm in enumerate(_rounded(position_mm))]
    return f"{', '.join(parts)} mm"


def render_page(grade: ScanGrade, layers: Sequence[Layer], spots: Sequence[Spot]) -> str:
    """The page as HTML text; equal data gives equal text."""
    environment = template_environment(Path(__file__).parent, chance=chance)
    of_kind = {kind: [spot for spot in spots if spot.kind == kind] for kind in ("finding", "possible", "candidate")}
    return environment.get_template("page.html.jinja").render(
        grade=grade,
        layers=layers,
        of_kind=of_kind,
        limits=LIMITS,
        abstains=None if grade.abstains is None else ABSTENTIONS[grade.abstains],
    )
