"""The words of the README and the guides: their code runs, their commands exist, nothing was left to be filled in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = sorted({README, *(ROOT / "docs").rglob("*.md")})

pytestmark = pytest.mark.skipif(not README.is_file(), reason="needs the checkout, not the wheel alone")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@each_page
def test_the_code_runs(page):
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), {})


def test_there_is_code_to_run():
    assert blocks(README, "python")
    assert blocks(ROOT / "docs" / "dsd.md", "python")


@each_page
def test_the_commands_exist(page):
    """Each ``mhsev`` line is a call that the command line understands."""
    from mhsev_flare.cli import _parser

    lines = [line.split("#")[0].split() for block in blocks(page, "") for line in block.splitlines()]
    calls = [words[1:] for words in lines if words[:1] == ["mhsev"]]
    assert page != README or len(calls) >= 4
    for call in calls:
        _parser().parse_args(call)


@each_page
def test_nothing_was_left_to_be_filled_in(page):
    assert re.findall(r"\b[A-Z]+_(?:TABLE|OUTPUT|MINUTES|MIX)\b|TODO|TBD", page.read_text()) == []


@each_page
def test_every_link_to_a_file_leads_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert targets or page != README
    assert [t for t in targets if not (page.parent / t).exists()] == []
