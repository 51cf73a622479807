"""The forms of one document: each says its numbers, keeps to its own rules, and is the same each time."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import re
import sys
import time

import jsonschema
import pytest
import scipy.stats
from pdf_text import page_texts
from PIL import Image
from whole_report import HOSTILE, base_data, whole_data

from mhsev_monai.report import FORMS, ReportData, render, run_document
from mhsev_monai.report.document import (
    PNG_ADDRESS,
    Beside,
    Column,
    Document,
    Drawing,
    Heading,
    Interval,
    Number,
    Paragraph,
    Picture,
    Section,
    Table,
    p_value,
    text_of,
)
from mhsev_monai.report.document_json import report_schema
from mhsev_monai.report.forms import MissingReportlabError, form_of, write_form
from mhsev_monai.report.model_card import model_card

EXTRA_SECTIONS = ["calibration", "sets", "subgroups", "cross-site", "paired", "explanation", "associations", "failures"]


@pytest.fixture(scope="module")
def document():
    return run_document(whole_data())


def numbers_in(value):
    """All numbers under the keys value, low and high."""
    if isinstance(value, dict):
        own = {value[key] for key in ("value", "low", "high") if isinstance(value.get(key), float)}
        return own.union(*(numbers_in(part) for part in value.values()))
    return set().union(*(numbers_in(part) for part in value)) if isinstance(value, list) else set()


def test_parts_stand_where_the_result_has_them_and_only_there(document):
    whole = [section.id for section in document.sections]
    bare = [section.id for section in run_document(base_data()).sections]
    assert [name for name in whole if name not in bare] == EXTRA_SECTIONS
    assert set(bare) <= set(whole)


@pytest.mark.parametrize("form", FORMS)
def test_equal_documents_are_equal_bytes_whenever_they_are_made(document, form, monkeypatch):
    first = render(document, form)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400 * 400)
    assert render(run_document(whole_data()), form) == first


@pytest.mark.parametrize("make", [run_document, model_card])
@pytest.mark.parametrize("data", [whole_data(), base_data(), ReportData("Nothing", simulated=False)], ids="wbn")
def test_the_json_keeps_to_its_schema(make, data):
    validator = jsonschema.Draft202012Validator(report_schema())
    validator.check_schema(report_schema())
    told = json.loads(render(make(data), "json"))
    validator.validate(told)
    spoilt = copy.deepcopy(told)
    spoilt["sections"][0]["blocks"].append({"kind": "table", "id": "x", "caption": "y", "columns": []})
    assert not validator.is_valid(spoilt)
    assert not validator.is_valid({**told, "patient": "somebody"})


def test_the_json_holds_the_numbers_unrounded(document):
    data = whole_data()
    told = numbers_in(json.loads(render(document, "json")))
    for name in ("balanced_accuracy", "quadratic_kappa", "brier", "count_mae"):
        assert data.pooled.metrics[name] in told
    assert {*data.pooled.intervals["quadratic_kappa"]} <= told
    uncertainty = data.analyses.uncertainty["pooled"]
    assert {uncertainty["before"]["ece"], uncertainty["after"]["ece"], uncertainty["sets"]["coverage"]} <= told
    assert {5e-8, 1.6875, 1.40625, 2.03125, 0.453125, 0.21875, 1e-12} <= told
    importance = data.analyses.explanation["pooled"]["importance"]["expected severity"]
    assert {row["mean_absolute"] for row in importance} <= told


def test_every_table_and_figure_has_a_caption_and_an_id_of_its_own(document):
    told = json.loads(render(document, "json"))

    def walk(value):
        if isinstance(value, dict):
            if value.get("kind") in ("table", "figure"):
                yield value
            value = list(value.values())
        for part in value if isinstance(value, list) else ():
            yield from walk(part)

    named = list(walk(told))
    assert len(named) > 25
    assert len({each["id"] for each in named}) == len(named)
    assert all(each["caption"] for each in named if each["kind"] == "table")
    assert all(each["title"] and each["description"] for each in named if each["kind"] == "figure")


def test_no_markup_of_a_name_survives_in_markdown(document):
    text = render(document, "md").decode()
    assert "<script" not in text.replace("\\<script", "")
    assert "\\<script\\>" in text
    tables = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    assert len(tables) > 15
    for table in tables:
        # A bar in a name would make a row longer.
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.strip().splitlines()}
        assert len(widths) == 1


def test_a_bar_and_a_line_break_in_a_cell_stay_in_it():
    table = Table("t", "c", (Column("a|b"), Column("n")), [("x|y\n# z", 1)])
    document = Document("run", "T", "s", [("Research use only.", "")], sections=[Section("s", "S", [table])])
    assert "| x\\|y \\# z | 1 |" in render(document, "md").decode()


def test_every_page_of_the_pdf_says_what_it_is_not(document):
    pages = page_texts(render(document, "pdf"))
    assert len(pages) > 8
    for number, page in enumerate(pages, start=1):
        assert "Research use only. Not a medical device." in page
        assert f"{number} of {len(pages)}" in page


def test_the_pdf_says_the_numbers_and_takes_a_name_for_text(document):
    text = "\n".join(page_texts(render(document, "pdf")))
    for shown in ("0.4531", "<0.0001", "1.69", "1.41 to 2.03", "Temperature 1.52", "not told", "1-4 (grades hidden)"):
        assert shown in text, shown
    assert "<script>" in text
    assert b"/JavaScript" not in render(document, "pdf")
    assert b"/URI" not in render(document, "pdf")


def cards(n):
    """Cases with a picture each, of the shape that slices side by side have."""
    card = next(
        block
        for section in run_document(whole_data()).sections
        if section.id == "examples"
        for group in section.blocks[1].groups
        for block in group
    )
    stream = io.BytesIO()
    Image.new("L", (400, 200)).save(stream, "PNG")
    picture = Picture(PNG_ADDRESS + base64.b64encode(stream.getvalue()).decode(), "a slice")
    return [
        [dataclasses.replace(card, title=f"case-{number}", picture=picture, blocks=card.blocks[:1])]
        for number in range(1, n + 1)
    ]


def pdf_pages(*blocks):
    section = Section("s", "Of the cases", list(blocks))
    return page_texts(render(Document("run", "T", "s", [("Research use only.", "")], sections=[section]), "pdf"))


def test_cases_with_pictures_share_a_page_of_the_pdf_and_none_is_divided():
    pages = pdf_pages(Paragraph("How they were chosen."), Beside(cards(4)))
    titles = [re.findall(r"^case-\d", page, re.MULTILINE) for page in pages]
    assert titles == [["case-1", "case-2"], ["case-3", "case-4"]]
    assert [page.count("Result of") for page in pages] == [2, 2]
    assert "Of the cases" in pages[0]


def test_a_heading_and_a_caption_stand_on_the_page_of_their_figure():
    """The figure is moved down line by line over the end of the page."""
    figure = next(
        block
        for section in run_document(whole_data()).sections
        for block in section.blocks
        if isinstance(block, Drawing) and block.caption
    )
    inside = re.search(r"<text[^>]*>([a-z ]{4,})</text>", str(figure.svg)).group(1)
    moved = set()
    for n in range(24, 44):
        pages = pdf_pages(*[Paragraph("A line.")] * n, Heading("What it shows"), figure)
        (heading,) = [number for number, page in enumerate(pages) if "What it shows" in page]
        assert inside in pages[heading]
        assert figure.caption[:20] in pages[heading]
        moved.add(heading)
    assert moved == {0, 1}


def test_letters_that_the_fonts_lack_become_question_marks_in_the_pdf_alone():
    data = whole_data("Клиника")
    assert "???????" in "\n".join(page_texts(render(run_document(data), "pdf")))
    assert "Клиника" in render(run_document(data), "html").decode()


def test_without_reportlab_a_pdf_is_refused_with_the_way_out(document, monkeypatch):
    monkeypatch.setitem(sys.modules, "mhsev_monai.report.pdf", None)
    with pytest.raises(MissingReportlabError, match=r"mhsev\[report\]"):
        render(document, "pdf")
    assert render(document, "md")


def test_an_unknown_form_is_refused(document):
    with pytest.raises(ValueError, match="html, md, json, pdf"):
        render(document, "docx")


def test_a_file_is_written_whole_and_its_name_says_the_form(document, tmp_path):
    assert [form_of(tmp_path / name) for name in ("a.PDF", "a.md", "a.htm", "a")] == ["pdf", "md", "html", "html"]
    path = write_form(document, tmp_path / "deep" / "a.json", "json")
    assert path.read_bytes() == render(document, "json")
    assert [each.name for each in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "not computed"),
        (Number(float("nan")), "not computed"),
        (Number(None, missing="undefined"), "undefined"),
        (Number(-0.0001, 2), "0.00"),
        (Number(0.5, 2, 0.25, 0.75), "0.50 (0.25 to 0.75)"),
        (Number(0.5, 2, 0.25, float("inf")), "0.50"),
        (Interval(0.25, None), "not computed"),
        (p_value(3e-9), "<0.0001"),
        (p_value(0.0001), "0.0001"),
        (p_value(None), "not computed"),
        (0, "0"),
    ],
)
def test_a_cell_as_text(cell, text):
    assert text_of(cell) == text


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 cells"):
        Table("t", "c", (Column("a"), Column("b")), [("x",)])


def test_the_model_card_says_what_the_model_is_for_and_not_for():
    data = whole_data()
    text = render(model_card(data), "md").decode()
    for heading in ("Intended use", "Out of scope", "Data", "Performance", "Calibration", "Privacy", "Limits"):
        assert f"## {heading}\n" in text
    low, high = data.pooled.intervals["quadratic_kappa"]
    assert f"| {data.pooled.metrics['quadratic_kappa']:.3f} | {low:.3f} to {high:.3f} |" in text
    assert "no medical device" in text
    assert "27 none (39 %)" in text
    assert "sub-001" not in text, "single cases have no place in a card"
    assert HOSTILE not in text


@pytest.mark.parametrize(("before", "after", "said"), [(0.0625, 0.125, True), (0.125, 0.0625, False)])
def test_a_temperature_that_did_harm_is_said_to(before, after, said):
    data = whole_data()
    pooled = copy.deepcopy(data.analyses.uncertainty["pooled"])
    pooled["before"]["ece"], pooled["after"]["ece"] = before, after
    changed = dataclasses.replace(data.analyses, uncertainty={**data.analyses.uncertainty, "pooled": pooled})
    text = render(run_document(dataclasses.replace(data, analyses=changed)), "md").decode()
    assert ("The temperature did not help." in text) is said


def test_a_temperature_that_stayed_1_is_not_called_fitted():
    data = whole_data()
    reason = "8 cases are too few to choose a temperature, 50 are the least"
    calibration = {**data.analyses.calibration, "temperature": 1.0, "reason": reason, "n": 8}
    changed = dataclasses.replace(data, analyses=dataclasses.replace(data.analyses, calibration=calibration))
    text = render(run_document(changed), "md").decode()
    assert f"No temperature was fitted: {reason}." in text
    assert "fitted on 8 cases" not in text
    # Before and after are the same then, and stand there once.
    assert "| Error | Value (temperature 1) |" in text
    assert "after calibration" not in text
    assert "The dots, as numbers" in text
    assert "fitted temperature" not in text
    assert "fitted temperature" in render(run_document(data), "md").decode()


def coverage_rows(data):
    told = json.loads(render(run_document(data), "json"))
    (table,) = [b for s in told["sections"] for b in s["blocks"] if b.get("id") == "sets-by-grade"]
    return [column["title"] for column in table["columns"]], table["rows"]


def test_coverage_by_grade_has_its_cases_and_an_interval_where_all_cases_tell_their_sets():
    data = whole_data()
    sets = data.analyses.uncertainty["pooled"]["sets"]
    columns, rows = coverage_rows(data)
    assert columns == ["Grade", "Cases", "Coverage"]
    assert [row[:2] for row in rows] == [[entry["severity"], entry["n"]] for entry in data.pooled.metrics["per_class"]]
    for grade, n, coverage in rows:
        share = sets["coverage_by_grade"][grade]
        assert coverage["value"] == share
        oracle = scipy.stats.binomtest(round(share * n), n).proportion_ci(method="wilson")
        assert (coverage["low"], coverage["high"]) == pytest.approx(tuple(oracle), abs=1e-6)
    pooled = {**data.analyses.uncertainty["pooled"], "n": 69}
    analyses = dataclasses.replace(data.analyses, uncertainty={**data.analyses.uncertainty, "pooled": pooled})
    columns, rows = coverage_rows(dataclasses.replace(data, analyses=analyses))
    assert columns == ["Grade", "Coverage"]
    assert [row[1]["value"] for row in rows] == list(sets["coverage_by_grade"].values())


def test_draws_that_are_all_alike_are_no_interval_of_a_difference():
    data = whole_data()
    paired = copy.deepcopy(data.analyses.paired)
    paired["comparisons"][0]["accuracy"] |= {"difference": 1.0, "interval": [1.0, 1.0]}
    paired["comparisons"][0]["quadratic_kappa"] |= {"difference": 1.0, "interval": [1.0, 1.0]}
    changed = dataclasses.replace(data, analyses=dataclasses.replace(data.analyses, paired=paired))
    shown = {form: render(run_document(changed), form) for form in ("md", "html", "pdf")}
    assert "1.000 (not determined)" in shown["md"].decode()
    assert "1.000 to 1.000" not in shown["md"].decode()
    assert "Without a line: the cases do not determine an interval" in shown["md"].decode()
    assert "1.000 to 1.000" not in shown["html"].decode()
    assert "1.000 to 1.000" not in "\n".join(page_texts(shown["pdf"]))
    assert "Without a line" not in render(run_document(data), "md").decode().split("## Comparisons")[1]


def test_a_line_does_not_end_before_a_percent_sign():
    section = Section("s", "S", [Paragraph("In 90 % of <b>; b = 0 images. Per cent: %")])
    page = render(Document("run", "T", "s", [("Research use only.", "")], sections=[section]), "html").decode()
    assert "In 90\u00a0% of &lt;b&gt;; b\u00a0=\u00a00 images. Per cent: %" in page


def test_the_calibration_error_has_no_interval_also_of_a_result_that_has_one():
    data = whole_data()
    assert data.analyses.uncertainty["pooled"]["before"]["intervals"]["ece"]
    text = render(run_document(data), "md").decode()
    assert "0.031 to 0.281" not in text
    assert "0.031 to 0.094" in text, "that of the ranked probability score stays"


def test_the_interval_of_the_macro_auc_is_said_to_be_too_wide_where_it_stands():
    data = whole_data()
    for document in (run_document(data), model_card(data)):
        assert render(document, "md").decode().count("The interval of the macro AUC is too wide") == 2


def test_an_interval_that_the_cases_do_not_give_is_told_from_one_that_nobody_computed():
    pooled = dataclasses.replace(base_data().pooled, intervals={"accuracy": None})
    assert text_of(pooled.number("accuracy").ends()) == "not determined"
    assert text_of(pooled.number("brier").ends()) == "not computed"


def test_chance_is_said_to_be_tested_only_where_the_sites_own_models_were_compared():
    data = whole_data()
    told = render(run_document(data), "md").decode()
    assert "the paired comparisons below are of accuracy and kappa" in told
    paired = {"comparisons": [each for each in data.analyses.paired["comparisons"] if each["second"] == "majority"]}
    changed = dataclasses.replace(data, analyses=dataclasses.replace(data.analyses, paired=paired))
    assert "Whether the difference could be chance was not tested." in render(run_document(changed), "md").decode()
