"""Every rule against every attack, on simulated sites without a scan: accuracy and kappa of the honest sites' cases.

It writes docs/benchmarks/attacks.md and a JSON file beside. No cohort is needed; sites are drawn in milliseconds.
"""

from __future__ import annotations

import argparse
import dataclasses
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
from attacks_page import PLAIN, Measured, Report, render_page
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


def all_runs(seeds: Iterable[int]) -> Iterator[Run]:
    """What the page is made of."""
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


def measure_all(runs: list[Run], workers: int) -> list[Measured]:
    """All runs in their order, with the progress on stderr."""
    found: list[Measured] = []
    start = time.monotonic()

    def take(results: Iterable[Measured]) -> None:
        for result in results:
            found.append(result)
            if len(found) % 20 == 0 or len(found) == len(runs):
                left = (time.monotonic() - start) / len(found) * (len(runs) - len(found))
                print(f"{len(found)} of {len(runs)} trainings, {left / 60:.1f} min left", file=sys.stderr, flush=True)

    if workers == 1:
        take(map(measure, runs))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            take(pool.map(measure, runs, chunksize=4))
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


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/attacks.md"), help="the page")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 1 to N (default: 3)")
    parser.add_argument("--workers", type=int, default=1, choices=(1, 2), help="processes (default: 1)")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    results = measure_all(list(all_runs(seeds)), options.workers)
    report = Report(
        command=f"python tests/benchmarks/benchmark_attacks.py --seeds {options.seeds}",
        versions={"mhsev": __version__, "numpy": np.__version__, "torch": torch.__version__},
        results=results,
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
