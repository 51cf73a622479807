"""What a search has scored is kept, so that one that was stopped goes on. Files lie beside the benchmark's own.

They are found by the benchmark's hash, see ``mhsev_flare.benchmark.kept``, and hold two numbers a training.
"""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_NAMES = ("rps", "quadratic_kappa")


def read_scores(folder: Path, key: str) -> tuple[float, float] | None:
    """Ranked probability score and quadratic kappa, NaN where undefined; None where none are kept, or damaged."""
    try:
        stored = json.loads((folder / f"{key}.json").read_text())
        rps, kappa = (math.nan if stored[name] is None else float(stored[name]) for name in _NAMES)
    except FileNotFoundError:
        return None
    except (OSError, TypeError, KeyError, ValueError):
        logger.warning("a kept score of the search is damaged; it is computed again")
        return None
    return rps, kappa


def write_scores(folder: Path, key: str, scores: tuple[float, float]) -> None:
    """Keep the scores of one training; ``OSError`` where the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: None if math.isnan(score) else score for name, score in zip(_NAMES, scores, strict=True)}
    temporary = folder / f"{key}.{os.getpid()}.tmp"
    try:
        temporary.write_text(json.dumps(stored))
        temporary.replace(folder / f"{key}.json")
    finally:
        temporary.unlink(missing_ok=True)
