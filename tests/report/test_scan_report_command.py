"""``mhsev scan-report`` on a head with spots: the same answer as ``mhsev predict``, in every form, without its path."""

from __future__ import annotations

import json

import pytest
from pdf_text import page_texts
from test_command_line import head
from test_explain_command import candidate_model  # noqa: F401  a fixture

from mhsev_flare.cli import main


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return head(tmp_path_factory.mktemp("MUELLER-19480229") / "Hans-Mueller.nii.gz")


def test_the_report_says_what_predict_says_and_not_whose_it_is(scan, candidate_model, tmp_path, capsys):  # noqa: F811
    assert main(["predict", str(scan), "--model", str(candidate_model), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    files = [str(tmp_path / name) for name in ("r.json", "r.pdf")]
    assert main(["scan-report", str(scan), "--model", str(candidate_model), "--out", *files]) == 0
    told = json.loads((tmp_path / "r.json").read_text())
    (panel,) = told["opening"]
    tiles = {tile["name"]: tile for block in panel["blocks"] if block["kind"] == "tiles" for tile in block["tiles"]}
    assert tiles["Severity grade"]["value"] == answer["grade"]
    assert tiles["Number of microbleeds"]["value"]["value"] == answer["count"]
    low, high = answer["count_interval"]
    assert f"90 % interval: {low} to {high}" in tiles["Number of microbleeds"]["lines"]
    assert "attribution" in [section["id"] for section in told["sections"]]
    rows = {b["id"]: b["rows"] for s in told["sections"] for b in s["blocks"] if b["kind"] == "table"}
    assert len(rows["findings-table"]) == len(answer["findings"])
    text = "\n".join(page_texts((tmp_path / "r.pdf").read_bytes()))
    for words in (text, (tmp_path / "r.json").read_text()):
        assert "ueller" not in words
        assert "MUELLER" not in words
        assert "1948" not in words


def test_a_file_of_another_kind_is_refused_before_any_work(scan, candidate_model, tmp_path, capsys):  # noqa: F811
    assert main(["scan-report", str(scan), "--model", str(candidate_model), "--out", str(tmp_path / "r.docx")]) == 2
    assert ".html, .md, .json, .pdf" in capsys.readouterr().err


def test_a_scan_that_cannot_be_used_is_named_with_the_reason(candidate_model, tmp_path, capsys):  # noqa: F811
    (tmp_path / "a.nii.gz").write_bytes(b"no scan")
    out = tmp_path / "r.html"
    assert main(["scan-report", str(tmp_path / "a.nii.gz"), "--model", str(candidate_model), "--out", str(out)]) == 1
    assert "a.nii.gz" in capsys.readouterr().err
    assert not out.exists()
