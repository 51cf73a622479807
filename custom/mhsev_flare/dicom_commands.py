"""The command that grades a folder of DICOM into a folder of results: ``dicom run``."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, EPILOG, WRONG_CALL, complain, noun, verb
from mhsev_flare.compare_commands import missing_for_regions

if TYPE_CHECKING:
    from mhsev_monai.pacs.run import SeriesOutcome

_FORMS = ("comprehensive3d", "enhanced", "both", "none")


def add_dicom(verbs: Any) -> None:
    """``mhsev dicom run IN OUT --model MODEL``."""
    nouns = noun(verbs, "dicom", "DICOM in, results as DICOM objects out, without a network")
    parser = verb(nouns, "run", "grade every brain DWI series of a folder and write result objects", _run)
    parser.add_argument("source", type=Path, metavar="IN", help="folder of DICOM files, any depth")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that gets one folder per graded series")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a run")
    _add_common(parser)
    module = verb(nouns, "mercure", "the same for folders that the router Mercure names in the environment", _mercure)
    module.add_argument("--model", type=Path, help="model.pt of a run (default: MHSEV_MODEL)")
    _add_common(module)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sr",
        choices=_FORMS,
        default=_FORMS[0],
        help="form of the structured report, for archives that refuse the first (default: %(default)s)",
    )
    parser.add_argument("--regions", action="store_true", help="say which findings are lobar, deep or infratentorial")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and series, for machines")


def _run(options: argparse.Namespace) -> int:
    def run(tell: Callable[[SeriesOutcome], None]) -> list[SeriesOutcome]:
        from mhsev_monai.pacs.run import RunSettings, run_folder

        return run_folder(options.source, options.out, options.model, RunSettings(options.sr, options.regions), tell)

    return _told(run, options)


def _mercure(options: argparse.Namespace) -> int:
    model = options.model or os.environ.get("MHSEV_MODEL")
    names = ("MERCURE_IN_DIR", "MERCURE_OUT_DIR")
    folders = [os.environ.get(name, "") for name in names]
    if not all(folders) or not model:
        complain(f"{' and '.join(names)} must name folders, as Mercure sets them, and --model or MHSEV_MODEL a model")
        return WRONG_CALL

    def run(tell: Callable[[SeriesOutcome], None]) -> list[SeriesOutcome]:
        from mhsev_monai.pacs.mercure import run_module
        from mhsev_monai.pacs.run import RunSettings

        return run_module(
            Path(folders[0]), Path(folders[1]), Path(model), RunSettings(options.sr, options.regions), tell
        )

    return _told(run, options)


def _told(run: Callable[[Callable[[SeriesOutcome], None]], list[SeriesOutcome]], options: argparse.Namespace) -> int:
    """Run, tell what became of each series, and give the exit status.

    Folders may bear names of patients, and what is said here may be kept in logs: they are not repeated.
    """
    from mhsev_monai.errors import ScanError
    from mhsev_monai.model_file import ModelFileError

    if options.regions and (lacking := missing_for_regions()):
        complain(lacking)
        return WRONG_CALL
    try:
        outcomes = run(_tell_json if options.json else _tell)
    except ModelFileError as error:
        complain(f"--model: {error}")
        return WRONG_CALL
    except ScanError as error:
        complain(f"IN: {error}")
        return WRONG_CALL
    except ImportError as error:
        complain(f"{error.name or error} is missing; install it with: pip install 'mhsev[pacs]'")
        return WRONG_CALL
    except OSError as error:
        complain(f"OUT cannot be written ({type(error).__name__}); name another folder, or mend its permissions")
        return WRONG_CALL
    if not options.json:
        _sum_up(outcomes)
    return _status(outcomes)


def _status(outcomes: list[SeriesOutcome]) -> int:
    statuses = Counter(str(outcome.status) for outcome in outcomes)
    return DONE if statuses["done"] and not statuses["refused"] + statuses["failed"] else DATA_SAY_NO


def _tell_json(outcome: SeriesOutcome) -> None:
    print(json.dumps(outcome.to_json()), flush=True)


def _tell(outcome: SeriesOutcome) -> None:
    """One series in a few lines, for a terminal."""
    print(f"{outcome.series or '-'}  {outcome.kind}, {outcome.n_files} files: {outcome.status}", flush=True)
    if outcome.reason:
        print(f"  reason       {outcome.reason}")
    if outcome.grade is not None:
        print(f"  grade        {outcome.grade}\n  microbleeds  {outcome.count}\n  objects      {len(outcome.results)}")
    if outcome.abstains is not None:
        print(f"  abstains     {outcome.abstains}")
    for warning in outcome.warnings:
        print(f"  doubt        {warning}")


def _sum_up(outcomes: list[SeriesOutcome]) -> None:
    """How many of what, and the limits."""
    counts = Counter((str(outcome.status), outcome.kind) for outcome in outcomes)
    for (status, kind), n in sorted(counts.items()):
        print(f"{status:<12} {n}  {kind}")
    if not any(status == "done" for status, _ in counts):
        print("nothing was graded")
    print(EPILOG)
