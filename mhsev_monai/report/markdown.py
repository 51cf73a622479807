"""A report as Markdown: its words and tables; of a figure, what it shows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mhsev_monai.report.document import (
    Beside,
    Block,
    Bullets,
    Card,
    Document,
    Drawing,
    Facts,
    Heading,
    Named,
    Panel,
    Paragraph,
    Picture,
    Table,
    Tiles,
    text_of,
)
from mhsev_monai.report.document_json import svg_words

# All that begins markup somewhere in CommonMark, HTML or a table; line breaks would end a cell or begin a block.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~!&])")


def render_markdown(document: Document) -> str:
    """The document as GitHub's Markdown; equal documents give equal text."""
    lines = [f"# {plain(document.title)}", "", plain(document.subtitle), ""]
    for strong, rest in document.warnings:
        lines += [f"> **{plain(strong)}** {plain(rest)}".rstrip(), ">"]
    lines[-1:] = [""]
    lines += _blocks(document.opening, 2)
    for section in document.sections:
        lines += [f"## {plain(section.title)}", "", *_blocks(section.blocks, 3)]
    lines += ["---", "", plain(document.footer), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def plain(text: object) -> str:
    """Text that stays text in Markdown."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def _blocks(blocks: Sequence[Block], level: int) -> list[str]:
    return [line for block in blocks for line in [*_block(block, level), ""]]


def _block(block: Block, level: int) -> list[str]:
    if isinstance(block, Heading):
        return [f"{'#' * level} {plain(block.text)}"]
    if isinstance(block, Paragraph):
        lead = f"**{plain(block.lead)}** " if block.lead else ""
        return [lead + plain(block.text)]
    if isinstance(block, Bullets):
        return [f"- {plain(item)}" for item in block.items]
    if isinstance(block, Facts):
        return [f"- {plain(name)}: {plain(text_of(value))}" for name, value in _facts(block)]
    if isinstance(block, Tiles):
        return [
            f"- **{plain(tile.name)}**: {'; '.join(plain(part) for part in (text_of(tile.big), *tile.lines))}"
            for tile in block.tiles
        ]
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Drawing):
        return _drawing(block)
    if isinstance(block, Picture):
        return [f"*Picture: {plain(block.alt)}* {plain(block.caption)}".rstrip()]
    return _holder(block, level)


def _holder(block: Panel | Card | Beside, level: int) -> list[str]:
    if isinstance(block, Beside):
        return [line for group in block.groups for line in _blocks(group, level)]
    if isinstance(block, Panel):
        return [f"{'#' * level} {plain(block.title)}", "", *_blocks(block.blocks, level + 1)]
    note = f" ({plain(block.note)})" if block.note else ""
    shown = [] if block.picture is None else _blocks([block.picture], level)
    return [f"**{plain(block.title)}**{note}", "", *shown, *_blocks(block.blocks, level + 1)]


def _facts(block: Facts) -> list[tuple[str, str | int | None]]:
    return [(name, str(value) if isinstance(value, float) else value) for name, value in block.items.items()]


def _drawing(block: Drawing) -> list[str]:
    if block.svg is None:
        return ["*not computed*"]
    title, words = svg_words(block.svg)
    return [f"*Figure: {plain(title)}. {plain(words)}* {plain(block.caption)}".rstrip()]


def _table(table: Table) -> list[str]:
    if not table.rows:
        return [f"{plain(table.caption)}: {plain(table.empty)}"]
    heads = [plain(f"{c.title} ({c.note})" if c.note else c.title) or " " for c in table.columns]
    rule = ["---" if index == 0 or column.is_text else "---:" for index, column in enumerate(table.columns)]
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return [plain(table.caption), "", *(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))]


def _cell(cell: object) -> str:
    text = plain(text_of(cell))  # type: ignore[arg-type]
    return f"**{text}**" if isinstance(cell, Named) and cell.strong else text
