"""The figures: well-formed XML that holds the numbers, whatever the names are."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhsev_monai.report.svg import (
    Bar,
    Curve,
    class_mix_svg,
    confusion_matrix_svg,
    curve_svg,
    round_up,
    site_bars_svg,
)

LABELS = ("none", "mild", "moderate", "severe")


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(str(svg)).iter("text")]


def named(svg):
    """Title and description, as screen readers find them."""
    root = ElementTree.fromstring(str(svg))
    ids = {node.get("id"): node.text for node in root.iter()}
    return [ids[name] for name in root.get("aria-labelledby").split()]


def test_a_confusion_matrix_shows_counts_and_shares_of_the_row():
    svg = confusion_matrix_svg([[3, 1, 0, 0], [0, 5, 0, 0], [0, 0, 0, 0], [0, 0, 2, 6]], LABELS, "c")
    shown = texts(svg)
    assert [shown.count(t) for t in ("75 %", "25 %", "100 %", "no case")] == [2, 2, 1, 4]
    assert "8 cases" in shown
    assert "Truly severe: 0 none, 0 mild, 2 moderate, 6 severe." in named(svg)[1]


def test_a_fuller_cell_is_a_darker_cell():
    svg = str(confusion_matrix_svg([[9, 1, 0, 0]] + [[0, 0, 0, 1]] * 3, LABELS, "c"))
    opacities = [float(o) for o in re.findall(r'fill-opacity="([\d.]+)" *stroke', svg)]
    assert opacities[:4] == [0.765, 0.085, 0.0, 0.0]


def test_a_confusion_matrix_of_another_size_is_refused():
    with pytest.raises(ValueError, match="must be 4 x 4"):
        confusion_matrix_svg([[1, 2], [3, 4]], LABELS, "c")


def test_segments_are_as_long_as_their_share():
    svg = str(class_mix_svg([("a", [1, 1, 2, 0]), ("b", [0, 0, 0, 0])], LABELS, "m"))
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="22"', svg)]
    assert widths == [116.5, 116.5, 234.0]  # 470 in all, one pixel of gap each


def test_bars_begin_at_zero_and_are_as_long_as_their_value():
    svg = str(site_bars_svg([Bar("a", 0.5), Bar("b", 1.0), Bar("c", None), Bar("d", 0.25, 0.1, 0.4)], "Score", "s"))
    assert [float(w) for w in re.findall(r'width="([\d.]+)" height="20"', svg)] == [155.0, 310.0, 77.5]
    assert texts(svg).count("not computed") == 1
    assert svg.count("<path") == 1


def test_a_missing_round_leaves_a_gap_in_the_curve():
    svg = str(curve_svg(Curve("loss", [(0, 1.0), (1, None), (2, 0.5), (3, 0.25)], (0.0, 1.0)), "k", kept_round=2))
    path = re.search(r'd="(M[^"]+)"', svg).group(1)
    assert (path.count("M"), path.count("L")) == (2, 1)
    assert "model kept" in texts(svg)
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert heights == [48.0, 123.0, 160.5]


def test_a_curve_without_any_value_says_so():
    assert "not computed" in texts(curve_svg(Curve("loss", [(0, None)], (0.0, 1.0)), "k"))


@pytest.mark.parametrize(("value", "limit"), [(0.9, 1.0), (1.0, 1.0), (2.1, 2.5), (37.0, 40.0), (0.012, 0.015)])
def test_axes_end_at_a_round_number(value, limit):
    assert round_up(value) == pytest.approx(limit)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=30), st.floats(-10, 10), st.integers(0, 999))
def test_every_figure_is_well_formed_whatever_the_name(name, value, count):
    rows = [[count, 0, 0, 0]] * 4
    for svg in (
        confusion_matrix_svg(rows, (name, "b", "c", "d"), "f"),
        class_mix_svg([(name, rows[0])], LABELS, "f"),
        site_bars_svg([Bar(name, value, value - 1, value + 1)], name, "f", (name, value)),
        curve_svg(Curve(name, [(0, value), (7, None)], (0.0, 1.0)), "f", 7),
    ):
        title, description = named(svg)
        assert title is not None
        assert description is not None
