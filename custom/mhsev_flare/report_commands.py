"""``mhsev report``: the report of a finished run, and its model card."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, verb

# Spelt out here, since --help must not wait for NumPy.
FORMS = ("html", "md", "json", "pdf")


def add_report(verbs: Any) -> None:
    """``mhsev report RUN --out FILE``."""
    parser = verb(verbs, "report", "write the report of a finished run, or its model card", _report)
    parser.add_argument("run", type=Path, help="folder of the run: the simulator workspace, or a downloaded job")
    parser.add_argument("--out", type=Path, metavar="FILE", help="what to write: a page, or the form of its ending")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMS,
        default=(),
        dest="forms",
        help="several forms beside each other, each with its own ending",
    )
    parser.add_argument("--model-card", type=Path, metavar="FILE", help="write the model card, .md or another form")
    parser.add_argument("--cohort", type=Path, help="folder with the sites' BIDS roots, for pictures of single cases")
    parser.add_argument(
        "--explanation",
        type=Path,
        metavar="FILE",
        help="of the job explain (default: explanation.json beside the result)",
    )
    parser.add_argument(
        "--associations",
        type=Path,
        metavar="FILE",
        help="of the job associations or `mhsev associations --json` (default: associations.json beside the result)",
    )


def _report(options: argparse.Namespace) -> int:
    if options.out is None and options.model_card is None:
        complain("nothing to write: name a file with --out, or with --model-card")
        return WRONG_CALL
    from mhsev_flare.run_report import read_report, write_model_card, write_report_of
    from mhsev_monai.report.forms import MissingReportlabError

    named = {"explanation.json": options.explanation, "associations.json": options.associations}
    try:
        data = read_report(
            options.run, options.cohort, {name: path for name, path in named.items() if path is not None}
        )
        written = [] if options.out is None else write_report_of(data, options.out, options.forms)
        if options.model_card is not None:
            written.append(write_model_card(data, options.model_card))
    except MissingReportlabError as error:
        complain(error)
        return WRONG_CALL
    except (OSError, ValueError, KeyError) as error:
        complain(f"{options.run}: {error}")
        return DATA_SAY_NO
    for path in written:
        print(f"wrote {path}")
    return DONE
