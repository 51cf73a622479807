"""As a module of the router Mercure: one folder in, result files side by side in another."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mhsev_monai.pacs.run import RunSettings, SeriesOutcome, run_folder


def run_module(
    source: Path, out: Path, model: Path, settings: RunSettings, report: Callable[[SeriesOutcome], None]
) -> list[SeriesOutcome]:
    """Grade a folder, and put the results into another as Mercure sends them on: no folders, each file by one rename.

    Args:
        source: what ``MERCURE_IN_DIR`` names.
        out: what ``MERCURE_OUT_DIR`` names; there, and usually a mounted folder.
        model: model file.
        settings: of the site.
        report: called with each outcome.

    Raises:
        ScanError, ModelFileError, OSError: see ``run_folder``.
    """
    hidden = Path(tempfile.mkdtemp(prefix=f".mhsev-{os.getpid()}-", dir=out))
    try:
        outcomes = run_folder(source, hidden, model, settings, report)
        for outcome in outcomes:
            for name in outcome.results:
                (hidden / name).replace(out / name.replace("/", "-"))
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return outcomes
