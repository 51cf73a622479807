"""Shapley values against the ``shap`` package: time in one run, error by passes, and what the background changes.

It writes docs/benchmarks/shapley.md. No scan is behind it: features are drawn as tests/simulated_sites.py says.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shap
import torch
from benchmark_dsd import machine, table

sys.path.append(str(Path(__file__).resolve().parents[1]))
from simulated_sites import THREE_SITES, Population, simulate_sites

from mhsev_flare.site_data import SiteData
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.shapley import ShapleyValues, permutation_shapley, sample_shapley
from mhsev_monai.shapley_background import SecondMoments, common_background
from mhsev_monai.shapley_outputs import GRADE_OUTPUTS, grade_outputs
from mhsev_monai.shapley_perceptron import PerceptronGame
from mhsev_monai.training import FeatureMoments, LabelledFeatures, TrainingParameters, train_severity

N_FEATURES, N_CASES, N_BACKGROUND = 100, 150, 100
PASSES = (1, 3, 10, 30)
REFERENCE_PASSES, REPEATS = 100, 3
SEVERITY = GRADE_OUTPUTS.index("expected severity")


class Timed(NamedTuple):
    """Seconds of a run, and what came out."""

    cpu: float
    wall: float
    values: np.ndarray
    additivity_error: float


def trained(sites: Mapping[str, SiteData], seed: int) -> SeverityMLP:
    """A perceptron trained on the pooled training cases, with their moments."""
    data = LabelledFeatures.join([site.train for site in sites.values()])
    network = SeverityMLP(N_FEATURES, [64, 32], 4, dropout=0.3, max_deviation=3.0, seed=seed)
    moments = FeatureMoments.of(data.features)
    network.feature_mean.copy_(torch.from_numpy(moments.mean))
    network.feature_scale.copy_(torch.from_numpy(moments.scale()))
    train_severity(network, data, PAPER_SCALE, TrainingParameters(40, 3e-3, 1e-2, 32, 1.0), seed=seed)
    return network.eval()


def ours(network: SeverityMLP, rows: torch.Tensor, background: torch.Tensor, n_passes: int, seed: int) -> ShapleyValues:
    """Values as ``explain`` computes them."""
    return sample_shapley(PerceptronGame(network, rows, background), n_passes, torch.Generator().manual_seed(seed))


def of_any(
    network: SeverityMLP, rows: torch.Tensor, background: torch.Tensor, n_passes: int, seed: int
) -> ShapleyValues:
    """Values as of a network that nothing is known of."""
    generator = torch.Generator().manual_seed(seed)
    return permutation_shapley(lambda part: grade_outputs(network, part), rows, background, n_passes, generator)


def theirs(network: SeverityMLP, rows: torch.Tensor, background: torch.Tensor, n_passes: int) -> np.ndarray:
    """Values by shap's PermutationExplainer with as many pairs of orders."""

    def predict(values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return grade_outputs(network, torch.from_numpy(values).float()).numpy()

    masker = shap.maskers.Independent(background.numpy(), max_samples=len(background))
    explainer = shap.PermutationExplainer(predict, masker, seed=0)
    return explainer(rows.numpy(), max_evals=n_passes * (2 * N_FEATURES + 1), silent=True).values


def timed(work: Callable[[], np.ndarray], expected: np.ndarray) -> Timed:
    """One run; ``expected`` is what the values of a case must add up to."""
    cpu, wall = time.process_time(), time.perf_counter()
    values = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Timed(cpu, wall, values, float(np.abs(values.sum(axis=1) - expected).max()))


PEER, PEER_FIRST = "shap.PermutationExplainer", "shap.PermutationExplainer, first call"
ANY, OURS = "mhsev, any network", "mhsev, SeverityMLP"


def speed(network: SeverityMLP, rows: torch.Tensor, background: torch.Tensor) -> dict[str, list[Timed]]:
    """Runs of all engines with one pair of orders, in turns."""
    with torch.no_grad():
        expected = (grade_outputs(network, rows) - grade_outputs(network, background).mean(dim=0)).numpy()
    runs: dict[str, list[Timed]] = {PEER_FIRST: [timed(lambda: theirs(network, rows, background, 1), expected)]}
    for seed in range(REPEATS):
        for name, work in (
            (PEER, lambda: theirs(network, rows, background, 1)),
            (ANY, lambda seed=seed: of_any(network, rows, background, 1, seed).values.numpy()),
            (OURS, lambda seed=seed: ours(network, rows, background, 1, seed).values.numpy()),
        ):
            runs.setdefault(name, []).append(timed(work, expected))
    return runs


def speed_rows(runs: Mapping[str, list[Timed]]) -> Iterator[list[str]]:
    """Cells of the table of times; ratios of the least times to ours."""
    cpu, wall = (
        {name: min(getattr(run, key) for run in each) for name, each in runs.items()} for key in ("cpu", "wall")
    )
    for name, each in runs.items():
        ratio = f"x{cpu[name] / cpu[OURS]:.1f}", f"x{wall[name] / wall[OURS]:.1f}"
        gap = max(run.additivity_error for run in each)
        yield [name, f"{cpu[name]:.2f}", f"{wall[name]:.2f}", *ratio, f"{gap:.0e}"]


def error_rows(
    network: SeverityMLP, rows: torch.Tensor, background: torch.Tensor, peer: np.ndarray
) -> Iterator[list[str]]:
    """Cells of the table of errors: correlation with many passes, and the distance relative to the values' size."""
    reference = ours(network, rows, background, REFERENCE_PASSES, 99).values.numpy()
    yield ["shap, 1 pass", *_closeness(peer, reference), ""]
    for n_passes in PASSES:
        found = ours(network, rows, background, n_passes, 1)
        values, error = found.values.numpy(), found.standard_error
        told = "" if n_passes == 1 else f"{float(error.mean() / np.abs(reference).mean()):.3f}"
        yield [f"mhsev, {n_passes} pass{'es' if n_passes > 1 else ''}", *_closeness(values, reference), told]


def _closeness(values: np.ndarray, reference: np.ndarray) -> list[str]:
    correlation = np.corrcoef(values.ravel(), reference.ravel())[0, 1]
    return [f"{correlation:.4f}", f"{np.abs(values - reference).sum() / np.abs(reference).sum():.3f}"]


def background_rows(network: SeverityMLP, sites: Mapping[str, SiteData], n_each: int) -> Iterator[list[str]]:
    """Cells of the table of backgrounds: values of the expected severity against those with pooled real cases."""
    pooled = torch.cat([site.train.features for site in sites.values()])
    order = torch.randperm(len(pooled), generator=torch.Generator().manual_seed(5))
    first, second = pooled[order[:N_BACKGROUND]], pooled[order[N_BACKGROUND : 2 * N_BACKGROUND]]
    moments = SecondMoments.of(pooled)
    drawn = common_background(network, N_BACKGROUND, seed=1, moments=moments)
    choices: dict[str, Callable[[SiteData], torch.Tensor]] = {
        "another pooled sample: the noise": lambda site: second,
        "normal, the model's means and deviations": lambda site: common_background(network, N_BACKGROUND, seed=1),
        "normal, covariances shrunk by 0.2": lambda site: drawn,
        "the mean of all sites": lambda site: network.feature_mean[None],
        "each site's own cases": lambda site: site.train.features[:N_BACKGROUND],
    }
    cases = {name: site.test.features[:n_each] for name, site in sites.items()}
    expected = _severity_values(network, sites, cases, lambda site: first)
    for title, choose in choices.items():
        found = _severity_values(network, sites, cases, choose)
        size = np.abs(found).mean(axis=0), np.abs(expected).mean(axis=0)
        row = np.abs(found - expected).sum() / np.abs(expected).sum()
        yield [title, f"{row:.3f}", f"{np.abs(size[0] - size[1]).sum() / size[1].sum():.3f}"]


def _severity_values(
    network: SeverityMLP,
    sites: Mapping[str, SiteData],
    cases: Mapping[str, torch.Tensor],
    choose: Callable[[SiteData], torch.Tensor],
) -> np.ndarray:
    """``(n, n_features)`` with the same orders, so that the background alone differs."""
    parts = [ours(network, cases[name], choose(site), 5, 3).values[..., SEVERITY] for name, site in sites.items()]
    return torch.cat(parts).numpy()


INTRODUCTION = """\
No scan is behind this. Cases are drawn as `tests/simulated_sites.py` says, {n_features} features of which
{n_telling} follow the count, at three sites with scanners of their own; a perceptron {n_features}-64-32-4 is trained
on the pooled training cases, seed {seed}. {n_cases} test cases are explained against {n_background} background rows
(`common_background`), five outputs each: four probabilities and the expected severity. One thread. Load of the
machine, which others used, before and after: {load} on {processors} processors. shap {shap}."""

SPEED = """\
Each draws one pair of orders for each case; shap and ours in turns, {repeats} times after a first call of shap, in
which numba compiles for it. Least times of a kind; ratios to the last row, which is what `explain` runs for the
perceptrons of this package. The last column is the largest distance of the values' sum from the network's own
answer less its mean over the background, over all cases and outputs, in single precision."""

ERRORS = """\
Against {reference} passes of our own engine with another seed. Distance: sum of absolute differences over the sum of
absolute values. Told error: the mean standard error that `ShapleyValues` gives with them, over the mean size of a
value."""

BACKGROUNDS = """\
Values of the expected severity, {n_each} test cases a site, five passes with the same orders; distance from those with
{n_background} pooled training cases as background, which no federation has. Importance: mean |value| by feature."""


def load() -> str:
    """Processes that want to run, mean of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/shapley.md"), help="the page")
    parser.add_argument("--seed", type=int, default=1, help="of sites and training (default: 1)")
    parser.add_argument("--cases", type=int, default=N_CASES, help=f"that are explained (default: {N_CASES})")
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = load()
    population = Population(n_features=N_FEATURES, n_telling=15)
    sites = simulate_sites(THREE_SITES, options.seed, population)
    network = trained(sites, options.seed)
    rows = torch.cat([site.test.features[: options.cases // 3] for site in sites.values()])
    background = common_background(network, N_BACKGROUND, seed=0)
    runs = speed(network, rows, background)
    timing = list(speed_rows(runs))
    errors = list(error_rows(network, rows, background, runs[PEER][0].values))
    n_each = max(options.cases // 5, 1)
    backgrounds = list(background_rows(network, sites, n_each))
    introduction = INTRODUCTION.format(
        n_features=N_FEATURES,
        n_telling=population.n_telling,
        seed=options.seed,
        n_cases=len(rows),
        n_background=N_BACKGROUND,
        load=f"{before} and {load()}",
        processors=os.cpu_count(),
        shap=shap.__version__,
    )
    text = ["# Shapley values, measured", "", f"`python tests/benchmarks/benchmark_shapley.py` on {machine()}.", ""]
    text += [introduction, "", "## Time", "", SPEED.format(repeats=REPEATS), ""]
    text += table(
        ["explainer", "processor, s", "wall, s", "processor ratio", "wall ratio", "largest sum error"], timing
    )
    text += ["## Error by passes", "", ERRORS.format(reference=REFERENCE_PASSES), ""]
    text += table(["values", "correlation", "distance", "told error"], errors)
    text += ["## Background", "", BACKGROUNDS.format(n_each=n_each, n_background=N_BACKGROUND), ""]
    text += table(["background", "distance of values", "distance of importance"], backgrounds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(text).rstrip() + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
