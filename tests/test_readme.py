"""The README's own words: its code runs, its commands exist, and nothing was left to be filled in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="needs the checkout, not the wheel alone")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_code_runs():
    found = blocks("python")
    assert found
    for code in found:
        exec(compile(code, "README.md", "exec"), {})


def test_the_commands_exist():
    """Each ``mhsev`` line is a call that the command line understands."""
    from mhsev_flare.cli import _parser

    lines = [line.split("#")[0].split() for block in blocks("") for line in block.splitlines()]
    calls = [words[1:] for words in lines if words[:1] == ["mhsev"]]
    assert len(calls) >= 4
    for call in calls:
        _parser().parse_args(call)


def test_nothing_was_left_to_be_filled_in():
    assert re.findall(r"\b[A-Z]+_(?:TABLE|OUTPUT|MINUTES|MIX)\b|TODO|TBD", README.read_text()) == []


def test_every_link_to_a_file_leads_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text())
    assert targets
    assert [t for t in targets if not (README.parent / t).exists()] == []
