"""When the next try is, what a status means, which kinds go."""

from __future__ import annotations

from datetime import datetime, time

import pytest

from mhsev_monai.pacs.gateway.delivery_rules import (
    COMPREHENSIVE_3D_SR,
    ENHANCED_SR,
    HIGH,
    ROUTINE,
    STAT,
    Backoff,
    Hours,
    Outcome,
    judge_status,
    may_go,
    not_accepted,
    unwanted,
)

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MR = "1.2.840.10008.5.1.4.1.1.4"


def test_each_wait_is_longer_by_the_factor_up_to_the_longest_and_then_there_is_none():
    backoff = Backoff(first_s=30, factor=2, longest_s=200, attempts=6)
    assert [backoff.wait_s(failed) for failed in range(1, 8)] == [30, 60, 120, 200, 200, None, None]


def test_ten_thousand_tries_do_not_overflow():
    assert Backoff(attempts=10**6).wait_s(10**5) == 3600


@pytest.mark.parametrize("changes", [{"first_s": 0}, {"factor": 0.5}, {"longest_s": 1}, {"attempts": 0}])
def test_a_backoff_that_makes_no_sense_is_refused(changes):
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(**changes)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, Outcome.STORED),
        (0xB000, Outcome.STORED),
        (0xB006, Outcome.STORED),
        (0xB007, Outcome.STORED),
        (0x0111, Outcome.STORED),  # the PACS has it: what a second send of the same object wants
        (0xA700, Outcome.RETRY),
        (0xA7FF, Outcome.RETRY),
        (0xA900, Outcome.REFUSED),
        (0xC000, Outcome.REFUSED),
        (0xCFFF, Outcome.REFUSED),
        (0x0122, Outcome.REFUSED),
        (0x0124, Outcome.REFUSED),
        (0x0110, Outcome.RETRY),
        (0x0212, Outcome.RETRY),
        (None, Outcome.RETRY),
    ],
)
def test_what_a_status_means(status, outcome):
    judged = judge_status(status)
    assert judged.outcome is outcome
    assert judged.reason or status == 0
    assert status is None or status == 0 or f"{status:04X}" in judged.reason


def test_a_refused_3d_report_tells_the_way_out_and_another_kind_tells_another():
    told = not_accepted(COMPREHENSIVE_3D_SR, "Comprehensive 3D SR Storage")
    assert "pipeline.report to both, enhanced or none" in told
    assert "to enhanced" not in not_accepted("1.2.840.10008.5.1.4.1.1.66.4", "Segmentation Storage")


@pytest.mark.parametrize(
    ("sop_class", "only", "goes"),
    [
        (COMPREHENSIVE_3D_SR, (), True),
        (COMPREHENSIVE_3D_SR, ("capture", "report"), False),
        (ENHANCED_SR, ("sr",), True),
        (CAPTURE, ("capture",), True),
        (MR, (), True),
        (MR, ("capture",), False),
    ],
)
def test_a_destination_gets_the_kinds_that_it_takes(sop_class, only, goes):
    assert (unwanted(sop_class, only) == "") is goes


@pytest.mark.parametrize(
    ("hours", "clock", "inside"),
    [
        (Hours(time(20), time(6)), "23:30", True),
        (Hours(time(20), time(6)), "05:59", True),
        (Hours(time(20), time(6)), "06:00", False),
        (Hours(time(1), time(4)), "03:00", True),
        (Hours(time(1), time(4)), "04:00", False),
        (Hours(time(0), time(0)), "12:00", True),
    ],
)
def test_off_peak_hours_may_go_over_midnight(hours, clock, inside):
    assert hours.holds(datetime.fromisoformat(f"2026-01-05T{clock}")) is inside


def test_urgent_work_does_not_wait_for_the_night():
    noon, night = datetime(2026, 1, 5, 12), Hours(time(20), time(6))
    assert [may_go(priority, night, noon) for priority in (ROUTINE, HIGH, STAT)] == [False, True, True]
    assert may_go(ROUTINE, None, noon)
