"""What updates tell of cases, as a page; every sentence that depends on numbers is made of them."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from benchmark_dsd import table
from privacy_attacks import MOST_FALSE, Membership, Nearest, Rate
from privacy_trials import (
    ATTACKS,
    CLOSED_FORM,
    GRADIENT,
    N_FEATURES,
    ROUND,
    STEP,
    THROUGH,
    WATCHED,
    Protection,
    Reconstruction,
    watched_job,
)
from simulated_sites import Population

from mhsev_monai._version import __version__
from mhsev_monai.severity import Severity

PLAIN = Protection("none")
LEAST_CASES, N_CASES = 5, 34
"""The fewest training cases with which a site may take part, and what the watched site has."""
KNOWN = 0.9
"""A correlation above which the page counts a case as reconstructed."""
NO_OPACUS = "DP-SGD: not measured, since opacus is not installed (`pip install 'mhsev[dp]'`)."


class Rebuilt(NamedTuple):
    """A row of reconstruction: how well the cases that were there, and as many that were not, are known."""

    row: Reconstruction
    true: Nearest
    absent: Nearest


@dataclass(frozen=True)
class Leak:
    """What one protection leaves to tell who was there, and what the model is then worth; means over trainings.

    Attributes:
        epsilon: of the watched site; None without private training.
        found: by attack.
    """

    protection: str
    epsilon: float | None
    accuracy: float
    kappa: float
    found: Mapping[str, Membership]
    n_trainings: int


@dataclass(frozen=True)
class Report:
    """What the page is made of.

    Attributes:
        private: whether private training was measured.
        mix: cases of each grade by site and split.
        moments_error: largest error of a case's features from two handshakes.
    """

    command: str
    seed: int
    n_rounds: int
    delta: float
    private_rate: float
    max_grad_norm: float
    private: bool
    mix: Mapping[str, Mapping[str, Sequence[int]]]
    rebuilt: Sequence[Rebuilt]
    moments_error: float
    leaks: Sequence[Leak]

    @property
    def majority(self) -> float:
        """Share of the most frequent grade among all test cases."""
        total = np.sum([site["test"] for site in self.mix.values()], axis=0)
        return float(total.max() / total.sum())

    def correlations(self, sends: str, n_cases: int, attack: str) -> str:
        """Medians without protection, of cases that were there and, in brackets, that were not."""
        wanted = (sends, n_cases, attack, PLAIN)
        each = next(e for e in self.rebuilt if (e.row.sends, e.row.n_cases, e.row.attack, e.row.protection) == wanted)
        return f"{np.median(each.true.correlation):.2f} ({np.median(each.absent.correlation):.2f})"


def version(package: str) -> str:
    """Of a package, or ``absent``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    found = {name: version(name) for name in ("numpy", "torch", "opacus")}
    return {"mhsev": __version__, "python": platform.python_version(), **found}


def as_json(report: Report) -> dict[str, Any]:
    """All numbers of the page, and for each case how well it was known."""
    rows = [{**asdict(each.row), "true": _lists(each.true), "absent": _lists(each.absent)} for each in report.rebuilt]
    leaks = [
        {**asdict(leak), "found": {k: {n: r._asdict() for n, r in m._asdict().items()} for k, m in leak.found.items()}}
        for leak in report.leaks
    ]
    told = {key: value for key, value in vars(report).items() if key not in ("rebuilt", "leaks")}
    return {**told, "versions": versions(), "rebuilt": rows, "leaks": leaks}


def _lists(near: Nearest) -> dict[str, Any]:
    return {name: np.round(values, 4).tolist() for name, values in near._asdict().items()}


def interval(rate: Rate) -> str:
    """As a cell."""
    return f"{rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f})"


def rebuilt_rows(report: Report) -> Iterator[list[str]]:
    """Cells of the table of reconstruction."""
    yield [
        "moments of two handshakes",
        "one more",
        "difference",
        "none",
        "1.00",
        "",
        "100 %",
        "",
        f"{report.moments_error:.0e}",
    ]
    for row, true, absent in report.rebuilt:
        yield [
            row.sends,
            str(row.n_cases),
            row.attack,
            row.protection.title,
            *(f"{np.median(each.correlation):.2f}" for each in (true, absent)),
            *(f"{100 * np.mean(each.correlation > KNOWN):.0f} %" for each in (true, absent)),
            f"{np.median(true.error):.2g}",
        ]
    if not report.private:
        yield [ROUND, str(LEAST_CASES), "not measured: opacus is not installed", "DP-SGD", *[""] * 5]


def leak_rows(report: Report) -> Iterator[list[str]]:
    """Cells of the table of membership."""
    for each in report.leaks:
        spent = "no bound" if each.epsilon is None else f"{each.epsilon:.0f}"
        for number, attack in enumerate(ATTACKS):
            first = [each.protection, spent, f"{each.accuracy:.2f}", f"{each.kappa:.2f}", str(each.n_trainings)]
            rates = each.found[attack]
            yield [*(first if number == 0 else [""] * 5), attack, interval(rates.auc), interval(rates.true_positives)]
    if not report.private:
        yield ["DP-SGD", "not measured", "", "", "", "opacus is not installed", "", ""]


CONCLUSIONS = """\
In brackets: what the same guesses get of cases that were not there.

- **One case, one step: everything.** The first layer's weights and bias give its features exactly, correlation
  {one_case}. Cutting the update's length changes nothing, since the ratio stays. AdamW's first step tells
  signs: {adam}.
- **Averaging over cases hides to a degree.** From the gradient of {few} cases the closed form finds {few_step},
  since some units are active for one case alone; of {many}, {many_step}.
- **A round of several steps hides more, not all.** With {few} cases, the fewest a site may have, the closed form
  still finds {few_closed}; with {many}, {many_closed}. The job tells its seed, so a server can also run a site's
  training again, order and dropout included, and search for the cases that lead to its update: {few_round} and
  {many_round}. The searches are short, use one round, and are given the counts.
- **Who was there** (AUC 0.5 is chance) is told by the global model too, which every site gets and which may be
  published. The most frequent grade is that of {majority:.2f} of the test cases; giving it to all is a kappa of 0.
  The most successful attack, and what the model is worth, by protection:
{by_protection}
- **The first model**, before any update, already depends on who was there, by moments and numbers by grade: AUC
  {first_model}.
- **Exact, whatever is done to updates**, unless a site's own filters hide or round them: the number of training
  cases, moments of the features, counts of each grade, confusion tables, sums of counts, losses. They are sent
  beside. Two studies of a site that differ by one case give its features as a difference of moments, largest
  error {error:.0e} standard deviations.
- **Epsilon covers the weight updates alone**, and the models made of them: of one scan of the site, over all
  rounds, at delta {delta:g}. It says nothing of that list. Where it is tens or more it promises next to
  nothing, and the measurements, which bound nothing, are all there is."""

INTRODUCTION = """\
An honest but curious server follows the protocol and keeps what passes. Attacks bound nothing: another may do
better. No scan is behind this. Features are drawn as `tests/simulated_sites.py` says: log(1 + count) with noise
in {n_telling} of {n_features}, noise alone in the others, with an offset and a gain for each site. The job is
`dsd_mlp_literal` (AdamW, {epochs} epochs a round, batches of {batch}, dropout), here with {n_rounds} rounds, in
one process with the arithmetic of `federate`. Seed {seed} for sites, training and draws.

{versions}."""

PRIVACY = """\
DP-SGD is at every site, with gradients cut to {max_grad_norm:g} and a learning rate of {private_rate:g}, since
with the job's own and no noise twelve rounds of cut gradients graded every case mild. It is seeded here, so
that the page can be made again; a study must not be."""

RECONSTRUCTION = """\
Features are compared as the network reads them, in the federation's deviations. For each case the nearest guess
counts: its correlation over the features, and its squared error over the case's own square, where 1 is what the
federation's mean gets. "Absent" are as many cases of the same site that were not there: what chance gives.
Medians over cases."""

MEMBERSHIP = """\
The watched site trains on a random half of its {pool} pooled cases; the other half are those that were not
there. AUC, and the share of members found where {false:.0%} of the others are taken for members (chance finds
about as many); means over trainings, 95 % intervals from 1000 bootstrap draws of trainings and cases. The pool
stays, so they say nothing of other sites. LiRA knows the other trainings, which is more than a server has; by chance it
gets 0.5. Accuracy and kappa are of the last global model on all sites' test cases."""


def conclusions(report: Report) -> str:
    """What the tables say, in the numbers of this run."""
    told = []
    for leak in report.leaks:
        attack = max(ATTACKS, key=lambda name: leak.found[name].auc.value)
        told.append(f"  - {leak.protection}: AUC {interval(leak.found[attack].auc)}, kappa {leak.kappa:.2f}")
    return CONCLUSIONS.format(
        few=LEAST_CASES,
        many=N_CASES,
        one_case=report.correlations(GRADIENT, 1, CLOSED_FORM),
        adam=report.correlations(STEP, 1, CLOSED_FORM),
        few_step=report.correlations(GRADIENT, LEAST_CASES, CLOSED_FORM),
        many_step=report.correlations(GRADIENT, N_CASES, CLOSED_FORM),
        few_closed=report.correlations(ROUND, LEAST_CASES, CLOSED_FORM),
        many_closed=report.correlations(ROUND, N_CASES, CLOSED_FORM),
        few_round=report.correlations(ROUND, LEAST_CASES, THROUGH),
        many_round=report.correlations(ROUND, N_CASES, THROUGH),
        by_protection="\n".join(told),
        first_model=interval(report.leaks[0].found[ATTACKS[-1]].auc),
        majority=report.majority,
        error=report.moments_error,
        delta=report.delta,
    )


def introduction(report: Report) -> str:
    """What was run."""
    spec = watched_job(report.seed)
    return INTRODUCTION.format(
        n_telling=Population().n_telling,
        n_features=N_FEATURES,
        epochs=spec.epochs,
        batch=spec.batch_size,
        n_rounds=report.n_rounds,
        seed=report.seed,
        versions=", ".join(f"{name} {number}" for name, number in versions().items()),
    )


def render_page(report: Report) -> str:
    """The whole page."""
    privacy = PRIVACY.format(max_grad_norm=report.max_grad_norm, private_rate=report.private_rate)
    lines = ["# What updates tell of a site's cases, measured", "", f"`{report.command}`", "", introduction(report), ""]
    lines += [privacy if report.private else NO_OPACUS, ""]
    header = ["site", *(f"{part}: {grade.label}" for part in ("training", "test") for grade in Severity)]
    lines += table(header, [[name, *map(str, (*site["train"], *site["test"]))] for name, site in report.mix.items()])
    lines += [f"{WATCHED} is watched: a half of its training cases is there each time.", ""]
    lines += ["## What it means", "", conclusions(report), "", "## Reconstruction", "", RECONSTRUCTION, ""]
    columns = ["what is sent", "cases", "attack", "protection", "correlation", "absent"]
    lines += table([*columns, f"above {KNOWN}", f"absent above {KNOWN}", "error"], rebuilt_rows(report))
    pool = sum(report.mix[WATCHED]["train"])
    lines += ["## Membership", "", MEMBERSHIP.format(pool=pool, false=MOST_FALSE), ""]
    columns = ["protection", "epsilon", "accuracy", "kappa", "trainings", "attack", "AUC", "members found"]
    lines += table(columns, leak_rows(report))
    return "\n".join(lines).rstrip() + "\n"
