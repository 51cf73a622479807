"""Blocks of a report as reportlab lays them out."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image as Picture_
from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.platypus import CondPageBreak, Flowable, Image, KeepTogether, Spacer
from reportlab.platypus import Paragraph as Words
from reportlab.platypus import Table as Grid

from mhsev_monai.report.document import (
    Beside,
    Block,
    Bullets,
    Card,
    Cell,
    Document,
    Drawing,
    Facts,
    Heading,
    Named,
    Number,
    Panel,
    Paragraph,
    Picture,
    Table,
    Tiles,
    text_of,
)
from mhsev_monai.report.pdf_drawing import latin, svg_drawing

MOST_HEIGHT = 62 * mm
"""Of a picture, so that two cases without a list of findings fit a page."""

PADDING = 3.0
MOST_WORDS = 230.0
"""Points that a column of words asks for at most."""

INK, SOFT, LINE, WARN = HexColor("#17202a"), HexColor("#3f4c58"), HexColor("#c4cdd5"), HexColor("#fff4d6")


def _style(name: str, size: float, **more: Any) -> ParagraphStyle:
    return ParagraphStyle(name, fontName="Helvetica", fontSize=size, leading=size * 1.3, textColor=INK, **more)


BODY = _style("body", 9.2, spaceAfter=5)
SOFT_BODY = ParagraphStyle("soft", BODY, textColor=SOFT)
CAPTION = ParagraphStyle("caption", BODY, fontSize=8.2, leading=10.6, textColor=SOFT, spaceAfter=3, keepWithNext=1)
BELOW = ParagraphStyle("below", CAPTION, spaceAfter=8, keepWithNext=0)
CELL = _style("cell", 7.8)
RIGHT = ParagraphStyle("right", CELL, alignment=TA_RIGHT)
TITLE = ParagraphStyle("title", BODY, fontName="Helvetica-Bold", fontSize=17, leading=21, spaceAfter=2)
H2 = ParagraphStyle("h2", TITLE, fontSize=13, leading=16, spaceBefore=12, spaceAfter=5, keepWithNext=1)
H3 = ParagraphStyle("h3", TITLE, fontSize=10, leading=13, spaceBefore=7, spaceAfter=3, keepWithNext=1)


class Bookmark(Flowable):
    """An entry of the outline, of no size."""

    def __init__(self, key: str, title: str) -> None:
        super().__init__()
        self.key, self.title = key, title
        self.keepWithNext = 1

    def wrap(self, *_: float) -> tuple[float, float]:
        """No room is needed."""
        return 0.0, 0.0

    def draw(self) -> None:
        """Lay the mark down."""
        self.canv.bookmarkPage(self.key)
        self.canv.addOutlineEntry(self.title, self.key, 0)


def words(text: str, bold: bool = False) -> str:
    """Text as reportlab's paragraphs take it."""
    safe = escape(latin(text))
    return f"<b>{safe}</b>" if bold else safe


class PdfBlocks:
    """Lays out blocks in a column.

    Args:
        width: of the column in points.
    """

    def __init__(self, width: float) -> None:
        self.width = width

    def story(self, document: Document) -> list[Flowable]:
        """All of a document."""
        parts: list[Flowable] = [Words(words(document.title), TITLE), Words(words(document.subtitle), SOFT_BODY)]
        lines = [Words(" ".join((words(strong, True), words(rest))), BODY) for strong, rest in document.warnings]
        box = Grid([[line] for line in lines], colWidths=[self.width], style=[("BACKGROUND", (0, 0), (-1, -1), WARN)])
        parts += [box, Spacer(1, 8), *self.blocks(document.opening)]
        for section in document.sections:
            parts += [
                CondPageBreak(45 * mm),
                Bookmark(section.id, latin(section.title)),
                Words(words(section.title), H2),
            ]
            parts += self.blocks(section.blocks)
        return parts

    def blocks(self, blocks: Sequence[Block]) -> list[Flowable]:
        """Blocks below each other."""
        return [part for block in blocks for part in self._block(block)]

    def _block(self, block: Block) -> list[Flowable]:
        if isinstance(block, Beside):
            return [part for group in block.groups for part in self.blocks(group)]
        if isinstance(block, Panel):
            return [Words(words(block.title), H2), *self.blocks(block.blocks)]
        if isinstance(block, Card):
            return self._card(block)
        if isinstance(block, Heading):
            return [Words(words(block.text), H3)]
        if isinstance(block, Paragraph):
            parts = [words(block.lead, True) if block.lead else "", words(block.text)]
            return [Words(" ".join(filter(None, parts)), SOFT_BODY if block.style == "soft" else BODY)]
        return self._leaf(block)

    def _leaf(self, block: Block) -> list[Flowable]:
        if isinstance(block, Bullets):
            style = ParagraphStyle("item", BODY, leftIndent=12, bulletIndent=2)
            return [Words(words(item), style, bulletText="\u2022") for item in block.items]
        if isinstance(block, Facts):
            rows: list[list[Cell]] = [[name, _fact(value)] for name, value in block.items.items()]
            return self._grid(rows, [0.34, 0.66], [True, True]) if rows else [Words("not computed", SOFT_BODY)]
        if isinstance(block, Tiles):
            rows = [[tile.name, text_of(tile.big), "; ".join(tile.lines)] for tile in block.tiles]
            return self._grid(rows, [0.3, 0.2, 0.5], [True, True, True], strong=1)
        if isinstance(block, Drawing):
            return self._drawing(block)
        if isinstance(block, Picture):
            return self._picture(block)
        assert isinstance(block, Table)
        return self._table(block)

    def _card(self, block: Card) -> list[Flowable]:
        title = Words(f"{words(block.title, True)} {words(f'({block.note})' if block.note else '')}", BODY)
        shown = [] if block.picture is None else self._picture(block.picture)
        return [KeepTogether([title, *shown, *self.blocks(block.blocks), Spacer(1, 8)])]

    def _drawing(self, block: Drawing) -> list[Flowable]:
        if block.svg is None:
            return [Words("not computed", SOFT_BODY)]
        drawn = svg_drawing(str(block.svg), self.width)
        below = Words(words(block.caption), BELOW) if block.caption else Spacer(1, 5)
        return [_with_next(drawn), _with_next(Spacer(1, 3)), below]

    def _picture(self, block: Picture) -> list[Flowable]:
        data = base64.b64decode(block.png.partition(",")[2])
        with Picture_.open(io.BytesIO(data)) as opened:
            across, down = opened.size
        scale = min(self.width / across, MOST_HEIGHT / down)
        image = Image(io.BytesIO(data), across * scale, down * scale, hAlign="LEFT")
        below = Words(words(block.caption), BELOW) if block.caption else Spacer(1, 4)
        return [_with_next(image), _with_next(Spacer(1, 3)), below]

    def _table(self, table: Table) -> list[Flowable]:
        caption = Words(words(table.caption), CAPTION)
        if not table.rows:
            return [caption, Words(words(table.empty), SOFT_BODY)]
        are_text = [index == 0 or column.is_text for index, column in enumerate(table.columns)]
        heads: list[Any] = []
        for column, is_text in zip(table.columns, are_text, strict=True):
            note = f'<br/><font size="6.6" color="#3f4c58">{words(column.note)}</font>' if column.note else ""
            heads.append(Words(words(column.title, True) + note, CELL if is_text else RIGHT))
        return [caption, *self._grid(table.rows, self._shares(table, are_text), are_text, heads=heads)]

    def _shares(self, table: Table, are_text: Sequence[bool]) -> list[float]:
        """Widths in shares of the column: what the longest line of each needs; columns of words give way."""
        needs = []
        for index, column in enumerate(table.columns):
            lines = [line for row in table.rows for line in _lines(row[index])]
            own = max((_across(line) for line in lines), default=0.0)
            words_of_head = [_across(word, bold=True) for word in column.title.split()]
            notes = [_across(word) for word in column.note.split()]
            needs.append((min(own, MOST_WORDS) if are_text[index] else own, max([0.0, *words_of_head, *notes])))
        wanted = [max(own, head) + 2 * PADDING + 6 for own, head in needs]
        spare = self.width - sum(wanted)
        if spare < 0:
            soft = [index for index, is_text in enumerate(are_text) if is_text]
            room = sum(wanted[index] for index in soft)
            for index in soft:
                least = needs[index][1] + 2 * PADDING
                wanted[index] = max(wanted[index] + spare * wanted[index] / room, least, 40.0)
        total = max(sum(wanted), self.width)
        return [each / total for each in wanted]

    def _grid(
        self,
        rows: Sequence[Sequence[Cell]],
        shares: Sequence[float],
        are_text: Sequence[bool],
        heads: list[Any] | None = None,
        strong: int | None = None,
    ) -> list[Flowable]:
        body = [
            [
                _cell(cell, is_text, index == strong)
                for index, (cell, is_text) in enumerate(zip(row, are_text, strict=True))
            ]
            for row in rows
        ]
        style: list[Any] = [
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
            ("LEFTPADDING", (0, 0), (-1, -1), PADDING),
            ("RIGHTPADDING", (0, 0), (-1, -1), PADDING),
        ]
        if heads:
            style.append(("LINEBELOW", (0, 0), (-1, 0), 0.9, SOFT))
        grid = Grid(
            [heads, *body] if heads else body,
            colWidths=[share * self.width for share in shares],
            style=style,
            repeatRows=1 if heads else 0,
            hAlign="LEFT",
        )
        return [grid, Spacer(1, 8)]


def _with_next(part: Flowable) -> Flowable:
    """Leave a part on the page of the next one.

    A ``KeepTogether`` would not do: reportlab leaves a heading alone before one, and takes one in another for endlessly
    high, so that a card with a picture would always begin a page.
    """
    part.__dict__["keepWithNext"] = 1  # a drawing checks what is set on it, and does not know this
    return part


def _lines(cell: Cell) -> list[str]:
    """What stands below each other in a cell."""
    if isinstance(cell, Named):
        return [cell.name, *([cell.note] if cell.note else [])]
    if isinstance(cell, Number) and cell.tells_ends:
        return [cell.shown, text_of(cell.ends())]
    return [text_of(cell)]


def _across(text: str, bold: bool = False) -> float:
    """Points that a line needs."""
    return float(stringWidth(latin(text), "Helvetica-Bold" if bold else "Helvetica", CELL.fontSize))


def _cell(cell: Cell, is_text: bool, strong: bool = False) -> Words:
    bold = strong or (isinstance(cell, Named) and cell.strong)
    first, *rest = _lines(cell)
    below = "".join(f'<br/><font size="6.8" color="#3f4c58">{words(line)}</font>' for line in rest)
    return Words(words(first, bold) + below, CELL if is_text else RIGHT)


def _fact(value: str | int | float | None) -> Cell:
    return str(value) if isinstance(value, float) else value
