"""Sites of an analysis that fall silent or send what is none: each is named, and costs its own part alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from analysis_sites import CANARY, SiteInProcess, clinical_model, make_hospitals, run_in_one_process
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply

from mhsev_flare.analysis.explanation_plan import ExplanationPlan
from mhsev_flare.analysis.jobs import ANALYSIS_JOBS, analysis_executor, analysis_server, explanation_of
from mhsev_flare.analysis.protocol import (
    ANSWER_ENTRY,
    TASK_ATTRIBUTE,
    TASK_MEASURE,
    TASK_SLOPES,
    TASK_SUMS,
    TASK_TABLES,
)
from mhsev_flare.protocol import Meta

SIZES = (120, 110, 100)
COLUMNS = ("age", "hypertension")


def changed(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda arrays: arrays.update({name: change(arrays[name].copy())})


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "mean 1e200": changed("mean", lambda mean: mean + 1e200),
    "squares 1e300": changed("squared_deviation", lambda squares: squares + 1e300),
    "many cases": changed("n", lambda n: n + 10**17),
    "values 1e300": changed("square_sum", lambda sums: sums + 1e300),
    "outputs 1e308": changed("output_sum", lambda sums: sums + 1e308),
    "n of a million": changed("n", lambda n: n + 10**6),
    "counts 1e7": changed("hypertension.counts", lambda counts: counts * 0 + 10**7),
    "age sums 1e300": changed("age.sums", lambda sums: sums * np.array([[1.0], [0.0], [0.0]]) + [[0], [0], [1e300]]),
    "five grades": changed("grade_counts", lambda counts: np.append(counts, 7)),
    "grades 1e7": changed("grade_counts", lambda counts: counts * 0 + 10**7),
    "likelihood": changed("log_likelihood", lambda value: value - 1e308),
    "gradient": changed("gradient", lambda gradient: gradient + 1e308),
    "hessian": changed("hessian", lambda hessian: hessian * 1e305),
    "information": changed("information", lambda information: information * 1e305),
}
"""One impossible value each."""

AT = {
    TASK_MEASURE: ("mean 1e200", "squares 1e300", "many cases"),
    TASK_ATTRIBUTE: ("values 1e300", "outputs 1e308", "n of a million"),
    TASK_TABLES: ("counts 1e7", "age sums 1e300"),
    TASK_SUMS: ("five grades", "grades 1e7", "likelihood", "gradient", "hessian"),
    TASK_SLOPES: ("gradient", "information"),
}


class FaultySite(SiteInProcess):
    """A site without filters that answers one task with something else."""

    def fail_at(self, task: str, how: str) -> FaultySite:
        self._at, self._how = task, how
        return self

    def answer(self, task: str, request: Shareable) -> Shareable:
        if task != self._at:
            return super().answer(task, request)
        if self._how == "silent":
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        self.filters = []
        reply = super().answer(task, request)
        meta: dict[str, Any] = reply["DXO"]["meta"]
        if self._how == "none":
            meta[ANSWER_ENTRY[task]] = {CANARY: np.zeros(3)}
        elif self._how == "text":
            meta[ANSWER_ENTRY[task]] = CANARY
        elif self._how in CHANGES:
            CHANGES[self._how](meta[ANSWER_ENTRY[task]])
        elif self._how == "version":
            meta[Meta.REPORT] = {**meta[Meta.REPORT], "mhsev": "0.0.1"}
        return reply


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    return make_hospitals(tmp_path_factory.mktemp("hospitals"), SIZES)


def federation(name, hospitals, folder, task, how):
    spec = dataclasses.replace(ANALYSIS_JOBS["associations"], columns=COLUMNS)
    if name == "explain":
        plan = ExplanationPlan("all", 1, 5, 0, covariances=False)
        model = clinical_model(folder / "app" / "config" / "model.pt", COLUMNS)
        spec = dataclasses.replace(explanation_of(model, ANALYSIS_JOBS["explain"]), plan=plan)
    sites = {
        root.name: SiteInProcess(root.name, root, folder / "sites", analysis_executor(spec))
        for root in sorted(hospitals.iterdir())[:2]
    }
    faulty = FaultySite("site-3", hospitals / "site-3", folder / "sites", analysis_executor(spec))
    sites["site-3"] = faulty.fail_at(task, how)
    return run_in_one_process(analysis_server(spec), sites, folder / "server", folder / "app")


WORDS = {
    "silent": "did not answer; see the log of that site",
    "none": "none; see the log of that site",
    "text": "did not send what was asked",
    "version": "runs mhsev 0.0.1 where the server runs",
}


@pytest.mark.parametrize("how", list(WORDS))
@pytest.mark.parametrize("task", [TASK_MEASURE, TASK_ATTRIBUTE, TASK_TABLES])
def test_the_others_go_on_without_a_site_that_fails(tmp_path, hospitals, task, how):
    name = "associations" if task == TASK_TABLES else "explain"
    result = federation(name, hospitals, tmp_path, task, how)
    assert result["status"] == "completed", result["reason"]
    assert WORDS[how] in result["refused"]["site-3"]
    assert CANARY not in str(result)
    assert set(result["sites"]) == {"site-1", "site-2"}
    told = result["regression"]["n"] if name == "associations" else result["pooled"]["cases"]
    assert told == sum(SIZES[:2])


@pytest.mark.parametrize(
    ("task", "how"), [(task, how) for task in (TASK_MEASURE, TASK_ATTRIBUTE, TASK_TABLES) for how in AT[task]]
)
def test_an_impossible_value_costs_its_site_alone(tmp_path, hospitals, task, how):
    name = "associations" if task == TASK_TABLES else "explain"
    result = federation(name, hospitals, tmp_path, task, how)
    assert result["status"] == "completed", result["reason"]
    assert "none; see the log of that site" in result["refused"]["site-3"]
    assert set(result["sites"]) == {"site-1", "site-2"}


@pytest.mark.parametrize(("task", "how"), [(task, how) for task in (TASK_SUMS, TASK_SLOPES) for how in AT[task]])
def test_an_impossible_value_in_a_regression_is_told_with_its_site(tmp_path, hospitals, task, how):
    result = federation("associations", hospitals, tmp_path, task, how)
    assert result["status"] == "failed"
    assert result["reason"] == "site-3 sent sums that are none; see its log, and send the job again"


@pytest.mark.parametrize("how", list(WORDS))
@pytest.mark.parametrize("task", [TASK_SUMS, TASK_SLOPES])
def test_a_regression_that_a_site_has_begun_ends_with_its_name(tmp_path, hospitals, task, how):
    result = federation("associations", hospitals, tmp_path, task, how)
    assert result["status"] == "failed"
    assert "site-3" in result["reason"]
    assert CANARY not in str(result)
    assert result["regression"] is None
    assert {test["test"] for test in result["tables"]} == {"Spearman", "ANOVA", "chi-square"}
