"""Where a PACS refuses Comprehensive 3D SR, the Enhanced SR that was made beside it goes in its place, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from journals import Clock, Notes, add_results, open_journal
from orthanc_server import AET, free_port
from pydicom import dcmread
from result_objects import write_object
from selective_pacs import SelectivePacs, needs_storescp
from two_reports import FIRST, OTHERS, SECOND, Sending, answering_pacs

from mhsev_monai.pacs.gateway.commitment import CommitmentReport, settle_report
from mhsev_monai.pacs.gateway.config_sending import Destination
from mhsev_monai.pacs.gateway.sender import Courier


@pytest.fixture
def selective(tmp_path) -> Iterator[Callable[..., SelectivePacs]]:
    started: list[SelectivePacs] = []

    def start(sop_classes: list[str]) -> SelectivePacs:
        started.append(SelectivePacs(tmp_path / "pacs", sop_classes))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@needs_storescp
def test_where_the_first_report_is_not_accepted_the_second_goes_in_its_place(selective, tmp_path):
    pacs = selective([*OTHERS, SECOND])
    sending = Sending(tmp_path / "state", pacs.port)
    assert sending.go() == ("committed", None)
    assert sorted(pacs.got().values()) == sorted([*OTHERS, SECOND])
    ((refused, error),) = sending.errors("skipped")
    assert refused == FIRST
    assert "does not accept Comprehensive 3D SR Storage" in error
    assert error.endswith("; sr-enhanced goes in its place")


@needs_storescp
def test_where_the_first_report_is_accepted_the_second_stays(selective, tmp_path):
    pacs = selective([*OTHERS, FIRST, SECOND])
    sending = Sending(tmp_path / "state", pacs.port)
    assert sending.go() == ("committed", None)
    assert sorted(pacs.got().values()) == sorted([*OTHERS, FIRST])


@needs_storescp
def test_where_neither_is_accepted_the_rest_is_delivered_and_a_retry_sends_the_second(selective, tmp_path):
    pacs = selective(OTHERS)
    sending = Sending(tmp_path / "state", pacs.port)
    state, reason = sending.go()
    assert state == "failed"
    assert "1 of 7 results could not be delivered to pacs: the PACS does not accept Enhanced SR Storage" in reason
    assert sorted(pacs.got().values()) == sorted(OTHERS)
    pacs.stop()
    pacs.start([*OTHERS, SECOND])
    assert sending.journal.work.retry(sending.series_uid) == 1
    assert sending.go() == ("committed", None)
    assert sorted(pacs.got().values()) == sorted([*OTHERS, SECOND])


@needs_storescp
def test_a_site_that_skips_what_is_refused_goes_without_a_report_only_if_both_are_refused(selective, tmp_path):
    pacs = selective(OTHERS)
    sending = Sending(tmp_path / "state", pacs.port, skip_refused=True)
    assert sending.go() == ("committed", None)
    assert {sop_class for sop_class, _ in sending.errors("skipped")} == {FIRST, SECOND}


@pytest.mark.parametrize("status", [0x0122, 0xA900, 0xC000])
def test_a_status_that_refuses_the_first_report_for_good_sends_the_second(tmp_path, status):
    port = free_port()
    with answering_pacs(port, lambda sop_class: status if sop_class == FIRST else 0x0000) as got:
        assert Sending(tmp_path / "state", port).go() == ("committed", None)
    assert sorted(got) == sorted([*OTHERS, FIRST, SECOND])


def test_a_pacs_that_takes_the_first_report_and_cannot_keep_it_gets_the_second(tmp_path):
    sending = Sending(tmp_path / "state", free_port(), commitment=True)
    deliveries = sending.journal.deliveries
    due = deliveries.due("pacs")
    deliveries.sent([item.id for item in due], commitment=True)
    deliveries.requested([item.id for item in due], "2.25.1", sending.clock.now + 60)
    kept = tuple(item.sop_uid for item in due if item.sop_class != FIRST)
    (lost,) = (item.sop_uid for item in due if item.sop_class == FIRST)
    report = CommitmentReport("2.25.1", kept, {lost: 0x0122}, AET)
    for _ in range(2):
        # An answer that comes twice makes no second report.
        settle_report(report, [sending.destination], sending.journal, sending.clock.now)
        assert [item.sop_class for item in deliveries.due("pacs")] == [SECOND]
    assert sending.journal.series()[0].state == "sending"


@needs_storescp
def test_a_gateway_that_is_killed_between_the_two_reports_sends_the_second_once(selective, tmp_path):
    pacs = selective([*OTHERS, SECOND])
    sending = Sending(tmp_path / "state", pacs.port)
    sending.courier.step()
    assert sorted(pacs.got().values()) == sorted(OTHERS)
    sending.journal.close()
    sending.open()
    assert sending.go() == ("committed", None)
    assert sorted(pacs.got().values()) == sorted([*OTHERS, SECOND])


@needs_storescp
def test_of_a_series_of_two_acquisitions_each_report_has_its_own_stand_in(selective, tmp_path):
    pacs = selective([SECOND])
    state, clock = tmp_path / "state", Clock()
    journal = open_journal(state, clock)
    paths = []
    for part in ("a", "b"):
        for name, sop_class in (("sr", FIRST), ("sr-enhanced", SECOND)):
            paths.append(write_object(state / "results" / part / f"{name}.dcm", sop_class, "sr", study="1.2.3"))
    add_results(journal, state, paths, ["pacs"])
    destination = Destination("pacs", host="127.0.0.1", port=pacs.port, ae_title=AET, timeout_s=5)
    sender = Courier(destination, "MHSEV", journal, state / "results", Notes(), clock)
    while sender.step():
        pass
    assert set(pacs.got()) == {str(dcmread(paths[n]).SOPInstanceUID) for n in (1, 3)}
    assert [row.state for row in journal.series()] == ["committed"]
