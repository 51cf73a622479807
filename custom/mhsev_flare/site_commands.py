"""The commands of a site's administrator: ``site-config`` and ``site-check``."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, verb

if TYPE_CHECKING:
    from mhsev_flare.site_config import Changes

# Spelt out here, since the policy would import the package that ``--help`` must not wait for; tests compare.
PRIVACY_RULES = ("allowed", "required", "forbidden")
ENTRIES = (
    "mhsev_train_loss",
    "mhsev_epsilon",
    "NUM_STEPS_CURRENT_ROUND",
    "scaffold_c_diff",
    "mhsev_calibration_sums",
    "mhsev_uncertainty",
    "mhsev_subgroups",
    "mhsev_pairs",
    "mhsev_validation_loss",
    "mhsev_table",
    "mhsev_site_summary",
    "mhsev_n_samples",
    "mhsev_report",
    "mhsev_association_tables",
    "mhsev_association_sums",
    "mhsev_association_slopes",
    "mhsev_player_sizes",
    "mhsev_attributions",
    "mhsev_second_moments",
)
NOTHING = "nothing"


def add_site_config(verbs: Any) -> None:
    """``mhsev site-config KIT``."""
    parser = verb(verbs, "site-config", "say where a site's scans lie and what may leave it", _site_config)
    parser.add_argument("kit", type=Path, metavar="KIT", help="startup kit of the site: holds startup/ and local/")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="BIDS root of the site's scans, absolute")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for features and privacy account, absolute")
    parser.add_argument("--lesion-masks", metavar="REL", help="derivative with lesion masks, under the data root")
    parser.add_argument("--least", type=int, metavar="N", help="hide numbers of cases below N; 0: none (default: 5)")
    parser.add_argument("--base", type=int, metavar="N", help="numbers by grade are told in steps of N (default: 5)")
    parser.add_argument(
        "--block",
        action="append",
        choices=(*ENTRIES, NOTHING),
        metavar="ENTRY",
        help=f"entry of messages that never leaves, several times for several; {NOTHING}: none. "
        f"The first eight a study can do without, the last six are of analyses: {', '.join(ENTRIES)}",
    )
    parser.add_argument("--privacy", choices=PRIVACY_RULES, help="differentially private training (default: allowed)")
    parser.add_argument("--max-epsilon", type=float, metavar="E", help="most that all jobs together may spend")
    parser.add_argument("--max-delta", type=float, metavar="D", help="largest delta of a job (default: 0.001)")
    parser.add_argument("--least-noise", type=float, metavar="X", help="smallest noise multiplier (default: above 0)")
    parser.add_argument("--show", action="store_true", help="print what is decided, and change nothing")


def _changes(options: argparse.Namespace) -> Changes:
    from mhsev_flare.site_config import Changes

    blocked = None if options.block is None else tuple(dict.fromkeys(e for e in options.block if e != NOTHING))
    return Changes(
        data_root=options.data_root,
        cache_root=options.cache,
        lesion_masks=options.lesion_masks,
        least=options.least,
        base=options.base,
        blocked=blocked,
        privacy=options.privacy,
        max_epsilon=options.max_epsilon,
        max_delta=options.max_delta,
        least_noise=options.least_noise,
    )


def _site_config(options: argparse.Namespace) -> int:
    from mhsev_flare.site_config import Changes, Kit, configure, configured, describe
    from mhsev_flare.site_policy import PolicyError

    changes = _changes(options)
    if options.show and changes != Changes():
        complain("--show changes nothing; leave it out, or the other options")
        return WRONG_CALL
    try:
        kit = Kit.at(options.kit)
        if options.show:
            policy = configured(kit)
            if policy is None:
                complain(f"{kit.site} has no policy yet; write one with `mhsev site-config KIT --data-root DIR`")
                return DATA_SAY_NO
            print(describe(kit, policy))
            return DONE
        is_new = not kit.privacy_file.is_file()
        policy, changed = configure(kit, changes)
    except (PolicyError, OSError) as error:
        complain(error)
        return WRONG_CALL
    print(describe(kit, policy))
    print(f"{'wrote' if changed else 'unchanged':<15}{kit.privacy_file}")
    if is_new:
        print(f"{'restart':<15}the site, if it runs: FLARE reads the names of privacy scopes at its start")
    return DONE


def add_site_check(verbs: Any) -> None:
    """``mhsev site-check KIT``."""
    parser = verb(verbs, "site-check", "say whether a site can take part, and what to do where not", _site_check)
    parser.add_argument("kit", type=Path, metavar="KIT", help="startup kit of the site: holds startup/ and local/")
    parser.add_argument("--job", default="dsd_mlp", metavar="NAME", help="job that is to run (default: dsd_mlp)")
    parser.add_argument("--no-network", action="store_true", help="leave out the connection to the server")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for machines")


def _site_check(options: argparse.Namespace) -> int:
    # What the reading of a data root logs names cases, which no check does.
    logging.getLogger().addHandler(logging.NullHandler())
    from mhsev_flare.jobs import JOBS
    from mhsev_flare.site_check import check_site
    from mhsev_flare.site_check.report import FAIL, as_line
    from mhsev_flare.site_config import Kit
    from mhsev_flare.site_policy import PolicyError

    if options.job not in JOBS:
        complain(f"there is no job {options.job}; there are {', '.join(JOBS)}")
        return WRONG_CALL
    try:
        kit = Kit.at(options.kit)
    except PolicyError as error:
        complain(error)
        return WRONG_CALL
    n_failed = 0
    for finding in check_site(kit, JOBS[options.job], network=not options.no_network):
        print(json.dumps(finding.to_json()) if options.json else as_line(finding), flush=True)
        n_failed += finding.status == FAIL
    if n_failed:
        complain(f"{kit.site} cannot take part yet: {n_failed} of the checks failed")
    return DATA_SAY_NO if n_failed else DONE
