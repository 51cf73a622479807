"""The command that shows what would leave a site: ``site-payload``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, verb

PREVIEW_SITE = "this-site"


def add_site_payload(verbs: Any) -> None:
    """``mhsev site-payload DATA_ROOT`` or ``mhsev site-payload --kit KIT``."""
    parser = verb(verbs, "site-payload", "show what would leave this site in a study, entry by entry", _site_payload)
    parser.add_argument("root", type=Path, nargs="?", metavar="BIDS_ROOT", help="the site's scans, without a kit")
    parser.add_argument("--kit", type=Path, metavar="KIT", help="startup kit: its data root, its policy, its filters")
    parser.add_argument("--job", default="dsd_mlp", metavar="NAME", help="of this package (default: dsd_mlp)")
    parser.add_argument("--json", action="store_true", help="one JSON object a message, for machines")


def _site_payload(options: argparse.Namespace) -> int:
    logging.getLogger().addHandler(logging.NullHandler())
    from mhsev_flare.analysis.jobs import ANALYSIS_JOBS
    from mhsev_flare.analysis.payload_preview import preview_analysis
    from mhsev_flare.jobs import JOBS
    from mhsev_flare.payload_preview import describe_payload, preview_payload
    from mhsev_flare.protocol import Meta
    from mhsev_flare.site_config import Kit
    from mhsev_flare.site_policy import PolicyError
    from mhsev_flare.site_policy_file import default_scope, read_privacy_file

    if (options.root is None) == (options.kit is None):
        complain("say which scans: a BIDS root, or --kit with the site's startup kit")
        return WRONG_CALL
    known = [*JOBS, *ANALYSIS_JOBS]
    if options.job not in known:
        complain(f"there is no job {options.job}; there are {', '.join(known)}")
        return WRONG_CALL
    try:
        kit = Kit.at(options.kit) if options.kit else None
        scope = default_scope(read_privacy_file(kit.privacy_file)) if kit else None
        filters = [_built(entry) for entry in (scope or {}).get("task_result_filters", [])]
    except (PolicyError, ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
        complain(f"the kit cannot be used: {error}")
        return WRONG_CALL
    if kit:
        site, local, properties = kit.site, kit.local, (scope or {}).get("properties", {})
    else:
        site, local = PREVIEW_SITE, options.root / "local"
        properties = {"mhsev_data_root": str(options.root.resolve())}
    if options.job in ANALYSIS_JOBS:
        messages = preview_analysis(ANALYSIS_JOBS[options.job], site, local, properties, filters)
    else:
        messages = preview_payload(JOBS[options.job], site, local, properties, filters)
    if options.json:
        print("\n".join(json.dumps(dataclasses.asdict(message)) for message in messages))
    else:
        print(describe_payload(messages))
        print(f"filters of this site: {', '.join(type(step).__name__ for step in filters) or 'none'}; nothing was sent")
    refused = any(entry.name.endswith(Meta.REFUSAL) for message in messages for entry in message.entries)
    return DATA_SAY_NO if refused or any(message.blocked for message in messages) else DONE


def _built(entry: Mapping[str, Any]) -> Any:
    """The filter that an entry of ``privacy.json`` names."""
    from importlib import import_module

    module, _, name = str(entry["path"]).rpartition(".")
    return getattr(import_module(module), name)(**entry.get("args", {}))
