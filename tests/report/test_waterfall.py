"""The waterfall: well-formed, holds the numbers, and its bars join."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from mhsev_monai.report.waterfall import DOWN, UP, standalone, waterfall_svg

STEPS = [("shape <of> the spots", 1.5), ("surroundings", -0.75), ("protocol", 0.25)]


def drawn():
    return waterfall_svg(0.5, STEPS, (0.0, 3.0), "expected severity", "w")


def test_bars_join_from_the_base_to_the_sum_and_say_what_they_add():
    root = ElementTree.fromstring(str(drawn()))
    bars = [(float(r.get("x")), float(r.get("width")), r.get("fill")) for r in root.iter("rect")]
    assert [fill for *_, fill in bars] == [UP, DOWN, UP]
    # 120 pixels for each of three grades, from 190 on: 0.5 to 2.0 to 1.25 to 1.5.
    ends = [(x, x + width) for x, width, _ in bars]
    assert ends == [(250.0, 430.0), (340.0, 430.0), (340.0, 370.0)]
    texts = ["".join(node.itertext()) for node in root.iter("text")]
    assert {"shape <of> the spots", "+1.50", "-0.75", "+0.25", "usual scan", "0.50", "this scan", "1.50"} <= set(texts)
    assert "surroundings -0.75" in root.find("desc").text


def test_a_file_of_its_own_is_an_svg_document():
    root = ElementTree.fromstring(standalone(drawn()))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(("base", "limits"), [(float("nan"), (0.0, 3.0)), (0.5, (3.0, 3.0))])
def test_what_cannot_be_drawn_is_refused(base, limits):
    with pytest.raises(ValueError, match="limits must rise"):
        waterfall_svg(base, STEPS, limits, "expected severity", "w")
