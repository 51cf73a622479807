"""What the associations do on many simulated cohorts; ``python tests/benchmarks/association_trials.py``, a minute.

The clinical variables and counts of three simulated hospitals (220, 170 and 110 patients), without images; then tables
of variables that have nothing to do with the grade; then Spearman's correlation by number of bins.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from operator import add

import numpy as np
from scipy import stats

from mhsev_monai.association_tables import bin_labels, bins, tabulate
from mhsev_monai.association_tests import chi_square, spearman
from mhsev_monai.cohort.clinical import AGE_ODDS_RATIO, RISK_FACTORS
from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.subject import draw_record
from mhsev_monai.proportional_odds import OrdinalData
from mhsev_monai.proportional_odds_fit import FitError, fit_federated
from mhsev_monai.severity import severity_from_count

SIZES = (220, 170, 110)
GRADES = ("none", "mild", "moderate", "severe")
NAMES = ("age", *RISK_FACTORS)
TRUE = (AGE_ODDS_RATIO, *(factor.odds_ratio for factor in RISK_FACTORS.values()))
MIXES = ((0.1, 0.45, 0.27, 0.18), (0.1, 0.27, 0.36, 0.27), (0.1, 0.18, 0.27, 0.45))


def cohort(seed: int, settings: CohortSettings) -> dict[str, OrdinalData]:
    """The hospitals' patients."""
    sites = {}
    for hospital, n in zip(HOSPITALS, SIZES, strict=False):
        records = [draw_record(hospital, seed, index, settings) for index in range(1, n + 1)]
        rows = [
            [(c.age - 70) / 10, c.sex == "M", *(getattr(c, name) for name in NAMES[2:])]
            for c in (record.clinical for record in records)
        ]
        grades = [int(severity_from_count(record.n_microbleeds)) for record in records]
        sites[hospital.name] = OrdinalData(grades, np.array(rows, dtype=float), NAMES, 4)
    return sites


def recovery(n_cohorts: int = 100) -> None:
    """Odds ratios that cohorts were made with, and how often intervals hold them."""
    for settings in (CohortSettings(), CohortSettings(mix="lognormal")):
        rounds, taking_part, coefficients, held = Counter(), Counter(), [], []
        for seed in range(n_cohorts):
            try:
                fit = fit_federated(cohort(seed, settings), NAMES, 4)
            except FitError:
                taking_part[0] += 1
                continue
            rounds[fit.n_rounds] += 1
            taking_part[len(fit.sites)] += 1
            ratios = fit.odds_ratios()
            coefficients.append([ratio.coefficient for ratio in ratios])
            held.append([ratio.low < true < ratio.high for ratio, true in zip(ratios, TRUE, strict=True)])
        print(f"mix {settings.mix}: rounds {dict(rounds)}, sites taking part {dict(taking_part)}")
        if coefficients:
            found, shares = np.exp(np.mean(coefficients, axis=0)), np.mean(held, axis=0)
            for name, true, mean, share in zip(NAMES, TRUE, found, shares, strict=True):
                print(f"  {name:<16} true {true:.2f}   found {mean:.2f}   95% interval holds it in {share:.0%}")


def level(n_trials: int = 1500) -> None:
    """How often chi-square at 5 % sees an association that is not there, by how small cells are treated."""
    rng = np.random.default_rng(0)
    for share in (0.5, 0.3, 0.18):
        rejected, used = Counter(), 0
        for _ in range(n_trials):
            tables = [
                tabulate(rng.choice(4, n, p=mix), (rng.random(n) < share).astype(int), GRADES, ("no", "yes"))
                for n, mix in zip(SIZES, MIXES, strict=True)
            ]
            sent = reduce(add, (table.for_sending() for table in tables))
            used += sent.n
            zeroed = sum(np.where(table.counts < 5, 0, table.counts) for table in tables)
            rejected["grade left out"] += chi_square(sent).p_value < 0.05
            rejected["cell sent as 0"] += stats.chi2_contingency(zeroed, correction=False).pvalue < 0.05
            rejected["nothing hidden"] += chi_square(reduce(add, tables)).p_value < 0.05
        shares = ", ".join(f"{name} {n / n_trials:.1%}" for name, n in rejected.items())
        print(f"share {share}: {shares}; {used / n_trials / sum(SIZES):.0%} of cases sent")


def binning(n_trials: int = 400) -> None:
    """Mean Spearman correlation of grade and age at 500 cases, by number of bins."""
    rng, found = np.random.default_rng(1), {}
    edges = ((60.0, 75.0), (50.0, 60.0, 70.0, 80.0), tuple(np.arange(46.0, 91.0, 4)), tuple(np.arange(46.0, 91.0, 2)))
    for _ in range(n_trials):
        age = rng.normal(68, 9, 500)
        grades = np.searchsorted([-2.2, 0.2, 1.3], 0.053 * (age - 68) + rng.logistic(size=500))
        found.setdefault("as it is", []).append(stats.spearmanr(grades, age).statistic)
        for bounds in edges:
            table = tabulate(grades, bins(age, bounds), GRADES, bin_labels(bounds))
            found.setdefault(f"{len(bounds) + 1} bins", []).append(spearman(table).correlation)
    print("; ".join(f"{name} {np.mean(values):.3f}" for name, values in found.items()))


if __name__ == "__main__":
    recovery()
    level()
    binning()
