"""The process between a PACS and the pipeline: ``gateway``."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, verb

if TYPE_CHECKING:
    from mhsev_monai.pacs.gateway.audit import Pseudonyms
    from mhsev_monai.pacs.gateway.config import GatewayConfig
    from mhsev_monai.pacs.gateway.journal import Journal
    from mhsev_monai.pacs.gateway.journal_rows import SeriesRow

_ACTIONS = ("run", "status", "retry")


def add_gateway(verbs: Any) -> None:
    """``mhsev gateway [run|status|retry [SERIES...]] --config FILE``."""
    parser = verb(verbs, "gateway", "receive series from a PACS, grade them, and send the results back", _gateway)
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="run", help="default: run, until ended")
    parser.add_argument(
        "series", nargs="*", metavar="SERIES", help="of retry: failed series by pseudonym or UID; none means all"
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML or TOML file; see docs/gateway.md")
    parser.add_argument("--check", action="store_true", help="look whether it could start, and end")
    parser.add_argument("--uids", action="store_true", help="of status: show Series Instance UIDs, not pseudonyms")
    parser.add_argument("--json", action="store_true", help="of status: one JSON object, for machines")


def _gateway(options: argparse.Namespace) -> int:
    if options.series and options.action != "retry":
        complain(f"series are named for retry only, and {options.action} got {len(options.series)}; leave them out")
        return WRONG_CALL
    from mhsev_monai.pacs.gateway.config import ConfigError, load_config

    try:
        config = load_config(options.config)
    except ConfigError as error:
        complain(error)
        return WRONG_CALL
    if options.check:
        return _check(config)
    return _run(config) if options.action == "run" else _look(config, options)


def _check(config: GatewayConfig) -> int:
    from mhsev_monai.pacs.gateway.check import check_config

    findings = list(check_config(config))
    for finding in findings:
        print(f"{finding.what:20} {finding.fault or 'well'}")
    return DATA_SAY_NO if any(finding.fault for finding in findings) else DONE


def _run(config: GatewayConfig) -> int:
    from mhsev_monai.pacs.gateway.audit import set_up_log
    from mhsev_monai.pacs.gateway.journal import JournalError
    from mhsev_monai.pacs.gateway.recovery import AlreadyRunningError
    from mhsev_monai.pacs.gateway.service import Service

    set_up_log()
    try:
        Service(config).run()
    except (AlreadyRunningError, JournalError) as error:
        complain(error)
        return DATA_SAY_NO
    except OSError as error:
        complain(f"the gateway cannot start ({error.strerror}); look with --check")
        return DATA_SAY_NO
    return DONE


def _look(config: GatewayConfig, options: argparse.Namespace) -> int:
    from mhsev_monai.pacs.gateway.audit import Pseudonyms
    from mhsev_monai.pacs.gateway.journal import Journal, JournalError

    if not config.folders.journal.is_file():
        complain("there is no journal yet; the gateway was not started with this state folder")
        return DATA_SAY_NO
    try:
        journal = Journal(config.folders.journal)
    except JournalError as error:
        complain(error)
        return DATA_SAY_NO
    pseudonyms = Pseudonyms.from_file(config.folders.key)
    try:
        if options.action == "retry":
            return _retry(journal, pseudonyms, options.series)
        _status(journal, pseudonyms, options)
    finally:
        journal.close()
    return DONE


def _status(journal: Journal, pseudonyms: Pseudonyms, options: argparse.Namespace) -> None:
    counts, failed, in_part = journal.counts(), journal.series("failed"), journal.graded_in_part()

    def name(row: SeriesRow) -> str:
        return row.series_uid if options.uids else pseudonyms.of(row.series_uid)

    if options.json:
        held = {
            "series": counts.series,
            "deliveries": counts.deliveries,
            "failed": [{"series": name(row), "reason": row.reason} for row in failed],
            "graded_in_part": [{"series": name(row), "reason": row.reason} for row in in_part],
        }
        print(json.dumps(held))
        return
    for state, number in counts.series.items():
        print(f"{state:12} {number}")
    for destination, states in counts.deliveries.items():
        told = "  ".join(f"{state} {number}" for state, number in states.items() if number)
        print(f"to {destination}: {told}")
    for row in (*failed, *in_part):
        print(f"{name(row)}  {_since(row)}  {row.state}: {row.reason}")


def _since(row: SeriesRow) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(row.changed_at))


def _retry(journal: Journal, pseudonyms: Pseudonyms, named: list[str]) -> int:
    if not named:
        print(f"{journal.work.retry()} series set going again")
        return DONE
    by_name = {}
    for row in journal.series("failed"):
        by_name[row.series_uid] = by_name[pseudonyms.of(row.series_uid)] = row.series_uid
    unknown = [name for name in named if name not in by_name]
    if unknown:
        complain(f"{len(unknown)} of {len(named)} are no failed series; `mhsev gateway status` lists them")
        return WRONG_CALL
    print(f"{sum(journal.work.retry(by_name[name]) for name in named)} series set going again")
    return DONE
