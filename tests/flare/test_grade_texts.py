"""What terminal and report say of a graded scan's findings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mhsev_flare.cli import describe_grade
from mhsev_flare.run_report import what_is_shown
from mhsev_monai.prediction import Finding, ScanGrade
from mhsev_monai.severity import Severity


def graded(*probabilities: float, judges_spots: bool = True) -> ScanGrade:
    spots = [Finding((1.0, 2.0, 3.0), (0.0, 0.0, 0.0), 0.4, p) for p in probabilities]
    return ScanGrade(
        grade=Severity.MILD,
        count=3,
        count_interval=(1, 6) if judges_spots else None,
        probabilities={"none": 0.1, "mild": 0.9},
        judges_spots=judges_spots,
        n_candidates=120 if judges_spots else 0,
        findings=tuple(spot for spot in spots if (spot.probability or 0) >= 0.5),
        possible=tuple(spot for spot in spots if (spot.probability or 0) < 0.5),
        quality={"brain_mask_ml": 1400.0},
        flags=(),
    )


def test_the_terminal_counts_findings_and_less_likely_ones():
    lines = describe_grade(Path("scan.nii.gz"), graded(0.9, 0.6, 0.3)).splitlines()
    assert "  findings       2 at least as likely a bleed as not, 1 less likely" in lines


def test_the_terminal_tells_each_findings_place_extent_and_region():
    grade = graded(0.9)
    bare = describe_grade(Path("scan.nii.gz"), grade).splitlines()
    assert "  finding        probability 0.90, at 0.0 0.0 0.0 mm (RAS+)" in bare
    full = dataclasses.replace(grade, findings=(grade.findings[0]._replace(diameter_mm=3.21, region="lobar"),))
    line = "  finding        probability 0.90, at 0.0 0.0 0.0 mm (RAS+), dark over 3.2 mm, lobar"
    assert line in describe_grade(Path("scan.nii.gz"), full).splitlines()


def test_a_model_without_candidates_does_not_say_that_it_found_none():
    lines = describe_grade(Path("scan.nii.gz"), graded(judges_spots=False)).splitlines()
    assert "  findings       none are pointed at: the model judges the scan as a whole" in lines


def test_the_report_says_what_is_drawn_and_what_is_not():
    assert what_is_shown(1, graded(0.9, 0.6, 0.3), has_map=True) == (
        "shows 1 of 2 findings; the scan has 1 less likely ones, which are not drawn, and 120 candidates"
    )
    assert what_is_shown(0, graded(), has_map=True) == "shows 0 of 0 findings; the scan has 120 candidates"
    assert "points at no place" in what_is_shown(0, graded(judges_spots=False), has_map=False)
