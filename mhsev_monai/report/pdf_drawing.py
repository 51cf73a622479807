"""The report's own SVG as a drawing of reportlab: the elements and attributes that the figures here use, and no others.

Colours are those of paper: ``currentColor`` is black. An element or attribute value that is not known raises, so that a
figure is never silently without a part.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element, fromstring

from reportlab.graphics.shapes import Circle, Drawing, Group, Line, Path, Rect, String
from reportlab.lib.colors import Color, HexColor, black, white

_FONTS = {False: "Helvetica", True: "Helvetica-Bold"}
_ANCHORS = {"start": "start", "middle": "middle", "end": "end"}
POINTS_A_PIXEL = 0.64
"""The figures' letters of 13 pixels become those of the text."""
_STEP = re.compile(r"([MLHVhv])\s*([-\d.]*)(?:[\s,]+([-\d.]+))?")


def svg_drawing(svg: str, width: float) -> Drawing:
    """The figure, no wider than ``width`` points and no larger than it is.

    Raises:
        ValueError: if the figure has an element that this file does not draw.
    """
    root = fromstring(svg)
    _, _, own_width, own_height = (float(number) for number in root.get("viewBox", "").split())
    scale = min(POINTS_A_PIXEL, width / own_width)
    drawing = Drawing(own_width * scale, own_height * scale)
    group = Group(transform=(scale, 0, 0, -scale, 0, own_height * scale))
    for element in root:
        shape = _shape(element)
        if shape is not None:
            group.add(shape)
    drawing.add(group)
    return drawing


def _shape(element: Element) -> Any:
    if element.tag in ("title", "desc"):
        return None
    makers = {"rect": _rect, "line": _line, "circle": _circle, "path": _path, "text": _text}
    if element.tag not in makers:
        raise ValueError(f"a figure for a PDF is of {', '.join(makers)}, got {element.tag}")
    return makers[element.tag](element)


def _number(element: Element, name: str, default: float = 0.0) -> float:
    return float(element.get(name, default))


def _style(element: Element, filled: str) -> dict[str, Any]:
    dashes = element.get("stroke-dasharray")
    return {
        "fillColor": _colour(element.get("fill", filled), element.get("fill-opacity")),
        "strokeColor": _colour(element.get("stroke", "none"), element.get("stroke-opacity")),
        "strokeWidth": _number(element, "stroke-width", 1.0),
        "strokeDashArray": [float(part) for part in dashes.split()] if dashes else None,
    }


def _colour(name: str, opacity: str | None) -> Color | None:
    """A colour mixed with the white of the paper, since some viewers print no transparency."""
    if name == "none":
        return None
    pure = black if name == "currentColor" else HexColor(name)
    share = 1.0 if opacity is None else float(opacity)
    return Color(*(share * own + (1 - share) * paper for own, paper in zip(pure.rgb(), white.rgb(), strict=True)))


def _rect(element: Element) -> Rect:
    x, y, width, height = (_number(element, name) for name in ("x", "y", "width", "height"))
    return Rect(x, y, width, height, rx=_number(element, "rx"), ry=_number(element, "rx"), **_style(element, "black"))


def _line(element: Element) -> Line:
    ends = (_number(element, name) for name in ("x1", "y1", "x2", "y2"))
    style = _style(element, "none")
    del style["fillColor"]
    return Line(*ends, **style)


def _circle(element: Element) -> Circle:
    return Circle(*(_number(element, name) for name in ("cx", "cy", "r")), **_style(element, "currentColor"))


def _path(element: Element) -> Path:
    path = Path(**_style(element, "currentColor"))
    x = y = 0.0
    for letter, first, second in _STEP.findall(element.get("d", "")):
        value = float(first)
        if letter in "ML":
            x, y = value, float(second)
        elif letter in "Hh":
            x = value if letter == "H" else x + value
        else:
            y = value if letter == "V" else y + value
        (path.moveTo if letter == "M" else path.lineTo)(x, y)
    return path


def _text(element: Element) -> Group:
    """Text stands upright: the group around it has its axis upside down."""
    x, y = _number(element, "x"), _number(element, "y")
    turned = "rotate(-90" in element.get("transform", "")
    text = String(
        0,
        0,
        latin("".join(element.itertext())),
        textAnchor=_ANCHORS[element.get("text-anchor", "start")],
        fontName=_FONTS[element.get("font-weight") == "600"],
        fontSize=_number(element, "font-size", 13.0),
        fillColor=_colour(element.get("fill", "currentColor"), element.get("fill-opacity")),
    )
    place = (0, -1, -1, 0, x, y) if turned else (1, 0, 0, -1, x, y)
    return Group(text, transform=place)


def latin(text: str) -> str:
    """Text for the fonts that every PDF viewer has; what they lack becomes a question mark."""
    return text.encode("cp1252", "replace").decode("cp1252")
