"""What an honest but curious server learns of a site's cases, with and without protection, on simulated sites.

It writes docs/benchmarks/leakage.md and a JSON file beside. Rows with DP-SGD need opacus: pip install 'mhsev[dp]'.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from leakage_page import (
    LEAST_CASES,
    N_CASES,
    PLAIN,
    Leak,
    Rebuilt,
    Report,
    as_json,
    render_page,
    version,
)
from privacy_attacks import case_from_moments
from privacy_trials import (
    CLOSED_FORM,
    COSINE,
    GRADIENT,
    ROUND,
    SQUARED,
    STEP,
    THROUGH,
    Protection,
    Reconstruction,
    global_scores,
    halves,
    memberships,
    statistics_of,
    update_length,
    watch,
    watched_job,
    watched_study,
    with_members,
)

from mhsev_flare.benchmark.averaging import load_weights, start_weights
from mhsev_flare.jobs import JobSpec
from mhsev_flare.site_data import grade_counts
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.private_training import PrivacyParameters, epsilon
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import FeatureMoments

SCHEMA = "mhsev-leakage/1"
SEED, DELTA, MAX_GRAD_NORM = 1, 1e-3, 1.0
NOISES = (0.3, 1.0, 3.0)
SECRETS = 1000
LEAST_TRAININGS = 6
PRIVATE_LEARNING_RATE = 1e-2
"""The job's own, 3e-3, is too little once gradients are cut: in 12 rounds without noise every case was graded mild."""


def private(noise: float) -> Protection:
    """DP-SGD at every site."""
    return Protection(f"DP-SGD, noise {noise:g}", PrivacyParameters(noise, MAX_GRAD_NORM, DELTA))


def private_job(spec: JobSpec) -> JobSpec:
    """The job with the learning rate of private training."""
    return replace(spec, learning_rate=PRIVATE_LEARNING_RATE)


def say(text: str) -> None:
    """Progress, with seconds of the processor."""
    print(f"{time.process_time():6.0f} s  {text}", file=sys.stderr, flush=True)


def reconstructions(private_too: bool) -> Iterator[Reconstruction]:
    """The rows, from the easiest for the server to the hardest."""
    yield Reconstruction(GRADIENT, 1, CLOSED_FORM, 20, 0, PLAIN)
    yield Reconstruction(GRADIENT, 1, SQUARED, 3, 300, PLAIN)
    yield Reconstruction(STEP, 1, CLOSED_FORM, 20, 0, PLAIN)
    for n_cases, n_repeats in ((LEAST_CASES, 4), (N_CASES, 1)):
        yield Reconstruction(GRADIENT, n_cases, CLOSED_FORM, 5 * n_repeats, 0, PLAIN)
        yield Reconstruction(GRADIENT, n_cases, COSINE, n_repeats, 300, PLAIN)
    for n_cases, n_repeats in ((LEAST_CASES, 4), (N_CASES, 1)):
        yield Reconstruction(ROUND, n_cases, CLOSED_FORM, 5 * n_repeats, 0, PLAIN)
        yield Reconstruction(ROUND, n_cases, COSINE, n_repeats, 300, PLAIN)
        yield Reconstruction(ROUND, n_cases, THROUGH, n_repeats, 250, PLAIN)
    for noise in NOISES if private_too else ():
        yield Reconstruction(ROUND, LEAST_CASES, CLOSED_FORM, 4, 0, private(noise))
        yield Reconstruction(ROUND, LEAST_CASES, THROUGH, 4, 150, private(noise))


def reconstruct(private_too: bool) -> list[Rebuilt]:
    """All rows, each on the network that sites first get."""
    spec, (sites, pool) = watched_job(SEED), watched_study(SEED)
    network = copy.deepcopy(spec.network)
    assert isinstance(network, SeverityMLP)
    load_weights(network, start_weights(spec, sites))
    found = []
    for row in reconstructions(private_too):
        say(f"{row.sends}, cases {row.n_cases}, {row.attack}, {row.protection.title}")
        chosen = spec if row.protection.privacy is None else private_job(spec)
        found.append(Rebuilt(row, *row.run(network, pool, chosen)))
    return found


def moments_error() -> float:
    """Largest error of a case's features, in the federation's deviations, from two handshakes that differ by it."""
    _, pool = watched_study(SEED)
    whole = FeatureMoments.of(pool.features)
    return max(
        float(np.abs((case_from_moments(whole, FeatureMoments.of(rest)) - case.double().numpy()) / whole.scale()).max())
        for case, rest in (
            (pool.features[i], torch.cat([pool.features[:i], pool.features[i + 1 :]])) for i in range(len(pool))
        )
    )


def leak(protection: Protection, n_trainings: int, n_rounds: int) -> tuple[Leak, float]:
    """Trainings on random halves of the pool, attacked; and the median length of the watched site's updates."""
    spec, (sites, pool) = replace(watched_job(SEED), num_rounds=n_rounds), watched_study(SEED)
    if protection.privacy is not None:
        spec = private_job(spec)
    inside = halves(n_trainings, len(pool), SEED)
    told, scores, lengths, account = [], [], [], None
    for number, members in enumerate(inside, start=1):
        say(f"{protection.title}: training {number} of {n_trainings}")
        seen = watch(spec, with_members(sites, pool, members), protection, secret=SECRETS + number)
        told.append(statistics_of(spec, seen, pool))
        scores.append(global_scores(spec, seen, sites))
        lengths += [update_length(update) for update in seen.updates]
        account = seen.account
    spent = None if account is None else epsilon(account, DELTA)
    accuracy, kappa = np.mean(scores, axis=0)
    found = memberships(told, inside, SEED)
    return Leak(protection.title, spent, float(accuracy), float(kappa), found, n_trainings), float(np.median(lengths))


def leaks(options: argparse.Namespace, private_too: bool) -> list[Leak]:
    """Without protection, with cut updates, and with each level of noise."""
    plain, length = leak(PLAIN, options.trainings, options.rounds)
    found = [
        plain,
        leak(Protection("update cut to half its length", longest=length / 2), options.trainings, options.rounds)[0],
    ]
    for noise in NOISES if private_too else ():
        found.append(leak(private(noise), options.trainings, options.rounds)[0])
    return found


def mix() -> dict[str, dict[str, list[int]]]:
    """Cases of each grade by site: the pool or training cases, and the test cases."""
    sites, _ = watched_study(SEED)
    parts = ("train", "test")
    return {name: {p: grade_counts(d.split(p), PAPER_SCALE).tolist() for p in parts} for name, d in sites.items()}


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/leakage.md"), help="the page")
    parser.add_argument("--rounds", type=int, default=20, help="of each training (default: %(default)s)")
    parser.add_argument("--trainings", type=int, default=12, help="an even number from 6 on (default: %(default)s)")
    options = parser.parse_args()
    if options.trainings < LEAST_TRAININGS or options.trainings % 2 or options.rounds < 1:
        parser.error(
            f"a likelihood ratio needs an even number of trainings from {LEAST_TRAININGS} on, and these a round"
        )
    torch.set_num_threads(1)
    # What opacus says of its bound's tightness: at little noise it is loose, and still a bound.
    warnings.filterwarnings("ignore", message="Optimal order")
    private_too = version("opacus") != "absent"
    report = Report(
        command=" ".join(["python tests/benchmarks/benchmark_leakage.py", *sys.argv[1:]]),
        seed=SEED,
        n_rounds=options.rounds,
        delta=DELTA,
        private_rate=PRIVATE_LEARNING_RATE,
        max_grad_norm=MAX_GRAD_NORM,
        private=private_too,
        mix=mix(),
        rebuilt=reconstruct(private_too),
        moments_error=moments_error(),
        leaks=leaks(options, private_too),
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(render_page(report))
    beside = options.out.with_suffix(".json")
    beside.write_text(json.dumps({"schema": SCHEMA, **as_json(report)}, indent=1) + "\n")
    print(options.out, beside, sep="\n")


if __name__ == "__main__":
    main()
