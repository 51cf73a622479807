"""Summaries over repeats, and which differences between rows are more than chance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_flare.benchmark.graded import SCORES, GradedCases, Setting
from mhsev_flare.benchmark.protocol import Cohort, Regime
from mhsev_flare.benchmark.run import RowResults, Sizes
from mhsev_monai.metrics import N_CLASSES
from mhsev_monai.statistics import (
    CorrectedT,
    Difference,
    corrected_interval,
    corrected_resampled_t,
    exact_mcnemar,
    holm,
    paired_bootstrap,
)

BOOTSTRAP_SEED = 1
N_DRAWS = 2000

Models = Mapping[str, GradedCases]


@dataclass(frozen=True)
class CohortReport:
    """All that the page tells of a cohort.

    Attributes:
        cohort: which.
        results: one entry a row.
        reference: name of the row that the others are compared with.
        sizes: cases that make and judge a model in the first repeat.
        test_mix: by site ``(n_repeats, 4)`` test cases of each grade.
        seconds_per_scan: from files to grade, by the name of a row; rows that were not timed are not there.
    """

    cohort: Cohort
    results: tuple[RowResults, ...]
    reference: str
    sizes: Sizes
    test_mix: Mapping[str, NDArray[np.int64]]
    seconds_per_scan: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A score over repeats.

    Attributes:
        mean: NaN where it is defined in no repeat.
        deviation: standard deviation over repeats; NaN for fewer than two.
        low: lower end of the 95 % interval of the mean, for repeats that share cases; NaN for fewer than two.
        high: its upper end.
    """

    mean: float
    deviation: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @staticmethod
    def of(values: Sequence[float], sizes: Sizes | None) -> Summary:
        """Of the values that are defined; without ``sizes`` there is no interval."""
        known = [value for value in values if math.isfinite(value)]
        if len(known) < 2:
            return Summary(known[0] if known else math.nan)
        mean, deviation = float(np.mean(known)), float(np.std(known, ddof=1))
        if sizes is None:
            return Summary(mean, deviation)
        return Summary(mean, deviation, *corrected_interval(np.array(known), sizes.n_train, sizes.n_test))


@dataclass(frozen=True)
class Comparison:
    """One grader less another, on the same cases.

    Attributes:
        name: of what is compared.
        accuracy: difference in the first repeat.
        quadratic_kappa: difference in the first repeat.
        mcnemar: p-value of the first repeat; NaN where one side is several models.
        repeats: difference in quadratic kappa over all repeats; None where there are too few.
        mcnemar_adjusted: by Holm, over the comparisons of one table.
        bootstrap_adjusted: the same of ``quadratic_kappa``.
        repeats_adjusted: the same of ``repeats``.
    """

    name: str
    accuracy: Difference
    quadratic_kappa: Difference
    mcnemar: float
    repeats: CorrectedT | None
    mcnemar_adjusted: float = math.nan
    bootstrap_adjusted: float = math.nan
    repeats_adjusted: float = math.nan


def models_of(regime: Regime, models: Models) -> dict[str, GradedCases]:
    """What is scored: each model by itself; where a site is left out, the models' different cases together."""
    if regime is Regime.LEAVE_ONE_OUT:
        return {"all left-out sites": GradedCases.join([models[name] for name in sorted(models)])}
    return {name: models[name] for name in sorted(models)}


def mean_scores(models: Models, setting: Setting) -> dict[str, float]:
    """Each score, mean over the models; NaN where one of them leaves it undefined."""
    each = [model.scores(setting) for model in models.values()]
    return {name: float(np.mean([entry[name] for entry in each])) for name in SCORES}


def summaries_of(result: RowResults, regime: Regime, setting: Setting, sizes: Sizes) -> dict[str, Summary]:
    """Each score over the repeats; no AUC where a row gives no probabilities."""
    values = [mean_scores(models_of(regime, outcomes[regime]), setting) for outcomes in result.repeats]
    # Every case of a left-out site is judged in each repeat: the correction for shared cases does not hold there.
    known = None if regime is Regime.LEAVE_ONE_OUT else sizes
    summaries = {name: Summary.of([entry[name] for entry in values], known) for name in SCORES}
    return summaries if result.row.gives_probabilities else {**summaries, "macro_auc": Summary.of([], None)}


def main_regime(result: RowResults) -> Regime | None:
    """How a row stands in comparisons of rows: federated where it was run so."""
    order = (Regime.FEDERATED, Regime.RULE, Regime.CENTRAL, Regime.LOCAL)
    return next((regime for regime in order if regime in result.repeats[0]), None)


class Contest(NamedTuple):
    """Two graders that are compared.

    Attributes:
        name: first less second.
        pairs: of each repeat the models of both.
        have_probabilities: whether both give them.
    """

    name: str
    pairs: Sequence[tuple[Models, Models]]
    have_probabilities: bool


def compare_rows(report: CohortReport, setting: Setting) -> list[Comparison]:
    """The reference row less each other row."""
    return adjust([_compare(contest, setting, report.sizes) for contest in row_contests(report)])


def compare_regimes(report: CohortReport, setting: Setting) -> list[Comparison]:
    """Federated less central and less the mean of the local models, for each row that was run so."""
    return adjust([_compare(contest, setting, report.sizes) for contest in regime_contests(report)])


def row_contests(report: CohortReport) -> list[Contest]:
    """The reference row and each other row."""
    by_name = {result.row.name: result for result in report.results}
    reference = by_name[report.reference]
    own = main_regime(reference)
    made = []
    for name, result in by_name.items():
        regime = main_regime(result)
        if name != report.reference and own is not None and regime is not None:
            pairs = [(a[own], b[regime]) for a, b in zip(reference.repeats, result.repeats, strict=True)]
            both = reference.row.gives_probabilities and result.row.gives_probabilities
            made.append(Contest(f"{report.reference} - {name}", pairs, both))
    return made


def regime_contests(report: CohortReport) -> list[Contest]:
    """Federated and central, and federated and the local models, for each row that was run so."""
    made = []
    for result in report.results:
        for other in (Regime.CENTRAL, Regime.LOCAL):
            if {Regime.FEDERATED, other} <= set(result.repeats[0]):
                pairs = [(outcomes[Regime.FEDERATED], outcomes[other]) for outcomes in result.repeats]
                label = "mean of local" if other is Regime.LOCAL else str(other)
                name = f"{result.row.name}: federated - {label}"
                made.append(Contest(name, pairs, result.row.gives_probabilities))
    return made


def adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same, with p-values adjusted over all of them, test by test."""
    adjusted = zip(
        holm([entry.mcnemar for entry in comparisons]),
        holm([entry.quadratic_kappa.p_value for entry in comparisons]),
        holm([math.nan if entry.repeats is None else entry.repeats.p_value for entry in comparisons]),
        strict=True,
    )
    return [
        dataclasses.replace(entry, mcnemar_adjusted=float(a), bootstrap_adjusted=float(b), repeats_adjusted=float(c))
        for entry, (a, b, c) in zip(comparisons, adjusted, strict=True)
    ]


def _compare(contest: Contest, setting: Setting, sizes: Sizes) -> Comparison:
    """The first split decides by its cases; splits share cases, so all of them together only by the corrected test."""
    first, second = ([models[key] for key in sorted(models)] for models in contest.pairs[0])
    same_cases([*first, *second], contest.name)
    cases = first[0]
    judged = cases.judged(setting)
    truth, sites = cases.true_grades[judged], cases.sites[judged]
    graders = [np.stack([model.grades_in(setting) for model in side]) for side in (first, second)]
    drawn = paired_bootstrap(
        truth, graders[0], graders[1], sites, N_CLASSES, np.random.default_rng(BOOTSTRAP_SEED), N_DRAWS
    )
    single = len(first) == len(second) == 1
    return Comparison(
        name=contest.name,
        accuracy=drawn.accuracy,
        quadratic_kappa=drawn.quadratic_kappa,
        mcnemar=exact_mcnemar(graders[0][0] == truth, graders[1][0] == truth) if single else math.nan,
        repeats=_over_repeats(contest.pairs, setting, sizes),
    )


def _over_repeats(pairs: Sequence[tuple[Models, Models]], setting: Setting, sizes: Sizes) -> CorrectedT | None:
    differences = np.array([_mean_kappa(first, setting) - _mean_kappa(second, setting) for first, second in pairs])
    if len(differences) < 2 or not np.isfinite(differences).all():
        return None
    return corrected_resampled_t(differences, sizes.n_train, sizes.n_test)


def _mean_kappa(models: Models, setting: Setting) -> float:
    return mean_scores(models, setting)["quadratic_kappa"]


def same_cases(graded: Sequence[GradedCases], name: str) -> None:
    """Refuse to compare graders of different cases; raises ``ValueError``."""
    first = graded[0]
    for other in graded[1:]:
        if not (
            np.array_equal(first.sites, other.sites)
            and np.array_equal(first.true_counts, other.true_counts)
            and np.array_equal(first.true_grades, other.true_grades)
        ):
            raise ValueError(f"{name}: the two were not judged by the same cases on the same scale; compare others")
