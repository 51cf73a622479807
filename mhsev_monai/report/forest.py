"""A forest plot: values with their intervals along one axis, which may be logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from mhsev_monai.report.svg import ACCENT
from mhsev_monai.report.svg_parts import figure, label, name_width, short, tick_line

_WIDTH, _TOP, _ROW = 320, 30, 26


class ForestRow(NamedTuple):
    """A line of the plot; ``low`` and ``high`` are None where there is no interval, ``value`` where it is not known."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


class Axis(NamedTuple):
    """What is drawn along.

    Attributes:
        quantity: with its unit.
        low: left end; above 0 on a logarithmic axis.
        high: right end.
        reference: where no effect, or the comparison, is; None draws no line.
        logarithmic: equal factors are equal lengths.
    """

    quantity: str
    low: float
    high: float
    reference: float | None = None
    logarithmic: bool = False

    def across(self, value: float) -> float:
        """Share of the axis from the left, 0 to 1; what lies beyond an end is at the end."""
        if not self.logarithmic:
            share = (value - self.low) / (self.high - self.low)
        elif value <= 0:
            share = 0.0
        else:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        return min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Four or more round numbers."""
        if self.logarithmic:
            steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
            return [step for step in steps if self.low <= step * (1 + 1e-9) and step <= self.high * (1 + 1e-9)]
        return [self.low + k * (self.high - self.low) / 4 for k in range(5)]


def log_axis(quantity: str, rows: Sequence[ForestRow]) -> Axis:
    """An axis of ratios that holds all intervals of the rows, from 0.01 to 100 at most."""
    ends = [end for row in rows for end in (row.low, row.value, row.high) if end is not None and 0 < end < math.inf]
    steps = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
    above = next((step for step in steps if step >= max([*ends, 2.0])), 100.0)
    below = next((1 / step for step in steps if 1 / step <= min([*ends, 0.5])), 0.01)
    return Axis(quantity, below, above, 1.0, True)


def even_axis(quantity: str, rows: Sequence[ForestRow], least: float = 0.1) -> Axis:
    """An axis with 0 in its middle that holds all intervals of the rows."""
    ends = [abs(end) for row in rows for end in (row.low, row.value, row.high) if end is not None]
    reach = max([*ends, least])
    reach = next(step for step in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 1e9) if step >= reach)
    return Axis(quantity, -reach, reach, 0.0)


def forest_svg(rows: Sequence[ForestRow], axis: Axis, figure_id: str, digits: int = 2) -> Markup:
    """One line a row: a square at the value, a line over the interval, and the numbers at the right.

    Args:
        rows: at least one.
        axis: see ``log_axis`` and ``even_axis``.
        figure_id: unique on the page, letters, digits and hyphens.
        digits: of the numbers.

    Raises:
        ValueError: if the ends of the axis do not rise, or a logarithmic one begins at or below 0.
    """
    if not axis.low < axis.high or (axis.logarithmic and axis.low <= 0):
        raise ValueError(f"the axis must rise, and begin above 0 if logarithmic, got {axis.low} to {axis.high}")
    left, bottom = name_width([row.name for row in rows]), _TOP + _ROW * len(rows)
    parts = [tick_line(left + _WIDTH * axis.across(tick), _TOP - 6, bottom, f"{tick:g}") for tick in axis.ticks()]
    if axis.reference is not None:
        x = left + _WIDTH * axis.across(axis.reference)
        parts.append(
            f'<line x1="{x:.1f}" y1="{_TOP - 10}" x2="{x:.1f}" y2="{bottom}" stroke="currentColor" stroke-width="1.5"'
            ' stroke-dasharray="5 3"/>'
        )
    told = []
    for index, row in enumerate(rows):
        words = _numbers(row, digits)
        told.append(f"{row.name}: {words}.")
        parts += _line(row, axis, (left, _TOP + _ROW * index), words)
    parts.append(label(left + _WIDTH / 2, bottom + 34, axis.quantity, faint=True))
    return figure((left + _WIDTH + 165, bottom + 42), axis.quantity, " ".join(told), parts, figure_id)


def _numbers(row: ForestRow, digits: int) -> str:
    if row.value is None:
        return "not computed"
    own = f"{row.value:.{digits}f}"
    return own if row.low is None or row.high is None else f"{own} ({row.low:.{digits}f} to {row.high:.{digits}f})"


def _line(row: ForestRow, axis: Axis, corner: tuple[float, float], words: str) -> list[str]:
    left, y = corner
    middle = y + _ROW / 2 - 2
    parts = [label(left - 10, middle + 4, short(row.name, 30), anchor="end")]
    parts.append(label(left + _WIDTH + 10, middle + 4, words, anchor="start", size=12))
    if row.value is None:
        return parts
    if row.low is not None and row.high is not None:
        low, high = (left + _WIDTH * axis.across(end) for end in (row.low, row.high))
        parts.append(
            f'<line x1="{low:.1f}" y1="{middle:g}" x2="{high:.1f}" y2="{middle:g}" stroke="currentColor"'
            ' stroke-width="1.5"/>'
        )
    x = left + _WIDTH * axis.across(row.value)
    parts.append(f'<rect x="{x - 5:.1f}" y="{middle - 5:g}" width="10" height="10" fill="{ACCENT}"/>')
    return parts
