"""``mhsev simulator run``, and what ``mhsev jobs export`` does for jobs that analyse; heavy imports stand inside."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, positive, verb

if TYPE_CHECKING:
    from mhsev_flare.analysis.jobs import AnalysisSpec


class ExportError(ValueError):
    """A job that cannot be exported as it was asked for."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``."""
    parser.add_argument("--model", type=Path, metavar="FILE", help="model.pt of a finished run, for the job explain")


def analysis_spec(name: str, model: Path | None, others: Sequence[str] = ()) -> AnalysisSpec:
    """The row of an analysis, with the model that it explains.

    Args:
        name: of the job.
        model: its file; None: none.
        others: options that were given and that only jobs that train have.

    Raises:
        ExportError: if the job has no such option, or the model cannot be explained.
    """
    from mhsev_flare.analysis.jobs import ANALYSIS_JOBS, ExplanationSpec, explanation_of
    from mhsev_monai.model_file import ModelFileError

    if others:
        raise ExportError(f"the job {name} trains nothing, so that {', '.join(others)} cannot be; leave it out")
    spec = ANALYSIS_JOBS[name]
    if model is None:
        return spec
    if not isinstance(spec, ExplanationSpec):
        raise ExportError(f"--model goes with the job explain, and {name} has no model; leave it out")
    try:
        return explanation_of(model, spec)
    except (ModelFileError, ValueError) as error:
        raise ExportError(f"{model}: {error}") from error


def add_simulator_run(nouns: Any) -> None:
    """``mhsev simulator run JOB WORKSPACE``."""
    parser = verb(nouns, "run", "export a job and run it in FLARE's simulator, each BIDS root as a site", _run)
    parser.add_argument("job", metavar="JOB", help="name of a job, such as associations")
    parser.add_argument("workspace", type=Path, help="folder of the run; FLARE empties it when it starts")
    parser.add_argument("--cohort", type=Path, required=True, help="folder with one BIDS root per site: site-1, ...")
    parser.add_argument("--threads", type=positive, metavar="N", help="sites that work at a time (default: all)")
    add_model(parser)


def _run(options: argparse.Namespace) -> int:
    from mhsev_flare.simulator import WorkspaceError, prepare_workspace, run_simulator

    n_sites = len([path for path in options.cohort.glob("site-*") if path.is_dir()])
    if not n_sites:
        complain(f"{options.cohort} holds no folder site-1; make a cohort with `mhsev cohort make`, or name another")
        return WRONG_CALL
    try:
        job = _exported(options.job, options.workspace, options.model)
        prepare_workspace(options.workspace, options.cohort)
    except (ExportError, WorkspaceError, OSError) as error:
        complain(error)
        return WRONG_CALL
    run_simulator(job, options.workspace, n_sites, options.threads or n_sites)
    path = result_of(options.workspace)
    if path is None:
        log = options.workspace.with_name(f"{options.workspace.name}-simulator.log")
        complain(f"the run left no result; see {log}")
        return DATA_SAY_NO
    return tell_result(path)


def _exported(name: str, workspace: Path, model: Path | None) -> Path:
    """The job's folder, beside the workspace, which FLARE empties."""
    from mhsev_flare.analysis.jobs import ANALYSIS_JOBS
    from mhsev_flare.jobs import JOBS, export_job

    folder = workspace.with_name(f"{workspace.name}-jobs")
    if name in ANALYSIS_JOBS:
        return export_analysis(name, folder, model)
    if name not in JOBS:
        raise ExportError(f"there is no job called {name}; there are {', '.join([*JOBS, *ANALYSIS_JOBS])}")
    if model is not None:
        raise ExportError(f"--model goes with the job explain, and {name} makes a model; leave it out")
    return export_job(JOBS[name], folder)


def export_analysis(name: str, folder: Path, model: Path | None) -> Path:
    """Write an analysis below ``folder``; raises as :func:`analysis_spec`."""
    from mhsev_flare.analysis.jobs import analysis_job
    from mhsev_flare.jobs import write_job

    return write_job(analysis_job(analysis_spec(name, model)), folder)


def result_of(run: Path) -> Path | None:
    """The result file of the one run in or under a folder, of whatever kind of job; None where there is none."""
    from mhsev_flare.analysis.protocol import ASSOCIATIONS_FILE, EXPLANATION_FILE
    from mhsev_flare.protocol import RESULT_FILE, RUN_FOLDER

    found = [path for name in (ASSOCIATIONS_FILE, EXPLANATION_FILE, RESULT_FILE) for path in run.rglob(name)]
    return next((path for path in found if path.parent.name == RUN_FOLDER), None)


def tell_result(path: Path) -> int:
    """One fact a line on what a run found; the exit status of the command that ran it."""
    import json

    result = json.loads(path.read_text())
    print(f"status         {result['status']}")
    print(f"sites          {len(result.get('sites', {}))}   ({', '.join(result.get('sites', {}))})")
    for site, reason in result.get("refused", {}).items():
        print(f"refused        {site}: {reason}")
    print(f"wrote          {path}")
    if result["status"] != "completed":
        complain(result["reason"])
        return DATA_SAY_NO
    return DONE
