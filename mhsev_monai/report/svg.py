"""Small figures as inline SVG: no library, no script, readable by screen readers, on light, on dark and on paper.

Text and axes take the colour of the page (``currentColor``); data has colours that the common kinds of colour blindness
tell apart, and that rise in darkness with severity. Every figure says what it shows in ``<title>`` and ``<desc>``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mhsev_monai.report.svg_parts import figure, label, name_width, short, tick_line

ACCENT = "#0072b2"
"""Blue of Okabe and Ito's palette: at least 3:1 against the page, light or dark."""

GRADE_COLOURS = ("#9fb3c8", "#f2c14e", "#e4803a", "#b0305c")
"""From NONE to SEVERE, in falling lightness but for the first, which is the only bluish one."""

# The plot of a curve: its lower edge and its height.
_BOTTOM, _HEIGHT = 198, 150


@dataclass(frozen=True)
class Curve:
    """A quantity by round.

    Attributes:
        quantity: what is shown.
        points: (round, value) in rising order of rounds; None leaves a gap.
        limits: lower and upper end of the axis.
    """

    quantity: str
    points: Sequence[tuple[int, float | None]]
    limits: tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """A value in [0, 1] with its interval; None where it was not computed."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


def confusion_matrix_svg(confusion: Sequence[Sequence[int]], labels: Sequence[str], figure_id: str) -> Markup:
    """A heat map of cases, rows truth, columns prediction; each cell has its count and its share of the row.

    Args:
        confusion: square, as long as ``labels``.
        labels: of the classes.
        figure_id: unique on the page, letters, digits and hyphens.

    Raises:
        ValueError: if ``confusion`` is not square, or not as long as ``labels``.
    """
    k = len(labels)
    if len(confusion) != k or any(len(row) != k for row in confusion):
        raise ValueError(f"confusion must be {k} x {k}, one row and column for each of {list(labels)}")
    width, height, left, top = 96, 56, 138, 52
    parts = [label(left + k * width / 2, 14, "graded by the model as", bold=True)]
    for j, text in enumerate(labels):
        parts.append(label(left + (j + 0.5) * width, 40, text))
    for i, (text, row) in enumerate(zip(labels, confusion, strict=True)):
        total = sum(row)
        middle = top + (i + 0.5) * height
        parts.append(label(left - 10, middle - 2, f"truly {text}", anchor="end"))
        parts.append(label(left - 10, middle + 14, f"{total} cases", anchor="end", faint=True))
        for j, count in enumerate(row):
            parts.append(_cell((left + j * width, top + i * height), (width, height), count, total, i == j))
    return figure(
        (left + k * width + 4, top + k * height + 4),
        "Confusion matrix",
        "Rows are the true grade, columns the predicted one. "
        + " ".join(f"Truly {n}: {_listed(labels, row)}." for n, row in zip(labels, confusion, strict=True)),
        parts,
        figure_id,
    )


def _cell(corner: tuple[float, float], size: tuple[float, float], count: int, total: int, on_diagonal: bool) -> str:
    (x, y), (width, height) = corner, size
    share = count / total if total else 0.0
    # At 0.85 the page's own text colour keeps a contrast of 5:1 against the blue, light or dark.
    opacity = 0.85 * share
    edge = (
        ' stroke="currentColor" stroke-width="1.5"' if on_diagonal else ' stroke="currentColor" stroke-opacity="0.15"'
    )
    percent = f"{100 * share:.0f} %" if total else "no case"
    return (
        f'<rect x="{x + 1}" y="{y + 1}" width="{width - 2}" height="{height - 2}" rx="3" fill="{ACCENT}"'
        f' fill-opacity="{opacity:.3f}"{edge}/>'
        + label(x + width / 2, y + height / 2 - 2, str(count), size=17, bold=True)
        + label(x + width / 2, y + height / 2 + 16, percent, size=11)
    )


def class_mix_svg(rows: Sequence[tuple[str, Sequence[int]]], labels: Sequence[str], figure_id: str) -> Markup:
    """One stacked bar a row: how many cases of each grade.

    Args:
        rows: (name, cases of each class).
        labels: of the classes, at most four.
        figure_id: unique on the page.
    """
    left, width, step = name_width([name for name, _ in rows]), 470, 30
    parts = []
    for position, text in enumerate(labels):
        swatch = left + position * 112
        parts.append(f'<rect x="{swatch}" y="3" width="12" height="12" rx="2" fill="{GRADE_COLOURS[position]}"/>')
        parts.append(label(swatch + 18, 14, text, anchor="start"))
    for index, (name, counts) in enumerate(rows):
        x, y, total = float(left), 26 + index * step, sum(counts)
        parts.append(label(left - 10, y + 15, short(name, 30), anchor="end"))
        for position, count in enumerate(counts):
            part = width * count / total if total else 0.0
            if part > 0:
                parts.append(_segment((x, y, part), str(count), position))
            x += part
        parts.append(label(left + width + 8, y + 15, f"n = {total}", anchor="start", faint=True))
    described = " ".join(f"{name}: {_listed(labels, counts)}." for name, counts in rows)
    return figure((left + width + 80, 30 + len(rows) * step), "Mix of grades", described, parts, figure_id)


def _segment(place: tuple[float, float, float], text: str, position: int) -> str:
    x, y, width = place
    ink = "#ffffff" if position == 3 else "#1a1a1a"
    inside = label(x + width / 2, y + 15, text, size=12, ink=ink) if width > 9 * len(text) + 4 else ""
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{max(width - 1, 0.5):.1f}" height="22" fill="{GRADE_COLOURS[position]}"/>'
        + inside
    )


def site_bars_svg(
    bars: Sequence[Bar], quantity: str, figure_id: str, reference: tuple[str, float] | None = None
) -> Markup:
    """Horizontal bars from 0 to 1 with their intervals.

    Args:
        bars: one a site.
        quantity: what is shown, for the axis and the description.
        figure_id: unique on the page.
        reference: name and value of a dashed line to compare with.
    """
    left, width, step = name_width([bar.name for bar in bars]), 310, 32
    bottom = 20 + len(bars) * step
    parts = [tick_line(left + width * t, 16, bottom, f"{t:.2f}") for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    for index, bar in enumerate(bars):
        parts.append(_bar(bar, (left, 22 + index * step), width))
    if reference is not None:
        x = left + width * _clip(reference[1])
        parts.append(
            f'<line x1="{x:.1f}" y1="12" x2="{x:.1f}" y2="{bottom}" stroke="currentColor" stroke-width="1.5"'
            ' stroke-dasharray="5 3"/>'
        )
        parts.append(label(x + 4, 10, f"{reference[0]} {reference[1]:.3f}", anchor="start", size=11))
    parts.append(label(left + width / 2, bottom + 34, quantity, faint=True))
    described = " ".join(f"{b.name}: {'not computed' if b.value is None else f'{b.value:.3f}'}." for b in bars)
    return figure((left + width + 80, bottom + 42), f"{quantity} by site", described, parts, figure_id)


def _bar(bar: Bar, corner: tuple[float, float], width: float) -> str:
    x, y = corner
    name = label(x - 10, y + 15, short(bar.name, 30), anchor="end")
    if bar.value is None:
        return name + label(x + 6, y + 15, "not computed", anchor="start", faint=True)
    length = width * _clip(bar.value)
    drawn = f'<rect x="{x}" y="{y}" width="{length:.1f}" height="20" fill="{ACCENT}" fill-opacity="0.85"/>'
    end = length
    if bar.low is not None and bar.high is not None:
        low, high = x + width * _clip(bar.low), x + width * _clip(bar.high)
        end = max(end, high - x)
        drawn += (
            f'<path d="M{low:.1f} {y + 10}H{high:.1f}M{low:.1f} {y + 5}v10M{high:.1f} {y + 5}v10" fill="none"'
            ' stroke="currentColor" stroke-width="1.5"/>'
        )
    return name + drawn + label(x + end + 6, y + 15, f"{bar.value:.3f}", anchor="start")


def curve_svg(curve: Curve, figure_id: str, kept_round: int | None = None) -> Markup:
    """A line over the rounds.

    Args:
        curve: at least one round.
        figure_id: unique on the page.
        kept_round: marked by a dashed line, if it is one of the rounds.
    """
    rounds = [number for number, _ in curve.points]
    low, high = curve.limits
    parts = [label(262, 12, curve.quantity, bold=True), label(287, 232, "round", faint=True)]
    for share in (0.0, 0.5, 1.0):
        y = _BOTTOM - _HEIGHT * share
        parts.append(f'<line x1="48" y1="{y}" x2="516" y2="{y}" stroke="currentColor" stroke-opacity="0.2"/>')
        parts.append(label(42, y + 4, f"{low + share * (high - low):.3g}", anchor="end", size=11, faint=True))
    for number in _round_ticks(rounds):
        parts.append(label(_round_x(number, rounds), _BOTTOM + 16, str(number), size=11, faint=True))
    if kept_round in rounds:
        x = _round_x(kept_round, rounds)
        parts.append(
            f'<line x1="{x:.1f}" y1="38" x2="{x:.1f}" y2="{_BOTTOM}" stroke="currentColor" stroke-dasharray="5 3"/>'
        )
        # Kept inside the frame where the kept round is the first or the last.
        parts.append(label(min(max(x, 62), 494), 33, "model kept", size=11))
    described = " ".join(f"Round {number}: {_known(value)}." for number, value in curve.points)
    parts.append(_line(curve))
    return figure((530, 240), f"{curve.quantity} by round", described, parts, figure_id)


def _line(curve: Curve) -> str:
    rounds = [number for number, _ in curve.points]
    low, high = curve.limits
    path, dots, pen_down = "", "", False
    for number, value in curve.points:
        if value is None:
            pen_down = False
            continue
        x, y = _round_x(number, rounds), _BOTTOM - _HEIGHT * _clip((value - low) / (high - low))
        path += f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}"
        dots += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{ACCENT}"/>'
        pen_down = True
    if not path:
        return label(282, _BOTTOM - _HEIGHT / 2 - 8, "not computed", faint=True)
    return f'<path d="{path}" fill="none" stroke="{ACCENT}" stroke-width="2"/>{dots}'


def _round_x(number: int, rounds: Sequence[int]) -> float:
    span = rounds[-1] - rounds[0]
    return 58 + 448 * ((number - rounds[0]) / span if span else 0.5)


def _round_ticks(rounds: Sequence[int]) -> list[int]:
    step = max(1, -(-len(rounds) // 12))
    return list(rounds[::step])


def round_up(value: float) -> float:
    """The next round number that is not below ``value``."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return next(power * lead for lead in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 20) if power * lead >= value)


def _listed(labels: Sequence[str], counts: Sequence[int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in zip(labels, counts, strict=True))


def _known(value: float | None) -> str:
    return "not computed" if value is None else f"{value:.3f}"


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)
