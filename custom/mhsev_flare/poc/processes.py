"""The processes of a POC federation: found again by a mark in their environment, and by nothing else."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

MARK = "MHSEV_POC"
"""Environment variable that holds the federation's folder; children inherit it, also those of FLARE's watchdogs."""


def federation_processes(folder: Path) -> list[psutil.Process]:
    """Every running process of this user that carries the mark of the federation in ``folder``."""
    return [process for process in _all() if _mark(process) == str(folder)]


def participant_processes(folder: Path, kit: Path, job_id: str = "") -> list[psutil.Process]:
    """Running Python processes of one participant and, where one is given, of a job."""
    found = []
    for process in federation_processes(folder):
        words = _words(process)
        own = any(word == str(kit) or word.startswith(f"{kit}/") for word in words)
        if own and words and "python" in words[0] and (not job_id or job_id in words):
            found.append(process)
    return found


def watchdogs(folder: Path, kit: Path) -> list[psutil.Process]:
    """The shells that start a participant again when it ends."""
    script = str(kit / "startup" / "sub_start.sh")
    return [process for process in federation_processes(folder) if script in _words(process)]


def is_job_process(process: psutil.Process) -> bool:
    """Whether it runs one job, and not the participant."""
    return any(word.endswith((".runner_process", ".worker_process")) for word in _words(process))


def resident_bytes(processes: list[psutil.Process]) -> int:
    """Memory that belongs to these processes, what they share counted once for each that shares it."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += int(process.memory_info().rss)
    return total


def wait_until(what: Callable[[], object], seconds: float, step: float = 0.2) -> bool:
    """Whether ``what()`` became true within the time."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(step)
    return True


def end(processes: list[psutil.Process], patience: float = 5.0) -> None:
    """Ask these processes to end, and end those that do not."""
    for signal in ("terminate", "kill"):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(process, signal)()
        _, processes = psutil.wait_procs(processes, timeout=patience)
        if not processes:
            return


def _all() -> Iterator[psutil.Process]:
    user = os.getuid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.uids().real == user:
                yield process


def _mark(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return str(process.environ().get(MARK, ""))
    return ""


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []
