"""The job ``associations`` without FLARE's transport: what it finds, who takes part, what a site refuses to answer."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from analysis_sites import CANARY, SiteInProcess, forget, make_hospitals, run_in_one_process
from nvflare.apis.dxo import DXO, DataKind, from_shareable

from mhsev_flare.analysis.answer_book import AnswerBook
from mhsev_flare.analysis.association_arrays import symmetric, upper_triangle
from mhsev_flare.analysis.association_design import Design
from mhsev_flare.analysis.association_executor import AssociationExecutor
from mhsev_flare.analysis.jobs import ANALYSIS_JOBS, analysis_server
from mhsev_flare.analysis.protocol import TASK_SUMS, TASK_TABLES, Entry
from mhsev_flare.analysis.result import read_associations
from mhsev_flare.protocol import Meta
from mhsev_flare.site_data import SiteError
from mhsev_flare.site_policy import POLICY, PrivacyDemand, SitePolicy
from mhsev_monai.associations import associate
from mhsev_monai.cases import read_cases
from mhsev_monai.clinical_covariates import CLINICAL_COVARIATES, read_clinical
from mhsev_monai.severity import PAPER_SCALE

SIZES = (220, 170, 110)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Of one patient of the first hospital a variable is not known."""
    folder = make_hospitals(tmp_path_factory.mktemp("hospitals"), SIZES)
    forget(folder / "site-1", "sex")
    return folder


def federation(hospitals, folder, properties=None, **changes):
    spec = dataclasses.replace(ANALYSIS_JOBS["associations"], **changes)
    sites = {
        root.name: SiteInProcess(
            root.name, root, folder / "sites", AssociationExecutor(), (properties or {}).get(root.name)
        )
        for root in sorted(hospitals.iterdir())
    }
    return sites, run_in_one_process(analysis_server(spec), sites, folder / "server")


@pytest.fixture(scope="module")
def found(hospitals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return (*federation(hospitals, folder), folder)


def test_the_federation_finds_what_the_command_finds_in_the_same_roots(found, hospitals):
    _, result, _ = found
    tables = {
        root.name: read_clinical(read_cases(root).cases, CLINICAL_COVARIATES, PAPER_SCALE.lower_bounds)
        for root in sorted(hospitals.iterdir())
    }
    local = json.loads(json.dumps(associate(tables).to_json()))
    # One alone, of which a site tells a range.
    assert (result["regression"].pop("incomplete"), local["regression"].pop("incomplete")) == (None, 1)
    assert result["tables"] == local["tables"]
    # The same arithmetic, but for sums that travel as triangles.
    for ours, theirs in zip(
        result["regression"].pop("odds_ratios"), local["regression"].pop("odds_ratios"), strict=True
    ):
        assert ours.pop("name") == theirs.pop("name")
        assert ours == pytest.approx(theirs, rel=1e-9)
    for name in ("thresholds", "site_shifts", "log_likelihood"):
        assert result["regression"].pop(name) == pytest.approx(local["regression"].pop(name), rel=1e-9)
    for name in ("all_variables",):
        assert result["regression"].pop(name) == pytest.approx(local["regression"].pop(name), rel=1e-6)
    for ours, theirs in zip(
        result["regression"].pop("proportional_odds"), local["regression"].pop("proportional_odds"), strict=True
    ):
        assert ours.pop("name") == theirs.pop("name")
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert result["regression"] == local["regression"]


def test_the_result_says_who_took_part_and_how_often_sites_were_asked(found):
    sites, result, folder = found
    assert {site: entry["cases"] for site, entry in result["sites"].items()} == dict(
        zip(("site-1", "site-2", "site-3"), (SIZES[0] - 1, *SIZES[1:]), strict=True)
    )
    assert result["refused"] == {}
    rounds = result["rounds"]
    assert rounds["regression"] <= 8
    assert rounds["without_variables"] <= 8
    asked = rounds["tables"] + rounds["regression"] + rounds["without_variables"] + rounds["check"]
    assert [len(site.sent) for site in sites.values()] == [asked] * 3
    assert result["grades"] == ["0", "1-5", "6-10", "11+"]
    assert read_associations(folder / "server")["schema"] == "mhsev-associations/1"


def test_tables_less_the_sums_of_the_regression_are_of_nobody(found):
    """The site's sum of ages by grade is that of its complete cases, as its gradient at no effect is."""
    sites, _, _ = found
    tables = from_shareable(sites["site-1"].sent[0][1]).meta[Entry.TABLES]
    counts = next(from_shareable(r).meta[Entry.SUMS]["grade_counts"] for t, r in sites["site-1"].sent if t == TASK_SUMS)
    assert counts.sum() == SIZES[0] - 1
    assert tables["age.sums"][0].tolist() == counts.tolist()
    for key, table in tables.items():
        if key != "age.sums":
            shown = table.sum(axis=1) > 0
            assert table.sum(axis=1)[shown].tolist() == counts[shown].tolist()


def test_a_site_that_requires_privacy_tells_no_exact_sums(tmp_path, hospitals):
    properties = {"site-2": SitePolicy(privacy=PrivacyDemand("required", max_epsilon=8.0)).properties()}
    sites, result = federation(hospitals, tmp_path, properties, columns=("age",))
    assert result["status"] == "completed"
    assert "requires differential privacy" in result["refused"]["site-2"]
    assert set(result["sites"]) == {"site-1", "site-3"}
    ((_, reply),) = sites["site-2"].sent
    assert set(from_shareable(reply).meta) == {Meta.PROTOCOL, Meta.FINGERPRINT, Meta.REPORT, Meta.REFUSAL}


def test_a_site_below_its_minimum_sends_nothing_and_the_result_says_so(tmp_path):
    """Eight variables ask for eighty complete cases."""
    folder = make_hospitals(tmp_path / "hospitals", (220, 170, 60))
    sites, result = federation(folder, tmp_path)
    assert result["status"] == "completed"
    assert result["refused"] == {"site-3": "fewer than 80 cases with all values known"}
    assert "site-3" not in result["sites"]
    assert result["regression"]["n"] == 390
    assert not any("site-3" in test["note"] for test in result["tables"])
    (task, reply), *further = sites["site-3"].sent
    assert (task, further) == (TASK_TABLES, [])
    assert set(from_shareable(reply).meta) == {Meta.PROTOCOL, Meta.FINGERPRINT, Meta.REPORT, Meta.REFUSAL}
    assert not any(str(n) in json.dumps(result["refused"]) for n in (60, 58, 59))


def test_with_too_few_sites_nothing_is_fitted(tmp_path):
    _, result = federation(make_hospitals(tmp_path / "hospitals", (220, 30, 30)), tmp_path)
    assert result["status"] == "refused"
    assert "1 of 3 sites can take part, 2 are needed" in result["reason"]
    assert result["regression"] is None


def test_a_policy_asks_for_more_cases_of_a_grade_and_tables_are_told_all_the_same(tmp_path, hospitals):
    properties = SitePolicy(least=50).properties()
    properties = dict.fromkeys(("site-1", "site-2", "site-3"), properties)
    _, result = federation(hospitals, tmp_path, properties, columns=("age",))
    assert result["status"] == "refused"
    assert {entry["reason"] for entry in result["sites"].values()} == {
        "a grade with fewer than 50 cases; join grades, on all sites alike"
    }
    assert {test["test"] for test in result["tables"]} == {"Spearman", "ANOVA"}


@pytest.mark.parametrize("entry", [Entry.SUMS, Entry.SLOPES])
def test_of_a_site_that_withholds_its_sums_there_are_tables(tmp_path, hospitals, entry):
    properties = {"site-2": SitePolicy(blocked=(entry,)).properties()}
    sites, result = federation(hospitals, tmp_path, properties)
    assert result["status"] == "completed"
    assert result["regression"]["left_out"] == {
        "site-2": "the policy of this site withholds its sums for the regression"
    }
    assert result["regression"]["n"] == SIZES[0] - 1 + SIZES[2]
    assert [task for task, _ in sites["site-2"].sent] == [TASK_TABLES]
    whole = {test["variable"]: test["n"] for test in result["tables"] if test["test"] == "ANOVA"}
    assert whole["age, 10 years"] == sum(SIZES) - 1


@pytest.mark.parametrize("entry", [Entry.TABLES, Meta.SITE_SUMMARY])
def test_a_policy_that_withholds_an_entry_withholds_the_analysis(tmp_path, hospitals, entry):
    properties = SitePolicy(blocked=(entry,)).properties()
    assert properties[POLICY]["blocked"] == [entry]
    _, result = federation(hospitals, tmp_path, dict.fromkeys(("site-1", "site-2", "site-3"), properties))
    assert result["status"] == "refused"
    assert "the policy of this site withholds its" in result["reason"]


def test_a_changed_question_and_one_too_many_are_not_answered(tmp_path, hospitals):
    site = SiteInProcess("site-1", hospitals / "site-1", tmp_path, AssociationExecutor())
    design = Design(("age", "sex"), (1, 6, 11))
    at = {"thresholds": np.array([-1.0, 0.0, 1.0]), "coefficients": np.zeros(2)}

    def ask(task, wanted):
        request = DXO(DataKind.WEIGHTS, data=at, meta={Entry.DESIGN: wanted.to_message()}).to_shareable()
        return from_shareable(site.answer(task, request)).meta.get(Meta.REFUSAL, "")

    assert ask(TASK_TABLES, design) == ""
    assert "answers 1 times at most" in ask(TASK_TABLES, design)
    assert "the question changed during the job" in ask(TASK_SUMS, Design(("age", "sex"), (1, 7, 11)))
    assert [ask(TASK_SUMS, design) for _ in range(20)] == [""] * 20
    assert "answers 20 times at most" in ask(TASK_SUMS, design)


def test_answers_are_counted_over_processes(tmp_path):
    AnswerBook(tmp_path / "answers.json").take(TASK_TABLES, "a")
    with pytest.raises(SiteError, match="did so already"):
        AnswerBook(tmp_path / "answers.json").take(TASK_TABLES, "a")
    (tmp_path / "answers.json").write_text("{")
    with pytest.raises(SiteError, match="cannot be read"):
        AnswerBook(tmp_path / "answers.json").take(TASK_SUMS, "a")


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"columns": [CANARY], "cuts": [1]},
        {"columns": ["age"], "cuts": [True]},
        {"columns": "age", "cuts": [1]},
    ],
)
def test_a_question_that_is_none_is_refused_without_repeating_it(value):
    with pytest.raises(SiteError) as refused:
        Design.from_message(value)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("columns", "cuts", "words"),
    [
        (("age", "age"), (1,), "each once"),
        (("shoe_size",), (1,), "each once"),
        (("age",), (1, 2, 3, 4, 5, 6), "6 grades"),
    ],
)
def test_a_design_that_cannot_be_is_refused(columns, cuts, words):
    with pytest.raises(ValueError, match=words):
        Design(columns, cuts)


def test_a_symmetric_matrix_survives_as_its_triangle():
    matrix = np.array([[1.0, 2.0, 3.0], [2.0, 5.0, 7.0], [3.0, 7.0, 9.0]])
    assert symmetric(upper_triangle(matrix), 3).tolist() == matrix.tolist()
    with pytest.raises(ValueError, match="6 entries"):
        symmetric(np.zeros(5), 3)
