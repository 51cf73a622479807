"""Results on disk: a folder that is there is whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from mhsev_monai.pacs.patient_study import quiet_library

OUTCOME = "outcome.json"
_PREFIX = ".mhsev-"
_STILL_S = 3600.0


def kept_outcome(folder: Path) -> dict[str, Any] | None:
    """What an earlier run wrote of these very results; None where they are not there, or not whole."""
    try:
        found = json.loads((folder / OUTCOME).read_text())
        names = found["results"]
        whole = all((folder.parent / name).is_file() for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if whole else None


def write_results(folder: Path, objects: Mapping[str, Dataset], outcome: Mapping[str, Any]) -> None:
    """Write objects and outcome, and rename them to ``folder`` when all of them lie on the disk.

    Raises:
        OSError: if they cannot be written; nothing is left behind then.
    """
    with _hidden_folder(folder.parent) as hidden:
        made = hidden / "results"
        made.mkdir()
        for name, dataset in objects.items():
            with quiet_library(), pydicom.config.disable_value_validation():
                dataset.save_as(made / name, enforce_file_format=True)
        (made / OUTCOME).write_text(json.dumps(outcome) + "\n")
        for path in (*made.iterdir(), made):
            _to_disk(path)
        if folder.exists():
            # What lies there is not whole, see kept_outcome.
            folder.replace(hidden / "before")
        made.replace(folder)
        _to_disk(folder.parent)


def clear_unfinished(out: Path) -> None:
    """Remove hidden folders of processes that were ended before they could.

    Containers that share ``out`` do not see each other's processes, so that a folder must also have lain unchanged for
    an hour; results are written within seconds.
    """
    for folder in out.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists() and _is_still(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_still(folder: Path) -> bool:
    """Whether nothing in it changed for an hour; False where that cannot be told, since it is just being changed."""
    try:
        changed = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:
        return False
    return time.time() - changed > _STILL_S


@contextmanager
def _hidden_folder(out: Path) -> Iterator[Path]:
    """A folder on the same disk, inside, since ``out`` itself may be a mounted one."""
    out.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=out))
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
