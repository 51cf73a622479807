"""The benchmark: the same training as FLARE's, rules against plain loops, and what stands on the page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended_cohort import ALL_INPUTS, OTHER, RULES, SHORT, SITES, make_cohort
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score, roc_auc_score
from small_site import make_root

from mhsev_flare.benchmark import rows as table_of_rows
from mhsev_flare.benchmark.areas import LEAST_CASES, regime_areas, row_areas
from mhsev_flare.benchmark.averaging import (
    average_federated,
    load_weights,
    start_weights,
    train_alone,
    train_central,
)
from mhsev_flare.benchmark.comparison import compare_regimes, compare_rows
from mhsev_flare.benchmark.costs import seconds_per_scan
from mhsev_flare.benchmark.graded import Setting, scores
from mhsev_flare.benchmark.page import render_page
from mhsev_flare.benchmark.protocol import Cohort, Regime, load_cohort, read_settings
from mhsev_flare.benchmark.report import Plan, report_of
from mhsev_flare.benchmark.rows import ROWS, Row
from mhsev_flare.benchmark.run import ONE_MODEL, grade_with, make_task, run_rows
from mhsev_flare.cli import main
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.jobs import JOBS
from mhsev_flare.progress import bar
from mhsev_monai.errors import CohortError
from mhsev_monai.model_file import class_config
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.severity import PAPER_SCALE, Severity
from mhsev_monai.training import LabelledFeatures, severity_loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("benchmark") / "pretended")


@pytest.fixture(scope="module")
def cohort(folder) -> Cohort:
    return load_cohort(folder, ALL_INPUTS, 1, bar)


@pytest.fixture(scope="module")
def report(cohort):
    chosen = (Row("short", SHORT, "few rounds"), Row("other", OTHER, "fewer"), *(ROWS[name] for name in RULES))
    regimes = frozenset(Regime) - {Regime.RULE}
    plan = Plan(chosen, "short", regimes, n_repeats=2, workers=1)
    return report_of(cohort, plan, run_rows(cohort, chosen, regimes, 2, 1))


def test_every_job_and_every_rule_is_a_row():
    assert set(ROWS) > {*JOBS, *RULES}
    assert all(ROWS[name].method is spec for name, spec in JOBS.items())


def test_each_ablation_changes_the_network_or_the_input_or_the_masks_of_a_job():
    for name in set(ROWS) - {*JOBS, *RULES}:
        method = ROWS[name].method
        assert isinstance(method, JobSpec)
        described = [
            (class_config(spec.network), spec.inputs.fingerprint(), spec.twins) for spec in (method, *JOBS.values())
        ]
        assert ROWS[name].masks or described[0] not in described[1:], name
        assert method.network.in_features == len(method.inputs.feature_names)


def test_a_federation_of_one_site_is_that_site_alone(cohort):
    sites = make_task(cohort, Row("short", SHORT, ""), 1, []).sites
    own = {"site-3": sites["site-3"]}
    together = average_federated(SHORT, own)
    alone = train_alone(SHORT, "site-3", own["site-3"], start_weights(SHORT, own))
    assert together.round_number == alone.round_number
    for key, value in alone.weights.items():
        # A mean adds and subtracts the weights that were sent, which costs their last digits.
        np.testing.assert_allclose(together.weights[key], value, atol=2e-5, err_msg=key)


def test_averaging_one_full_step_of_equal_sites_is_one_full_step_of_their_union(cohort):
    """The mean of equal steps is the step, and a mean loss over twice the same cases has the same gradient."""
    network = SeverityMLP(4, [16], 4, dropout=0.0, max_deviation=3.0, seed=1)
    spec = dataclasses.replace(SHORT, network=network, num_rounds=1, epochs=1, batch_size=10**6, learning_rate=1e-2)
    own = make_task(cohort, Row("one", spec, ""), 1, []).sites["site-3"]
    # Judged by the cases that it learns from, the step is kept.
    data = dataclasses.replace(own, validation=own.train)
    federated = average_federated(spec, {"a": data, "b": data})
    central = train_central(spec, {"a": data, "b": data})
    assert federated.round_number == central.round_number == 1
    start = start_weights(spec, {"a": data, "b": data})
    load_weights(network, start)
    severity_loss(network, LabelledFeatures.join([data.train] * 2), PAPER_SCALE, spec.count_weight).backward()
    greatest = max(float(p.grad.abs().max()) for p in network.parameters())
    n_compared = 0
    for key, parameter in network.named_parameters():
        # AdamW's first step is the sign of the gradient, which next to nothing is that of a rounding error.
        clear = np.abs(parameter.grad.numpy()) > 1e-3 * greatest
        n_compared += int(clear.sum())
        step, expected = (best.weights[key][clear] - start[key][clear] for best in (federated, central))
        np.testing.assert_allclose(step, expected, rtol=0, atol=1e-6, err_msg=key)
        assert np.all(np.abs(expected) > 1e-3)
    assert n_compared > 0.5 * sum(p.numel() for p in network.parameters())


def test_central_training_sees_every_sites_cases(cohort):
    sites = make_task(cohort, Row("short", SHORT, ""), 1, []).sites
    features = torch.cat([data.train.features for data in sites.values()]).double().numpy()
    weights = train_central(SHORT, sites).weights
    np.testing.assert_allclose(weights["feature_mean"], features.mean(0), rtol=1e-5)
    np.testing.assert_allclose(weights["feature_scale"], features.std(0), rtol=1e-5)


def test_training_leaves_the_network_of_the_job_alone(cohort):
    before = {key: value.clone() for key, value in SHORT.network.state_dict().items()}
    average_federated(SHORT, make_task(cohort, Row("short", SHORT, ""), 1, []).sites)
    for key, value in SHORT.network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_a_job_is_trained_and_split_by_the_seed_of_the_repeat(cohort):
    tasks = [make_task(cohort, Row("short", SHORT, ""), seed, []) for seed in (1, 2)]
    assert [task.method.seed for task in tasks if isinstance(task.method, JobSpec)] == [1, 2]
    first, second = (task.sites["site-1"].test.counts.tolist() for task in tasks)
    assert first != second


def test_a_third_of_each_site_is_for_the_test_and_all_cases_of_it_where_it_is_left_out(report):
    for result in report.results:
        for outcomes in result.repeats:
            for regime, models in outcomes.items():
                for name, graded in models.items():
                    n_of_site = {site: int((graded.sites == site).sum()) for site in SITES}
                    if regime is Regime.LEAVE_ONE_OUT:
                        assert n_of_site == {site: SITES[site] * (site == name) for site in SITES}
                    else:
                        assert all(abs(n_of_site[site] - 0.3 * n) <= 1.5 for site, n in SITES.items())


def test_in_folds_every_case_is_tested_once_and_then_by_another_partition(cohort):
    in_folds = cohort.in_folds(3)
    splits = [in_folds.split(SHORT.inputs, seed, PAPER_SCALE) for seed in range(1, 7)]
    for name, n in SITES.items():
        for partition in (splits[:3], splits[3:]):
            tested = torch.cat([split[name].test.features for split in partition])
            first = partition[0][name]
            every = torch.cat([first.split(part).features for part in ("train", "validation", "test")])
            assert len(tested) == n
            assert sorted(tested.tolist()) == sorted(every.tolist())
        assert not torch.equal(splits[0][name].test.features, splits[3][name].test.features)


def test_the_command_judges_by_folds(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table_of_rows, "ROWS", {RULES[2]: ROWS[RULES[2]]})
    out = tmp_path / "folds.md"
    arguments = ["benchmark", str(folder), "--out", str(out), "--folds", "3", "--workers", "1"]
    assert main(arguments) == 0
    assert "--repeats 1 --regimes federated central local --folds 3" in out.read_text()
    assert "dealt out to 3 folds" in out.read_text()
    (entry,) = json.loads(out.with_suffix(".json").read_text())["cohorts"]
    assert {name: np.sum(site["test_grades"]) for name, site in entry["sites"].items()} == SITES
    assert main([*arguments[:-4], "--folds", "1"]) == 2
    assert "--folds must be 2 or more" in capsys.readouterr().err


def test_all_rows_are_judged_by_the_same_cases(report):
    first = report.results[0].repeats[1][Regime.FEDERATED][ONE_MODEL]
    for result in report.results[1:]:
        for regime in set(result.repeats[1]) - {Regime.LEAVE_ONE_OUT}:
            for graded in result.repeats[1][regime].values():
                assert graded.true_counts.tolist() == first.true_counts.tolist()


def test_calibration_is_no_worse_than_the_naive_count_on_its_own_training_cases(cohort):
    task = make_task(cohort, ROWS["naive LoG count"], 1, [])
    training = {name: data.train for name, data in task.sites.items()}
    kappas = []
    for rule in (ROWS["naive LoG count"].method, ROWS["calibrated LoG count"].method):
        fitted = rule.fit(training, PAPER_SCALE)
        predicted = np.concatenate([fitted.grade(name, data).grades for name, data in training.items()])
        truth = np.concatenate([data.grades(PAPER_SCALE).numpy() for data in training.values()])
        kappas.append(cohen_kappa_score(truth, predicted, weights="quadratic"))
    assert kappas[1] >= kappas[0] > 0.3


def test_comparisons_name_every_other_row_and_both_other_regimes(report):
    rows = compare_rows(report, Setting.ALL)
    assert [entry.name for entry in rows] == [f"short - {name}" for name in ("other", *RULES)]
    assert all(entry.mcnemar <= entry.mcnemar_adjusted <= 1 for entry in rows)
    assert any(entry.quadratic_kappa.p_value < entry.bootstrap_adjusted for entry in rows)
    regimes = compare_regimes(report, Setting.BLEEDING)
    assert [entry.name for entry in regimes] == [
        f"{row}: federated - {other}" for row in ("short", "other") for other in ("central", "mean of local")
    ]
    # Several models are no one grader, whose right and wrong cases could be counted.
    assert [np.isnan(entry.mcnemar) for entry in regimes] == [False, True] * 2


def test_areas_of_rows_with_probabilities_are_compared_grade_by_grade_on_the_raw_ones(report):
    found = row_areas(report, Setting.ALL)
    first, second = (result.repeats[0][Regime.FEDERATED][ONE_MODEL] for result in report.results[:2])
    occurring = [grade for grade in Severity if (first.true_grades == grade).sum() >= LEAST_CASES]
    assert 0 < len(occurring) < len(Severity)
    # Rules give no probabilities.
    assert [(entry.name, entry.grade) for entry in found] == [("short - other", grade.label) for grade in occurring]
    for entry, grade in zip(found, occurring, strict=True):
        truth = first.true_grades == grade
        areas = [roc_auc_score(truth, graded.grading.probabilities[:, grade]) for graded in (first, second)]
        assert [entry.found.first, entry.found.second] == pytest.approx(areas, abs=1e-12)
        assert entry.found.p_value <= entry.adjusted <= 1
    # Local models are several, and in the paper's setting nobody is without a bleed.
    with_bleed = regime_areas(report, Setting.BLEEDING)
    assert {entry.name for entry in with_bleed} == {f"{row}: federated - central" for row in ("short", "other")}
    assert "none" not in {entry.grade for entry in with_bleed}
    lines = render_page("a command", 2, [report]).splitlines()
    start = lines.index("`short` against the other rows, areas under the ROC curve:")
    assert lines[start + 2] == f"| difference in AUC | {' | '.join(grade.label for grade in occurring)} |"
    cells = lines[start + 4].strip("| ").split(" | ")
    assert cells[0] == "short - other"
    assert [cell[:6] for cell in cells[1:]] == [f"{entry.found.difference:+.3f}" for entry in found]


def test_the_difference_to_local_models_is_that_to_the_mean_of_their_kappas(report):
    outcomes = report.results[0].repeats[0]
    kappa = {
        regime: np.mean([scores(model.table(Setting.ALL))["quadratic_kappa"] for model in outcomes[regime].values()])
        for regime in (Regime.FEDERATED, Regime.LOCAL)
    }
    found = compare_regimes(report, Setting.ALL)[1].quadratic_kappa.value
    assert found == pytest.approx(kappa[Regime.FEDERATED] - kappa[Regime.LOCAL], abs=1e-12)


def test_the_worst_site_and_the_means_over_grades_are_those_of_scikit_learn(report):
    graded = report.results[0].repeats[0][Regime.FEDERATED][ONE_MODEL]
    found, predicted = graded.scores(Setting.ALL), graded.grading.grades
    by_site = [
        balanced_accuracy_score(graded.true_grades[graded.sites == s], predicted[graded.sites == s]) for s in SITES
    ]
    assert found["worst_site_balanced_accuracy"] == pytest.approx(min(by_site))
    occurring = np.unique(graded.true_grades)
    expected = f1_score(graded.true_grades, predicted, labels=occurring, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)


def test_settings_are_flat_and_without_a_folder(folder, tmp_path):
    assert read_settings(folder / "cohort.json") == {
        "n_subjects": 94,
        "seed": 5,
        "difficulty": "easy",
        "backgrounds": "heads",
    }
    assert read_settings(tmp_path / "cohort.json") == {}
    (tmp_path / "cohort.json").write_text("[1]")
    with pytest.raises(CohortError, match="not a JSON object"):
        read_settings(tmp_path / "cohort.json")


def test_one_hospital_is_no_cohort(folder, tmp_path):
    make_root(tmp_path / "site-1", 12, 0)
    with pytest.raises(CohortError, match="1 hospitals"):
        load_cohort(tmp_path, [], 1, bar)


def test_the_command_writes_a_page_and_its_numbers_without_a_path(folder, tmp_path, monkeypatch, capsys):
    chosen = {"short": Row("short", SHORT, "few rounds"), RULES[2]: ROWS[RULES[2]]}
    monkeypatch.setattr(table_of_rows, "ROWS", chosen)
    out = tmp_path / "page" / "grading.md"
    arguments = ["benchmark", str(folder), "--out", str(out), "--repeats", "2", "--workers", "1", "--leave-one-out"]
    assert main([*arguments, "--regimes", "federated"]) == 0
    page, content = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    assert capsys.readouterr().out.split() == ["wrote", str(out), "wrote", str(out.with_suffix(".json"))]
    for text in (
        "## pretended",
        "difficulty easy",
        "| `short` | federated |",
        "short - calibrated LoG count",
        "left out",
    ):
        assert text in page
    for text in (page, json.dumps(content)):
        assert str(folder.parent) not in text
        assert "/data/private" not in text
    (entry,) = content["cohorts"]
    regime_entry = entry["rows"][0]["regimes"]["federated"]
    regime = regime_entry[str(Setting.ALL)]
    n_test = sum(sum(site["test_grades"][0]) for site in entry["sites"].values())
    for repeat, confusion in enumerate(r["confusion"][ONE_MODEL] for r in regime["repeats"]):
        truth = np.sum([site["test_grades"][repeat] for site in entry["sites"].values()], axis=0)
        assert np.sum(confusion, axis=1).tolist() == truth.tolist()
    accuracies = [repeat["scores"]["accuracy"] for repeat in regime["repeats"]]
    assert regime["summary"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert regime["summary"]["accuracy"]["deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    reach = stats.t.ppf(0.975, 1) * np.std(accuracies, ddof=1) * np.sqrt(1 / 2 + n_test / (94 - n_test))
    low, high = np.mean(accuracies) - reach, np.mean(accuracies) + reach
    assert f"{np.mean(accuracies):.3f} ({low:.2f} to {high:.2f})" in page
    assert entry["rows"][0]["seconds_per_scan"] is None
    weights = 4 * 16 + 16 + 16 * 4 + 4
    buffers = 4 + 4 + 4
    assert entry["rows"][0]["bytes_exchanged"] == 4 * 3 * (2 * (2 * weights + buffers) + 2 * (weights + buffers))
    assert regime_entry["seconds"] > 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--rows", "none"], "there is no row called none; there are dsd_mlp"),
        (["--rows", "naive LoG count", "--reference", "dsd_mlp"], "dsd_mlp is not among --rows"),
        ([], "is not a folder"),
    ],
)
def test_a_wrong_call_says_what_there_is(tmp_path, capsys, extra, message):
    assert main(["benchmark", str(tmp_path / "absent"), "--out", str(tmp_path / "x.md"), *extra]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_arrive_at_what_one_does(cohort):
    rows = (Row("short", SHORT, ""), ROWS[RULES[0]])
    regimes = (Regime.FEDERATED, Regime.LOCAL)
    one, two = (run_rows(cohort, rows, regimes, 1, workers) for workers in (1, 2))
    for a, b in zip(one, two, strict=True):
        for regime, models in a.repeats[0].items():
            for name, graded in models.items():
                other = b.repeats[0][regime][name]
                np.testing.assert_array_equal(graded.grading.probabilities, other.grading.probabilities)


@pytest.mark.slow
@pytest.mark.parametrize(
    "job",
    [SHORT, OTHER, dataclasses.replace(SHORT, num_rounds=5, epochs=8, learning_rate=3e-2, ema_decay=0.5)],
    ids=["vectors", "dsd_mlp", "averaged rounds"],
)
def test_flares_own_run_of_the_job_has_the_same_weights_and_tables(folder, cohort, tmp_path, job):
    from mhsev_flare.jobs import export_job
    from mhsev_flare.result import read_run
    from mhsev_flare.simulator import prepare_workspace, run_simulator
    from mhsev_monai.model_file import load_model

    spec = dataclasses.replace(job, seed=2)
    prepare_workspace(tmp_path / "ws", folder)
    run_simulator(export_job(spec, tmp_path / "jobs"), tmp_path / "ws", n_sites=3, threads=3)
    result, _, path = read_run(tmp_path / "ws")
    assert result["status"] == "completed", result["reason"]
    sites = cohort.split(spec.inputs, 2, PAPER_SCALE, twins=spec.twins)
    best = average_federated(spec, sites)
    # Otherwise the average of the rounds would be made and not tested.
    assert result.get("average", {}).get("kept", False) == (spec.ema_decay > 0)
    assert best.round_number == result["best_round"]
    flare = load_model(path).network.state_dict()
    assert set(flare) == set(best.weights)
    for key, value in best.weights.items():
        np.testing.assert_allclose(flare[key].numpy(), value, rtol=0, atol=1e-6, err_msg=key)
    tests = {name: data.test for name, data in sites.items()}
    graded = grade_with(spec, best.weights, tests)
    assert graded.table(Setting.ALL).confusion.tolist() == result["test"]["pooled"]["table"]["confusion"]
    start = start_weights(spec, sites)
    for name, entry in result["comparison"]["site_models"].items():
        alone = grade_with(spec, train_alone(spec, name, sites[name], start).weights, tests)
        assert alone.table(Setting.ALL).confusion.tolist() == entry["table"]["confusion"], name


def test_the_seconds_of_a_scan_are_those_of_its_inputs_and_its_network(folder):
    """Clinical variables need no scan, and so can be timed where scans are pretended."""
    seconds = seconds_per_scan(ROWS["clinical variables"], folder)
    assert seconds is not None
    assert 0 < seconds < 5
    assert seconds_per_scan(ROWS["dsd_mlp"], folder) is None


def test_progress_rises_over_all_repeats_to_its_total(cohort):
    seen: list[tuple[int, int]] = []
    rows = [ROWS[name] for name in RULES]
    run_rows(cohort, rows, {Regime.LEAVE_ONE_OUT}, 2, 1, progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {2 * len(rows) * 2}  # repeats, rows, and the rule itself beside leaving out
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (12, 12)
