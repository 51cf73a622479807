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
    parser.add_argument(
        "--repeats",
        type=positive,
        metavar="N",
        help="random splits, seeds 1 to N (default: 5); with --folds, partitions (default: 1)",
    )
    parser.add_argument(
        "--folds",
        type=positive,
        default=0,
        metavar="K",
        help="parts of which each is the test once, 2 or more, instead of random splits; --repeats times",
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help=f"processes, at most {MOST_WORKERS} (default: as many as cores)"
    )


def _benchmark(options: argparse.Namespace) -> int:
    from mhsev_flare.benchmark.report import Plan, write_benchmark
    from mhsev_flare.benchmark.rows import ROWS
    from mhsev_flare.progress import bar, cores
    from mhsev_flare.site_data import SiteError
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
    if options.folds == 1:
        complain("--folds must be 2 or more: each fold is tested with a model of the others")
        return WRONG_CALL
    plan = Plan(
        rows=tuple(ROWS[name] for name in names),
        reference=reference,
        regimes=_regimes(options),
        n_repeats=_n_repeats(options),
        workers=min(options.workers or cores(), MOST_WORKERS),
        n_folds=options.folds,
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


def _n_repeats(options: argparse.Namespace) -> int:
    """Splits in all."""
    return options.folds * (options.repeats or 1) if options.folds else options.repeats or 5


def add_search(verbs: Any) -> None:
    """``mhsev search COHORT``."""
    parser = verb(verbs, "search", "search settings of a job's network, judged by the validation cases", _search)
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="folder with one BIDS root a hospital")
    parser.add_argument("--job", default="dsd_mlp", metavar="NAME", help="whose settings (default: dsd_mlp)")
    parser.add_argument("--budget", type=positive, default=12, metavar="N", help="federated trainings (default: 12)")
    parser.add_argument("--splits", type=positive, default=1, metavar="N", help="splits of each (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the draws (default: 1)")
    parser.add_argument("--masks", action="store_true", help="train with lesion masks too; their weight is searched")
    parser.add_argument(
        "--vary", nargs="+", default=[], metavar="SETTING", help="only these; the others stay the job's (default: all)"
    )


def _search(options: argparse.Namespace) -> int:
    import torch

    from mhsev_flare.benchmark.kept import FOLDER
    from mhsev_flare.benchmark.protocol import load_cohort
    from mhsev_flare.benchmark.search import search_settings
    from mhsev_flare.jobs import JOBS
    from mhsev_flare.progress import bar, cores
    from mhsev_flare.site_data import SiteError
    from mhsev_monai.errors import CohortError

    if options.job not in JOBS:
        complain(f"there is no job {options.job}; there are {', '.join(JOBS)}")
        return WRONG_CALL
    torch.set_num_threads(1)
    spec, kept = JOBS[options.job], options.cohort / FOLDER
    try:
        cohort = load_cohort(options.cohort, spec.all_inputs, cores(), bar)
        with bar("federated trainings", "trial") as progress:
            trials = search_settings(
                spec, cohort, options.budget, options.seed, options.splits, progress, kept, options.masks, options.vary
            )
    except ValueError as error:
        complain(error)
        return WRONG_CALL
    except (CohortError, SiteError) as error:
        complain(error)
        return DATA_SAY_NO
    except OSError as error:
        complain(f"a file cannot be read or written ({type(error).__name__}); check the cohort's folder")
        return WRONG_CALL
    for trial in trials:
        settings = "  ".join(f"{name} {value}" for name, value in trial.settings.items())
        print(f"rps {trial.rps:.4f}  quadratic kappa {trial.quadratic_kappa:.3f}  {settings}")
    return DONE


def _regimes(options: argparse.Namespace) -> frozenset[Regime]:
    from mhsev_flare.benchmark.protocol import Regime

    chosen = {Regime(name) for name in options.regimes}
    return frozenset(chosen | ({Regime.LEAVE_ONE_OUT} if options.leave_one_out else set()))


def _command(options: argparse.Namespace) -> str:
    """The call that makes the same page, with the names of folders and without where they lie."""
    words = ["mhsev", "benchmark", *(cohort.resolve().name for cohort in options.cohorts)]
    out = options.out.name if options.out.is_absolute() else str(options.out)
    repeats = _n_repeats(options) // (options.folds or 1)
    words += ["--out", out, "--repeats", str(repeats), "--regimes", *options.regimes]
    words += ["--folds", str(options.folds)] if options.folds else []
    words += ["--leave-one-out"] * options.leave_one_out
    for option, names in (("--rows", options.rows), ("--reference", options.reference and [options.reference])):
        words += [option, *names] if names else []
    return shlex.join(words)
