"""How the templates of HTML pages are filled: everything escaped, nothing undefined passed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def template_environment(folder: Path, **filters: Callable[..., Any]) -> Environment:
    """An environment for the templates of a folder.

    Args:
        folder: holds the templates.
        filters: by their names in the templates.
    """
    # Autoescape by name would miss the ending `.jinja`.
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment
