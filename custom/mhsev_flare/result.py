"""What a run leaves behind: the result, the ledger of its rounds and the model file. No FLARE."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mhsev_flare.protocol import LEDGER_FILE, MODEL_FILE, RESULT_FILE, RESULT_SCHEMA
from mhsev_monai.agreement_tests import worst_site
from mhsev_monai.intervals import metric_intervals, uncertainty_entry
from mhsev_monai.metrics import SeverityTable, majority_table, severity_metrics
from mhsev_monai.pair_table import N_DRAWS, PairTable, compare, comparisons_json
from mhsev_monai.roc_areas import area_entry
from mhsev_monai.severity import GradingScale
from mhsev_monai.uncertainty import UncertaintySums

WORST_BY = ("accuracy", "balanced_accuracy", "quadratic_kappa")
"""Metrics by which the worst site is named."""


class StudyStoppedError(RuntimeError):
    """The run cannot go on; the message is for the result file and holds nothing private."""


class NoAnswerError(StudyStoppedError):
    """No site answered a task with what could be used."""


def begun_result(versions: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the result says until the run has ended: that it failed.

    Args:
        versions: of what the server runs.
        settings: ``job``, ``seed``, ``scale``, ``num_rounds``, ``weighting`` and ``rule``, and what else there is.
    """
    begun = {"status": "failed", "reason": "the run ended before its end", "job": settings["job"]}
    return {**begun, "versions": dict(versions), **settings}


def failure_reason(error: Exception) -> str:
    """Why a run failed, for the result: the text of an unforeseen exception may hold anything."""
    if isinstance(error, (StudyStoppedError, ValueError)):
        return str(error)
    return f"the server failed unexpectedly with {type(error).__name__}; see its log"


def evaluation_entry(table: SeverityTable) -> dict[str, Any]:
    """A table and the metrics that follow from it, as they stand in result.json."""
    return {"table": table.to_json(), "metrics": severity_metrics(table).to_json()}


def pool_tables(tables: Mapping[str, SeverityTable]) -> SeverityTable:
    """The sum of the sites' tables, which is the table of all their cases together."""
    pooled = SeverityTable.empty()
    for site in sorted(tables):
        pooled = pooled + tables[site]
    return pooled


def entry_with_intervals(
    tables: Mapping[str, SeverityTable], seed: int, sums: Mapping[str, UncertaintySums] | None = None
) -> dict[str, Any]:
    """The pooled ``tables`` with metrics, their intervals, drawn within each site, and DeLong's of the AUCs.

    Args:
        tables: by site.
        seed: of the draws.
        sums: of the same cases by site; where one is missing, means over cases have no interval.
    """
    sites, known = sorted(tables), sums or {}
    intervals = metric_intervals([tables[s] for s in sites], seed, [known.get(s) for s in sites])
    pooled = pool_tables(tables)
    return {**evaluation_entry(pooled), "intervals": intervals, "delong": area_entry(pooled)}


def test_results(
    tables: Mapping[str, SeverityTable], scale: GradingScale, seed: int, sums: Mapping[str, UncertaintySums]
) -> dict[str, Any]:
    """Pooled and per-site evaluation on the test cases, the majority-class row beside it, and the worst site.

    Args:
        tables: by site.
        scale: that graded the truth.
        seed: of the intervals.
        sums: of the same cases, of the sites that told them.
    """
    return {
        "pooled": entry_with_intervals(tables, seed, sums),
        "sites": {site: entry_with_intervals({site: tables[site]}, seed, sums) for site in sorted(tables)},
        "majority": entry_with_intervals({"all": majority_table(pool_tables(tables), scale)}, seed),
        "worst_site": {metric: _worst(tables, metric) for metric in WORST_BY},
    }


def _worst(tables: Mapping[str, SeverityTable], metric: str) -> dict[str, Any] | None:
    try:
        return worst_site(tables, metric)._asdict()
    except ValueError:  # not defined at any site
        return None


def uncertainty_results(
    sums: Mapping[str, UncertaintySums], without: Mapping[str, str], seed: int
) -> dict[str, Any] | None:
    """The ``uncertainty`` of ``result.json``; None where no site told any.

    Args:
        sums: of the sites that told them.
        without: why the others did not.
        seed: of the intervals.
    """
    if not sums:
        return None
    own = {site: uncertainty_entry({site: one}, seed) for site, one in sums.items()}
    return {"pooled": uncertainty_entry(sums, seed), "sites": dict(sorted({**own, **without}.items()))}


def paired_results(tables: Mapping[str, SeverityTable], pairs: Mapping[str, PairTable], seed: int) -> dict[str, Any]:
    """The ``paired`` of ``result.json``: the global model beside each site's own, and beside the most frequent grade.

    Args:
        tables: of the global model by site.
        pairs: of the global and the site's own model, of the sites that told them.
        seed: of the draws.
    """
    frequent = int(pool_tables(tables).confusion.sum(axis=1).argmax())
    beside = {"own model": pairs, "majority": {s: PairTable.with_constant(t, frequent) for s, t in tables.items()}}
    comparisons = []
    for name, own in beside.items():
        known = {site: [own[site]] for site in sorted(own) if own[site].n > 0}
        everywhere = {"all sites": [one for each in known.values() for one in each]} if len(known) > 1 else {}
        for cases, of_cases in {**everywhere, **known}.items():
            comparisons.append(compare((cases, "global", name), of_cases, seed))
    return {"n_draws": N_DRAWS, "seed": seed, "comparisons": comparisons_json(comparisons)}


def compare_with_site_models(
    tables: Mapping[str, SeverityTable], matrix: Mapping[str, Mapping[str, SeverityTable]]
) -> dict[str, Any]:
    """The global model beside the models that each site would have alone, all on the same test cases.

    Those are of the sites, ``sites`` of the entry, that judged every one of the models: a site that missed a question
    would make one model answer for other patients than the next. What else was told stays in ``matrix``.

    Args:
        tables: the global model's, by site.
        matrix: owner of a local model, and site, to that model's table of that site's test cases.
    """
    common = sorted(set(tables).intersection(*matrix.values()))
    site_models = {owner: pool_tables({site: row[site] for site in common}) for owner, row in matrix.items()}
    balanced = {site: severity_metrics(table).balanced_accuracy for site, table in site_models.items()}
    known = [value for value in balanced.values() if value is not None]
    mean = float(np.mean(known)) if known else None
    own = severity_metrics(pool_tables({site: tables[site] for site in common})).balanced_accuracy
    return {
        "sites": common,
        "global_balanced_accuracy": own,
        "site_models": {site: evaluation_entry(site_models[site]) for site in sorted(site_models)},
        "site_models_mean_balanced_accuracy": mean,
        "global_beats_site_models": None if own is None or mean is None else bool(own > mean),
        "matrix": {
            owner: {site: evaluation_entry(tables[site]) for site in sorted(tables)}
            for owner, tables in sorted(matrix.items())
        },
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
