"""What a server takes of the answers of sites that claim more cases than they can have, or others than before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from nvflare.app_common.abstract.fl_model import FLModel

from mhsev_flare.answers import told_cases, usable_answers
from mhsev_flare.final_phase import FinalPhase
from mhsev_flare.protocol import TASK_COMPARE, TASK_SUBMIT_MODEL, TASK_VALIDATE, Meta
from mhsev_flare.result import NoAnswerError
from mhsev_flare.small_cells import cleanse_summary
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.pair_table import PairTable
from mhsev_monai.severity import PAPER_SCALE

WEIGHTS = {"layer": np.zeros(2, np.float32)}
SITES = ("site-1", "site-2", "site-3")


def graded(n: int) -> tuple[np.ndarray, np.ndarray]:
    """True and told grades of ``n`` cases, a quarter of them one too low."""
    truth = np.arange(n) % 4
    return truth, np.where(np.arange(n) % 16 == 3, 2, truth)


def table_of(n: int) -> dict[str, Any]:
    truth, grades = graded(n)
    probabilities = np.full((n, 4), 0.1)
    probabilities[np.arange(n), grades] = 0.7
    return SeverityTable.from_predictions(probabilities, np.zeros(n), np.zeros(n), truth).to_json()


def pairs_of(n: int) -> dict[str, Any]:
    truth, grades = graded(n)
    return PairTable.from_grades(truth, grades, np.zeros(n, int)).to_json()


def answer(site: str, task: str, tables: Mapping[str, int], pairs: Mapping[str, int]) -> FLModel:
    meta: dict[str, Any] = {"client_name": site}
    if task == TASK_SUBMIT_MODEL:
        return FLModel(params=WEIGHTS, meta=meta)
    told = {Meta.PAIRS: pairs_of(pairs[site])} if task == TASK_COMPARE else {Meta.TABLE: table_of(tables[site])}
    return FLModel(metrics={"loss": 1.0}, meta={**meta, **told})


def study_of(tables: Mapping[str, int], pairs: Mapping[str, int], result: dict[str, Any]) -> FinalPhase:
    """The end of a study whose sites answer with so many cases.

    Args:
        tables: cases of each site's tables.
        pairs: cases that each site compares.
        result: of the study, with what the handshake told.
    """

    def ask(task: str, params: Mapping[str, np.ndarray], **meta: Any) -> list[FLModel]:
        answers = [answer(site, task, tables, pairs) for site in SITES]
        shapes = {key: np.shape(value) for key, value in params.items()}
        return usable_answers(answers, SITES, task, meta, shapes, result, print, "ask again")

    return FinalPhase(ask, PAPER_SCALE, seed=1)


def handshake(split: str, cells: Sequence[int | str]) -> dict[str, Any]:
    return {"sites": {site: {"cases": {split: cell}} for site, cell in zip(SITES, cells, strict=True)}}


def compared(result: Mapping[str, Any]) -> dict[str, int]:
    """Cases of each comparison with a site's own model."""
    return {row["cases"]: row["n"] for row in result["paired"]["comparisons"] if row["second"] == "own model"}


@pytest.mark.parametrize(
    ("claimed", "pairs"),
    [
        ({"site-1": 100}, {"site-1": 60_000}),  # its table is refused, so nothing says of how many cases its pairs are
        ({"site-1": 100}, {"site-1": 42}),
        ({}, {"site-1": 60_000}),
        ({}, {"site-1": 41}),
    ],
)
def test_pairs_of_other_cases_than_the_sites_table_decide_no_comparison(claimed, pairs):
    told = dict(zip(SITES, (42, 40, 36), strict=True))
    phase = study_of({**told, **claimed}, {**told, **pairs}, handshake("test", list(told.values())))
    tables, _ = phase.test(WEIGHTS, None)
    assert set(tables) == {*SITES} - set(claimed)
    result = phase.site_models(WEIGHTS, WEIGHTS, tables)
    assert compared(result) == {"all sites": 76, "site-2": 40, "site-3": 36}
    assert result["paired"]["malformed"] == ["site-1"]


def test_pairs_of_the_tables_own_cases_are_compared():
    told = dict(zip(SITES, (42, 40, 36), strict=True))
    phase = study_of(told, told, handshake("test", list(told.values())))
    result = phase.site_models(WEIGHTS, WEIGHTS, phase.test(WEIGHTS, None)[0])
    assert compared(result) == {"all sites": 118, **told}
    assert "malformed" not in result["paired"]


@pytest.mark.parametrize(
    ("n", "least", "most"), [(3, 5, 4), (4, 5, 4), (12, 20, 19), (19, 20, 19), (20, 20, 20), (0, 5, 0)]
)
def test_a_range_is_read_as_its_end_which_no_honest_site_exceeds(n, least, most):
    counts = [n, 0, 0, 0]
    summary = {"cases": {"validation": n, "train": 99}, "grades": {"validation": counts}, "excluded": 0, "twins": 0}
    told = told_cases({"sites": {"a": cleanse_summary(summary, least)}}, "validation")
    assert told == {"a": most}
    assert n <= most


@pytest.mark.parametrize("cell", [None, "5+", "many", "4", "1-", "-4", "1-4\n", "1-100000000", True, 4.0, ["1-4"]])
def test_what_is_neither_number_nor_range_is_no_bound(cell):
    assert told_cases({"sites": {"a": {"cases": {"validation": cell}}, "b": {"cases": None}}}, "validation") == {}


def test_a_table_beyond_the_range_that_was_told_is_not_pooled():
    result = handshake("validation", ["1-4", "1-19", 40])
    phase = study_of({"site-1": 4, "site-2": 20, "site-3": 40}, {}, result)
    tables, _ = phase.evaluation.judge(WEIGHTS, "validation")
    assert {site: table.n for site, table in tables.items()} == {"site-1": 4, "site-3": 40}
    reason = "an evaluation table of 20 cases, where it had 19 at most in the handshake"
    assert result["unusable"] == {"validate validation": {"site-2": reason}}
    phase.test(WEIGHTS, None)  # of the test cases nothing was told, so nothing is refused
    assert result["absent"] == {"validate validation": ["site-2"]}


def test_where_none_answers_it_is_said_how_to_keep_what_was_trained():
    with pytest.raises(NoAnswerError) as caught:
        usable_answers([], SITES, TASK_VALIDATE, {}, {}, {}, print, "send the job again with resume")
    assert str(caught.value) == "no site answered validate; see the sites' logs, then send the job again with resume"


@pytest.mark.parametrize("task", [TASK_VALIDATE, TASK_COMPARE])
@pytest.mark.parametrize("loss", [1.01e6, -1.01e6, float("inf"), float("nan"), True, "0.3"])
def test_an_answer_with_an_impossible_loss_is_not_used(task, loss):
    """The loss of the mean of the rounds decides which model is kept; one site's 1e9 would decide it alone."""
    answers = [answer(site, task, dict.fromkeys(SITES, 20), dict.fromkeys(SITES, 20)) for site in SITES]
    answers[1].metrics = {"loss": loss}
    result: dict[str, Any] = {}
    usable = usable_answers(answers, SITES, task, {Meta.SPLIT: "validation"}, {}, result, print, "ask again")
    assert [answer.meta["client_name"] for answer in usable] == ["site-1", "site-3"]
    assert "a loss" in result["unusable"][f"{task} validation"]["site-2"]
