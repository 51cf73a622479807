"""The end of a study over three sites in one process, behind their guards: pooled figures are those of raw cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from asked_sites import ask_sites
from judged_sites import (
    CALIBRATING,
    SIZES,
    joined,
    phase_of,
    raw,
    weights_of,
)

from mhsev_flare.protocol import Meta
from mhsev_flare.result import write_result
from mhsev_monai.grade_calibration import choose_temperature
from mhsev_monai.metrics import SeverityTable, severity_metrics
from mhsev_monai.pair_table import PairTable
from mhsev_monai.statistics import exact_mcnemar
from mhsev_monai.subgroups import case_subgroups


def test_the_calibration_is_that_of_all_cases_of_the_sites_that_told(sites, trained):
    calibration, entry = phase_of(sites).calibrate(trained)
    validation = raw(sites, trained, "validation")
    cases = joined([validation[name] for name in CALIBRATING])
    temperature, _ = choose_temperature(cases.calibration_cases(1.0).temperatures)
    assert temperature > 1.0
    expected = cases.calibration_cases(temperature)
    assert calibration == expected.calibration(temperature)
    assert entry["sites"] == {"site-1": len(validation["site-1"]), "site-2": len(validation["site-2"]), "site-3": "<5"}
    assert entry["n"] == len(cases)
    assert entry["temperature"] == temperature
    assert entry["loss_after"] < entry["loss_before"]
    truth = cases.probabilities[np.arange(len(cases)), cases.true_grades]
    assert entry["loss_before"] == pytest.approx(-np.log(np.maximum(truth, 1e-7)).mean(), rel=1e-6)


def test_pooled_figures_are_those_of_all_raw_cases(sites, trained, tmp_path):
    phase = phase_of(sites)
    calibration, entry = phase.calibrate(trained)
    tables, entries = phase.test(trained, calibration)
    tested = raw(sites, trained, "test")
    cases = joined(list(tested.values()))
    central = cases.table(calibration)
    told = entries["test"]["pooled"]
    assert SeverityTable.from_json(told["table"]).confusion.tolist() == central.confusion.tolist()
    assert told["table"]["score_histograms"] == central.score_histograms.tolist()
    for name, value in severity_metrics(central).to_json().items():
        if name != "per_class":
            assert told["metrics"][name] == pytest.approx(value, abs=1e-9), name
    uncertainty, expected = entries["uncertainty"], cases.uncertainty(calibration)
    assert uncertainty["pooled"]["n"] == len(cases)
    for when, sums in (("before", expected.before), ("after", expected.after)):
        assert uncertainty["pooled"][when]["ece"] == pytest.approx(sums.expected_error(), abs=1e-9)
        assert uncertainty["pooled"][when]["reliability"]["right"] == sums.right.tolist()
    assert uncertainty["pooled"]["before"]["brier"] == pytest.approx(expected.mean("brier_before"), abs=1e-9)
    assert uncertainty["pooled"]["sets"]["coverage"] == expected.sets.coverage()
    assert uncertainty["pooled"]["sets"]["mean_size"] == expected.sets.mean_size()
    assert uncertainty["pooled"]["n_odd"] == (cases.odd > calibration.odd_above).sum()
    assert uncertainty["sites"]["site-3"]["n"] == len(tested["site-3"])
    worst = min(tables, key=lambda name: severity_metrics(tables[name]).accuracy)
    assert entries["test"]["worst_site"]["accuracy"]["site"] == worst
    write_result(tmp_path, {**entries, "calibration": entry})


def test_a_temperature_changes_no_grade_and_no_count(sites, trained):
    phase = phase_of(sites)
    calibrated = phase.test(trained, phase.calibrate(trained)[0])[1]["test"]["pooled"]
    plain = phase.test(trained, None)[1]["test"]["pooled"]
    assert calibrated["table"]["confusion"] == plain["table"]["confusion"]
    changed = {k for k, v in calibrated["metrics"].items() if v != plain["metrics"][k]}
    assert {"brier", "rps"} <= changed <= {"brier", "rps", "macro_auc", "per_class"}
    same = {k for k, v in calibrated["intervals"].items() if v == plain["intervals"][k]}
    assert {"accuracy", "quadratic_kappa", "count_mae"} <= same


def test_subgroups_are_pooled_over_the_sites_that_may_tell_them(sites, trained):
    _, entries = phase_of(sites).test(trained, None)
    tested = raw(sites, trained, "test")
    sexes, n_hidden = entries["subgroups"]["sex"], 0
    assert entries["subgroups"]["least"] == dict.fromkeys(SIZES, 5)
    for name, (made, fl_ctx) in sites.items():
        labels = [case_subgroups(case)["sex"] for case in made._site_data(fl_ctx).test_cases]
        assert len(labels) == len(tested[name])
        for sex in set(labels):
            told = sexes[sex]["sites"][name]
            n_hidden += isinstance(told, str)
            assert told in ("hidden", "<5") or told == labels.count(sex) >= 5
    assert n_hidden > 0
    for entry in [entry for groups in ("sex", "age", "scanner") for entry in entries["subgroups"][groups].values()]:
        assert entry["n"] == sum(n for n in entry["sites"].values() if not isinstance(n, str))
        assert (entry["table"] is None) == (entry["n"] == 0)
        assert entry["table"] is None or entry["metrics"]["n"] == entry["n"] == entry["table"]["n"]
    assert set(entries["subgroups"]["scanner"]) == {"Siemens 1.5 T", "Siemens 3 T"}


def test_own_models_are_told_by_owner_and_site_and_paired_on_the_owners_cases(sites, trained):
    phase = phase_of(sites)
    tables, _ = phase.test(trained, None)
    start = weights_of(sites["site-1"][0].network)
    result = phase.site_models(trained, start, tables)
    matrix = result["comparison"]["matrix"]
    assert {owner: set(row) for owner, row in matrix.items()} == {owner: set(SIZES) for owner in SIZES}
    for owner, (_, fl_ctx) in sites.items():
        with np.load(Path(fl_ctx.get_engine().get_workspace().get_run_dir("job")) / "mhsev" / "own_model.npz") as own:
            weights = dict(own)
        alone = raw(sites, weights, "test")
        for name in SIZES:
            assert matrix[owner][name]["table"]["confusion"] == alone[name].table().confusion.tolist()
        pooled = np.sum([alone[name].table().confusion for name in SIZES], axis=0)
        assert result["comparison"]["site_models"][owner]["table"]["confusion"] == pooled.tolist()
        row = find(result["paired"], owner, "own model")
        cases, beside = raw(sites, trained, "test")[owner], alone[owner]
        p = exact_mcnemar(cases.grades == cases.true_grades, beside.grades == cases.true_grades)
        assert row["mcnemar"]["p"] == pytest.approx(p, abs=1e-9)
        assert row["n"] == len(cases)
    together = find(result["paired"], "all sites", "own model")
    assert together["n"] == sum(len(one) for one in raw(sites, trained, "test").values())


def find(paired, cases, second):
    (row,) = [r for r in paired["comparisons"] if (r["cases"], r["second"]) == (cases, second)]
    return row


def test_the_most_frequent_grade_is_a_comparison_without_site_models_too(sites, trained):
    phase = phase_of(sites)
    tables, _ = phase.test(trained, None)
    paired = phase.majority_alone(tables)["paired"]
    assert {row["second"] for row in paired["comparisons"]} == {"majority"}
    assert [row["cases"] for row in paired["comparisons"]] == ["all sites", *sorted(SIZES)]
    cases = joined(list(raw(sites, trained, "test").values()))
    frequent = np.bincount(cases.true_grades).argmax()
    p = exact_mcnemar(cases.grades == cases.true_grades, cases.true_grades == frequent)
    assert paired["comparisons"][0]["mcnemar"]["p"] == pytest.approx(p, abs=1e-9)


def test_models_are_compared_on_the_cases_of_sites_that_judged_them_all(sites, trained):
    phase = phase_of(sites)
    tables, _ = phase.test(trained, None)
    start = weights_of(sites["site-1"][0].network)
    whole = phase.site_models(trained, start, tables)["comparison"]
    assert whole["sites"] == sorted(SIZES)
    some = {site: table for site, table in tables.items() if site != "site-2"}
    result = phase.site_models(trained, start, some)["comparison"]
    assert result["sites"] == ["site-1", "site-3"]
    n = sum(table.n for table in some.values())
    assert {entry["metrics"]["n"] for entry in result["site_models"].values()} == {n}
    assert set(result["matrix"]["site-1"]) == set(SIZES), "what was told stays in the matrix"


def test_the_pair_table_is_of_the_very_cases(sites, trained):
    made, fl_ctx = sites["site-2"]
    ask = ask_sites({"site-2": (made, fl_ctx)}, {})
    own = ask("submit_model", weights_of(made.network))[0].params
    told = PairTable.from_json(ask("compare", trained)[0].meta[Meta.PAIRS])
    first, second = raw(sites, trained, "test")["site-2"], raw(sites, own, "test")["site-2"]
    expected = PairTable.from_grades(first.true_grades, first.grades, second.grades)
    assert told.counts.tolist() == expected.counts.tolist()
