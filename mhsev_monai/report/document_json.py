"""A report as JSON: numbers unrounded, tables by name, figures by what they show; its form: ``report.schema.json``."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any
from xml.etree import ElementTree

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
    Interval,
    Named,
    Number,
    Panel,
    Paragraph,
    Picture,
    Table,
    Tiles,
)

REPORT_SCHEMA = "mhsev-report/1"


def render_json(document: Document) -> str:
    """The document as JSON text; equal documents give equal text."""
    return json.dumps(document_json(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what ``render_json`` writes."""
    schema: dict[str, Any] = json.loads((files("mhsev_monai.report") / "report.schema.json").read_text("utf-8"))
    return schema


def document_json(document: Document) -> dict[str, Any]:
    """Plain values under the names of the schema."""
    return {
        "schema": REPORT_SCHEMA,
        "kind": document.kind,
        "title": document.title,
        "subtitle": document.subtitle,
        "warnings": [" ".join(filter(None, parts)) for parts in document.warnings],
        "opening": _blocks(document.opening),
        "sections": [
            {"id": section.id, "title": section.title, "blocks": _blocks(section.blocks)}
            for section in document.sections
        ],
        "footer": document.footer,
    }


def svg_words(svg: str) -> tuple[str, str]:
    """Title and description of a figure."""
    root = ElementTree.fromstring(svg)
    return tuple(" ".join((root.findtext(name) or "").split()) for name in ("title", "desc"))  # type: ignore[return-value]


def _blocks(blocks: Any) -> list[dict[str, Any]]:
    return [part for block in blocks for part in _block(block)]


def _block(block: Block) -> list[dict[str, Any]]:
    if isinstance(block, Beside):
        return [part for group in block.groups for part in _blocks(group)]
    if isinstance(block, Panel):
        return [{"kind": "panel", "id": block.id, "title": block.title, "blocks": _blocks(block.blocks)}]
    if isinstance(block, Card):
        shown = [] if block.picture is None else [block.picture]
        inner = _blocks([*shown, *block.blocks])
        return [{"kind": "card", "title": block.title, "note": block.note, "blocks": inner}]
    return [{"kind": block.kind, **_leaf(block)}]


def _leaf(block: Block) -> dict[str, Any]:
    if isinstance(block, Heading):
        return {"text": block.text}
    if isinstance(block, Paragraph):
        return {"text": " ".join(filter(None, (block.lead, block.text)))}
    if isinstance(block, Bullets):
        return {"items": list(block.items)}
    if isinstance(block, Facts):
        return {"items": {name: _plain(value) for name, value in block.items.items()}}
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Drawing):
        title, words = ("", "") if block.svg is None else svg_words(block.svg)
        return {"id": block.id, "title": title, "description": words, "caption": block.caption}
    if isinstance(block, Picture):
        return {"description": block.alt, "caption": block.caption}
    assert isinstance(block, Tiles)
    tiles = [{"name": tile.name, "value": _cell(tile.big), "lines": list(tile.lines)} for tile in block.tiles]
    return {"tiles": tiles}


def _table(table: Table) -> dict[str, Any]:
    return {
        "id": table.id,
        "caption": table.caption,
        "columns": [{"title": column.title, "note": column.note} for column in table.columns],
        "rows": [[_cell(cell) for cell in row] for row in table.rows],
    }


def _cell(cell: Cell) -> Any:
    if isinstance(cell, Named):
        return cell.name
    if isinstance(cell, Interval):
        return {"low": cell.low, "high": cell.high} if cell.known else None
    if isinstance(cell, Number):
        if not cell.known:
            return {"value": None, "missing": cell.missing}
        ends = {"low": cell.low, "high": cell.high} if cell.has_interval else {}
        return {"value": cell.value, **ends}
    return cell


def _plain(value: object) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
