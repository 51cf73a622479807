"""The report of one scan: its answer with intervals, what it rests on, and nothing that names a patient."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import jsonschema
import numpy as np
import pytest
from pdf_text import page_texts
from test_page import Page

from mhsev_monai.report import FORMS, render, slice_pair_png
from mhsev_monai.report.document import Picture
from mhsev_monai.report.document_json import report_schema
from mhsev_monai.report.scan_data import Attribution, FindingLine, ScanReport
from mhsev_monai.report.scan_sections import scan_document, scan_html, scan_pdf
from mhsev_monai.report.slices import Mark


@pytest.fixture(scope="module")
def report():
    image = np.random.default_rng(0).random((16, 16))
    return ScanReport(
        grade="moderate",
        count=9,
        count_interval=(6, 12),
        count_share=0.9,
        probabilities={"none": 0.0, "mild": 0.03125, "moderate": 0.78125, "severe": 0.1875},
        scale="paper",
        calibrated=True,
        prediction_set=("moderate", "severe"),
        set_coverage=0.9,
        n_candidates=512,
        findings=[
            FindingLine(1, 9, (-39.75, -60.25, -31.0), 0.984375, 0.78125, 3.75, "lobar"),
            FindingLine(2, 19, (14.25, -22.75, 10.5), 0.9375, 0.65625, None, None),
            FindingLine(3, 16, (27.0, -73.5, -4.5), 0.28125, 0.34375, 3.25, "deep", is_finding=False),
        ],
        pictures=[Picture(slice_pair_png(image, -image, [Mark(3, 4, "1")]), "slice 9 of 36", "Slice 9 of 36.")],
        n_slices_left=1,
        orientation="The front of the head is up.",
        attribution=Attribution(0.5, 2.25, [("shape of the spots", 2.0), ("protocol", -0.25)], 8.75),
        quality={"brain mask": "1545 ml"},
        flags=["the brain touches the edge of the volume"],
        model={"mhsev": "0.1.0", "model SHA-256": "f" * 64},
    )


def test_the_answer_stands_first_with_its_interval_and_set(report):
    text = " ".join(Page(scan_html(report)).text.split())
    start, end = text.index("Result"), text.index("Findings")
    for words in ("moderate", "6–10 microbleeds", "90 % interval: 6 to 12", "moderate or severe", "90 % of like scans"):
        assert start < text.index(words) < end, words
    assert text.index("Research use only. Not a medical device.") < start


def test_findings_have_region_size_and_place_where_these_are_known(report):
    told = json.loads(render(scan_document(report), "json"))
    tables = {b["id"]: b for s in told["sections"] for b in s["blocks"] if b["kind"] == "table"}
    heads = [column["title"] for column in tables["findings-table"]["columns"]]
    first, second = (dict(zip(heads, row, strict=True)) for row in tables["findings-table"]["rows"])
    assert (first["Region"], first["Dark over"]["value"], first["Slice"]) == ("lobar", 3.75, 9)
    assert first["Position"] == "-39.8 / -60.2 / -31.0"
    assert (second["Region"], second["Dark over"]["missing"]) == ("not determined", "no own extent")
    assert [row[0] for row in tables["possible-table"]["rows"]] == ["3"]
    text = " ".join(Page(scan_html(report)).text.split())
    assert (
        "2 findings and 1 less likely, among 512 dark spots. Regions of the findings: 1 lobar, 1 not determined."
        in text
    )
    assert "DWI misses most microbleeds" in text
    assert "1 slice with fewer findings not shown" in text


def test_without_regions_there_is_no_column_of_them(report):
    bare = replace(report, findings=[replace(line, region=None) for line in report.findings])
    assert '"Region"' not in render(scan_document(bare), "json").decode()


def test_an_abstention_is_said_before_the_grade(report):
    html = scan_html(replace(report, abstains="every grade is possible"))
    text = " ".join(Page(html).text.split())
    assert text.index("The model abstains: every grade is possible.") < text.index("Severity grade")
    assert "abstains" not in Page(scan_html(report)).text
    assert "The model abstains:" in page_texts(scan_pdf(replace(report, abstains="x")))[0]


def test_no_interval_and_no_set_are_said_to_be_absent(report):
    text = Page(scan_html(replace(report, count_interval=None, prediction_set=None, calibrated=False))).text
    assert "90 % interval: not computed" in text
    assert "not calibrated, the network's own: read their order" in text
    assert "at a fitted temperature" in Page(scan_html(report)).text
    assert "Grades that are possible" not in text


def test_an_empty_set_is_no_grade(report):
    assert "no grade" in Page(scan_html(replace(report, prediction_set=()))).text


def test_a_model_that_points_at_nothing_has_no_table_of_findings(report):
    text = Page(scan_html(replace(report, judges_spots=False, findings=[]))).text
    assert "points at no place" in text
    assert "Dark over" not in text


def test_a_subject_and_a_date_stand_only_where_they_are_given(report):
    named = replace(report, subject="P-17", made_on="2031-02-03")
    for form in FORMS:
        content = render(scan_document(named), form)
        words = "\n".join(page_texts(content)) if form == "pdf" else content.decode()
        assert re.search(r"Subject P\\?-17", words)
        assert "2031-02-03" in words
        plain = render(scan_document(report), form)
        bare = "\n".join(page_texts(plain)) if form == "pdf" else plain.decode()
        assert "Subject" not in bare
        assert not re.search(r"\b20\d\d-\d\d", bare)


@pytest.mark.parametrize("form", FORMS)
def test_equal_reports_are_equal_bytes(report, form):
    assert render(scan_document(report), form) == render(scan_document(replace(report)), form)


def test_the_json_keeps_to_the_schema(report):
    jsonschema.Draft202012Validator(report_schema()).validate(json.loads(render(scan_document(report), "json")))


def test_the_page_is_whole_and_loads_nothing(report):
    html = scan_html(replace(report, subject="<script>alert(1)</script>"))
    page = Page(html)
    assert page.open == []
    assert "<script" not in html
    assert not re.search(r"https?://|url\(|@import", html)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    headings = [int(tag[1]) for tag in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
