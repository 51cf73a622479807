"""From result.json, as the end of a study writes it, to every part of the report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest
from judged_sites import phase_of, weights_of

from mhsev_flare.cli import main
from mhsev_flare.protocol import MODEL_FILE, RESULT_FILE
from mhsev_flare.result import begun_result, file_digest, write_ledger, write_result
from mhsev_flare.run_report import read_report
from mhsev_monai.inputs import DSDInputs
from mhsev_monai.metrics import SeverityTable, severity_intervals
from mhsev_monai.model_file import load_model, save_model
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.report import FORMS, run_document
from mhsev_monai.report.document_json import document_json, report_schema
from mhsev_monai.roc_areas import area_entry

LEDGER = [
    {
        "round": number,
        "sites": {"site-1": {"n_samples": 98}, "site-2": {"n_samples": 70}} if number < 2 else {},
        "refused": {"site-3": "values are not finite"} if number == 1 else {},
        "absent": [],
        "anomalies": {
            "site-1": {"accepted": True, "share": 0.625, "norm_ratio": 1.25, "cosine_to_median": 0.875, "clipped": 1},
            "site-2": {"accepted": True, "share": 0.375, "norm_ratio": 1.0, "cosine_to_median": 0.75, "clipped": 0},
        }
        if number < 2
        else {},
        "validation": {"n": 24, "quadratic_kappa": 0.5, "loss": 1.25},
    }
    for number in range(3)
]  # fmt: skip


_KEPT: dict[str, str] = {}
"""The result as text: training is done once, and each test gets its own copy."""


@pytest.fixture
def result(request):
    """All that a completed run of three sites writes, but for what concerns the model's file."""
    if not _KEPT:
        made = make_result(request.getfixturevalue("sites"), request.getfixturevalue("trained"))
        _KEPT["result"] = json.dumps(made)
    return json.loads(_KEPT["result"])


def make_result(sites, trained):
    phase = phase_of(sites)
    calibration, entry = phase.calibrate(trained)
    tables, entries = phase.test(trained, calibration)
    settings = {"job": "tiny", "seed": 1, "scale": "paper", "num_rounds": 2, "weighting": "samples", "rule": "clip"}
    summary = {"cases": {"train": 98, "test": "1-4"}, "excluded": 0, "twins": 0}
    grades = {"train": [40, "1-4", "5+", "5+"], "test": [None] * 4}
    return {
        **begun_result({"mhsev": "0.1.0", "nvflare": "2.9.0", "torch": "2.13.0"}, settings),
        "status": "completed",
        "reason": "",
        "sites": {site: {**summary, "grades": grades} for site in sites},
        "reports": {site: {"mhsev": "0.1.0", "device": "cpu"} for site in sites},
        "refused": {},
        "features": {"fingerprint": "f", "names": ["a", "b", "c"]},
        "best_round": 1,
        "left_out": {},
        "calibration": entry,
        **entries,
        **phase.site_models(trained, weights_of(sites["site-1"][0].network), tables),
    }


@pytest.fixture
def run(result, tmp_path):
    """The folder of the run; its model is untrained, since no case is graded here."""
    folder = tmp_path / "ws" / "server" / "mhsev"
    folder.mkdir(parents=True)
    inputs = DSDInputs()
    network = SeverityMLP(len(inputs.feature_names), [8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=1)
    save_model(folder / MODEL_FILE, network, inputs, "paper", network.state_dict(), {})
    model = {"file": MODEL_FILE, "sha256": file_digest(folder / MODEL_FILE)}
    write_result(folder, {**result, "model": model})
    write_ledger(folder, LEDGER)
    return folder


def told(data):
    document = document_json(run_document(data))
    jsonschema.Draft202012Validator(report_schema()).validate(json.loads(json.dumps(document)))
    tables = {}
    for section in document["sections"]:
        tables |= {block["id"]: block for block in section["blocks"] if block["kind"] == "table"}
    return [section["id"] for section in document["sections"]], tables


def test_every_part_of_the_result_has_its_part_in_the_report(run, result):
    data = read_report(run.parent.parent)
    ids, tables = told(data)
    assert {"calibration", "sets", "subgroups", "cross-site", "paired", "federation", "limits"} <= set(ids)
    assert "failures" not in ids, "no cohort is at hand"
    pooled = result["test"]["pooled"]
    kappa = next(row for row in tables["metrics"]["rows"] if row[0] == "Quadratic kappa")
    assert kappa[1]["value"] == pooled["metrics"]["quadratic_kappa"]
    assert [kappa[2]["low"], kappa[2]["high"]] == pooled["intervals"]["quadratic_kappa"]
    mild = tables["grades"]["rows"][1]
    ends = pooled["intervals"]["per_class"][1]["sensitivity"]
    assert [mild[2].get("low"), mild[2].get("high")] == (ends or [None, None])
    ece = tables["calibration-errors"]["rows"][0]
    assert ece[1]["value"] == result["uncertainty"]["pooled"]["before"]["ece"]
    assert ece[2]["value"] == result["uncertainty"]["pooled"]["after"]["ece"]
    assert tables["sets"]["rows"][0][2]["value"] == result["uncertainty"]["pooled"]["sets"]["coverage"]
    assert len(tables["paired-tests"]["rows"]) == len(result["paired"]["comparisons"])
    first = result["paired"]["comparisons"][0]
    assert tables["paired-tests"]["rows"][0][4]["value"] == first["mcnemar"]["p"]
    groups = {row[0] for row in tables["subgroups-table"]["rows"]}
    assert {"Sex: female", "Sex: male"} <= groups
    matrix = result["comparison"]["matrix"]
    own = tables["cross-site-table"]["rows"][0][1]
    assert own["value"] == matrix["site-1"]["site-1"]["metrics"]["balanced_accuracy"]
    assert own["low"] < own["value"] <= own["high"] or "low" not in own


@pytest.mark.parametrize(
    ("average", "words", "kept"),
    [
        ({"kept": True}, "kept in place of one round's; validation loss 0.500, quadratic kappa 0.250", None),
        ({"kept": False}, "not kept; validation loss 0.500, quadratic kappa 0.250", 1),
        (None, "not judged: no site answered", 1),
    ],
)
def test_a_mean_of_the_rounds_is_told_with_its_validation_and_marks_no_round(run, result, average, words, kept):
    judged = {"validation": {"n": 9, "loss": 0.5, "quadratic_kappa": 0.25, "balanced_accuracy": None}}
    entry = None if average is None else {"decay": 0.8, "models": 2, **judged, **average}
    found = json.loads((run / RESULT_FILE).read_text())
    write_result(run, {**found, "average": entry})
    data = read_report(run)
    assert data.facts["mean of the rounds' models"] == words
    assert data.kept_round == kept
    assert data.facts["round kept"] == ("none, the mean of all" if kept is None else 1)


def test_areas_have_the_interval_of_delong_beside_that_of_draws(run, result):
    rows = told(read_report(run))[1]["areas"]["rows"]
    pooled = result["test"]["pooled"]
    entries = [*pooled["delong"]["per_class"], pooled["delong"]["macro_auc"]]
    drawn = [*(grade["auc"] for grade in pooled["intervals"]["per_class"]), pooled["intervals"]["macro_auc"]]
    assert len(rows) == len(entries) == 5
    for row, entry, ends in zip(rows, entries, drawn, strict=True):
        assert row[2]["value"] == entry["auc"]
        assert [row[3]["low"], row[3]["high"]] == ends
        assert [row[4]["low"], row[4]["high"]] == entry["interval"]
        assert row[5]["value"] == entry["standard_error"]
    assert pooled["delong"] == area_entry(SeverityTable.from_json(pooled["table"]))
    for groups in ("sex", "age", "scanner"):
        for entry in result["subgroups"][groups].values():
            table = entry["table"]
            assert entry["delong"] == (None if table is None else area_entry(SeverityTable.from_json(table)))


def test_what_a_site_hides_stays_hidden(run):
    _, tables = told(read_report(run))
    assert tables["cases"]["rows"][0] == ["site-1", "98 (40 / 1-4 / 5+ / 5+)", "1-4 (grades hidden)", 0]
    assert "does not tell" in tables["cases"]["caption"]


def test_the_ledger_and_what_was_exchanged_are_told(run):
    data = read_report(run)
    _, tables = told(data)
    assert [row[0] for row in tables["rounds"]["rows"]] == ["0", "1 (kept)", "2"]
    assert tables["rounds"]["rows"][1][4] == "site-3: values are not finite"
    attendance = {row[0]: row for row in tables["attendance"]["rows"]}
    assert attendance["site-1"][1:5] == [2, 0, 0, 2]
    assert attendance["site-1"][5]["value"] == 0.625
    policy = data.analyses.policy
    assert policy["updates in the average"] == 4
    assert policy["updates refused"] == 1
    network = load_model(run / MODEL_FILE).network
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    assert policy["weights, each way, a site and round"].startswith(f"{n_bytes / 1000:.1f} kB")


def test_an_answer_that_was_refused_after_training_is_told_once_with_its_reason(run, result):
    reason = "an evaluation table of 10000000 cases, where a site has 100000 at most"
    told_why = {"validate test": {"site-3": reason}, "personalise": {"site-3": reason}}
    write_result(run, {**result, "unusable": told_why, "model": {"file": MODEL_FILE, "sha256": "0" * 64}})
    policy = read_report(run).analyses.policy
    assert policy["answers after training that were refused"] == f"site-3: {reason}"


def test_intervals_of_all_models_that_are_compared_are_drawn_within_the_same_sites(run, result):
    comparison = result["comparison"]

    def tables_of(entries, names):
        return [SeverityTable.from_json(entries[name]["table"]) for name in names]

    def own_interval(owner, names):
        return severity_intervals(tables_of(comparison["matrix"][owner], names), 1)["balanced_accuracy"]

    local = read_report(run).local_models
    everywhere = comparison["sites"]
    assert local.cases == "the test cases of all sites"
    assert local.intervals == {owner: own_interval(owner, everywhere) for owner in everywhere}
    assert list(local.global_interval) == result["test"]["pooled"]["intervals"]["balanced_accuracy"]

    some = ["site-1", "site-3"]
    whole = json.loads((run / "result.json").read_text())
    whole["comparison"]["sites"] = some
    (run / "result.json").write_text(json.dumps(whole))
    local = read_report(run).local_models
    assert local.cases == "the test cases of site-1, site-3, the sites that judged every model"
    assert local.intervals == {owner: own_interval(owner, some) for owner in everywhere}
    tested = tables_of(result["test"]["sites"], some)
    assert local.global_interval == severity_intervals(tested, 1)["balanced_accuracy"]


def test_a_result_without_the_new_keys_still_has_a_report(run, result):
    old = json.loads((run / "result.json").read_text())
    for key in ("calibration", "uncertainty", "subgroups", "paired"):
        del old[key]
    del old["comparison"]["matrix"]
    for entry in (old["test"]["pooled"], *old["test"]["sites"].values()):
        del entry["intervals"]
    del old["test"]["worst_site"]
    (run / "result.json").write_text(json.dumps(old))
    data = read_report(run)
    ids, _ = told(data)
    assert {"calibration", "sets", "subgroups", "cross-site", "paired"} & set(ids) == set()
    tables = [SeverityTable.from_json(entry["table"]) for entry in old["test"]["sites"].values()]
    assert data.pooled.intervals == severity_intervals(tables, 1)
    own = SeverityTable.from_json(old["comparison"]["site_models"]["site-1"]["table"])
    assert data.local_models.intervals["site-1"] == severity_intervals([own], 1)["balanced_accuracy"]


def test_files_of_analyses_are_found_beside_the_result_or_named(run, tmp_path):
    sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
    from whole_report import associations, explanation

    (run / "explanation.json").write_text(json.dumps(explanation("site-1")))
    (tmp_path / "other.json").write_text(json.dumps(associations("site-1")))
    ids, tables = told(read_report(run, analyses={"associations.json": tmp_path / "other.json"}))
    assert {"explanation", "associations"} <= set(ids)
    assert tables["odds"]["rows"][0][1] == {"value": 1.6875, "low": 1.40625, "high": 2.03125}
    assert "associations" not in told(read_report(run))[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "not JSON"), ('{"schema": "mhsev-explanation/1"}', "has not the schema"), ("[]", "has not the schema")],
)
def test_a_file_that_is_none_of_the_job_is_refused(run, tmp_path, content, reason):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=reason):
        read_report(run, analyses={"associations.json": tmp_path / "x.json"})


def test_an_analysis_that_did_not_end_well_has_no_part(run):
    (run / "explanation.json").write_text(json.dumps({"schema": "mhsev-explanation/1", "status": "refused"}))
    assert "explanation" not in told(read_report(run))[0]


def test_the_command_writes_all_forms_and_the_card(run, tmp_path, capsys):
    out, card = tmp_path / "out" / "page.html", tmp_path / "card.md"
    command = [
        "report",
        str(run),
        "--out",
        str(out),
        "--model-card",
        str(card),
        "--format",
        "html",
        "md",
        "json",
        "pdf",
    ]
    assert main(command) == 0
    wrote = capsys.readouterr().out.splitlines()
    assert len(wrote) == 5
    assert {path.name for path in out.parent.iterdir()} == {f"page.{form}" for form in FORMS}
    assert out.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert "# Model card: tiny" in card.read_text()


def test_a_command_that_writes_nothing_is_wrong(run, capsys):
    assert main(["report", str(run)]) == 2
    assert "--model-card" in capsys.readouterr().err


def test_a_run_that_failed_has_no_report(run, tmp_path, capsys):
    failed = {**json.loads((run / "result.json").read_text()), "status": "failed", "reason": "two sites left"}
    (run / "result.json").write_text(json.dumps(failed))
    assert main(["report", str(run), "--out", str(tmp_path / "x.html")]) == 1
    assert "two sites left" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
