"""A waterfall: from the usual answer to this scan's, one bar for what each player adds. For a site's own eyes."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mhsev_monai.report.svg_parts import figure, label, tick_line, xml_text

UP, DOWN = "#b0305c", "#0072b2"
"""Towards a more and a less severe grade; told apart by the kinds of colour blindness that are common, and by sign."""
_LEFT, _WIDTH, _RIGHT, _TOP, _ROW, _BAR = 190.0, 360.0, 60.0, 34.0, 24.0, 14.0


def waterfall_svg(
    base: float, steps: Sequence[tuple[str, float]], limits: tuple[float, float], quantity: str, figure_id: str
) -> Markup:
    """Bars from ``base`` to its sum with all steps.

    Args:
        base: where the first bar begins.
        steps: name and what it adds, in the order in which they are shown.
        limits: ends of the axis; bars beyond are cut off.
        quantity: what the axis shows.
        figure_id: unique on the page, letters, digits and hyphens.

    Raises:
        ValueError: if the limits do not rise, or a number is not finite.
    """
    low, high = limits
    total = base + sum(value for _, value in steps)
    if not (low < high and abs(base) < float("inf") and abs(total) < float("inf")):
        raise ValueError(
            f"limits must rise and base and steps be finite, got {limits}, {base:g} and a sum of {total:g}"
        )

    def across(value: float) -> float:
        return _LEFT + _WIDTH * (min(max(value, low), high) - low) / (high - low)

    bottom = _TOP + _ROW * (len(steps) + 2)
    parts = [
        tick_line(across(low + k * (high - low) / 3), _TOP, bottom, f"{low + k * (high - low) / 3:g}") for k in range(4)
    ]
    parts.append(label(_LEFT, 18, quantity, anchor="start", bold=True))
    parts += _mark(_TOP, "usual scan", across(base), f"{base:.2f}")
    reached = base
    for number, (name, value) in enumerate(steps, start=1):
        parts += _bar(_TOP + _ROW * number, name, (across(reached), across(reached + value)), value)
        reached += value
    parts += _mark(_TOP + _ROW * (len(steps) + 1), "this scan", across(total), f"{total:.2f}")
    told = "; ".join(f"{name} {value:+.2f}" for name, value in steps)
    description = f"From {base:.2f} of the usual scan to {total:.2f} of this one: {told}."
    return figure((_LEFT + _WIDTH + _RIGHT, bottom + 26), quantity, description, parts, figure_id)


def _mark(y: float, name: str, x: float, value: str) -> list[str]:
    """A line of the two that stand at the ends."""
    return [
        label(_LEFT - 10, y + _BAR, name, anchor="end", bold=True),
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y + 2:.1f}" y2="{y + _ROW - 2:.1f}" '
        'stroke="currentColor" stroke-width="3"/>',
        label(x + 8, y + _BAR, value, anchor="start", bold=True),
    ]


def _bar(y: float, name: str, ends: tuple[float, float], value: float) -> list[str]:
    left, right = min(ends), max(ends)
    return [
        label(_LEFT - 10, y + _BAR, name, anchor="end"),
        f'<rect x="{left:.1f}" y="{y + 4:.1f}" width="{max(right - left, 1.0):.1f}" height="{_BAR:g}" '
        f'fill="{xml_text(UP if value >= 0 else DOWN)}"/>',
        label(right + 6, y + _BAR + 1, f"{value:+.2f}", anchor="start", size=11),
    ]


def standalone(svg: Markup) -> str:
    """The figure as a file of its own, on white: there is no page whose colour its text could follow."""
    root = '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" style="background:#fff;color:#000" '
    return str(svg).replace("<svg ", root, 1) + "\n"
