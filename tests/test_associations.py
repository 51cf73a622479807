"""From BIDS roots to odds ratios: reading of variables, one result over sites, and ``mhsev associations``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mhsev_flare.cli import main
from mhsev_monai.associations import SumsName, associate, told_sums
from mhsev_monai.cases import Case, read_cases
from mhsev_monai.clinical_covariates import CLINICAL_COVARIATES, Covariate, grade_labels, read_clinical
from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.subject import draw_record
from mhsev_monai.cohort.tables import Participant, participants_table
from mhsev_monai.errors import CohortError
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.statistics import holm

CUTS = PAPER_SCALE.lower_bounds
AGE, SEX = CLINICAL_COVARIATES[:2]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Three simulated hospitals, 500 patients, whose images are empty files: nothing here opens them."""
    folder = tmp_path_factory.mktemp("cohort")
    for hospital, n in zip(HOSPITALS, (220, 170, 110), strict=False):
        rows = []
        for index in range(1, n + 1):
            record, name = draw_record(hospital, 1, index), f"sub-{index:04d}"
            rows.append((name, Participant(record.clinical, record.n_microbleeds, 0, 0)))
            scan = folder / hospital.name / name / "dwi" / f"{name}_dwi.nii.gz"
            scan.parent.mkdir(parents=True)
            scan.touch()
        (folder / hospital.name / "participants.tsv").write_text(participants_table(rows))
    return folder


@pytest.fixture(scope="module")
def found(cohort):
    return associate(
        {
            root.name: read_clinical(read_cases(root).cases, CLINICAL_COVARIATES, CUTS)
            for root in sorted(cohort.iterdir())
        }
    )


def case(subject, count=3, session="", **clinical):
    return Case(f"sub-{subject}{session}", Path("scan.nii.gz"), count=count, clinical=clinical)


def test_variables_are_read_as_numbers_and_unknown_ones_left_out():
    cases = [
        case("a", 0, age=60.0, sex="F"),
        case("b", 6, age=80.0, sex="m"),
        case("c", 11, age=None, sex="M"),
        case("d", 5, age=70.0, sex="other"),
    ]
    table = read_clinical(cases, (AGE, SEX), CUTS)
    assert table.grades.tolist() == [0, 2, 3, 1]
    data = table.ordinal_data()
    assert data.covariates.tolist() == [[-1.0, 0.0], [1.0, 1.0]]
    assert (data.grades.tolist(), data.n_left_out, data.names) == ([0, 2], 2, ("age, 10 years", "male sex"))
    assert table.table(SEX).counts.tolist() == [[1, 0], [0, 0], [0, 1], [0, 1]]
    assert table.sums(AGE).total.tolist() == [-10.0, 0.0, 10.0, 0.0]


def test_tables_are_of_the_patients_of_whom_all_is_known():
    """Or the sums of a site's ages less those of its regression would be the age and grade of one patient."""
    cases = [
        case(f"{count}-{k:02}", count, age=60.0 + k, sex="FM"[k % 2]) for count in (0, 6) for k in range(count, 24)
    ]
    table = read_clinical([*cases, case("one", 6, age=93.0, sex=None)], (AGE, SEX), CUTS)
    without = read_clinical(cases, (AGE, SEX), CUTS)
    assert table.ordinal_data().n_left_out == 1
    told, expected = told_sums(table, 5), told_sums(without, 5)
    assert {name: each if isinstance(each, str) else each.to_json() for name, each in told.items()} == {
        name: each if isinstance(each, str) else each.to_json() for name, each in expected.items()
    }
    assert told[SumsName("age", "ANOVA")].n.tolist() == np.bincount(without.grades, minlength=4).tolist()


def test_of_a_patient_the_first_session_counts():
    cases = [case("a", 0, "_ses-1", age=60.0), case("a", 7, "_ses-2", age=60.0), case("b", None, age=50.0)]
    assert read_clinical(cases, (AGE,), CUTS).grades.tolist() == [0]


def test_other_codes_than_yes_and_no_are_refused():
    with pytest.raises(CohortError, match=r"column sex .* write yes and no"):
        read_clinical([case("a", sex=2.0)], (SEX,), CUTS)


def test_labels_of_grades_are_ranges_of_counts():
    assert grade_labels(CUTS) == ("0", "1-5", "6-10", "11+")
    assert grade_labels([1]) == ("0", "1+")
    for cuts in ([], [0], [6, 6]):
        with pytest.raises(ValueError, match="cuts must rise"):
            grade_labels(cuts)


def test_tests_of_tables_are_scipys_where_no_site_leaves_anything_out(cohort):
    tables = {root.name: read_clinical(read_cases(root).cases, CLINICAL_COVARIATES, CUTS) for root in cohort.iterdir()}
    by_name = {(test.variable, test.test): test for test in associate(tables, least=1).tables}
    grades = np.concatenate([table.grades for table in tables.values()])
    values = np.concatenate([table.values for table in tables.values()])
    age, hypertension = values[:, 0], values[:, 2].astype(int)
    counts = stats.contingency.crosstab(grades, hypertension).count
    expected = [
        (("hypertension", "chi-square"), stats.chi2_contingency(counts, correction=False).pvalue),
        (("age, 10 years", "ANOVA"), stats.f_oneway(*(age[grades == k] for k in range(4))).pvalue),
        (("age, 10 years", "Spearman"), stats.spearmanr(grades, np.digitize(age, AGE.edges)).pvalue),
    ]
    for key, p_value in expected:
        assert by_name[key].p_value == pytest.approx(p_value, rel=1e-9)
        assert (by_name[key].n, by_name[key].note) == (500, "")


def test_p_values_are_adjusted_within_the_regression_and_within_the_tables(found):
    assert found.adjusted == pytest.approx(holm([ratio.p_value for ratio in found.fit.odds_ratios()]))
    made = [test for test in found.tables if test.p_value is not None]
    assert len(made) == 9
    assert [test.adjusted for test in made] == pytest.approx(holm([test.p_value for test in made]))


def test_simulated_age_hypertension_and_stroke_come_out_as_they_were_put_in(found):
    """Odds ratios 1.7 a decade, 2.0 and 2.5 (mhsev_monai/cohort/clinical.py), within 99.9 % intervals and not 1."""
    ratios = {ratio.name: ratio for ratio in found.fit.odds_ratios(0.999)}
    for name, true in (("age, 10 years", 1.7), ("hypertension", 2.0), ("prior stroke", 2.5)):
        assert 1 < ratios[name].low < true < ratios[name].high
    assert found.overall.degrees_of_freedom == 8
    assert found.overall.p_value < 1e-6


def test_site_that_may_send_nothing_is_named_with_the_reason(cohort):
    tables = {root.name: read_clinical(read_cases(root).cases, CLINICAL_COVARIATES, CUTS) for root in cohort.iterdir()}
    tiny = read_clinical([case(str(i), i % 12, age=60.0 + i) for i in range(8)], CLINICAL_COVARIATES, CUTS)
    found = associate({**tables, "tiny": tiny})
    assert found.fit.left_out == {"tiny": "fewer than 10 cases with all values known"}
    assert all("without tiny: fewer than 10 cases" in test.note for test in found.tables)


def test_sites_with_other_variables_are_refused():
    tables = {"a": read_clinical([case("a", age=60.0)], (AGE,), CUTS), "b": read_clinical([], (SEX,), CUTS)}
    for sites in (tables, {}):
        with pytest.raises(ValueError, match="equal covariates"):
            associate(sites)


def test_command_prints_odds_ratios_and_adjusted_p_values(cohort, found, capsys):
    assert main(["associations", *map(str, sorted(cohort.iterdir()))]) == 0
    printed = capsys.readouterr().out
    for ratio in found.fit.odds_ratios():
        line = next(line for line in printed.splitlines() if line.startswith(ratio.name))
        assert f"{ratio.odds_ratio:.2f}   {ratio.low:.2f} to {ratio.high:.2f}" in line
    assert "sites          3   (site-1, site-2, site-3)" in printed
    assert "odds proportional" in printed
    assert "hypertension: chi-square" in printed


def test_command_writes_json_with_joined_grades_and_chosen_columns(cohort, capsys):
    roots = [str(root) for root in sorted(cohort.iterdir())]
    assert main(["associations", *roots, "--cuts", "6", "--columns", "age", "hypertension", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [ratio["name"] for ratio in result["regression"]["odds_ratios"]] == ["age, 10 years", "hypertension"]
    assert len(result["regression"]["grade_counts"]) == 2
    # Of two grades odds are proportional whatever they are.
    assert result["regression"]["proportional_odds"] == []
    assert {test["test"] for test in result["tables"]} == {"Spearman", "ANOVA", "chi-square"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["site-1", "--columns", "weight"], 2, "there is no variable weight"),
        (["site-1", "site-1"], 2, "same name"),
        (["site-1", "--cuts", "6", "6"], 2, "cuts must rise"),
        (["site-9"], 1, "not a folder"),
        (["site-1", "--cuts", "200"], 1, "no site that takes part has a case of grade 1"),
        (["site-3", "--least", "50"], 1, "no site takes part"),
    ],
)
def test_what_went_wrong_is_said_in_one_line(cohort, arguments, status, message, capsys):
    roots = [str(cohort / word) if word.startswith("site-") else word for word in arguments]
    assert main(["associations", *roots]) == status
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_covariates_are_the_columns_that_a_simulated_cohort_has():
    header = participants_table([]).split("\n")[0].split("\t")
    assert {covariate.column for covariate in CLINICAL_COVARIATES} <= set(header)
    assert all(isinstance(covariate, Covariate) for covariate in CLINICAL_COVARIATES)
