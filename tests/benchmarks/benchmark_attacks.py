"""Every rule against every attack, on simulated sites without a scan: accuracy and kappa of the honest sites' cases.

It writes docs/benchmarks/attacks.md and a JSON file beside. No cohort is needed; sites are drawn in milliseconds. With
``--setups``, ``--attacks`` or ``--first`` it runs plain averaging and the default alone, there, and prints their paired
differences instead of a page. Trainings are kept in a file (``--kept``), so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from attack_trials import SETUPS, Outcome, Setup, attack_job, run_attack
from attacks import ATTACKS, NONE
from attacks_page import EXCLUDED, PLAIN, Measured, Report, render_page
from attacks_paired import Outcomes, paired_table
from simulated_sites import simulate_sites

from mhsev_flare.combination import CLIP, Combination
from mhsev_flare.robust import RULES
from mhsev_flare.site_data import grade_counts
from mhsev_monai._version import __version__
from mhsev_monai.severity import PAPER_SCALE

SCHEMA = "mhsev-attacks/1"
LONGER = 3
"""A clean training of this many times the rounds tells whether the table's are too few."""
TRIED = {
    "opposition": (0.0, 0.1, 0.2, 1.0),
    "norm_limit": (1.0, 2.0, 4.0),
}
TRIED_ON = ("none", "label_flip", "sign_flip", "scale_10", "scale_minus_10", "noise", "alie", "ipm_0.5", "replay")
TRIED_IN = next(iter(SETUPS))
PAIRED_IN = [name for name, setup in SETUPS.items() if len(setup.sizes) == 3]

Key = tuple[str, str, str, int]


@dataclasses.dataclass(frozen=True)
class Run:
    """One training; ``rule`` is what the page calls it."""

    setup: str
    rule: str
    attack: str
    seed: int
    combination: Combination
    longer: int = 1


def rules_for(setup: Setup) -> dict[str, Combination]:
    """All rules that bear this many attackers among this many sites; ``mean`` without a cap on cases."""
    # 3 times the median number of cases is the cap of every shipped rule; plain federated averaging has none.
    found = {PLAIN: Combination(rule=PLAIN, max_weight_ratio=np.inf), CLIP: Combination()}
    for name in RULES:
        if name.endswith("trimmed_mean") and len(setup.sizes) - 2 * len(setup.attackers) == 1:
            continue  # what trimming leaves is the median
        combination = Combination(rule=name, tolerated=0 if name in found else len(setup.attackers))
        try:
            combination.check(len(setup.sizes))
        except ValueError:
            continue
        found.setdefault(name, combination)
    return found


def paired_runs(seeds: Iterable[int], setups: Iterable[str], attacks: Iterable[str]) -> list[Run]:
    """Plain averaging and the default."""
    return [
        Run(name, rule, attack, seed, rules_for(SETUPS[name])[rule])
        for seed, name, attack, rule in itertools.product(seeds, setups, attacks, (PLAIN, CLIP))
    ]


def outcomes(results: Iterable[Measured], setup: str) -> Outcomes:
    """Of one setup, by rule and attack, then by seed."""
    found: dict[tuple[str, str], dict[int, Outcome]] = {}
    for result in results:
        if result.setup == setup:
            found.setdefault((result.rule, result.attack), {})[result.seed] = result.outcome
    return found


def all_runs(seeds: Iterable[int]) -> Iterator[Run]:
    """What the page's tables of all rules are made of."""
    for seed in seeds:
        for name, setup in SETUPS.items():
            rules = rules_for(setup)
            yield Run(name, f"{PLAIN}, longer", NONE, seed, rules[PLAIN], LONGER)
            for attack in ATTACKS:
                yield from (Run(name, rule, attack, seed, combination) for rule, combination in rules.items())
        for parameter, values in TRIED.items():
            for value in values:
                combination = dataclasses.replace(Combination(), **{parameter: value})
                # The default is in the table already.
                names = () if combination == Combination() else TRIED_ON
                yield from (Run(TRIED_IN, f"{parameter} {value:g}", a, seed, combination) for a in names)


def measure(run: Run) -> Measured:
    """Train once, on one thread."""
    torch.set_num_threads(1)
    job = attack_job(run.combination, run.seed)
    job = dataclasses.replace(job, num_rounds=run.longer * job.num_rounds)
    start = time.process_time()
    outcome: Outcome = run_attack(SETUPS[run.setup], run.attack, job)
    return Measured(run.setup, run.rule, run.attack, run.seed, outcome, time.process_time() - start)


def measure_all(runs: list[Run], workers: int, kept: Path) -> list[Measured]:
    """All runs in their order, with the progress on stderr; those in ``kept`` are not trained again."""
    known = read_kept(kept)
    todo = [run for run in dict.fromkeys(runs) if key_of(run) not in known]
    start = time.monotonic()

    def take(results: Iterable[Measured]) -> None:
        with kept.open("a", encoding="utf-8") as file:
            for number, result in enumerate(results, start=1):
                known[key_of(result)] = result
                file.write(json.dumps(dataclasses.asdict(result)) + "\n")
                file.flush()
                if number % 20 == 0 or number == len(todo):
                    left = (time.monotonic() - start) / number * (len(todo) - number)
                    print(f"{number} of {len(todo)} trainings, {left / 60:.1f} min left", file=sys.stderr, flush=True)

    if workers == 1:
        take(map(measure, todo))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            take(pool.map(measure, todo, chunksize=4))
    return [known[key_of(run)] for run in runs]


def key_of(run: Run | Measured) -> Key:
    """What names a training."""
    return run.setup, run.rule, run.attack, run.seed


def read_kept(path: Path) -> dict[Key, Measured]:
    """Trainings of an earlier run; none where there is no file. A last line that was cut off counts as none."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            read = json.loads(line)
        except json.JSONDecodeError:
            continue
        result = Measured(**{**read, "outcome": Outcome(**read["outcome"])})
        found[key_of(result)] = result
    return found


def class_mix(setup: Setup, seeds: Iterable[int]) -> np.ndarray:
    """``(n_seeds, 4)`` shares of the grades among the honest sites' test cases."""
    mixes = []
    for seed in seeds:
        sites = simulate_sites(setup.sizes, seed)
        counts = sum(grade_counts(data.test, PAPER_SCALE) for n, data in sites.items() if n not in setup.attackers)
        mixes.append(counts / np.sum(counts))
    return np.array(mixes)


def to_json(report: Report) -> dict[str, Any]:
    """Every training of the page; None where a share has nothing to count."""
    trainings = []
    for result in report.results:
        values = {k: None if v != v else v for k, v in dataclasses.asdict(result.outcome).items()}
        trainings.append({**dataclasses.asdict(result), "outcome": values})
    return {
        "schema": SCHEMA,
        "command": report.command,
        "versions": report.versions,
        "setups": {name: dataclasses.asdict(setup) for name, setup in SETUPS.items()},
        "attacks": {name: attack.note for name, attack in ATTACKS.items()},
        "test_grades": {name: mix.tolist() for name, mix in report.mix.items()},
        "trainings": trainings,
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/attacks.md"), help="the page")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 1 to N of all rules (default: 3)")
    parser.add_argument("--paired", type=int, default=20, metavar="N", help="of mean and clip alone (default: 20)")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="first seed of the pairs; no page")
    parser.add_argument("--setups", nargs="+", choices=list(SETUPS), help="of the pairs; no page")
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), help="of the pairs; no page")
    parser.add_argument("--workers", type=int, default=1, choices=(1, 2), help="processes (default: 1)")
    parser.add_argument(
        "--kept",
        type=Path,
        default=Path("docs/benchmarks/attacks_trainings.json"),
        metavar="FILE",
        help="trainings, one a line; delete it with new code",
    )
    return parser.parse_args()


def main() -> None:
    """Measure and write the page, or print pairs."""
    options = parse()
    pair_seeds = range(options.first, options.first + options.paired)
    # Harm is measured against the clean run, and what a gate refuses becomes training without the attackers.
    attacks = [a for a in ATTACKS if a in {NONE, EXCLUDED, *(options.attacks or ATTACKS)}]
    pairs = paired_runs(pair_seeds, options.setups or PAIRED_IN, attacks)
    if options.setups or options.attacks or options.first != 1:
        results = measure_all(pairs, options.workers, options.kept)
        for setup in options.setups or PAIRED_IN:
            print(f"{SETUPS[setup].title}, seeds {pair_seeds[0]} to {pair_seeds[-1]}:", "", sep="\n")
            print(*paired_table(outcomes(results, setup), attacks), sep="\n")
        return
    write_page(options, pairs)


def write_page(options: argparse.Namespace, pairs: list[Run]) -> None:
    """All trainings of the page, the page, and its JSON file."""
    seeds = range(1, options.seeds + 1)
    runs = list(all_runs(seeds))
    measured = measure_all([*runs, *pairs], options.workers, options.kept)
    results, paired = measured[: len(runs)], measured[len(runs) :]
    unique = {key_of(each): each for each in measured}
    report = Report(
        command=f"python tests/benchmarks/benchmark_attacks.py --seeds {options.seeds} --paired {options.paired}",
        versions={"mhsev": __version__, "numpy": np.__version__, "torch": torch.__version__},
        results=results,
        pairs={setup: outcomes(paired, setup) for setup in PAIRED_IN},
        n_trainings=len(unique),
        n_ended_early=sum(bool(each.outcome.stopped) for each in unique.values()),
        mix={name: class_mix(setup, seeds) for name, setup in SETUPS.items()},
        tried={key: [f"{key} {value:g}" for value in values] for key, values in TRIED.items()},
        tried_in=TRIED_IN,
        tried_on=TRIED_ON,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(render_page(report), encoding="utf-8")
    options.out.with_suffix(".json").write_text(json.dumps(to_json(report), allow_nan=False) + "\n", encoding="utf-8")
    print(f"wrote {options.out}")
    print(f"wrote {options.out.with_suffix('.json')}")


if __name__ == "__main__":
    main()
