"""What a run leaves behind: the result, the ledger of its rounds and the model file. No FLARE."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mhsev_flare.protocol import LEDGER_FILE, MODEL_FILE, RESULT_FILE, RESULT_SCHEMA
from mhsev_monai.metrics import SeverityTable, majority_table, severity_metrics
from mhsev_monai.severity import GradingScale


def evaluation_entry(table: SeverityTable) -> dict[str, Any]:
    """A table and the metrics that follow from it, as they stand in result.json."""
    return {"table": table.to_json(), "metrics": severity_metrics(table).to_json()}


def pool_tables(tables: Mapping[str, SeverityTable]) -> SeverityTable:
    """The sum of the sites' tables, which is the table of all their cases together."""
    pooled = SeverityTable.empty()
    for site in sorted(tables):
        pooled = pooled + tables[site]
    return pooled


def test_results(tables: Mapping[str, SeverityTable], scale: GradingScale) -> dict[str, Any]:
    """Pooled and per-site evaluation on the test cases, with the majority-class row beside it."""
    pooled = pool_tables(tables)
    return {
        "pooled": evaluation_entry(pooled),
        "sites": {site: evaluation_entry(tables[site]) for site in sorted(tables)},
        "majority": evaluation_entry(majority_table(pooled, scale)),
    }


def compare_with_site_models(pooled: SeverityTable, site_models: Mapping[str, SeverityTable]) -> dict[str, Any]:
    """The global model beside the models that each site would have alone, all on all sites' test cases.

    Args:
        pooled: the global model's table.
        site_models: owner of a local model to that model's table, pooled over all sites' test cases.
    """
    balanced = {site: severity_metrics(table).balanced_accuracy for site, table in site_models.items()}
    known = [value for value in balanced.values() if value is not None]
    mean = float(np.mean(known)) if known else None
    own = severity_metrics(pooled).balanced_accuracy
    return {
        "global_balanced_accuracy": own,
        "site_models": {site: evaluation_entry(site_models[site]) for site in sorted(site_models)},
        "site_models_mean_balanced_accuracy": mean,
        "global_beats_site_models": None if own is None or mean is None else bool(own > mean),
    }


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``result.json``, whole or not at all; numbers that are not finite are refused by ``json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULT_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"schema": RESULT_SCHEMA, **result}, indent=1, allow_nan=False) + "\n")
    temporary.replace(path)
    return path


def write_ledger(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write one JSON line a round, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LEDGER_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    temporary.replace(path)
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    """Result, ledger and model path of a finished run.

    Args:
        folder: the run's ``mhsev`` folder, or any folder above it.

    Raises:
        FileNotFoundError: if there is no result.json, or several runs lie under ``folder``.
        ValueError: if it is not the result of a run.
    """
    own = folder / RESULT_FILE
    found = [own] if own.is_file() else sorted(folder.rglob(RESULT_FILE)) if folder.is_dir() else []
    if not found:
        raise FileNotFoundError(f"no {RESULT_FILE} in or under this folder; run the job first, or name another folder")
    if len(found) > 1:
        runs = ", ".join(str(path.parent.relative_to(folder)) for path in found)
        raise FileNotFoundError(f"{len(found)} runs lie under this folder; name one of them: {runs}")
    result = json.loads(found[0].read_text())
    if not isinstance(result, dict) or result.get("schema") != RESULT_SCHEMA:
        raise ValueError(f"{RESULT_FILE} there is not a result of this version ({RESULT_SCHEMA}); run the job again")
    ledger_path = found[0].with_name(LEDGER_FILE)
    lines = ledger_path.read_text().splitlines() if ledger_path.is_file() else []
    return result, [json.loads(line) for line in lines], found[0].with_name(MODEL_FILE)
