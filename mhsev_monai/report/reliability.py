"""A reliability diagram: how often the model is right where it says a probability, from sums by bins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from mhsev_monai.report.svg import ACCENT
from mhsev_monai.report.svg_parts import figure, label
from mhsev_monai.statistics import NORMAL_95

BEFORE, AFTER = "#9a6200", ACCENT
_LEFT, _TOP, _SIDE = 66, 20, 260


class ReliabilityPoint(NamedTuple):
    """Cases of one bin: how many, their mean probability, the share that is right, and its 95 % interval (Wilson)."""

    n: int
    confidence: float
    right: float
    low: float
    high: float


def reliability_points(sums: Mapping[str, Any]) -> list[ReliabilityPoint]:
    """The points of bins that hold a case.

    Args:
        sums: ``CalibrationSums.to_json()``: cases, sum of the probability and right cases by bin.
    """
    rows = zip(sums["n"], sums["confidence"], sums["right"], strict=True)
    return [ReliabilityPoint(n, total / n, right / n, *wilson(right, n)) for n, total, right in rows if n > 0]


def wilson(right: int, n: int) -> tuple[float, float]:
    """Ends of Wilson's 95 % interval of a share; ``n`` from 1."""
    share, extra = right / n, NORMAL_95**2 / n
    middle = (share + extra / 2) / (1 + extra)
    reach = NORMAL_95 * math.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def reliability_svg(series: Sequence[tuple[str, Sequence[ReliabilityPoint]]], figure_id: str) -> Markup:
    """Share right against mean probability; the area of a dot goes with its cases, whiskers belong to the last series.

    Args:
        series: name and points, at most two: before and after calibration.
        figure_id: unique on the page, letters, digits and hyphens.

    Raises:
        ValueError: if there are no or more than two series.
    """
    if not 1 <= len(series) <= 2:
        raise ValueError(f"a reliability diagram takes one or two series, got {len(series)}")
    parts = [*_frame()]
    colours = (BEFORE, AFTER)[-len(series) :]
    for number, ((name, points), colour) in enumerate(zip(series, colours, strict=True)):
        parts += _dots(points, colour, with_whiskers=number == len(series) - 1)
        y = _TOP + 20 + 22 * number
        parts.append(f'<circle cx="{_LEFT + _SIDE + 30}" cy="{y - 4}" r="6" fill="{colour}" fill-opacity="0.85"/>')
        parts.append(label(_LEFT + _SIDE + 42, y, name, anchor="start"))
    told = " ".join(
        f"{name}: " + ", ".join(f"said {p.confidence:.2f}, right {p.right:.2f} of {p.n}" for p in points) + "."
        for name, points in series
    )
    size = (_LEFT + _SIDE + 230, _TOP + _SIDE + 54)
    return figure(size, "Reliability of the reported probability", told, parts, figure_id)


def _frame() -> list[str]:
    bottom, right = _TOP + _SIDE, _LEFT + _SIDE
    parts = [
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="currentColor"'
        ' stroke-opacity="0.3"/>',
        f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{_TOP}" stroke="currentColor" stroke-opacity="0.5"'
        ' stroke-dasharray="5 3"/>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(label(_LEFT + _SIDE * share, bottom + 17, f"{share:g}", size=11, faint=True))
        parts.append(label(_LEFT - 8, bottom - _SIDE * share + 4, f"{share:g}", anchor="end", size=11, faint=True))
    parts.append(label(_LEFT + _SIDE / 2, bottom + 40, "mean probability of the reported grade", faint=True))
    parts.append(label(16, _TOP + _SIDE / 2, "share of cases that are right", faint=True, turned=True))
    return parts


def _dots(points: Sequence[ReliabilityPoint], colour: str, with_whiskers: bool) -> list[str]:
    most = max((point.n for point in points), default=1)
    parts = []
    for point in points:
        x, y, low, high = (
            _LEFT + _SIDE * point.confidence,
            *(_TOP + _SIDE * (1 - share) for share in (point.right, point.low, point.high)),
        )
        if with_whiskers:
            parts.append(
                f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="{colour}" stroke-width="1.5"/>'
            )
        radius = 3 + 8 * math.sqrt(point.n / most)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.7"/>')
    return parts
