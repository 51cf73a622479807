"""FLARE's simulator as three hospitals on one machine: its workspace, and a run of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from mhsev_flare.allowed_classes import ALLOWED_CLASSES
from mhsev_flare.analysis.protocol import ASSOCIATIONS_FILE, EXPLANATION_FILE
from mhsev_flare.protocol import LEDGER_FILE, MODEL_FILE, RESULT_FILE, RUN_FOLDER
from mhsev_flare.site import SITE_FILE

SIMULATED_JOB = Path("server", "simulate_job")


class WorkspaceError(ValueError):
    """A folder that must not become a simulator workspace."""


def prepare_workspace(workspace: Path, cohort_root: Path | None = None) -> None:
    """Write what each simulated site decides: which classes a job may name, where data and checkpoints lie.

    FLARE's simulator deletes all of its workspace but ``local`` and ``startup`` when it starts. So a folder that holds
    anything is taken only if it was prepared before, and never one that holds the cohort.

    Args:
        workspace: of the simulator; made if absent. Its ``local`` folder is handed to every simulated site.
        cohort_root: a folder that holds one BIDS root per site, called as FLARE calls the site. None: the sites find
            their data through the environment.

    Raises:
        WorkspaceError: if the simulator would delete what is there.
        OSError: if the folder cannot be written.
    """
    if cohort_root is not None and cohort_root.resolve().is_relative_to(workspace.resolve()):
        raise WorkspaceError(
            "the cohort lies in the workspace, which FLARE's simulator empties; name a folder beside it"
        )
    prepared = workspace / "local" / "resources.json"
    if workspace.is_dir() and any(workspace.iterdir()) and not prepared.is_file():
        raise WorkspaceError("the workspace is not empty, and FLARE's simulator would empty it; name a new folder")
    from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST

    local = workspace / "local"
    local.mkdir(parents=True, exist_ok=True)
    resources = {"format_version": 2, "class_allow_list": [*DEFAULT_CLASS_ALLOW_LIST, *ALLOWED_CLASSES]}
    (local / "resources.json").write_text(json.dumps(resources, indent=1) + "\n")
    # Beside the workspace, which the simulator empties: from there a run that was cut off can be resumed.
    own = {"checkpoint_root": str(workspace.with_name(f"{workspace.name}-checkpoints").resolve())}
    if cohort_root is not None:
        own["cohort_root"] = str(cohort_root.resolve())
    (local / SITE_FILE).write_text(json.dumps(own, indent=1) + "\n")


def run_simulator(
    job: Path,
    workspace: Path,
    n_sites: int,
    threads: int,
    on_round: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> int:
    """Run ``nvflare simulator`` on an exported job, and report each round as it ends.

    Args:
        job: folder of the job.
        workspace: prepared by ``prepare_workspace``; the log goes to ``simulator.log`` in it.
        n_sites: number of sites.
        threads: how many of them work at a time.
        on_round: called with each row of the ledger.

    Returns:
        FLARE's exit status, which is 0 even when every site was refused: read the result file.
    """
    ledger = workspace / SIMULATED_JOB / RUN_FOLDER / LEDGER_FILE
    # What an earlier run left must not be taken for this one's.
    for name in (LEDGER_FILE, RESULT_FILE, MODEL_FILE, ASSOCIATIONS_FILE, EXPLANATION_FILE):
        ledger.with_name(name).unlink(missing_ok=True)
    command = [*nvflare_command(), "simulator", str(job), "-w", str(workspace)]
    command += ["-n", str(n_sites), "-t", str(threads)]
    workspace.mkdir(parents=True, exist_ok=True)
    log_path = workspace.with_name(f"{workspace.name}-simulator.log")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        seen = 0
        try:
            while process.poll() is None:
                seen = _report_new(ledger, seen, on_round)
                time.sleep(0.5)
        except BaseException:
            _end(process)
            raise
    _report_new(ledger, seen, on_round)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the simulator and all processes that it started, which are not all of its process group."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        family = [*parent.children(recursive=True), parent]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(alive, timeout=10)
    process.wait()


def _report_new(ledger: Path, seen: int, on_round: Callable[[Mapping[str, Any]], None]) -> int:
    # The ledger is replaced whole at each round, so what is there is never half a line.
    rows = ledger.read_text().splitlines() if ledger.is_file() else []
    for row in rows[seen:]:
        on_round(json.loads(row))
    return max(seen, len(rows))


def nvflare_command() -> list[str]:
    """FLARE's command of this Python, which need not be the first on PATH; as a module where it is not beside it."""
    beside = Path(sys.executable).with_name("nvflare")
    return [str(beside)] if beside.is_file() else [sys.executable, "-m", "nvflare.cli"]
