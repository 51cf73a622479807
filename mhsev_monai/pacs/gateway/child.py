"""One run of the pipeline in a child process, which may crash, hang or fill its memory without harm."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhsev_monai.pacs.gateway.config import PipelineConfig

_MB = 1 << 20
_POLL_S = 0.2
_MOST_OUTPUT_BYTES = 16 << 20
_STATUSES = ("done", "refused", "left out", "failed")


@dataclass(frozen=True)
class ChildLine:
    """What the pipeline says of one series; see `mhsev dicom run --json`.

    Attributes:
        status: ``done``, ``refused``, ``left out`` or ``failed``.
        results: paths of objects, relative to the child's OUT.
    """

    status: str
    reason: str
    results: tuple[str, ...]


@dataclass(frozen=True)
class ChildEnd:
    """How a run ended.

    Attributes:
        fault: why it gave no answer, in the gateway's words; empty where it gave one.
        lines: its answer.
        superseded: whether it was ended since nobody waits for it any more.
    """

    fault: str = ""
    lines: tuple[ChildLine, ...] = ()
    superseded: bool = False


def run_child(config: PipelineConfig, model: Path, folder: Path, is_wanted: Callable[[], bool]) -> ChildEnd:
    """Run the pipeline on ``folder/in``; objects lie in ``folder/out`` afterwards.

    Args:
        config: command and limits.
        model: handed to the command.
        folder: a folder of this run alone.
        is_wanted: asked five times a second; False ends the child.
    """
    (folder / "tmp").mkdir()
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as complaints:
        child = subprocess.Popen(
            _command(config, model, folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=complaints,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder / "tmp")},
            start_new_session=True,
        )
        try:
            fault, superseded = _wait(child, config.timeout_s, is_wanted)
        finally:
            _end(child)
    if superseded:
        return ChildEnd(superseded=True)
    if fault or child.returncode not in (0, 1):
        return ChildEnd(fault or _told(child.returncode))
    return _answer(folder / "stdout")


def _command(config: PipelineConfig, model: Path, folder: Path) -> list[str]:
    limited = [sys.executable, "-m", "mhsev_monai.pacs.gateway.limited"]
    limits = [str(config.memory_mb * _MB), str(config.file_mb * _MB), str(os.getpid()), "--"]
    arguments = [str(folder / "in"), str(folder / "out"), "--model", str(model.absolute()), "--json"]
    return [*limited, *limits, *config.command, *arguments, "--sr", config.report]


def _wait(child: subprocess.Popen[bytes], timeout_s: float, is_wanted: Callable[[], bool]) -> tuple[str, bool]:
    end = time.monotonic() + timeout_s
    while True:
        try:
            child.wait(_POLL_S)
            return "", False
        except subprocess.TimeoutExpired:
            pass
        if time.monotonic() >= end:
            return f"the pipeline did not end within {timeout_s:g} s", False
        if not is_wanted():
            return "", True


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child's whole session: the converter that it started must not outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _told(status: int) -> str:
    if status < 0:
        return f"the pipeline was ended by signal {-status} ({signal.Signals(-status).name})"
    hint = ", which says that it was called wrongly; look with --check" if status == 2 else ""
    return f"the pipeline ended with status {status}{hint}"


def _answer(path: Path) -> ChildEnd:
    with path.open("rb") as stream:
        text = stream.read(_MOST_OUTPUT_BYTES).decode("utf-8", "replace")
    try:
        lines = tuple(_line(json.loads(line)) for line in text.splitlines() if line.strip())
    except (ValueError, KeyError, TypeError):
        return ChildEnd("the pipeline's answer cannot be read")
    return ChildEnd(lines=lines) if lines else ChildEnd("the pipeline gave no answer")


def _line(held: dict[str, Any]) -> ChildLine:
    status = held["status"]
    if status not in _STATUSES:
        raise ValueError(status)
    return ChildLine(status, str(held.get("reason", "")), tuple(str(name) for name in held.get("results", ())))
