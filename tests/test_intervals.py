"""Intervals of every metric from tables: those of a bootstrap over cases, stratified by site."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import rankdata
from simulated_grades import judged_cases, pooled

from mhsev_monai.evaluation import AS_IT_IS, JudgedCases
from mhsev_monai.grade_calibration import GradeCalibration
from mhsev_monai.intervals import metric_intervals, uncertainty_entry
from mhsev_monai.metrics import SeverityTable, severity_intervals, severity_metrics

SITES = [judged_cases(seed, n) for seed, n in ((0, 90), (1, 60), (2, 50))]
N_DRAWS = 800


def drawn_cases(seed: int = 0):
    """Cases drawn anew within each site, pooled."""
    random = np.random.default_rng(seed)
    for _ in range(N_DRAWS):
        yield pooled([site.take(random.integers(0, len(site), len(site))) for site in SITES])


def intervals():
    return metric_intervals([s.table() for s in SITES], 1, [s.uncertainty(AS_IT_IS) for s in SITES])


@pytest.fixture(scope="module")
def bootstrap() -> dict[str, np.ndarray]:
    """2.5 and 97.5 % of each score over draws of cases, from their raw predictions."""
    values: dict[str, list[float]] = {}
    for cases in drawn_cases():
        onehot, mild = np.eye(4)[cases.true_grades], cases.true_grades == 1
        n = mild.sum()
        gaps = (cases.probabilities.cumsum(axis=1) - onehot.cumsum(axis=1))[:, :3]
        own = {
            "mild sensitivity": (cases.grades[mild] == 1).mean(),
            "mild auc": (rankdata(cases.probabilities[:, 1])[mild].sum() - n * (n + 1) / 2) / (n * (~mild).sum()),
            "count_mae": np.abs(cases.counts - cases.true_counts).mean(),
            "count_bias": (cases.counts - cases.true_counts).mean(),
            "brier": ((cases.probabilities - onehot) ** 2).sum(axis=1).mean(),
            "rps": (gaps**2).sum(axis=1).mean() / 3,
        }
        for name, value in own.items():
            values.setdefault(name, []).append(value)
    return {name: np.quantile(each, [0.025, 0.975]) for name, each in values.items()}


def test_intervals_are_those_of_a_bootstrap_over_cases(bootstrap):
    """Two bootstraps of 800 and 2000 draws: ends differ by some 5 % of the interval's length."""
    found = intervals()
    own = {
        "mild sensitivity": found["per_class"][1]["sensitivity"],
        "mild auc": found["per_class"][1]["auc"],
        **{name: found[name] for name in ("count_mae", "count_bias", "brier", "rps")},
    }
    for name, ends in own.items():
        expected = bootstrap[name]
        assert ends == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0])), name


def test_every_metric_has_an_interval_around_it():
    metrics = severity_metrics(pooled(SITES).table()).to_json()
    found = intervals()
    assert set(found) == set(metrics) - {"n"}
    for name in set(found) - {"per_class"}:
        assert found[name][0] < metrics[name] < found[name][1], name
    for rates, entry in zip(metrics["per_class"], found["per_class"], strict=True):
        assert set(entry) == set(rates) - {"severity", "n"}
        for name, ends in entry.items():
            assert ends[0] < rates[name] < ends[1], name


def test_what_had_an_interval_keeps_it():
    tables = [s.table() for s in SITES]
    known, found = severity_intervals(tables, 1), intervals()
    assert {name: found[name] for name in known} == known


def test_without_squares_means_have_no_interval():
    found = metric_intervals([s.table() for s in SITES], 1, [SITES[0].uncertainty(AS_IT_IS), None, None])
    assert [found[name] for name in ("brier", "rps", "count_mae", "count_bias")] == [None] * 4
    assert found["accuracy"] is not None


@pytest.mark.parametrize("tables", [[], [SeverityTable.empty()]], ids=["no table", "an empty one"])
def test_no_cases_have_no_interval(tables):
    found = metric_intervals(tables, 1)
    assert all(value is None for name, value in found.items() if name != "per_class")
    assert all(value is None for entry in found["per_class"] for value in entry.values())


def test_two_grades_are_enough_for_an_area():
    cases = SITES[0]
    two = cases.take(np.flatnonzero(cases.true_grades < 2))
    found = metric_intervals([two.table()], 1)
    assert found["macro_auc"] == tuple(np.mean([e["auc"] for e in found["per_class"][:2]], axis=0))


def test_the_entry_of_the_result_is_plain_and_holds_its_points():
    calibration = pooled(SITES).calibration_cases(2.0).calibration(2.0)
    entry = uncertainty_entry({str(i): s.uncertainty(calibration) for i, s in enumerate(SITES)}, 1)
    json.dumps(entry, allow_nan=False)
    assert entry["n"] == 200
    assert sum(entry["sets"]["sizes"]) == 200
    for name in ("coverage", "mean_size"):
        low, high = entry["sets"][f"{name}_interval"]
        assert low < entry["sets"][name] < high
    for when in ("before", "after"):
        assert entry[when]["ece"] > 0
        assert set(entry[when]["intervals"]) == {"brier", "rps"}, "no interval of draws holds the calibration error"
    assert uncertainty_entry({}, 1) is None
    assert uncertainty_entry({"a": SITES[0].uncertainty(GradeCalibration(2.0))}, 1)["sets"] is None


def test_a_site_without_cases_changes_nothing():
    nobody = JudgedCases(np.zeros((0, 4)), *(np.zeros(0, int) for _ in range(3)), np.zeros(0), np.zeros(0))
    sums = {"a": SITES[0].uncertainty(AS_IT_IS)}
    assert uncertainty_entry({**sums, "b": nobody.uncertainty(AS_IT_IS)}, 1) == uncertainty_entry(sums, 1)
