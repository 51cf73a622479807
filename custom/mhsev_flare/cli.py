"""The command line: ``mhsev VERB ...``. Results on stdout, progress and complaints on stderr.

Exit status: 0 done, 1 the data say no, 2 the call was wrong. Heavy imports stand inside the subcommands, so that
``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.analysis.commands import add_model, add_simulator_run, analysis_spec
from mhsev_flare.association_commands import add_associations
from mhsev_flare.benchmark_commands import add_benchmark, add_search
from mhsev_flare.bundle_commands import add_bundle
from mhsev_flare.cohort_commands import add_cohort
from mhsev_flare.commands import (
    DATA_SAY_NO,
    DONE,
    EPILOG,
    WRONG_CALL,
    add_workers,
    complain,
    noun,
    opened_model,
    positive,
    verb,
)
from mhsev_flare.compare_commands import add_compare, missing_for_regions, place_text, region_lines
from mhsev_flare.data_commands import add_features, add_ingest, add_landmarks, add_preprocess, add_qc
from mhsev_flare.dicom_commands import add_dicom
from mhsev_flare.explain_commands import add_explain
from mhsev_flare.gateway_commands import add_gateway
from mhsev_flare.payload_commands import add_site_payload
from mhsev_flare.poc_commands import add_poc
from mhsev_flare.provision_commands import add_provision
from mhsev_flare.report_commands import add_report
from mhsev_flare.scan_report_commands import add_scan_report
from mhsev_flare.site_commands import add_site_check, add_site_config
from mhsev_flare.view_commands import add_view
from mhsev_monai._version import __version__

if TYPE_CHECKING:
    from mhsev_monai.model_file import SeverityModel
    from mhsev_monai.prediction import ScanGrade


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    if threading.current_thread() is threading.main_thread():
        # Ended from outside, a command still clears away what it had laid down on the way.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return command(options)
    except KeyboardInterrupt:
        complain("interrupted; what was finished is kept, and the same command goes on from there")
        return DATA_SAY_NO


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mhsev", description="Federated grading of cerebral micro-hemorrhages from brain DWI.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"mhsev {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(verbs)
    add_cohort(verbs)
    add_ingest(verbs)
    add_qc(verbs)
    add_landmarks(verbs)
    add_preprocess(verbs)
    add_features(verbs)
    add_associations(verbs)
    _add_simulator(verbs)
    _add_predict(verbs)
    add_explain(verbs)
    add_compare(verbs)
    add_dicom(verbs)
    add_gateway(verbs)
    add_view(verbs)
    add_bundle(verbs)
    add_report(verbs)
    add_scan_report(verbs)
    _add_jobs(verbs)
    add_provision(verbs)
    add_poc(verbs)
    add_site_config(verbs)
    add_site_check(verbs)
    add_site_payload(verbs)
    add_benchmark(verbs)
    add_search(verbs)
    return parser


def _add_demo(verbs: Any) -> None:
    parser = verb(verbs, "demo", "make simulated hospitals, run the federated job, and write a report", _demo)
    parser.add_argument("out", type=Path, help="folder for all of it")
    parser.add_argument("--subjects", type=positive, default=180, metavar="N", help="in all hospitals (default: 180)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulated subjects (default: 1)")
    add_workers(parser)


def _demo(options: argparse.Namespace) -> int:
    from mhsev_flare.demo import DemoError, run_demo

    try:
        summary = run_demo(options.out, options.subjects, options.seed, options.workers)
    except DemoError as error:
        complain(error)
        return DATA_SAY_NO
    print(summary)
    return DONE


def _add_simulator(verbs: Any) -> None:
    nouns = noun(verbs, "simulator", "FLARE's simulator as several hospitals on one machine")
    parser = verb(nouns, "prepare", "write what each simulated site decides into a simulator workspace", _prepare)
    parser.add_argument("workspace", type=Path, help="the folder that `nvflare simulator -w` gets")
    parser.add_argument(
        "--cohort", type=Path, help="folder with one BIDS root per site: site-1, ... (default: MHSEV_COHORT_ROOT)"
    )
    add_simulator_run(nouns)


def _prepare(options: argparse.Namespace) -> int:
    from mhsev_flare.simulator import WorkspaceError, prepare_workspace

    if options.cohort is not None and not options.cohort.is_dir():
        complain(f"{options.cohort} is not a folder; make one with `mhsev cohort make`, or name another with --cohort")
        return WRONG_CALL
    try:
        prepare_workspace(options.workspace, options.cohort)
    except (WorkspaceError, OSError) as error:
        complain(f"{options.workspace}: {error}")
        return WRONG_CALL
    what = "class allow list" if options.cohort is None else "class allow list and data roots"
    print(f"wrote {options.workspace / 'local'}: {what} of the simulated sites")
    return DONE


def _add_predict(verbs: Any) -> None:
    parser = verb(verbs, "predict", "grade scans with a trained model", _predict)
    parser.add_argument(
        "scans", type=Path, nargs="+", metavar="SCAN", help="NIfTI of a diffusion series, .bval beside it"
    )
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a run")
    parser.add_argument("--bval", type=Path, help="b-values of the one scan, where they are not beside it")
    parser.add_argument("--b0-only", action="store_true", help="every volume is b = 0; no b-values are looked for")
    parser.add_argument("--regions", action="store_true", help="say which findings are lobar, deep or infratentorial")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for machines")


def _predict(options: argparse.Namespace) -> int:
    if options.bval is not None and len(options.scans) > 1:
        complain(
            f"--bval goes with one scan, and {len(options.scans)} were given; put a .bval file beside each instead"
        )
        return WRONG_CALL
    if (model := opened_model(options.model)) is None:
        return WRONG_CALL
    if options.regions and (lacking := missing_for_regions()):
        complain(lacking)
        return WRONG_CALL
    failed = [scan for scan in options.scans if not _predict_one(scan, model, options)]
    if failed:
        complain(f"{len(failed)} of {len(options.scans)} scans could not be graded")
    return DATA_SAY_NO if failed else DONE


def _predict_one(scan: Path, model: SeverityModel, options: argparse.Namespace) -> bool:
    from mhsev_monai.errors import ScanError
    from mhsev_monai.lesion_regions import tell_regions
    from mhsev_monai.prediction import grade_scan

    regions = None
    try:
        grade, entries = grade_scan(scan, model, options.bval, options.b0_only)
        if options.regions:
            grade, regions = tell_regions(grade, entries)
    except ScanError as error:
        return _not_graded(scan, str(error), options)
    except Exception as error:
        # The edge of the batch: a fault of ours in one scan must not take the others with it.
        return _not_graded(scan, f"failed unexpectedly with {type(error).__name__}: {error}", options)
    if options.json:
        told = {} if regions is None else {"regions": regions.to_json()}
        print(json.dumps({"scan": str(scan), **grade.to_json(), **told}), flush=True)
    else:
        print("\n".join([describe_grade(scan, grade), *region_lines(regions)]), flush=True)
    return True


def _not_graded(scan: Path, reason: str, options: argparse.Namespace) -> bool:
    complain(f"{scan}: {reason}")
    if options.json:
        print(json.dumps({"scan": str(scan), "error": reason}), flush=True)
    return False


def describe_grade(scan: Path, grade: ScanGrade) -> str:
    """One fact a line, for the terminal."""
    from mhsev_monai.prediction import LIMITS

    probabilities = "  ".join(f"{label} {p:.2f}" for label, p in grade.probabilities.items())
    interval = "" if grade.count_interval is None else "90% interval {} to {}, ".format(*grade.count_interval)
    lines = [
        f"{scan}",
        f"  grade          {grade.grade.label}",
        f"  microbleeds    {grade.count}   ({interval}candidates before grading: {grade.n_candidates})",
        f"  findings       {_findings(grade)}",
        f"  probabilities  {probabilities}",
        f"  brain mask     {grade.quality['brain_mask_ml']:.0f} ml",
    ]
    for finding in grade.findings if grade.judges_spots else ():
        lines.append(f"  finding        probability {finding.probability:.2f}, at {place_text(finding)}")
    lines += _trusted(grade)
    lines += [f"  doubt          {flag}" for flag in grade.flags]
    return "\n".join([*lines, f"  {LIMITS}"])


def _trusted(grade: ScanGrade) -> list[str]:
    """The set of grades that may be the true one, and why the model abstains."""
    from mhsev_monai.trust import ABSTENTIONS, set_text

    lines = []
    if grade.prediction_set is not None:
        made = "" if grade.set_coverage is None else f"   (made to hold the grade of {grade.set_coverage:.0%} of cases)"
        lines.append(f"  grade set      {set_text(grade.prediction_set)}{made}")
    if grade.abstains is not None:
        lines.append(f"  abstains       {grade.abstains}: {ABSTENTIONS[grade.abstains]}")
    return lines


def _findings(grade: ScanGrade) -> str:
    if not grade.judges_spots:
        return "none are pointed at: the model judges the scan as a whole"
    return f"{len(grade.findings)} at least as likely a bleed as not, {len(grade.possible)} less likely"


def _add_jobs(verbs: Any) -> None:
    nouns = noun(verbs, "jobs", "the FLARE jobs of this package")
    parser = verb(nouns, "export", "write the jobs as FLARE job folders", _jobs_export)
    parser.add_argument("folder", type=Path, help="folder that gets one folder per job")
    parser.add_argument("--only", action="append", metavar="NAME", help="this job alone; may be given several times")
    parser.add_argument(
        "--resume", action="store_true", help="jobs that go on from where an unfinished run of the same study ended"
    )
    parser.add_argument(
        "--bring-code", action="store_true", help="put the packages into the jobs, for sites without them that allow it"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="jobs that write curves at the server; needs mhsev[tensorboard]"
    )
    parser.add_argument(
        "--encrypted", action="store_true", help="jobs whose server sees no update and no model; needs mhsev[he]"
    )
    add_model(parser)


def _jobs_export(options: argparse.Namespace) -> int:
    from mhsev_flare.analysis.jobs import ANALYSIS_JOBS, analysis_job
    from mhsev_flare.encrypted_job import MissingTensealError, encrypted_job, encrypted_spec
    from mhsev_flare.jobs import JOBS, export_job, severity_job, write_job

    given = [f"--{name}" for name in ("resume", "tensorboard", "encrypted") if getattr(options, name)]
    known = [*JOBS, *ANALYSIS_JOBS]
    names = options.only or (list(JOBS) if given else known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        complain(f"there is no job called {', '.join(unknown)}; there are {', '.join(known)}")
        return WRONG_CALL
    if options.model is not None and names != ["explain"]:
        complain("--model goes with --only explain, the one job that takes a model; add it")
        return WRONG_CALL
    try:
        for name in names:
            if name in ANALYSIS_JOBS:
                analysis = analysis_spec(name, options.model, given)
                print(f"wrote {write_job(analysis_job(analysis), options.folder, options.bring_code)}")
                continue
            spec = dataclasses.replace(JOBS[name], resume=options.resume, tensorboard=options.tensorboard)
            spec, make = (encrypted_spec(spec), encrypted_job) if options.encrypted else (spec, severity_job)
            print(f"wrote {export_job(spec, options.folder, options.bring_code, make)}")
    except (ValueError, MissingTensealError) as error:
        complain(error)
        return WRONG_CALL
    except OSError as error:
        complain(f"{options.folder}: jobs cannot be written ({type(error).__name__}); name another folder")
        return WRONG_CALL
    return DONE


if __name__ == "__main__":
    sys.exit(main())
