"""Whose model does how well on whose cases: a square of numbers, darker where higher."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mhsev_monai.report.svg import ACCENT
from mhsev_monai.report.svg_parts import figure, label, name_width, short

_WIDTH, _HEIGHT, _TOP = 104, 44, 56


def site_matrix_svg(
    models: Sequence[tuple[str, str | None]],
    sites: Sequence[str],
    values: Sequence[Sequence[float | None]],
    quantity: str,
    figure_id: str,
) -> Markup:
    """Rows are models, columns the sites of the cases.

    Args:
        models: name of each, and the site that trained it alone, if one did; its own cases are outlined.
        sites: of the cases.
        values: 0 to 1, a row a model; None where not known.
        quantity: what the numbers are.
        figure_id: unique on the page, letters, digits and hyphens.
    """
    left = name_width([name for name, _ in models])
    parts = [label(left + len(sites) * _WIDTH / 2, 16, "test cases of", bold=True)]
    for column, site in enumerate(sites):
        parts.append(label(left + (column + 0.5) * _WIDTH, 42, short(site, 14), size=12))
    told = []
    for row, ((name, owner), numbers) in enumerate(zip(models, values, strict=True)):
        y = _TOP + row * _HEIGHT
        parts.append(label(left - 10, y + _HEIGHT / 2 + 4, short(name, 30), anchor="end"))
        for column, (site, value) in enumerate(zip(sites, numbers, strict=True)):
            parts += _cell((left + column * _WIDTH, y), value, owner == site)
            told.append(f"{name} on {site}: {'not computed' if value is None else f'{value:.3f}'}.")
    size = (left + len(sites) * _WIDTH + 4, _TOP + len(models) * _HEIGHT + 4)
    return figure(size, f"{quantity}: rows are models, columns sites", " ".join(told), parts, figure_id)


def _cell(corner: tuple[float, float], value: float | None, is_own: bool) -> list[str]:
    x, y = corner
    # At 0.85 the page's own text colour keeps a contrast of 5:1 against the blue, light or dark.
    shade = 0.0 if value is None else 0.85 * min(max(value, 0.0), 1.0) ** 2
    edge = 'stroke-width="1.5"' if is_own else 'stroke-opacity="0.15"'
    return [
        f'<rect x="{x + 1}" y="{y + 1}" width="{_WIDTH - 2}" height="{_HEIGHT - 2}" rx="3" fill="{ACCENT}"'
        f' fill-opacity="{shade:.3f}" stroke="currentColor" {edge}/>',
        label(x + _WIDTH / 2, y + _HEIGHT / 2 + 5, "-" if value is None else f"{value:.3f}", size=14),
    ]
