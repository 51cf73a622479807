"""The state of a study on the server's disk, from which a later job goes on after a crash. No FLARE.

One folder a round, written beside and then renamed, with a checksum: a crash in the middle of writing leaves the round
before. The two newest rounds are kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mhsev_flare.rounds import BestRound

STATE_FILE, ARRAYS_FILE = "state.json", "arrays.npz"
SCHEMA = "mhsev-checkpoint/1"
KEPT = 2

GLOBAL, BEST, AVERAGE = "global/", "best/", "average/"
"""Prefixes of array names; other prefixes are what an optimiser of the server needs."""


class CheckpointError(ValueError):
    """There is nothing to go on from; the message says why, and holds no path."""


@dataclass
class StudyState:
    """All that the server needs to go on with round ``next_round``.

    Attributes:
        configuration: digest of what must not change between the runs.
        job_id: of the run that wrote it.
        next_round: the first round that is not in the ledger.
        weights: the global model that is sent in it.
        ledger: rows of the rounds before.
        best: best model so far.
        left_out: rounds in which a site was left out, by site.
        extra: further arrays by name, such as control variates.
        average: exponential moving average of the models so far; empty where none is kept.
        earlier_jobs: ids of the runs that this one went on from, all of which end with it.
    """

    configuration: str
    job_id: str
    next_round: int
    weights: Mapping[str, np.ndarray]
    ledger: Sequence[Mapping[str, Any]]
    best: BestRound
    left_out: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    earlier_jobs: Sequence[str] = ()
    average: Mapping[str, np.ndarray] = field(default_factory=dict)


def save_checkpoint(folder: Path, state: StudyState) -> Path:
    """Write ``folder/round-NNNN``, whole or not at all, and drop all but the newest ``KEPT``."""
    arrays = {
        **{GLOBAL + key: value for key, value in state.weights.items()},
        **{BEST + key: value for key, value in state.best.weights.items()},
        **{AVERAGE + key: value for key, value in state.average.items()},
        **state.extra,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    stored = {
        "schema": SCHEMA,
        "configuration": state.configuration,
        "job_id": state.job_id,
        "next_round": state.next_round,
        "ledger": list(state.ledger),
        "best": {"round": state.best.round_number, "score": list(state.best.score)},
        "left_out": dict(state.left_out),
        "earlier_jobs": list(state.earlier_jobs),
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
    }
    target = folder / f"round-{state.next_round:04d}"
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    (temporary / ARRAYS_FILE).write_bytes(buffer.getvalue())
    (temporary / STATE_FILE).write_text(json.dumps(stored, allow_nan=False) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    for old in _rounds(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def find_checkpoint(study_folder: Path, configuration: str) -> StudyState:
    """The newest state under ``study_folder`` (one folder a job) that can be read.

    Args:
        study_folder: holds the folders that :func:`save_checkpoint` wrote to, one a job.
        configuration: that of the job that wants to go on.

    Raises:
        CheckpointError: if there is none, none can be read, or the newest is of another configuration.
    """
    folders = [path for path in study_folder.iterdir() if path.is_dir()] if study_folder.is_dir() else []
    found = sorted((r for folder in folders for r in _rounds(folder)), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise CheckpointError(
            "there is no unfinished run of this study to resume; send the job without resume to begin anew"
        )
    for path in reversed(found):
        state = _read(path)
        if state is None:
            continue
        if state.configuration != configuration:
            raise CheckpointError(
                "the unfinished run has another network, other inputs, settings or seed than this job; export the job "
                "with the settings of that run, or send it without resume to begin anew"
            )
        return state
    raise CheckpointError("no checkpoint of the unfinished run can be read; send the job without resume to begin anew")


def _rounds(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("round-*") if path.is_dir())


def _read(path: Path) -> StudyState | None:
    """The state in ``path``; None where it is damaged."""
    try:
        stored = json.loads((path / STATE_FILE).read_text())
        content = (path / ARRAYS_FILE).read_bytes()
        if stored["schema"] != SCHEMA or hashlib.sha256(content).hexdigest() != stored["sha256"]:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            named = {key: arrays[key] for key in arrays.files}
        best = BestRound.restored(stored["best"]["round"], stored["best"]["score"], _part(named, BEST))
        return StudyState(
            configuration=stored["configuration"],
            job_id=stored["job_id"],
            next_round=int(stored["next_round"]),
            weights=_part(named, GLOBAL),
            ledger=stored["ledger"],
            best=best,
            left_out=stored["left_out"],
            earlier_jobs=tuple(stored["earlier_jobs"]),
            extra={k: v for k, v in named.items() if not k.startswith((GLOBAL, BEST, AVERAGE))},
            average=_part(named, AVERAGE),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
