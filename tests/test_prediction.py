"""What is listed as a finding, at the stated operating point."""

from __future__ import annotations

import pytest

from mhsev_monai.prediction import FINDING_PROBABILITY, POSSIBLE_PROBABILITY, Finding, sort_spots


def spot(probability: float | None) -> Finding:
    return Finding((1.0, 2.0, 3.0), (10.04, -20.0, 30.0), 0.41234, probability)


def test_spots_are_told_apart_at_the_operating_point_and_none_is_lost_above_the_lower_one():
    spots = [spot(p) for p in (0.1, 0.5, 0.19, 0.2, 0.97, 0.499)]
    findings, possible = sort_spots(spots)
    assert [finding.probability for finding in findings] == [0.97, 0.5]
    assert [finding.probability for finding in possible] == [0.499, 0.2]
    assert (FINDING_PROBABILITY, POSSIBLE_PROBABILITY) == (0.5, 0.2)


def test_where_a_model_judges_the_scan_as_a_whole_all_spots_are_listed():
    spots = [spot(None), spot(None)]
    assert sort_spots(spots) == (tuple(spots), ())


def test_a_finding_as_json_has_its_place_depth_and_probability():
    told = spot(0.87654)._replace(diameter_mm=3.14, region="lobar").to_json()
    assert (told.pop("diameter_mm"), told.pop("region")) == (3.1, "lobar")
    assert told == {"position_mm": [10.0, -20.0, 30.0], "depth": 0.412, "probability": 0.877}
    assert (spot(None).to_json()["probability"], spot(0.9).to_json()["diameter_mm"]) == (None, None)
    assert spot(0.9).to_json()["region"] is None


@pytest.mark.parametrize("spots", [[], [spot(0.05)]], ids=["none", "unlikely"])
def test_a_scan_may_have_no_findings(spots):
    assert sort_spots(spots) == ((), ())
