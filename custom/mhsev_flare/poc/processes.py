"""The processes of a POC federation: found again by a mark in their environment, whoever started them."""

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
    """Every running process of the federation in ``folder``, but this one and those that started it."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in _all() if process.pid not in own and _is_of(process, folder)]


def participant_processes(folder: Path, kit: Path, job_id: str = "") -> list[psutil.Process]:
    """Running Python processes of one participant and, where one is given, of a job."""
    return [
        process
        for process in federation_processes(folder)
        if (line := _line(process)) and "python" in line and job_id in line and _names(line, kit)
    ]


def watchdogs(folder: Path, kit: Path) -> list[psutil.Process]:
    """The shells that start a participant again when it ends."""
    script = str(kit / "startup" / "sub_start.sh")
    return [process for process in federation_processes(folder) if script in _line(process)]


def is_job_process(process: psutil.Process) -> bool:
    """Whether it runs one job, and not the participant."""
    line = _line(process)
    return "runner_process" in line or "worker_process" in line


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
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _is_of(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.environ().get(MARK) == str(folder) or _names(_line(process), folder)
    return False


def _names(line: str, folder: Path) -> bool:
    """Whether the command line names the folder or something in it, and not only one whose name begins like it."""
    return any(f"{folder}{end}" in f"{line} " for end in ("/", " "))


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
