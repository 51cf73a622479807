"""The job in FLARE's own simulator, with real processes on a small simulated cohort.

Result files are read, never the exit status alone: the simulator exits with 0 even when every site was refused.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

pytestmark = pytest.mark.slow

SITES = ("site-1", "site-2", "site-3")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    from mhsev_flare.jobs import JOBS
    from mhsev_flare.site import DERIVATIVES
    from mhsev_monai.cases import read_cases
    from mhsev_monai.cohort import make_cohort
    from mhsev_monai.feature_cache import compute_features

    root = tmp_path_factory.mktemp("cohort")
    make_cohort(root, 45, 11, workers=2)
    for site in SITES:
        for inputs in JOBS["dsd_mlp"].all_inputs:
            table = compute_features(read_cases(root / site).cases, inputs, root / site / DERIVATIVES, workers=2)
            assert table.failed == {}
    return root


def run(folder: Path, cohort: Path, threads: int, **changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    from mhsev_flare.jobs import JOBS, export_job
    from mhsev_flare.result import read_run
    from mhsev_flare.simulator import prepare_workspace, run_simulator

    job = export_job(dataclasses.replace(JOBS["dsd_mlp"], **changes), folder / "jobs")
    workspace = folder / "workspace"
    prepare_workspace(workspace, cohort)
    run_simulator(job, workspace, n_sites=3, threads=threads)
    return read_run(workspace)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, cohort):
    return run(tmp_path_factory.mktemp("short"), cohort, threads=3, num_rounds=2)


def test_every_site_takes_part_in_every_round(short_run):
    result, ledger, _ = short_run
    assert result["status"] == "completed", result["reason"]
    assert [row["round"] for row in ledger] == [0, 1, 2]
    for row in ledger[:2]:
        assert tuple(row["sites"]) == SITES
        assert row["refused"] == {}
        assert all(site["n_samples"] == result["sites"][name]["cases"]["train"] for name, site in row["sites"].items())


def test_the_saved_model_scores_exactly_the_reported_metrics(short_run, cohort):
    from mhsev_flare.site import DERIVATIVES, SiteFolders, load_site_data
    from mhsev_monai.evaluation import evaluate_severity
    from mhsev_monai.metrics import SeverityTable
    from mhsev_monai.model_file import load_model

    result, _, path = short_run
    model = load_model(path)
    seed = 1
    pooled = SeverityTable.empty()
    for site in SITES:
        folders = SiteFolders(cohort / site, cohort / site / DERIVATIVES)
        data = load_site_data(site, folders, model.inputs, seed, model.scale)
        table = evaluate_severity(model.network, data.test, model.scale)
        assert table.confusion.tolist() == result["test"]["sites"][site]["table"]["confusion"]
        pooled = pooled + table
    assert pooled.confusion.tolist() == result["test"]["pooled"]["table"]["confusion"]


def test_what_goes_beyond_the_tables_is_that_of_the_sites_own_cases(short_run, cohort):
    """Sums for calibration, of uncertainty and of subgroups leave for five cases and more; nothing else does."""
    from mhsev_flare.local_training import LocalTraining
    from mhsev_flare.site import DERIVATIVES, SiteFolders, load_site_data
    from mhsev_monai.grade_calibration import GradeCalibration, choose_temperature
    from mhsev_monai.model_file import load_model
    from mhsev_monai.subgroups import case_subgroups, tellable
    from mhsev_monai.training import TrainingParameters

    result, _, path = short_run
    model, seed = load_model(path), 1
    told, validation, test = {}, [], []
    for site in SITES:
        folders = SiteFolders(cohort / site, cohort / site / DERIVATIVES)
        data = load_site_data(site, folders, model.inputs, seed, model.scale)
        local = LocalTraining(model.network, model.scale, TrainingParameters(1, 1.0, 0.0, 1, 1.0), seed, site)
        if len(data.test) >= 5:
            test.append(local.judge("test", data, measure_odd=True))
        told[site] = len(data.validation) if len(data.validation) >= 5 else "<5"
        if len(data.validation) >= 5:
            validation.append(local.judge("validation", data, measure_odd=True))
        sexes = [case_subgroups(case)["sex"] for case in data.test_cases]
        expected = tellable({sex: sexes.count(sex) for sex in set(sexes)}, 5)
        assert {s: e["sites"][site] for s, e in result["subgroups"]["sex"].items() if site in e["sites"]} == expected
    if validation:
        cases = joined(validation)
        temperature, reason = choose_temperature(cases.calibration_cases(1.0).temperatures)
        assert model.calibration == cases.calibration_cases(temperature).calibration(temperature)
        assert (result["calibration"]["sites"], result["calibration"]["reason"]) == (told, reason)
    else:
        assert result["calibration"] is model.calibration is None
    cases = joined(test)
    uncertainty = cases.uncertainty(model.calibration or GradeCalibration())
    assert result["uncertainty"]["pooled"]["n"] == len(cases)
    assert result["uncertainty"]["pooled"]["after"]["ece"] == pytest.approx(
        uncertainty.after.expected_error(), abs=1e-6
    )


def joined(cases):
    from mhsev_monai.evaluation import JudgedCases

    return JudgedCases(**{name: np.concatenate([vars(one)[name] for one in cases]) for name in vars(cases[0])})


def test_each_sites_own_model_is_told_by_site_and_paired_with_the_global_one(short_run):
    result, _, _ = short_run
    matrix = result["comparison"]["matrix"]
    assert {owner: tuple(row) for owner, row in matrix.items()} == dict.fromkeys(SITES, SITES)
    own = {r["cases"]: r for r in result["paired"]["comparisons"] if r["second"] == "own model"}
    assert set(own) <= {"all sites", *SITES}
    for site, row in own.items():
        if site == "all sites":
            continue
        table = np.array(matrix[site][site]["table"]["confusion"])
        judged = np.array(result["test"]["sites"][site]["table"]["confusion"])
        only_global, only_own = row["mcnemar"]["only_first"], row["mcnemar"]["only_second"]
        assert only_global - only_own == np.trace(judged) - np.trace(table)
        assert row["n"] == table.sum() >= 5


def test_the_global_standardisation_is_that_of_all_training_cases_and_their_twins(short_run, cohort):
    from mhsev_flare.site import DERIVATIVES, SiteFolders, load_site_data
    from mhsev_monai.model_file import load_model

    model = load_model(short_run[2])
    folders = {s: SiteFolders(cohort / s, cohort / s / DERIVATIVES) for s in SITES}
    rows = [load_site_data(s, folders[s], model.inputs, 1, model.scale, twins=True).lessons.features for s in SITES]
    # One row a candidate; rows of NaN only fill up, and a descriptor that never varies, such as has_trace, keeps 1.
    together = torch.cat(rows).flatten(0, 1).double().numpy()
    together = together[~np.isnan(together[:, 0])]
    spread = together.std(0)
    scale = np.where(spread > 1e-6 * np.maximum(1.0, np.abs(together.mean(0))), spread, 1.0)
    np.testing.assert_allclose(model.network.feature_mean.numpy(), together.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.network.feature_scale.numpy(), scale, rtol=1e-5, atol=1e-6)


def test_one_thread_gives_the_same_weights_as_three(short_run, cohort, tmp_path):
    """With one thread FLARE starts a new process for each task, so nothing may live in a process's memory."""
    _, _, first = short_run
    result, ledger, second = run(tmp_path, cohort, threads=1, num_rounds=2, site_models=False)
    assert result["status"] == "completed", result["reason"]
    # The losses judge the model after each round, whichever of them was kept.
    for row, expected in zip(ledger, short_run[1], strict=True):
        assert row["validation"]["loss"] == pytest.approx(expected["validation"]["loss"], abs=1e-6)
    assert len({row["validation"]["loss"] for row in ledger}) == 3
    a, b = (torch.load(path, weights_only=True)["weights"] for path in (first, second))
    assert set(a) == set(b)
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=1e-6)


def test_a_site_without_data_is_refused_by_name_and_nothing_is_trained(cohort, tmp_path):
    part = tmp_path / "part"
    for site in SITES[:2]:
        shutil.copytree(cohort / site, part / site)
    result, ledger, model = run(tmp_path, part, threads=3, num_rounds=2)
    assert result["status"] == "refused"
    assert "2 of 3 sites can take part, 3 are needed" in result["reason"]
    assert set(result["refused"]) == {"site-3"}
    assert "the data root of site-3 is not a folder" in result["refused"]["site-3"]
    assert "mhsev_site.json" in result["refused"]["site-3"]
    assert str(part) not in json.dumps(result)
    assert ledger == []
    assert not model.exists()


def test_with_a_quorum_the_others_go_on_without_it(cohort, tmp_path):
    part = tmp_path / "part"
    for site in SITES[:2]:
        shutil.copytree(cohort / site, part / site)
    result, ledger, model = run(tmp_path, part, threads=3, num_rounds=1, min_sites=2, site_models=False)
    assert result["status"] == "completed", result["reason"]
    assert set(result["refused"]) == {"site-3"}
    assert tuple(ledger[0]["sites"]) == SITES[:2]
    assert model.is_file()


def test_the_environment_can_name_the_cohort_for_flares_own_command(cohort, tmp_path, monkeypatch):
    """``mhsev simulator prepare WS`` and then nothing but FLARE's command on the exported job, as the README has it."""
    from mhsev_flare.cli import main
    from mhsev_flare.jobs import JOBS, export_job
    from mhsev_flare.result import read_run
    from mhsev_flare.site import COHORT_ROOT_VARIABLE

    monkeypatch.setenv(COHORT_ROOT_VARIABLE, str(cohort))
    assert main(["simulator", "prepare", str(tmp_path / "ws")]) == 0
    job = export_job(dataclasses.replace(JOBS["dsd_mlp_literal"], num_rounds=1, site_models=False), tmp_path)
    command = [str(Path(sys.executable).with_name("nvflare")), "simulator", str(job), "-w", str(tmp_path / "ws")]
    subprocess.run([*command, "-n", "3", "-t", "3"], check=True, capture_output=True)
    result, ledger, _ = read_run(tmp_path / "ws")
    assert result["status"] == "completed", result["reason"]
    assert tuple(ledger[0]["sites"]) == SITES


@pytest.mark.parametrize(
    ("job", "shown"),
    [
        ("radiomics_mlp", "points at no place"),
        ("cnn3d", "points at no place"),
        ("detector_count", "the scan has"),
        ("dsd_patches", "the scan has"),
    ],
)
def test_a_baseline_runs_from_its_job_to_its_report(cohort, tmp_path, job, shown):
    from mhsev_flare.jobs import JOBS, export_job
    from mhsev_flare.result import read_run
    from mhsev_flare.run_report import write_report
    from mhsev_flare.simulator import prepare_workspace, run_simulator
    from mhsev_monai.cases import read_cases
    from mhsev_monai.model_file import load_model
    from mhsev_monai.prediction import grade_scan

    spec = dataclasses.replace(JOBS[job], num_rounds=1, site_models=False)
    prepare_workspace(tmp_path / "ws", cohort)
    run_simulator(export_job(spec, tmp_path / "jobs"), tmp_path / "ws", n_sites=3, threads=2)
    result, ledger, path = read_run(tmp_path / "ws")
    assert result["status"] == "completed", result["reason"]
    assert tuple(ledger[0]["sites"]) == SITES
    assert result["test"]["pooled"]["table"]["n"] > 0
    model = load_model(path)
    case = read_cases(cohort / SITES[0]).cases[0]
    grade, _ = grade_scan(case.image, model, case.bvals)
    assert sum(grade.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    write_report(tmp_path / "ws", tmp_path / "page.html", cohort)
    assert shown in (tmp_path / "page.html").read_text()


def test_an_interruption_leaves_no_process_behind(cohort, tmp_path):
    from mhsev_flare.jobs import JOBS, export_job
    from mhsev_flare.simulator import prepare_workspace, run_simulator

    def interrupt(row: object) -> None:
        raise KeyboardInterrupt

    job = export_job(dataclasses.replace(JOBS["dsd_mlp"], num_rounds=50), tmp_path)
    prepare_workspace(tmp_path / "ws", cohort)
    with pytest.raises(KeyboardInterrupt):
        run_simulator(job, tmp_path / "ws", n_sites=3, threads=3, on_round=interrupt)
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert left == []


def test_no_path_of_a_site_reaches_the_result(short_run, cohort):
    result, ledger, _ = short_run
    assert str(cohort) not in json.dumps([result, ledger])
