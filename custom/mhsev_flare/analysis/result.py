"""The result files of analyses. No FLARE."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhsev_flare.analysis.protocol import (
    ASSOCIATIONS_FILE,
    ASSOCIATIONS_SCHEMA,
    EXPLANATION_FILE,
    EXPLANATION_SCHEMA,
)


def write_analysis(path: Path, schema: str, content: Mapping[str, Any]) -> Path:
    """Write a result, whole or not at all; numbers that are not finite are refused by ``json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"schema": schema, **content}, indent=1, allow_nan=False) + "\n")
    temporary.replace(path)
    return path


def read_associations(path: Path) -> dict[str, Any]:
    """``associations.json``, or that of a run in or under a folder; see :func:`_read` for what is raised."""
    return _read(path, ASSOCIATIONS_FILE, ASSOCIATIONS_SCHEMA)


def read_explanation(path: Path) -> dict[str, Any]:
    """``explanation.json``, or that of a run in or under a folder; see :func:`_read` for what is raised."""
    return _read(path, EXPLANATION_FILE, EXPLANATION_SCHEMA)


def _read(path: Path, name: str, schema: str) -> dict[str, Any]:
    """The content of a result file.

    Raises:
        FileNotFoundError: if there is none, or several lie under the folder.
        ValueError: if it is not a result of this version.
    """
    found = [path] if path.is_file() else sorted(path.rglob(name)) if path.is_dir() else []
    if len(found) != 1:
        raise FileNotFoundError(
            f"{len(found)} files {name} are in or under this folder; name one, or run the job first"
        )
    content = json.loads(found[0].read_text())
    if not isinstance(content, dict) or content.get("schema") != schema:
        raise ValueError(f"this file is not a result of this version ({schema}); run the job again")
    return content
