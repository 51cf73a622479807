"""Preprocessed scans on disk, as a BIDS derivative: made in parallel, kept by content, gone on with after a break.

Each scan's record, ``*_desc-preproc.json``, is written last and holds a hash over the scan's bytes, the parameters and
the code, and the size of each file. A scan whose record agrees is not processed again; one whose files were changed,
cut off or deleted is, and so is every scan when a parameter changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from monai.data import MetaTensor

from mhsev_monai._version import __version__
from mhsev_monai.cases import Case, content_hash
from mhsev_monai.errors import CohortError, ScanError
from mhsev_monai.ingest.bvals import image_stem
from mhsev_monai.ingest.scan_writer import NewScan, move_scan, write_scan
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.parallel import for_each_case
from mhsev_monai.preprocessing import BIAS_KEY, Z_SCORE_KEYS, Preprocessing, process
from mhsev_monai.quality import scan_quality

DERIVATIVES = Path("derivatives", "mhsev-preproc")
"""Where a BIDS root keeps them."""

_OUTPUTS = {
    Keys.B0: "desc-unbiased_S0map",
    Keys.TRACE: "desc-unbiased_trace",
    Keys.ADC: "ADC",
    Z_SCORE_KEYS[Keys.B0]: "desc-zscore_S0map",
    Z_SCORE_KEYS[Keys.TRACE]: "desc-zscore_trace",
    BIAS_KEY: "desc-log_biasfield",
    Keys.BRAIN_MASK: "desc-brain_mask",
    Keys.SEARCH_MASK: "desc-search_mask",
}
"""Entry of the data dictionary to the end of its file's name."""

State = Literal["made", "kept"]


@dataclass(frozen=True)
class DerivativeSummary:
    """What became of the scans.

    Attributes:
        made: ids of the cases that were processed.
        kept: ids of the cases whose files were there and right.
        failed: case id to reason.
    """

    made: tuple[str, ...]
    kept: tuple[str, ...]
    failed: Mapping[str, str]


def write_derivatives(
    cases: Sequence[Case],
    out: Path,
    preprocessing: Preprocessing,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DerivativeSummary:
    """Preprocess cases into a folder; those that are there already and right are left alone.

    Args:
        cases: any number.
        out: the derivative's folder; made if absent.
        preprocessing: what to do with each.
        workers: processes.
        progress: called with the number done and the total after each case.

    Raises:
        CohortError: if the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        described = {
            "Name": "mhsev preprocessing",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "mhsev", "Version": __version__}],
        }
        (out / "dataset_description.json").write_text(json.dumps(described, indent=1) + "\n")
        outcomes = for_each_case(cases, partial(_attempt, out=out, preprocessing=preprocessing), workers, progress)
    except OSError as error:
        raise CohortError(
            f"the folder for preprocessed scans cannot be written ({type(error).__name__}); name another with --out"
        ) from None
    states = {case_id: state for case_id, (state, _) in outcomes.items()}
    return DerivativeSummary(
        made=tuple(sorted(case_id for case_id, state in states.items() if state == "made")),
        kept=tuple(sorted(case_id for case_id, state in states.items() if state == "kept")),
        failed={case_id: reason for case_id, (state, reason) in sorted(outcomes.items()) if state is None},
    )


def _attempt(case: Case, out: Path, preprocessing: Preprocessing) -> tuple[State | None, str]:
    """Whether a case was made or kept; or None and why it could not be used."""
    try:
        return preprocess_case(case, out, preprocessing), ""
    except ScanError as error:
        return None, str(error)


def preprocess_case(case: Case, out: Path, preprocessing: Preprocessing) -> State:
    """Preprocess one case into its folder below ``out``, unless its files are there and right.

    Raises:
        ScanError: if the scan cannot be used; what was there of it before is taken away then.
        OSError: if the files cannot be written.
    """
    stem = (image_stem(case.image.name) or case.case_id).rpartition("_")[0]
    folder = out.joinpath(*case.case_id.split("_"), case.image.parent.name)
    record = folder / f"{stem}_desc-preproc.json"
    try:
        key = hashlib.sha256(f"{content_hash(case)} {preprocessing.fingerprint()}".encode()).hexdigest()
    except OSError as error:
        raise ScanError(f"the scan cannot be read ({type(error).__name__}); check that the file is there") from None
    if _is_right(record, key):
        return "kept"
    # The old record goes first: a break in between must not leave it beside new files.
    for ending in ("desc-preproc.json", *(f"{ending}.nii.gz" for ending in _OUTPUTS.values())):
        (folder / f"{stem}_{ending}").unlink(missing_ok=True)
    entries = process(preprocessing.transforms(), case.image, case.bvals)
    sizes = {}
    for entry, ending in _OUTPUTS.items():
        if entry in entries:
            path = _write(entries[entry], folder / f"{stem}_{ending}.nii.gz")
            sizes[path.name] = path.stat().st_size
    _write_json(record, {"key": key, "files": sizes, "quality": scan_quality(entries)})
    return "made"


def _is_right(record: Path, key: str) -> bool:
    """Whether a record is of this key and its files have the sizes that it names."""
    try:
        stored = json.loads(record.read_text())
        sizes = dict(stored["files"])
        return (
            bool(sizes)
            and stored["key"] == key
            and all((record.parent / name).stat().st_size == size for name, size in sizes.items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(image: Any, path: Path) -> Path:
    """One image of one channel; masks as bytes, everything else as float32."""
    values = np.asarray(image)[0]
    values = values.astype(np.uint8 if values.dtype == np.uint8 else np.float32)
    affine = np.asarray(image.affine if isinstance(image, MetaTensor) else np.eye(4), dtype=np.float64)
    scratch = path.parent / f".{os.getpid()}"
    name = path.name.removesuffix(".nii.gz")
    try:
        return move_scan(write_scan(NewScan(values, affine), scratch, name), path.parent, name)
    finally:
        (scratch / path.name).unlink(missing_ok=True)
        scratch.rmdir()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
