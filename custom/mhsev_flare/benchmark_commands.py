"""The command that measures how well the jobs grade: ``benchmark``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, positive, verb

if TYPE_CHECKING:
    from mhsev_flare.benchmark.protocol import Regime

# Spelt out here, since the enumeration would import what ``--help`` must not wait for.
REGIMES = ("federated", "central", "local")
MOST_WORKERS = 2


def add_benchmark(verbs: Any) -> None:
    """``mhsev benchmark COHORT ... --out FILE``."""
    parser = verb(verbs, "benchmark", "measure how well the jobs grade, on repeated splits of cohorts", _benchmark)
    parser.add_argument("cohorts", type=Path, nargs="+", metavar="COHORT", help="folder with one BIDS root a hospital")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the Markdown page; a JSON file of the same name goes beside",
    )
    parser.add_argument("--rows", nargs="+", action="extend", metavar="NAME", help="these rows alone (default: all)")
    parser.add_argument(
        "--reference", metavar="NAME", help="the row that others are compared with (default: dsd_mlp, or the first row)"
    )
    parser.add_argument(
        "--regimes", nargs="+", choices=REGIMES, default=list(REGIMES), help="who trains with whom (default: all three)"
    )
    parser.add_argument("--leave-one-out", action="store_true", help="also train without each site, and judge by it")
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="splits, seeds 1 to N (default: 5)")
    parser.add_argument(
        "--workers", type=positive, metavar="N", help=f"processes, at most {MOST_WORKERS} (default: as many as cores)"
    )


def _benchmark(options: argparse.Namespace) -> int:
    from mhsev_flare.benchmark.report import Plan, write_benchmark
    from mhsev_flare.benchmark.rows import ROWS
    from mhsev_flare.progress import bar, cores
    from mhsev_flare.site import SiteError
    from mhsev_monai.errors import CohortError

    names = list(dict.fromkeys(options.rows or ROWS))
    reference = options.reference or ("dsd_mlp" if "dsd_mlp" in names else names[0])
    unknown = sorted({*names, reference} - set(ROWS))
    if unknown or reference not in names:
        what = f"there is no row called {', '.join(unknown)}" if unknown else f"{reference} is not among --rows"
        complain(f"{what}; there are {', '.join(ROWS if unknown else names)}")
        return WRONG_CALL
    missing = [cohort for cohort in options.cohorts if not cohort.is_dir()]
    if missing:
        complain(f"{missing[0]} is not a folder; make one with `mhsev cohort make`, or name another")
        return WRONG_CALL
    plan = Plan(
        rows=tuple(ROWS[name] for name in names),
        reference=reference,
        regimes=_regimes(options),
        n_repeats=options.repeats,
        workers=min(options.workers or cores(), MOST_WORKERS),
    )
    try:
        write_benchmark(options.cohorts, options.out, _command(options), plan, bar)
    except (CohortError, SiteError) as error:
        complain(error)
        return DATA_SAY_NO
    except OSError as error:
        complain(f"a file cannot be read or written ({type(error).__name__}); check the cohort's folder and --out")
        return WRONG_CALL
    print(f"wrote {options.out}")
    print(f"wrote {options.out.with_suffix('.json')}")
    return DONE


def _regimes(options: argparse.Namespace) -> frozenset[Regime]:
    from mhsev_flare.benchmark.protocol import Regime

    chosen = {Regime(name) for name in options.regimes}
    return frozenset(chosen | ({Regime.LEAVE_ONE_OUT} if options.leave_one_out else set()))


def _command(options: argparse.Namespace) -> str:
    """The call that makes the same page, with the names of folders and without where they lie."""
    words = ["mhsev", "benchmark", *(cohort.resolve().name for cohort in options.cohorts)]
    out = options.out.name if options.out.is_absolute() else str(options.out)
    words += ["--out", out, "--repeats", str(options.repeats), "--regimes", *options.regimes]
    words += ["--leave-one-out"] * options.leave_one_out
    for option, names in (("--rows", options.rows), ("--reference", options.reference and [options.reference])):
        words += [option, *names] if names else []
    return shlex.join(words)
