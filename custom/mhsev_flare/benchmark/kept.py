"""What a benchmark has graded is kept, so that a run that was stopped goes on and one more row costs one row.

An entry is found by a hash over all that decides it: the row's settings, the cases of the split with their features,
the regime, the versions of torch and numpy, and the source that trains and grades, since a version number can be
forgotten.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import monai
import numpy as np
import scipy
import torch

import mhsev_flare
import mhsev_monai
from mhsev_flare.benchmark.graded import GradedCases, Grading
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.site_data import SiteData
from mhsev_monai.model_file import class_config
from mhsev_monai.severity import PAPER_SCALE

FOLDER = Path("derivatives", "mhsev", "benchmark")
"""Below the cohort's folder. Files hold true and predicted counts by site, no case id; they stay with the cohort."""

FEDERATED_SOURCE = (
    "analysis/answer_bounds.py",
    "anomalies.py",
    "combination.py",
    "convergence.py",
    "model_average.py",
    "gates.py",
    "job_spec.py",
    "landmark_pooling.py",
    "participation.py",
    "protocol.py",
    "result.py",
    "robust.py",
    "rounds.py",
    "scan_moment_pooling.py",
    "site.py",
    "site_data.py",
    "site_sums.py",
    "small_cells.py",
    "standardisation.py",
    "weighting.py",
    "benchmark/averaging.py",
    "benchmark/graded.py",
    "benchmark/rules.py",
    "benchmark/run.py",
)
"""Files of ``mhsev_flare`` that training and grading in one process go through."""

logger = logging.getLogger(__name__)

_OF_CASES = ("sites", "true_counts", "true_grades")
_OF_GRADING = ("grades", "grades_given_bleed", "probabilities", "counts")
# They say who runs and when, or what the row is called; the seed and all else decides the result.
_NOT_DECISIVE = ("name", "inputs", "network", "min_sites", "site_models", "personalise", "resume")


def outcome_key(method: Any, regime: str, data: str, scale: str = PAPER_SCALE.name) -> str:
    """64 hexadecimal digits over a job or rule, who trains with whom, the digest of the cases, and their scale."""
    described = {
        "method": _described(method),
        "scale": scale,
        "regime": regime,
        "data": data,
        "code": _CODE,
        "own_code": _own_source(method),
        "versions": [module.__version__ for module in (torch, np, scipy, monai)],
        "cuda": torch.cuda.is_available(),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _own_source(method: Any) -> str:
    """The class of the network or rule, which need not be one of this package."""
    cls = type(method.network) if isinstance(method, JobSpec) else type(method)
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return cls.__qualname__


def _described(method: Any) -> Any:
    if not isinstance(method, JobSpec):
        return {"rule": type(method).__name__, "inputs": method.inputs.fingerprint()}
    settings = {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.name not in _NOT_DECISIVE}
    settings |= {name: dataclasses.asdict(settings[name]) for name in ("policy", "optimiser")}
    return {**settings, "network": class_config(method.network), "inputs": method.inputs.fingerprint()}


def digest_sites(sites: Mapping[str, SiteData]) -> str:
    """64 hexadecimal digits over features, counts and marks of every case of every split, twins included."""
    digest = hashlib.sha256()
    for name in sorted(sites):
        parts = {split: sites[name].split(split) for split in ("train", "validation", "test")}
        if (twins := sites[name].twins) is not None:
            parts["twins"] = twins
        for split, data in parts.items():
            for tensor in (data.features, data.counts, data.marks):
                shape = None if tensor is None else tuple(tensor.shape)
                digest.update(f"{name} {split} {shape}".encode())
                if tensor is not None:
                    digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _code_digest() -> str:
    """Hash over the source that turns features into graded cases. What makes the features shows in the data itself."""
    of_one_site = sorted(Path(str(mhsev_monai.__file__)).parent.glob("*.py"))
    federated = [Path(str(mhsev_flare.__file__)).parent / name for name in FEDERATED_SOURCE]
    return hashlib.sha256(b"".join(file.read_bytes() for file in (*of_one_site, *federated))).hexdigest()


# Of what was imported with this file, not of what somebody has edited since.
_CODE = _code_digest()


def read_outcome(folder: Path, key: str) -> tuple[dict[str, GradedCases], float] | None:
    """The graded cases by model and the seconds that they took; None where there are none, or the file is damaged."""
    try:
        with np.load(folder / f"{key}.npz", allow_pickle=False) as stored:
            models = {str(name): _graded(stored, number) for number, name in enumerate(stored["models"])}
            return models, float(stored["seconds"])
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, zlib.error, BadZipFile):
        logger.warning("a kept result of the benchmark is damaged; it is computed again")
        return None


def _graded(stored: Mapping[str, Any], number: int) -> GradedCases:
    of_cases, of_grading = ({part: stored[f"{number}/{part}"] for part in parts} for parts in (_OF_CASES, _OF_GRADING))
    return GradedCases(**of_cases, grading=Grading(**of_grading))


def write_outcome(folder: Path, key: str, outcome: Mapping[str, GradedCases], seconds: float) -> None:
    """Keep graded cases by model and the seconds that they took; ``OSError`` where the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"models": np.array(list(outcome)), "seconds": np.float64(seconds)}
    for number, graded in enumerate(outcome.values()):
        arrays |= {f"{number}/{part}": getattr(graded, part) for part in _OF_CASES}
        arrays |= {f"{number}/{part}": getattr(graded.grading, part) for part in _OF_GRADING}
    # Written beside and renamed: an interrupted run leaves no half a file under the final name.
    temporary = folder / f"{key}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        temporary.replace(folder / f"{key}.npz")
    finally:
        temporary.unlink(missing_ok=True)
