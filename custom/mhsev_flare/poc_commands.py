"""The commands of POC mode: ``poc up``, ``run``, ``status``, ``logs``, ``down`` and ``demo``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.analysis.commands import add_model, export_analysis, result_of, tell_result
from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, add_workers, complain, noun, positive, verb

if TYPE_CHECKING:
    from mhsev_flare.poc import PocFederation
    from mhsev_flare.poc.following import JobEnd

SITES = ("site-1", "site-2", "site-3")
"""Spelt out here, since the project would import what ``--help`` must not wait for."""

DEMO_SUBJECTS = 72


def add_poc(verbs: Any) -> None:
    """``mhsev poc ...``."""
    nouns = noun(verbs, "poc", "a server and hospitals as real processes on this machine (FLARE's POC mode)")
    _add_up(nouns)
    _add_run(nouns)
    status = _with_folder(verb(nouns, "status", "show what runs, and the round that each job has reached", _status))
    status.add_argument("--watch", action="store_true", help="show it again every few seconds, until interrupted")
    status.add_argument("--json", action="store_true", help="one JSON object, for machines")
    logs = _with_folder(verb(nouns, "logs", "show the last lines of a participant's log", _logs))
    logs.add_argument("participant", nargs="?", default="server", help="server, or a site (default: server)")
    logs.add_argument("--lines", type=positive, default=40, metavar="N", help="how many (default: 40)")
    logs.add_argument("--job", metavar="ID", help="of this job, instead of the participant itself")
    down = _with_folder(verb(nouns, "down", "end all processes and delete all but downloaded results", _down))
    down.add_argument("--keep", action="store_true", help="delete nothing; `mhsev poc up` starts it again")
    demo = verb(nouns, "demo", "make simulated hospitals, run the job in POC mode, and write a report", _demo)
    demo.add_argument("out", type=Path, help="folder for all of it")
    demo.add_argument(
        "--subjects", type=positive, default=DEMO_SUBJECTS, metavar="N", help=f"in all (default: {DEMO_SUBJECTS})"
    )
    demo.add_argument("--seed", type=int, default=1, help="of the simulated subjects (default: 1)")
    add_workers(demo)


def _port(text: str) -> int:
    port = positive(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"must be 65535 or less, got {port}")
    return port


def _with_folder(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("folder", type=Path, help="folder of the federation")
    return parser


def _add_up(nouns: Any) -> None:
    parser = _with_folder(verb(nouns, "up", "prepare and start a federation, or start again what has stopped", _up))
    parser.add_argument("--cohort", type=Path, metavar="DIR", help=f"holds a BIDS root a site: {', '.join(SITES)}")
    parser.add_argument(
        "--site", action="append", default=[], metavar="NAME=DIR", help="a site and its BIDS root; instead of --cohort"
    )
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="of the server (default: a free one)")
    parser.add_argument("--keys", action="store_true", help="also keys for encrypted jobs; needs mhsev[he]")


def _federation(options: argparse.Namespace) -> PocFederation:
    # FLARE's threads complain of every connection that is tried before the server answers.
    logging.getLogger().addHandler(logging.NullHandler())
    from mhsev_flare.poc import PocFederation

    return PocFederation(options.folder)


def _up(options: argparse.Namespace) -> int:
    from mhsev_flare.poc import PocError

    federation = _federation(options)
    try:
        if not federation.is_prepared:
            data = _data(options)
            if data is None:
                return WRONG_CALL
            print(f"preparing {', '.join(data)} in {federation.folder}", flush=True)
            federation.prepare(data, options.port, builders=_key_builders(options))
        elif options.cohort or options.site or options.port or options.keys:
            complain("this federation exists already, with its own sites and port; end it first with `mhsev poc down`")
            return WRONG_CALL
        print(f"starting the server on port {federation.port} and {len(federation.sites)} sites", flush=True)
        federation.start()
    except (PocError, OSError) as error:
        complain(error)
        return DATA_SAY_NO
    print(f"up: {', '.join(federation.sites)} are registered; next: mhsev poc run {options.folder} dsd_mlp")
    return DONE


def _key_builders(options: argparse.Namespace) -> list[Mapping[str, Any]]:
    from mhsev_flare.poc.project import KEYS_FOR_ENCRYPTED_JOBS

    return [KEYS_FOR_ENCRYPTED_JOBS] if options.keys else []


def _data(options: argparse.Namespace) -> Mapping[str, Path] | None:
    """Folder of each site; None, with a complaint, where the call names none or one that is not there."""
    if bool(options.cohort) == bool(options.site):
        complain("say where the sites' data lie: --cohort DIR with a folder a site, or --site NAME=DIR for each")
        return None
    if options.cohort:
        data = {site: options.cohort / site for site in SITES}
    else:
        pairs = [pair.partition("=") for pair in options.site]
        data = {name: Path(folder) for name, _, folder in pairs}
        if len(data) < len(pairs) or not all(name and folder for name, _, folder in pairs):
            complain("--site takes NAME=DIR, each name once, such as --site hospital_a=/data/bids")
            return None
        wrong = [name for name in data if name == "server" or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name)]
        if wrong:
            complain(
                f"a site cannot be called {', '.join(wrong)}; names are of letters, digits, _ and -, and not server"
            )
            return None
    absent = sorted(site for site, folder in data.items() if not folder.is_dir())
    if absent:
        complain(f"{', '.join(absent)}: the BIDS root is not a folder; make one with `mhsev cohort make`")
        return None
    return data


def _add_run(nouns: Any) -> None:
    parser = _with_folder(verb(nouns, "run", "submit a job, show its rounds, fetch its result, write the report", _run))
    parser.add_argument("job", help="name of a job of this package, or the folder of an exported one")
    parser.add_argument("--resume", action="store_true", help="go on from where an unfinished run of it ended")
    parser.add_argument("--cohort", type=Path, metavar="DIR", help="for pictures of example cases in the report")
    add_model(parser)


def _run(options: argparse.Namespace) -> int:
    from mhsev_flare.demo import say_round
    from mhsev_flare.poc import PocError
    from mhsev_flare.poc.following import run_job
    from mhsev_flare.protocol import RESULT_FILE
    from mhsev_flare.result import read_run

    federation = _federation(options)
    try:
        federation.check()
    except PocError as error:
        complain(error)
        return WRONG_CALL
    try:
        job = _job(options, federation.folder / "jobs")
        if job is None:
            return WRONG_CALL
        end = run_job(federation, job, say_round, lambda job_id: print(f"job            {job_id}", flush=True))
        found = result_of(end.folder)
        if found is not None and found.name != RESULT_FILE:
            print(f"FLARE calls it {end.status}")
            return tell_result(found)
        result, _, _ = read_run(end.folder)
    except (PocError, OSError, ValueError) as error:
        complain(error)
        return DATA_SAY_NO
    except KeyboardInterrupt:
        complain("interrupted; the job was ended, and goes on from its last round with --resume")
        return DATA_SAY_NO
    return _tell(result, end, options.cohort)


def _tell(result: Mapping[str, Any], end: JobEnd, cohort: Path | None) -> int:
    """What came of a job that trains, and its report."""
    from mhsev_flare.run_report import write_report

    print(f"FLARE calls it {end.status}")
    print(f"result         {result['status']}   {result['reason']}".rstrip())
    print(f"memory         at most {end.most_bytes / 2**30:.1f} GiB, all processes together")
    print(f"wrote          {end.folder}")
    if result["status"] != "completed":
        return DATA_SAY_NO
    page = end.folder / "report.html"
    try:
        write_report(end.folder, page, cohort)
    except (OSError, ValueError, KeyError) as error:  # the result is there all the same
        print(f"no report      {error}")
    else:
        print(f"wrote          {page}")
    return DONE


def _job(options: argparse.Namespace, folder: Path) -> Path | None:
    """Folder of the job to submit; None, with a complaint, where there is none."""
    from mhsev_flare.analysis.jobs import ANALYSIS_JOBS
    from mhsev_flare.jobs import JOBS, export_job

    if options.job in ANALYSIS_JOBS:
        try:
            return export_analysis(options.job, folder, options.model)
        except ValueError as error:
            complain(error)
            return None
    if options.job in JOBS:
        return export_job(dataclasses.replace(JOBS[options.job], resume=options.resume), folder)
    if not (Path(options.job) / "meta.json").is_file():
        known = ", ".join([*JOBS, *ANALYSIS_JOBS])
        complain(f"there is no job {options.job}; there are {known}, and folders that hold a meta.json")
        return None
    if options.resume:
        complain("--resume goes with the name of a job; export a folder with `mhsev jobs export --resume`")
        return None
    return Path(options.job)


def _status(options: argparse.Namespace) -> int:
    from mhsev_flare.poc import PocError
    from mhsev_flare.poc.overview import describe, look

    federation = _federation(options)
    while True:
        try:
            overview = look(federation)
        except PocError as error:
            complain(error)
            return WRONG_CALL
        if options.json:
            print(json.dumps({**dataclasses.asdict(overview), "is_up": overview.is_up}), flush=True)
        else:
            print(("\033[H\033[2J" if options.watch else "") + describe(overview), flush=True)
        if not options.watch:
            return DONE if overview.is_up else DATA_SAY_NO
        time.sleep(3)


def _logs(options: argparse.Namespace) -> int:
    from mhsev_flare.poc import PocError

    federation = _federation(options)
    try:
        known = ["server", *federation.sites]
    except PocError as error:
        complain(error)
        return WRONG_CALL
    if options.participant not in known:
        complain(f"there is no participant {options.participant}; there are {', '.join(known)}")
        return WRONG_CALL
    kit = federation.kits / options.participant
    path = kit / options.job / "log.txt" if options.job else kit / "log.txt"
    if not path.is_file():
        what = f"job {options.job} left no log at" if options.job else "there is no log yet of"
        complain(f"{what} {options.participant}; `mhsev poc status` shows what runs")
        return DATA_SAY_NO
    print("\n".join(path.read_text(errors="replace").splitlines()[-options.lines :]))
    return DONE


def _down(options: argparse.Namespace) -> int:
    from mhsev_flare.poc import PocError

    federation = _federation(options)
    try:
        left = federation.down(keep=options.keep)
    except PocError as error:
        complain(error)
        return DATA_SAY_NO
    print(f"down: no process of it is left; the folder holds {', '.join(left) or 'nothing and was removed'}")
    return DONE


def _demo(options: argparse.Namespace) -> int:
    logging.getLogger().addHandler(logging.NullHandler())
    from mhsev_flare.demo import DemoError
    from mhsev_flare.poc.demo import run_poc_demo

    try:
        summary = run_poc_demo(options.out, options.subjects, options.seed, options.workers)
    except DemoError as error:
        complain(error)
        return DATA_SAY_NO
    print(summary)
    return DONE
