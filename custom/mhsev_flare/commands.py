"""What the commands of the command line share: exit statuses, complaints, and how a verb is added."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mhsev_monai.model_file import SeverityModel

DONE, DATA_SAY_NO, WRONG_CALL = 0, 1, 2

EPILOG = "Research use only. DWI shows fewer microbleeds than T2*-GRE or SWI."


def complain(message: object) -> None:
    """Write one line to stderr."""
    print(f"mhsev: {message}", file=sys.stderr)


def opened_model(path: Path) -> SeverityModel | None:
    """The model of a run; None, with a complaint, where the file is none."""
    from mhsev_monai.model_file import ModelFileError, load_model

    try:
        return load_model(path)
    except ModelFileError as error:
        complain(f"{path}: {error}")
        return None


def verb(verbs: Any, name: str, summary: str, command: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    """Add a verb that calls ``command``; returns its parser."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=EPILOG
    )
    parser.set_defaults(command=command)
    return parser


def noun(verbs: Any, name: str, summary: str) -> Any:
    """Add a noun that has verbs of its own; returns what they are added to."""
    parser = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=EPILOG)
    return parser.add_subparsers(metavar="COMMAND", required=True)


def positive(text: str) -> int:
    """A whole number from 1 up, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``."""
    parser.add_argument("--workers", type=positive, default=None, metavar="N", help="processes (default: all cores)")
