"""Forest plot, reliability diagram and site matrix: numbers where they belong, and the same figures in a PDF."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_report import whole_data

from mhsev_monai.report import run_document
from mhsev_monai.report.document import Beside, Drawing, Panel
from mhsev_monai.report.forest import Axis, ForestRow, even_axis, forest_svg, log_axis
from mhsev_monai.report.pdf_drawing import svg_drawing
from mhsev_monai.report.reliability import reliability_points, reliability_svg
from mhsev_monai.report.site_matrix import site_matrix_svg


def parsed(svg):
    return ElementTree.fromstring(str(svg))


def test_equal_factors_are_equal_lengths_and_no_effect_has_its_line():
    rows = [ForestRow("a", 1.0, 0.5, 2.0), ForestRow("b", 4.0, 2.0, 8.0), ForestRow("c", None)]
    axis = log_axis("odds ratio", rows)
    assert (axis.low, axis.high, axis.reference) == (0.5, 10.0, 1.0)
    assert axis.across(2.0) - axis.across(1.0) == pytest.approx(axis.across(8.0) - axis.across(4.0))
    root = parsed(forest_svg(rows, axis, "f"))
    squares = [float(r.get("x")) + 5 for r in root.iter("rect")]
    dashed = [float(line.get("x1")) for line in root.iter("line") if line.get("stroke-dasharray")]
    assert squares[0] == pytest.approx(dashed[0], abs=0.2)
    assert len(squares) == 2
    assert "c: not computed." in root.findtext("desc")
    assert "b: 4.00 (2.00 to 8.00)." in root.findtext("desc")


def test_what_lies_beyond_the_axis_is_at_its_end():
    axis = Axis("x", 0.1, 10.0, 1.0, True)
    assert (axis.across(0.0), axis.across(1000.0)) == (0.0, 1.0)
    rows = [ForestRow("a", 5.0, 0.0001, 1e6)]
    assert log_axis("x", rows)[1:3] == (0.01, 100.0)
    assert parsed(forest_svg(rows, log_axis("x", rows), "f")) is not None


def test_differences_have_nought_in_the_middle():
    axis = even_axis("difference", [ForestRow("a", 0.1, -0.05, 0.25)])
    assert (axis.low, axis.high, axis.across(0.0)) == (-0.4, 0.4, 0.5)


@pytest.mark.parametrize("axis", [Axis("x", 1.0, 1.0), Axis("x", 0.0, 2.0, None, True)])
def test_an_axis_that_cannot_be_drawn_is_refused(axis):
    with pytest.raises(ValueError, match="axis must rise"):
        forest_svg([ForestRow("a", 1.0)], axis, "f")


def test_points_are_the_bins_with_cases_and_their_wilson_intervals():
    from statsmodels.stats.proportion import proportion_confint

    points = reliability_points({"n": [0, 4, 0, 10], "confidence": [0.0, 1.5, 0.0, 9.0], "right": [0, 1, 0, 10]})
    assert [(p.n, p.confidence, p.right) for p in points] == [(4, 0.375, 0.25), (10, 0.9, 1.0)]
    for point, right in zip(points, (1, 10), strict=True):
        assert (point.low, point.high) == pytest.approx(proportion_confint(right, point.n, 0.05, "wilson"), abs=1e-6)


def test_a_well_calibrated_bin_lies_on_the_diagonal_and_the_last_series_has_whiskers():
    sums = {"n": [10], "confidence": [5.0], "right": [5]}
    root = parsed(reliability_svg([("before", reliability_points(sums)), ("after", reliability_points(sums))], "r"))
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle") if float(c.get("r")) > 7]
    assert dots == [(196.0, 150.0)] * 2  # the middle of a square of 260 that begins at 66, 20
    whiskers = [line for line in root.iter("line") if (line.get("stroke") or "").startswith("#")]
    assert len(whiskers) == 1
    assert "after: said 0.50, right 0.50 of 10." in root.findtext("desc")


@pytest.mark.parametrize("n", [0, 3])
def test_a_reliability_diagram_takes_one_or_two_series(n):
    with pytest.raises(ValueError, match="one or two"):
        reliability_svg([("a", [])] * n, "r")


def test_a_models_own_site_is_outlined_and_a_higher_number_is_darker():
    svg = site_matrix_svg([("a alone", "a"), ("all", None)], ["a", "b"], [[0.9, 0.5], [None, 1.0]], "Score", "m")
    root = parsed(svg)
    cells = list(root.iter("rect"))
    assert [cell.get("stroke-width") for cell in cells] == ["1.5", None, None, None]
    assert [float(cell.get("fill-opacity")) for cell in cells] == pytest.approx([0.6885, 0.2125, 0.0, 0.85], abs=1e-3)
    assert "all on a: not computed." in root.findtext("desc")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.floats(0.01, 50), st.floats(0.001, 60), st.floats(0.001, 60))
def test_every_figure_is_well_formed_and_drawn_in_a_pdf_whatever_the_name(name, value, low, high):
    rows = [ForestRow(name, value, low, high), ForestRow(name, None)]
    points = reliability_points({"n": [3], "confidence": [1.5], "right": [1]})
    for svg in (
        forest_svg(rows, log_axis(name, rows), "f"),
        forest_svg(rows, even_axis(name, rows), "f"),
        reliability_svg([(name, points)], "r"),
        site_matrix_svg([(name, name)], [name], [[0.5]], name, "m"),
    ):
        assert parsed(svg).tag == "svg"
        drawing = svg_drawing(str(svg), 400)
        assert 0 < drawing.width <= 400


def drawings(blocks):
    for block in blocks:
        if isinstance(block, Drawing) and block.svg is not None:
            yield block
        elif isinstance(block, Panel):
            yield from drawings(block.blocks)
        elif isinstance(block, Beside):
            for group in block.groups:
                yield from drawings(group)


def test_a_pdf_has_every_element_of_every_figure():
    document = run_document(whole_data())
    found = list(drawings([*document.opening, *(block for section in document.sections for block in section.blocks)]))
    assert len(found) >= 12
    for each in found:
        shapes = [e for e in parsed(each.svg) if e.tag not in ("title", "desc")]
        (group,) = svg_drawing(str(each.svg), 500).contents
        assert len(group.contents) == len(shapes) > 0


def test_an_element_that_is_not_known_is_refused_rather_than_left_out():
    with pytest.raises(ValueError, match="got ellipse"):
        svg_drawing('<svg viewBox="0 0 10 10"><ellipse/></svg>', 100)
