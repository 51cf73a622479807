"""A report as one HTML page that loads nothing and runs nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from mhsev_monai.page_template import template_environment
from mhsev_monai.report.document import (
    NOT_COMPUTED,
    UNDEFINED,
    UNDETERMINED,
    Cell,
    Document,
    Interval,
    Named,
    Number,
    rounded,
)

_WHY = {
    NOT_COMPUTED: Markup('<span class="none">not computed</span>'),
    UNDEFINED: Markup('<span class="none" title="the cases do not define it">undefined</span>'),
    UNDETERMINED: Markup('<span class="none" title="the cases do not tell how sure it is">not determined</span>'),
}


def render_html(document: Document) -> str:
    """The page as text; equal documents give equal text."""
    environment = template_environment(Path(__file__).parent, cell=html_cell, score=html_score)
    environment.finalize = _unbroken
    return environment.get_template("page.html.jinja").render(document=document)


def _unbroken(value: Any) -> Any:
    """Text whose lines do not end between a number and its percent sign, or inside ``b = 0``."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"(?<=\d) %|(?<=\bb) = (?=\d)", lambda found: found[0].replace(" ", "\u00a0"), value)
    return Markup(text) if isinstance(value, Markup) else text


def html_cell(cell: Cell) -> Markup:
    """A cell of a table: numbers rounded for the eye and whole for machines."""
    if cell is None or cell == "":
        return _why(NOT_COMPUTED)
    if isinstance(cell, Interval):
        return _interval(cell) if cell.known else _why(cell.missing)
    if isinstance(cell, Number):
        own = html_score(cell)
        return own + Markup(" <small>{}</small>").format(html_cell(cell.ends())) if cell.tells_ends else own
    if isinstance(cell, Named):
        name = Markup("<strong>{}</strong>").format(cell.name) if cell.strong else escape(cell.name)
        return name + (Markup("<small>{}</small>").format(cell.note) if cell.note else Markup(""))
    return escape(cell)


def html_score(number: Number) -> Markup:
    """The number without its interval."""
    return _data(number.value, number.shown) if number.known else _why(number.missing)


def _interval(ends: Interval) -> Markup:
    low, high = (Markup("") if end is None else _data(end, rounded(end, ends.digits)) for end in (ends.low, ends.high))
    return Markup("{} to {}").format(low, high)


def _data(value: float | None, shown: str) -> Markup:
    return Markup('<data value="{}">{}</data>').format(repr(value), shown)


def _why(word: str) -> Markup:
    return _WHY.get(word) or Markup('<span class="none">{}</span>').format(word)
