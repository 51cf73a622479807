"""Data of a report that has every part, made of the same sums that a run adds up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mhsev_monai.calibration import CalibrationSums, at_temperature
from mhsev_monai.conformal import ScoreHistograms, SetSums
from mhsev_monai.metrics import SeverityTable, majority_table, severity_intervals, severity_metrics
from mhsev_monai.report import (
    AttendanceRow,
    CandidateRow,
    Evaluation,
    ExampleCase,
    LocalModels,
    Mark,
    ReportData,
    RoundRow,
    SiteCases,
    orientation_words,
    slice_pair_png,
)
from mhsev_monai.report.data import Analyses
from mhsev_monai.severity import Severity
from mhsev_monai.shapley_tables import ShapleyTable

HOSTILE = "<script>alert('\"&')</script>"
GRADES = [grade.label for grade in Severity]
TEMPERATURE = 1.5157


def cases(seed, n):
    """Probabilities, counts, true counts, true grades."""
    random = np.random.default_rng(seed)
    grades = random.choice(4, size=n, p=[0.4, 0.3, 0.2, 0.1])
    counts = np.array([0, 3, 8, 20])[grades]
    logits = 3 * np.eye(4)[grades] + 1.5 * random.normal(size=(n, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, counts + random.normal(size=n), counts, grades


def evaluation(name, *tables):
    pooled = sum(tables, SeverityTable.empty())
    return Evaluation(name, severity_metrics(pooled).to_json(), pooled.to_json(), severity_intervals(tables, seed=1))


def entry(table, seed=1):
    intervals = {k: None if v is None else list(v) for k, v in severity_intervals([table], seed).items()}
    return {"table": table.to_json(), "metrics": severity_metrics(table).to_json(), "intervals": intervals}


def uncertainty(*drawn):
    """Of the cases of each seed and number."""
    parts = [cases(seed, n) for seed, n in drawn]
    probabilities, grades = (np.concatenate([part[at] for part in parts]) for at in (0, 3))
    warm = at_temperature(probabilities, TEMPERATURE)
    sums = SetSums.from_sets(ScoreHistograms.from_predictions(warm, grades).thresholds(0.9).sets(warm), grades)

    def errors(p):
        own = CalibrationSums.from_predictions(p, grades)
        return {
            "ece": own.expected_error(),
            "brier": float(((p - np.eye(4)[grades]) ** 2).sum(axis=1).mean()),
            "rps": 0.0625,
            "intervals": {"ece": [0.03125, 0.28125], "brier": None, "rps": [0.03125, 0.09375]},
            "reliability": own.to_json(),
        }

    return {
        "n": len(grades),
        "before": errors(probabilities),
        "after": errors(warm),
        "sets": {
            "coverage": sums.coverage(),
            "coverage_interval": [0.8125, 0.96875],
            "coverage_by_grade": dict(zip(GRADES, sums.coverage_by_grade(), strict=True)),
            "mean_size": sums.mean_size(),
            "mean_size_interval": [1.25, 1.75],
            "share_empty": sums.share_empty(),
            "sizes": sums.sizes.sum(axis=0).tolist(),
        },
        "n_odd": 1,
    }


def explanation(site):
    random = np.random.default_rng(5)
    players, outputs = (
        ("depth of the spots", "number of dark spots", "protocol"),
        (*GRADES, "expected severity", "expected count"),
    )

    def table(n):
        values = random.normal(size=(n, 3, 6)) * np.array([0.4, 0.2, 0.05])[:, None]
        return ShapleyTable.of((players, outputs), values, random.random((n, 6)), random.random((n, 3)), [[0.5]] * 3)

    def told(own):
        return {
            "cases": own.n,
            "table": own.to_json(),
            "importance": {output: [row._asdict() for row in own.importance(output)] for output in outputs},
        }

    first, second = table(20), table(18)
    return {
        "schema": "mhsev-explanation/1",
        "status": "completed",
        "model": {"digest": "0123456789abcdef" * 4},
        "split": "test",
        "method": "permutation",
        "background": {"n_rows": 8, "n_candidates": 143, "seed": 0, "moments": "deviations", "withheld": {}},
        "base": {"expected severity": 0.515625},
        "sites": {site: told(first), "north": told(second)},
        "refused": {"south": "fewer than 5 cases to explain"},
        "pooled": told(first + second),
    }


def associations(site):
    ratios = [
        ("age, 10 years", 1.6875, 1.40625, 2.03125, 5e-8),
        ("male sex", 0.96875, 0.703125, 1.34375, 0.8435),
        ("prior stroke", 2.4375, 0.15625, 38.0, 0.3),
    ]
    return {
        "schema": "mhsev-associations/1",
        "status": "completed",
        "grades": ["0", "1-5", "6-10", "11+"],
        "refused": {"south": "fewer than 80 cases with all values known"},
        "regression": {
            "n": 500,
            "grade_counts": [53, 144, 161, 142],
            "odds_ratios": [
                {"name": n, "odds_ratio": r, "low": a, "high": b, "p_value": p, "adjusted": min(1.0, 3 * p)}
                for n, r, a, b, p in ratios
            ],
            "sites": [site, "north"],
            "left_out": {},
            "all_variables": {"statistic": 72.8125, "degrees_of_freedom": 8, "p_value": 1e-12},
            "proportional_odds": [{"name": "all", "statistic": 13.8125, "degrees_of_freedom": 16, "p_value": 0.6171}],
            "incomplete": 3,
        },
        "tables": [
            {"variable": "male sex", "test": "chi-square", "statistic": 0.1, "effect": 0.015625, "n": 478,
             "p_value": 0.99, "adjusted": 1.0, "note": ""},
            {"variable": "age, 10 years", "test": "ANOVA", "statistic": None, "effect": None, "n": 0, "p_value": None,
             "adjusted": None, "note": "no site sends its table"},
        ],
    }  # fmt: skip


def analyses(first, second, site=HOSTILE):
    paired = [
        {
            "cases": cases_of,
            "first": "global",
            "second": against,
            "n": 40,
            "mcnemar": {"only_first": 5, "only_second": 2, "p": 0.453125, "p_holm": 1.0},
            "stuart_maxwell": margins,
            "accuracy": {"difference": 0.09375, "interval": [-0.03125, 0.21875], "p": 0.2, "p_holm": 0.6},
            "quadratic_kappa": {"difference": 0.21875, "interval": [0.03125, 0.40625], "p": 0.03, "p_holm": 0.09},
        }
        for cases_of, against, margins in (
            ("all sites", "majority", None),
            (site, "own model", {"statistic": 3.1, "degrees_of_freedom": 3, "p": 0.37, "p_holm": 0.74}),
        )
    ]
    return Analyses(
        worst_site={"accuracy": {"site": site, "value": 0.5625, "n": 40}, "quadratic_kappa": None},
        calibration={
            "split": "validation", "sites": {site: 12, "north": "<5"}, "n": 12, "temperature": TEMPERATURE,
            "reason": "",
            "loss_before": 1.234375, "loss_after": 1.109375, "coverage": 0.9, "n_bins": 50, "last_bins": [46] * 4,
            "odd_above": 1.40625,
        },
        uncertainty={"pooled": uncertainty((1, 40), (2, 30)), "sites": {site: uncertainty((1, 40)), "north": "<5"}},
        subgroups={
            "least": {site: 5, "north": 5},
            "sex": {
                "female": {"n": 40, "sites": {site: 40}, **entry(first)},
                "male": {"n": 30, "sites": {"north": 30, site: "<5"}, **entry(second)},
                "unknown": {"n": 0, "sites": {"north": "hidden"}, "table": None, "metrics": None, "intervals": None},
            },
            "age": {}, "scanner": {"Siemens 3 T": {"n": 30, "sites": {"north": 30}, **entry(second)}},
        },
        matrix={
            site: {site: entry(first), "north": entry(second)},
            "north": {site: entry(second), "north": entry(first)},
        },
        paired={"n_draws": 2000, "seed": 1, "comparisons": paired},
        personalised={site: entry(second)},
        explanation=explanation(site),
        associations=associations(site),
        software={site: {"mhsev": "0.1.0", "device": "cpu"}, "north": {"mhsev": "0.1.0"}},
        policy={"sites": "2 took part", "updates in the average": 3},
    )  # fmt: skip


def base_data(site=HOSTILE):
    """The parts that every run has."""
    first, second = (SeverityTable.from_predictions(*cases(seed, n)) for seed, n in ((1, 40), (2, 30)))
    image = np.random.default_rng(0).random((16, 16))
    examples = [
        ExampleCase("sub-001", site, "mild", "moderate", 4, 6.25, slice_pair_png(image, -image, [Mark(3, 4)]),
                    orientation_words(("L", "P")), [CandidateRow("slice 12", 0.875)], "motion"),
        ExampleCase("sub-002", "north", None, "none", None, None),
    ]  # fmt: skip
    return ReportData(
        title=f"Demo {site}",
        simulated=True,
        facts={"mhsev": "0.1.0", "Seed": 7, "Wall time": None},
        sites=[SiteCases(site, {"train": (9, 8, 7, 6), "test": (5, 4, 3, 2)}), SiteCases("north", {"all": [1] * 4})],
        pooled=evaluation("all sites", first, second),
        per_site=[evaluation(site, first), evaluation("north", second)],
        majority=severity_metrics(majority_table(first + second)).to_json(),
        local_models=LocalModels({site: 0.515625, "north": 0.40625}, 0.71875),
        rounds=[
            RoundRow(0, {site: 30, "north": 21}, {}, 0.0625, 1.8125),
            RoundRow(1, {site: 30}, {"north": f"values are not finite {site}"}, 0.4375, None),
        ],
        kept_round=1,
        examples=examples,
        notes=["Two scans were left out."],
    )  # fmt: skip


def whole_data(site=HOSTILE):
    """All parts that a report can have."""
    data = base_data(site)
    first, second = (SeverityTable.from_json(part.table) for part in data.per_site)
    hidden = SiteCases(
        "south", {"train": ["1-4", "5+", "5+", "5+"], "test": [None] * 4}, {"train": 40, "test": "1-4"}, "1-4"
    )
    return replace(
        data,
        sites=[*data.sites, hidden],
        attendance=[AttendanceRow(site, 2, 0, 0, 1, 1.25, 0.5, 0.625), AttendanceRow("north", 1, 1)],
        analyses=analyses(first, second, site),
        failures=[replace(data.examples[0], case_id="sub-009")],
        n_misgraded=(7, 70),
    )
