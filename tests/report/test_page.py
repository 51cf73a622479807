"""The page: whole HTML that loads nothing, says the numbers of its data, and says what is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from whole_report import HOSTILE, base_data, evaluation

from mhsev_monai.metrics import SeverityTable
from mhsev_monai.report import (
    CandidateRow,
    ExampleCase,
    LocalModels,
    ReportData,
    render_report,
)
from mhsev_monai.report.words import local_models_sentence

VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether every tag is closed in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.numbers, self.text = [], [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "data":
            self.numbers.append(float(dict(attrs)["value"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data.replace("\u00a0", " ")


@pytest.fixture(scope="module")
def data():
    return base_data()


@pytest.fixture(scope="module")
def html(data):
    return render_report(data)


def test_every_tag_is_closed_in_order_and_every_figure_is_xml(html):
    page = Page(html)
    assert page.open == []
    figures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(figures) == 6
    for figure in figures:
        ElementTree.fromstring(figure)


def test_ids_are_unique_and_links_lead_to_them(html):
    attributes = Page(html).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = [value.removeprefix("#") for name, value in attributes if name == "href"]
    named = [name for key, value in attributes if key == "aria-labelledby" for name in value.split()]
    assert links
    assert {*links, *named} <= set(ids)


def test_a_hostile_name_stays_text_wherever_it_stands(html):
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    # Title twice, figures and their descriptions, four tables, ledger and its reason, one example.
    assert page.text.count(HOSTILE) >= 10


def test_the_page_loads_nothing_from_anywhere(html):
    page = Page(html)
    assert {"link", "script", "iframe", "object", "base"} & set(page.tags) == set()
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            assert value.startswith(("data:image/png;base64,", "#"))
    assert not re.search(r"https?://|url\(|@import", html)
    assert "default-src 'none'" in html


def test_the_numbers_of_the_page_are_those_of_the_data(data, html):
    numbers = Page(html).numbers
    for name in (
        "balanced_accuracy",
        "quadratic_kappa",
        "accuracy",
        "macro_f1",
        "macro_auc",
        "brier",
        "rps",
        "count_mae",
    ):
        assert data.pooled.metrics[name] in numbers, name
        assert data.majority[name] in numbers, name
        assert {*(data.pooled.intervals.get(name) or ())} <= set(numbers), name
    for site in data.per_site:
        assert {site.metrics[name] for name in ("balanced_accuracy", "quadratic_kappa", "macro_f1")} <= set(numbers)
    for entry in data.pooled.metrics["per_class"]:
        assert {entry[name] for name in ("sensitivity", "specificity", "ppv", "f1", "auc")} - {None} <= set(numbers)
    assert {0.515625, 0.40625, 0.71875, 0.0625, 1.8125, 0.4375, 6.25, 0.875} <= set(numbers)


def test_what_is_read_is_what_the_machine_reads(html):
    for value, shown in re.findall(r'<data value="([^"]+)">([^<]+)</data>', html):
        assert float(shown) == pytest.approx(float(value), abs=0.5 * 10 ** -len(shown.partition(".")[2]) + 1e-12)


def test_the_confusion_matrix_of_the_page_is_that_of_the_data(data, html):
    figure = ElementTree.fromstring(re.search(r'<svg[^>]*"confusion-t confusion-d".*?</svg>', html, re.DOTALL).group())
    bold = [int(node.text) for node in figure.iter("text") if node.get("font-size") == "17"]
    assert bold == [count for row in data.pooled.confusion for count in row]


def test_the_warnings_stand_before_the_results(html):
    text = Page(html).text
    end = text.index("Key result")
    for words in ("Research use only. Not a medical device.", "nothing here is evidence about patients", "T2*-GRE"):
        assert text.index(words) < end


def test_patients_are_not_called_simulated_and_their_pictures_stay_where_they_are(data):
    text = Page(render_report(replace(data, simulated=False))).text
    assert "simulated hospitals" not in text
    assert "may not leave the place" in text
    assert "may not leave the place" not in Page(render_report(replace(data, simulated=False, examples=()))).text
    assert "may not leave the place" not in Page(render_report(data)).text


@pytest.mark.parametrize(
    ("own", "words"), [(0.75, "beats the mean"), (0.5, "does not beat the mean"), (0.25, "does not beat the mean")]
)
def test_whether_the_global_model_wins_is_said_either_way_with_both_numbers(data, own, words):
    local = LocalModels({"a": 0.625, "b": 0.375, "c": None}, own)
    text = " ".join(Page(render_report(replace(data, local_models=local))).text.split())
    assert words in text
    assert f"balanced accuracy {own:.3f} against 0.500" in text
    assert replace(data, local_models=local).global_beats_local is (own > 0.5)


@pytest.mark.parametrize(
    "local", [None, LocalModels({}, 0.5), LocalModels({"a": None}, 0.5), LocalModels({"a": 0.5}, None)]
)
def test_a_comparison_without_one_of_its_sides_was_not_computed(local):
    assert "was not computed" in local_models_sentence(local)
    assert local is None or local.global_beats_local is None


def test_a_report_of_nothing_says_not_computed_everywhere():
    html = render_report(ReportData("Nothing", simulated=False))
    page = Page(html)
    assert page.open == []
    assert page.numbers == []
    assert page.text.count("not computed") >= 40
    assert not re.search(r"<(td|dd)[^>]*>\s*</(td|dd)>", html)
    assert not re.search(r"\b(None|nan|inf)\b", page.text)


def test_a_metric_that_the_cases_do_not_define_is_not_called_missing():
    one_grade = SeverityTable.from_predictions([[1.0, 0, 0, 0]], [0.0], [0], [0])
    page = Page(render_report(ReportData("One case", simulated=True, pooled=evaluation("all", one_grade))))
    assert page.text.count("undefined") >= 4
    assert "1 test case: 1 none (100 %), 0 mild (0 %)" in page.text


def test_equal_data_is_an_equal_page_and_a_date_only_stands_where_it_is_given(data, html):
    assert render_report(replace(data)) == html
    assert "2031-02-03" in render_report(replace(data, made_on="2031-02-03"))


def test_the_scale_is_printed_with_its_bounds(data, html):
    assert "none 0, mild 1–5, moderate 6–10, severe 11 or more." in Page(html).text
    assert "severe 10 or more." in Page(render_report(replace(data, scale="aria-h"))).text


def test_rejections_are_printed_with_their_reason(html):
    assert "north: values are not finite" in Page(html).text


def test_every_picture_has_words(html):
    images = re.findall(r"<img[^>]*>", html)
    assert len(images) == 1
    assert "patient&#39;s left is on the image&#39;s right" in images[0]


def test_candidates_without_scores_have_no_column_for_them(data):
    rows = [CandidateRow("slice 12"), CandidateRow("slice 13")]
    example = ExampleCase("sub-003", "north", "mild", "mild", 2, 2.0, candidates=rows)
    assert "Score" in Page(render_report(data)).text
    assert "Score" not in Page(render_report(replace(data, examples=[example]))).text


def test_a_picture_from_elsewhere_is_refused():
    with pytest.raises(ValueError, match="inline picture"):
        ExampleCase("a", "b", None, None, None, None, image="https://example.org/x.png")
