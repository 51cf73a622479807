"""The demonstration: simulated hospitals, the federated job in FLARE's simulator, a report."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhsev_flare.jobs import JOBS, export_job
from mhsev_flare.progress import bar, cores
from mhsev_flare.protocol import LEDGER_FILE, MODEL_FILE, RESULT_FILE
from mhsev_flare.result import read_run
from mhsev_flare.run_report import write_report
from mhsev_flare.simulator import WorkspaceError, prepare_workspace, run_simulator
from mhsev_flare.site import DERIVATIVES
from mhsev_monai.cases import read_cases
from mhsev_monai.cohort import HOSPITALS, make_cohort
from mhsev_monai.feature_cache import compute_features
from mhsev_monai.twin_inputs import TwinInputs

JOB = "dsd_mlp"


class DemoError(RuntimeError):
    """The demonstration could not be finished; the message says where to look."""


def run_demo(out: Path, n_subjects: int, seed: int, workers: int | None = None) -> str:
    """Make the hospitals, run the job, write the report.

    Args:
        out: folder for all of it; a second call goes on from what is there.
        n_subjects: in all hospitals together.
        seed: of the simulated subjects.
        workers: processes; by default as many as cores.

    Returns:
        What to look at, as text for the terminal.

    Raises:
        DemoError: if a step did not do what it should.
    """
    workers = workers or cores()
    cohort, run, report = out / "cohort", out / "run", out / "report.html"
    _say(f"1/4 simulated hospitals in {cohort}")
    try:
        with bar("subjects", "subject") as progress:
            make_cohort(cohort, n_subjects, seed, workers=workers, progress=progress)
    except (ValueError, OSError, ImportError) as error:
        raise DemoError(str(error)) from error
    _say("2/4 features of every scan: brain mask, bias field, dynamic spectral decomposition")
    for hospital in HOSPITALS:
        _features(cohort / hospital.name, workers)
    _say(f"3/4 federated training of {JOB} in FLARE's simulator, {len(HOSPITALS)} sites")
    try:
        prepare_workspace(run, cohort)
        run_simulator(export_job(JOBS[JOB], out / "jobs"), run, len(HOSPITALS), len(HOSPITALS), _say_round)
    except (WorkspaceError, OSError) as error:
        raise DemoError(f"the simulator cannot run in {run}: {error}") from error
    result = _result(run)
    _say("4/4 report")
    _, _, model = read_run(run)
    write_report(run, report, cohort)
    for name in (MODEL_FILE, RESULT_FILE, LEDGER_FILE):
        shutil.copyfile(model.with_name(name), out / name)
    return _summary(result, out, report)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _say_round(row: Mapping[str, Any]) -> None:
    kappa = row["validation"]["quadratic_kappa"]
    shown = "undefined" if kappa is None else f"{kappa:.3f}"
    # The row after the last round judges the final aggregate, and trains nothing.
    who = f"sites {len(row['sites'])}" if row["sites"] else "final  "
    _say(f"    round {row['round']:>2}  {who}  validation quadratic kappa {shown}")


def _features(root: Path, workers: int) -> None:
    listed = read_cases(root)
    with bar(root.name, "scan") as progress:
        table = compute_features(listed.cases, JOBS[JOB].inputs, root / DERIVATIVES, workers, progress)
    if JOBS[JOB].twins:
        with bar(f"{root.name}, protocol twins", "scan") as progress:
            compute_features(listed.cases, TwinInputs(JOBS[JOB].inputs), root / DERIVATIVES, workers, progress)
    for case_id, reason in sorted(table.failed.items()):
        _say(f"    {root.name} {case_id} excluded: {reason}")


def _result(run: Path) -> dict[str, Any]:
    log = run.with_name(f"{run.name}-simulator.log")
    try:
        result, _, _ = read_run(run)
    except FileNotFoundError as error:
        raise DemoError(f"the simulator left no result; its log is {log}") from error
    if result["status"] != "completed":
        raise DemoError(f"the federated run ended as {result['status']}: {result['reason']}; its log is {log}")
    return result


def _summary(result: Mapping[str, Any], out: Path, report: Path) -> str:
    metrics, majority = (result["test"][key]["metrics"] for key in ("pooled", "majority"))
    comparison = result["comparison"]

    def shown(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.3f}"

    return "\n".join(
        [
            f"test cases            {metrics['n']}   (simulated hospitals, class mix in the report)",
            f"accuracy              {shown(metrics['accuracy'])}   majority class {shown(majority['accuracy'])}",
            f"balanced accuracy     {shown(metrics['balanced_accuracy'])}   mean of the site-local models "
            f"{shown(comparison['site_models_mean_balanced_accuracy'])}",
            f"quadratic kappa       {shown(metrics['quadratic_kappa'])}",
            f"count, mean error     {shown(metrics['count_mae'])} microbleeds",
            f"model                 {out / MODEL_FILE}",
            f"result                {out / RESULT_FILE}",
            f"report                {report.resolve()}",
        ]
    )
