"""The pieces that the report's figures are put together from: frame, text, tick line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

# Characters that XML does not know, even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(value: object) -> str:
    """``value`` as text that may stand in XML: markup escaped, characters that XML does not know dropped."""
    return str(escape(_NOT_XML.sub("", str(value))))


def figure(size: tuple[float, float], title: str, description: str, parts: Sequence[str], figure_id: str) -> Markup:
    """An ``<svg>`` of the ``parts``, named for screen readers; ``parts`` are markup, the texts are escaped here."""
    width, height = size
    return Markup(
        f'<svg class="figure" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img"'
        f' aria-labelledby="{xml_text(figure_id)}-t {xml_text(figure_id)}-d">'
        f'<title id="{xml_text(figure_id)}-t">{xml_text(title)}</title>'
        f'<desc id="{xml_text(figure_id)}-d">{xml_text(description)}</desc>{"".join(parts)}</svg>'
    )


def label(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "middle",
    size: int = 13,
    bold: bool = False,
    faint: bool = False,
    turned: bool = False,
    ink: str = "currentColor",
) -> str:
    """A line of text; ``faint`` for what can be missed, ``turned`` to read upwards."""
    extra = ' font-weight="600"' if bold else ""
    extra += ' fill-opacity="0.75"' if faint else ""
    extra += f' transform="rotate(-90 {x:g} {y:g})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{ink}"{extra}>'
        f"{xml_text(text)}</text>"
    )


def tick_line(x: float, top: float, bottom: float, text: str) -> str:
    """A faint upright line with its number below."""
    line = f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="currentColor" stroke-opacity="0.2"/>'
    return line + label(x, bottom + 15, text, size=11, faint=True)


def name_width(names: Sequence[str]) -> int:
    """Room at the left for names of up to 30 characters."""
    return 26 + 7 * min(30, max(map(len, names), default=0))


def short(text: str, length: int) -> str:
    """The text, cut to so many characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
