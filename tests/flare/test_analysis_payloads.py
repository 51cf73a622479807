"""What leaves a site in an analysis: every real answer, and neither another key nor an array with a row a patient."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from analysis_sites import CANARY, SiteInProcess, clinical_model, make_hospitals, run_in_one_process
from nvflare.apis.dxo import MetaKey
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import Shareable

from mhsev_flare.analysis.explanation_plan import ExplanationPlan
from mhsev_flare.analysis.jobs import ANALYSIS_JOBS, analysis_executor, analysis_server, explanation_of
from mhsev_flare.analysis.payload_preview import preview_analysis
from mhsev_flare.analysis.protocol import (
    ANSWER_ENTRY,
    ASSOCIATION_TASKS,
    EXPLANATION_TASKS,
    TASK_ATTRIBUTE,
    TASK_MEASURE,
    TASK_SLOPES,
    TASK_SUMS,
    TASK_TABLES,
    Entry,
)
from mhsev_flare.cli import main
from mhsev_flare.entry_blocker import EntryBlocker
from mhsev_flare.payload_guard import PayloadGuard
from mhsev_flare.protocol import Meta
from mhsev_flare.small_cell_cleanser import SmallCellCleanser

N_PATIENTS = 90
TASKS = (*ASSOCIATION_TASKS, *EXPLANATION_TASKS)


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A real answer to each task, and the context in which FLARE would filter it."""
    folder = tmp_path_factory.mktemp("run")
    hospitals = make_hospitals(folder / "hospitals", (N_PATIENTS, 100))
    model = clinical_model(folder / "app" / "config" / "model.pt", ("age", "hypertension"))
    plan = ExplanationPlan("all", 1, 5, 0, covariances=True)
    explanation = dataclasses.replace(explanation_of(model, ANALYSIS_JOBS["explain"]), plan=plan)
    association = dataclasses.replace(ANALYSIS_JOBS["associations"], columns=("age", "hypertension"), cuts=(6,))
    found: dict[str, tuple[Shareable, Any]] = {}
    # The check needs three grades, and few of a hospital's patients have none.
    for spec in (association, dataclasses.replace(association, cuts=(6, 11)), explanation):
        sites = {
            root.name: SiteInProcess(root.name, root, folder / str(len(found)), analysis_executor(spec))
            for root in sorted(hospitals.iterdir())
        }
        result = run_in_one_process(analysis_server(spec), sites, folder / f"server-{len(found)}", folder / "app")
        assert result["status"] == "completed", result["reason"]
        found |= {task: (reply, sites["site-1"].fl_ctx) for task, reply in sites["site-1"].sent}
    assert set(found) == set(TASKS)
    return found


@pytest.fixture
def reply(answered):
    def make(task: str) -> tuple[Shareable, Any]:
        found, fl_ctx = answered[task]
        fl_ctx.set_prop(FLContextKey.TASK_NAME, task, private=True, sticky=False)
        return copy.deepcopy(found), fl_ctx

    return make


@pytest.mark.parametrize("task", TASKS)
def test_every_real_answer_leaves_behind_all_filters(reply, task):
    found, fl_ctx = reply(task)
    assert found.get_return_code() == ReturnCode.OK
    assert ANSWER_ENTRY[task] in found["DXO"]["meta"]
    cleansed = SmallCellCleanser(5, 5).process(found, fl_ctx)
    assert PayloadGuard().process(cleansed, fl_ctx) is cleansed


@pytest.mark.parametrize("task", TASKS)
def test_a_blocked_entry_does_not_leave(reply, task):
    found, fl_ctx = reply(task)
    left = EntryBlocker([ANSWER_ENTRY[task]]).process(found, fl_ctx)
    assert ANSWER_ENTRY[task] not in left["DXO"]["meta"]
    assert left["DXO"]["meta"][MetaKey.FILTER_HISTORY] == ["EntryBlocker"]
    assert PayloadGuard().process(left, fl_ctx) is left


def entry(task: str, change: Callable[[dict[str, Any]], Any]) -> tuple[str, Callable[[Shareable], Any]]:
    return task, lambda found: change(found["DXO"]["meta"][ANSWER_ENTRY[task]])


def beside(task: str, change: Callable[[dict[str, Any]], Any]) -> tuple[str, Callable[[Shareable], Any]]:
    return task, lambda found: change(found["DXO"]["meta"])


def patients(*further: int, dtype: str = "float64") -> np.ndarray:
    return np.ones((N_PATIENTS, *further), dtype=dtype)


BLOCKED = {
    "another key": entry(TASK_SUMS, lambda e: e.update({CANARY: np.zeros(1)})),
    "another key of a table": entry(TASK_TABLES, lambda e: e.update({"name.counts": np.zeros((2, 2), dtype=np.int64)})),
    "a new entry": beside(TASK_SUMS, lambda m: m.update({"mhsev_patients": patients()})),
    "the table of another variable": entry(TASK_TABLES, lambda e: e.update({"count.counts": patients(dtype="int64")})),
    "a row a patient as cases": entry(TASK_TABLES, lambda e: e.update({"age.counts": patients(3, dtype="int64")})),
    "a row a patient as sums": entry(TASK_TABLES, lambda e: e.update({"age.sums": patients(3)})),
    "a patient a column of sums": entry(TASK_TABLES, lambda e: e.update({"age.sums": patients(3).T.copy()})),
    "a small cell": entry(TASK_TABLES, lambda e: e["hypertension.counts"].__setitem__((0, 0), 3)),
    "a row a patient as gradient": entry(TASK_SUMS, lambda e: e.update({"gradient": patients()})),
    "a row a patient as hessian": entry(TASK_SUMS, lambda e: e.update({"hessian": patients()})),
    "a likelihood a patient": entry(TASK_SUMS, lambda e: e.update({"log_likelihood": patients()})),
    "a few numbers as gradient": entry(TASK_SUMS, lambda e: e.update({"gradient": np.arange(9.0)})),
    "a hessian that is none": entry(TASK_SUMS, lambda e: e.update({"hessian": np.abs(e["hessian"])})),
    "a sum is missing": entry(TASK_SUMS, lambda e: e.pop("hessian")),
    "single precision": entry(TASK_SUMS, lambda e: e.update({"gradient": e["gradient"].astype(np.float32)})),
    "not finite": entry(TASK_SUMS, lambda e: e["gradient"].__setitem__(0, np.nan)),
    "a grade of two patients": entry(TASK_SUMS, lambda e: e["grade_counts"].__setitem__(0, 2)),
    "a row a patient in the check": entry(TASK_SLOPES, lambda e: e.update({"gradient": patients()})),
    "a row a patient of sizes": entry(TASK_MEASURE, lambda e: e.update({"mean": patients()})),
    "sizes of four": entry(TASK_MEASURE, lambda e: e["n"].__setitem__(0, 4)),
    "four without a size": entry(TASK_MEASURE, lambda e: e["n"].__isub__(np.array([4, 0]))),
    "rows for second moments": beside(TASK_MEASURE, lambda m: m[Entry.SECOND_MOMENTS].update({"scatter": patients(4)})),
    "second moments that are none": beside(
        TASK_MEASURE, lambda m: np.negative(*[m[Entry.SECOND_MOMENTS]["scatter"]] * 2)
    ),
    "values a patient": entry(TASK_ATTRIBUTE, lambda e: e.update({"values": patients(4, 6)})),
    "a row a patient as sums of values": entry(TASK_ATTRIBUTE, lambda e: e.update({"absolute_sum": patients(5)})),
    "a row a patient of a small site": entry(TASK_ATTRIBUTE, lambda e: e.update({"absolute_sum": np.ones((30, 5))})),
    "a row a patient as bins": entry(TASK_ATTRIBUTE, lambda e: e.update({"bin_sums": patients(5, 5)})),
    "a bin of three": entry(TASK_ATTRIBUTE, lambda e: e["bin_counts"].__setitem__((0, 0), 3)),
    "four patients": entry(TASK_ATTRIBUTE, lambda e: e.update({"n": np.array([4])})),
    "no number of patients": entry(TASK_ATTRIBUTE, lambda e: e.update({"n": np.array([0])})),
    "a name as a reason": beside(TASK_TABLES, lambda m: m.update({Entry.WITHHELD: {"age.sums": CANARY}})),
    "a reason for something else": beside(TASK_TABLES, lambda m: m.update({Entry.WITHHELD: {CANARY: "few"}})),
    "a name as a refusal": beside(TASK_SUMS, lambda m: m.update({Meta.REFUSAL: f"no {CANARY}"})),
    "a row a patient beside the entry": (TASK_SUMS, lambda found: found["DXO"]["data"].update({"n": patients()})),
}


@pytest.mark.parametrize(("task", "change"), BLOCKED.values(), ids=BLOCKED.keys())
def test_what_is_not_a_sum_is_blocked_and_not_told(reply, caplog, task, change):
    found, fl_ctx = reply(task)
    # What came through deepcopy can be written to; what is blocked must be so for its content.
    for value in _entries(found["DXO"]["meta"]):
        value.flags.writeable = True
    assert PayloadGuard().process(found, fl_ctx) is found
    change(found)
    with caplog.at_level(logging.DEBUG), pytest.raises(ContentBlockedException) as blocked:
        PayloadGuard().process(found, fl_ctx)
    assert CANARY not in caplog.text + str(blocked.value)


def _entries(meta: dict[str, Any]) -> list[np.ndarray]:
    return [value for part in meta.values() if isinstance(part, dict) for value in part.values() if _is_array(value)]


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def test_a_site_sees_beforehand_what_would_leave_it(tmp_path, capsys):
    root = make_hospitals(tmp_path, (100,)) / "site-1"
    messages = preview_analysis(
        ANALYSIS_JOBS["associations"], "site-1", tmp_path, {"mhsev_data_root": str(root)}, [PayloadGuard()]
    )
    assert [message.task for message in messages][:1] == [TASK_TABLES]
    assert not any(message.blocked for message in messages)
    assert main(["site-payload", str(root), "--job", "associations"]) in (0, 1)
    shown = capsys.readouterr().out
    assert "mhsev_association_tables.age.sums" in shown
    assert CANARY not in shown
    small = make_hospitals(tmp_path / "small", (30,)) / "site-1"
    assert main(["site-payload", str(small), "--job", "associations"]) == 1
    assert "fewer than 80 cases with all values known" in capsys.readouterr().out


def test_attributions_can_be_seen_beforehand(tmp_path):
    root = make_hospitals(tmp_path / "hospitals", (60,)) / "site-1"
    spec = explanation_of(clinical_model(tmp_path / "model.pt"), ANALYSIS_JOBS["explain"])
    plan = ExplanationPlan("all", 1, 5, 0, covariances=False)
    messages = preview_analysis(
        dataclasses.replace(spec, plan=plan), "site-1", tmp_path, {"mhsev_data_root": str(root)}, [PayloadGuard()]
    )
    assert [(message.task, message.blocked) for message in messages] == [(TASK_MEASURE, ""), (TASK_ATTRIBUTE, "")]
    names = {entry.name for entry in messages[1].entries}
    assert f"beside: {Entry.ATTRIBUTIONS}.absolute_sum" in names
