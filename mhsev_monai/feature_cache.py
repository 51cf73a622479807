"""Features of many cases: computed once, in parallel, and found again by the content of the scan.

The key is a hash over the bytes of the scan and of its b-values, and over what computes the features (parameters and
schema version). A file that changes under the same name, or a parameter that changes, is another key;
MONAI's own cache hashing returns stale results in both cases.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mhsev_monai.cases import Case, content_hash
from mhsev_monai.errors import ScanError
from mhsev_monai.parallel import for_each_case

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseFeatures:
    """What one scan becomes.

    Attributes:
        values: number of each feature by its name; at least those that the inputs select.
        quality: plain JSON values that describe the scan and its processing; no identifiers.
        sets: arrays by name, float32 or float16: tables ``(K, n)`` of inputs that read a set of vectors, volumes of
            those that read images.
    """

    values: Mapping[str, float]
    quality: Mapping[str, Any]
    sets: Mapping[str, np.ndarray] = field(default_factory=dict)

    def vector(self, names: Sequence[str]) -> np.ndarray:
        """``(len(names),)`` float64; raises ``KeyError`` for a name that is not there."""
        return np.array([self.values[name] for name in names], dtype=np.float64)


class CaseInputs(Protocol):
    """Turns a case into the vector, or the set of vectors, that a network reads.

    Results are kept by the content of the scan, unless the inputs have ``reads_scan`` and it is False.
    """

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each entry of a vector, a selection of what is computed."""

    def assemble(self, found: CaseFeatures) -> np.ndarray:
        """What the network reads: a vector, a set of vectors, or a volume with its channels last.

        Shape ``(n_features,)``, ``(N, n_features)`` or ``(X, Y, Z, n_features)``, float16 or float32; ``KeyError`` if
        it is not there.
        """

    def fingerprint(self) -> str:
        """Hash of all that decides the vector beside the scan: computation and selection."""

    def computation(self) -> str:
        """Hash of all that decides the computed values beside the scan: parameters and schema version."""

    def __call__(self, case: Case) -> CaseFeatures:
        """The features of one case; raises ``ScanError`` for a scan that cannot be used."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of the cases that could be used, and why the others could not.

    Attributes:
        case_ids: ids in the order in which the cases came.
        features: ``(n, n_features)``, ``(n, N, n_features)`` or ``(n, X, Y, Z, n_features)``, float16 where the inputs
            give that, else float32.
        quality: one mapping a case.
        sets: tables of each case by name, see ``CaseFeatures``.
        failed: case id to reason.
    """

    case_ids: tuple[str, ...]
    features: np.ndarray
    quality: tuple[Mapping[str, Any], ...]
    sets: tuple[Mapping[str, np.ndarray], ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


def cache_key(case: Case, inputs: CaseInputs) -> str:
    """64 hexadecimal digits over the scan's bytes and the computation; inputs that select differently share entries."""
    return hashlib.sha256(f"{content_hash(case)} {inputs.computation()}".encode()).hexdigest()


def load_or_compute(case: Case, inputs: CaseInputs, cache_root: Path) -> CaseFeatures:
    """The features of ``case``, from ``cache_root`` where they are there, else computed and stored there.

    Raises:
        ScanError: if the scan cannot be used; nothing is stored then.
        OSError: if ``cache_root`` cannot be written.
    """
    try:
        path = cache_root / f"{cache_key(case, inputs)}.json"
    except OSError as error:
        raise ScanError(f"the scan cannot be read ({type(error).__name__}); check that the file is there") from error
    found = _read(path, inputs)
    if found is not None:
        return found
    result = inputs(case)
    _write(path, result)
    return result


def _read(path: Path, inputs: CaseInputs) -> CaseFeatures | None:
    try:
        stored = json.loads(path.read_text())
        values = {name: float(v) for name, v in stored["features"].items()}
        sets = {name: _decoded(table) for name, table in stored.get("sets", {}).items()}
        found = CaseFeatures(values, stored["quality"], sets)
        inputs.assemble(found)
        return found
    except (FileNotFoundError, PermissionError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error):
        # Cut off by a full disk, say: compute it again, but tell, since a cache that rots is a disk that rots.
        logger.warning("a cached feature file is damaged; its features are computed again")
        return None


def _write(path: Path, result: CaseFeatures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed: an interrupted run leaves no half a file under the final name.
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        sets = {name: _encoded(table) for name, table in result.sets.items()}
        content = {"features": dict(result.values), "quality": dict(result.quality), "sets": sets}
        temporary.write_text(json.dumps(content, indent=1))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _encoded(table: np.ndarray) -> dict[str, Any]:
    """An array as JSON: its shape, and its bytes in little-endian order as base64; float16 ones are compressed first.

    A volume is half NaN around the brain; a table of floats hardly gets smaller.
    """
    if table.dtype == np.float16:
        data = zlib.compress(np.ascontiguousarray(table, dtype="<f2").tobytes(), level=1)
        return {"shape": list(table.shape), "float16-zlib": base64.b64encode(data).decode()}
    plain = np.ascontiguousarray(table, dtype="<f4").tobytes()
    return {"shape": list(table.shape), "float32": base64.b64encode(plain).decode()}


def _decoded(stored: Mapping[str, Any]) -> np.ndarray:
    if "float16-zlib" in stored:
        plain = zlib.decompress(base64.b64decode(stored["float16-zlib"]))
        return np.frombuffer(plain, dtype="<f2").reshape(stored["shape"]).astype(np.float16)
    return np.frombuffer(base64.b64decode(stored["float32"]), dtype="<f4").reshape(stored["shape"]).astype(np.float32)


def compute_features(
    cases: Sequence[Case],
    inputs: CaseInputs,
    cache_root: Path,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureTable:
    """Features of all cases; a scan that cannot be used is listed with its reason, and the others go on.

    Args:
        cases: any number.
        inputs: what computes them; picklable where ``workers`` > 1.
        cache_root: folder for the results; made if absent.
        workers: processes; 1 computes in this one.
        progress: called with the number done and the total after each case.

    Returns:
        The table, in the order of ``cases`` whatever finished first.
    """
    outcomes = for_each_case(cases, partial(_attempt, inputs=inputs, cache_root=cache_root), workers, progress)
    return _table(cases, outcomes, inputs)


def _attempt(case: Case, inputs: CaseInputs, cache_root: Path) -> CaseFeatures | str:
    try:
        if not getattr(inputs, "reads_scan", True):
            return inputs(case)
        return load_or_compute(case, inputs, cache_root)
    except ScanError as error:
        return str(error)


def _table(cases: Sequence[Case], outcomes: Mapping[str, CaseFeatures | str], inputs: CaseInputs) -> FeatureTable:
    usable = [(c.case_id, o) for c in cases if isinstance(o := outcomes[c.case_id], CaseFeatures)]
    failed = {c.case_id: o for c in cases if isinstance(o := outcomes[c.case_id], str)}
    rows = [inputs.assemble(o) for _, o in usable]
    features = np.stack(rows) if rows else np.zeros((0, len(inputs.feature_names)), np.float32)
    if features.dtype != np.float16:
        features = features.astype(np.float32)
    results = [o for _, o in usable]
    return FeatureTable(
        tuple(i for i, _ in usable), features, tuple(o.quality for o in results), tuple(o.sets for o in results), failed
    )
