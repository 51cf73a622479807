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
from mhsev_flare.rounds import round_line
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
    cohort, run = out / "cohort", out / "run"
    make_hospitals(cohort, n_subjects, seed, workers)
    say(f"3/4 federated training of {JOB} in FLARE's simulator, {len(HOSPITALS)} sites")
    try:
        prepare_workspace(run, cohort)
        run_simulator(export_job(JOBS[JOB], out / "jobs"), run, len(HOSPITALS), len(HOSPITALS), say_round)
    except (WorkspaceError, OSError) as error:
        raise DemoError(f"the simulator cannot run in {run}: {error}") from error
    return finish(run, out, run.with_name(f"{run.name}-simulator.log"))


def make_hospitals(cohort: Path, n_subjects: int, seed: int, workers: int) -> None:
    """The first two steps: simulated hospitals, and the features of their scans.

    Raises:
        DemoError: if they cannot be made.
    """
    say(f"1/4 simulated hospitals in {cohort}")
    try:
        with bar("subjects", "subject") as progress:
            make_cohort(cohort, n_subjects, seed, workers=workers, progress=progress)
    except (ValueError, OSError, ImportError) as error:
        raise DemoError(str(error)) from error
    say("2/4 features of every scan: brain mask, bias field, dynamic spectral decomposition")
    for hospital in HOSPITALS:
        _features(cohort / hospital.name, workers)


def finish(run: Path, out: Path, log: Path) -> str:
    """The last step: the report, and what to look at.

    Args:
        run: folder of the run.
        out: folder of the demonstration, which holds the cohort.
        log: where to look if the run did not end well.

    Raises:
        DemoError: if it did not.
    """
    result = _result(run, log)
    say("4/4 report")
    _, _, model = read_run(run)
    report = out / "report.html"
    write_report(run, report, out / "cohort")
    for name in (MODEL_FILE, RESULT_FILE, LEDGER_FILE):
        shutil.copyfile(model.with_name(name), out / name)
    return _summary(result, out, report)


def say(message: str) -> None:
    """Tell of a step, on stderr."""
    print(message, file=sys.stderr, flush=True)


def say_round(row: Mapping[str, Any]) -> None:
    """Tell of a round."""
    say(f"    {round_line(row)}")


def _features(root: Path, workers: int) -> None:
    listed = read_cases(root)
    with bar(root.name, "scan") as progress:
        table = compute_features(listed.cases, JOBS[JOB].inputs, root / DERIVATIVES, workers, progress)
    if JOBS[JOB].twins:
        with bar(f"{root.name}, protocol twins", "scan") as progress:
            compute_features(listed.cases, TwinInputs(JOBS[JOB].inputs), root / DERIVATIVES, workers, progress)
    for case_id, reason in sorted(table.failed.items()):
        say(f"    {root.name} {case_id} excluded: {reason}")


def _result(run: Path, log: Path) -> dict[str, Any]:
    try:
        result, _, _ = read_run(run)
    except FileNotFoundError as error:
        raise DemoError(f"the run left no result; its log is {log}") from error
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
