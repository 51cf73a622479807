"""What a PACS refuses is given up, skipped or replaced only where its answer says so of the kind of object."""

from __future__ import annotations

import pytest
from orthanc_server import AET, free_port
from two_reports import FIRST, OTHERS, SECOND, Sending, answering_pacs

from mhsev_monai.pacs.gateway.commitment import CommitmentReport, settle_report
from mhsev_monai.pacs.gateway.journal_rows import Arrival, ReceivedInstance

VERIFICATION = "1.2.840.10008.1.1"
ALL_BUT_SECOND = sorted([*OTHERS, FIRST])


@pytest.mark.parametrize("skip_refused", [True, False])
def test_a_pacs_that_for_a_while_supports_nothing_gets_all_once_it_is_itself_again(tmp_path, skip_refused):
    port = free_port()
    sending = Sending(tmp_path / "state", port, skip_refused=skip_refused)
    with answering_pacs(port, sop_classes=[VERIFICATION]):
        assert sending.wait(3) == ("sending", None)
    assert len(sending.errors("pending")) == 6
    with answering_pacs(port) as got:
        assert sending.go() == ("committed", None)
    assert sorted(got) == ALL_BUT_SECOND


@pytest.mark.parametrize("only", [(), ("sr",), ("capture",)])
def test_a_series_of_which_a_pacs_takes_nothing_ends_as_failed_even_where_refused_kinds_are_skipped(tmp_path, only):
    port = free_port()
    sending = Sending(tmp_path / "state", port, skip_refused=True, max_attempts=3, only=only)
    with answering_pacs(port, sop_classes=[VERIFICATION]):
        state, reason = sending.wait(4)
    assert state == "failed"
    assert "given up after 3 tries: the PACS does not accept" in reason
    skipped = [error for _, error in sending.errors("skipped")]
    assert all("configuration has no" in error or "sr-enhanced goes" in error for error in skipped)


@pytest.mark.parametrize("reason", [0x0122, 0x0112])
def test_nothing_of_a_revision_that_a_late_image_replaced_is_sent_after_all(tmp_path, reason):
    sending = Sending(tmp_path / "state", free_port(), commitment=True)
    journal, deliveries = sending.journal, sending.journal.deliveries
    due = deliveries.due("pacs")
    deliveries.sent([item.id for item in due], commitment=True)
    deliveries.requested([item.id for item in due], "2.25.1", sending.clock.now + 60)
    late = ReceivedInstance("1.2.9", sending.series_uid, due[0].study_uid, "1.2", "late", 1, "01", "MODALITY", 0)
    assert journal.add_instance(late) is Arrival.REOPENED
    kept = tuple(item.sop_uid for item in due if item.sop_class != FIRST)
    (lost,) = (item.sop_uid for item in due if item.sop_class == FIRST)
    report = CommitmentReport("2.25.1", kept, {lost: reason}, AET)
    settle_report(report, [sending.destination], journal, sending.clock.now)
    sending.clock.now += 3600
    assert deliveries.due("pacs") == []
    # Nor does it stand as given up, which nobody could mend.
    assert {item.state for item in deliveries._found("")} == {"committed"}
    assert journal.series()[0].state == "collecting"


@pytest.mark.parametrize("status", [0x0124, 0x0117])
def test_a_refusal_that_says_nothing_of_the_class_leaves_the_first_report_to_a_retry(tmp_path, status):
    port = free_port()
    sending = Sending(tmp_path / "state", port)
    with answering_pacs(port, lambda sop_class: status):
        assert sending.go()[0] == "failed"
    assert len(sending.errors("dead")) == 6
    assert sending.journal.work.retry(sending.series_uid) == 1
    with answering_pacs(port) as got:
        assert sending.go() == ("committed", None)
    assert sorted(got) == ALL_BUT_SECOND


def test_a_pacs_that_fails_with_the_first_report_alone_gets_the_second_after_the_last_try(tmp_path):
    port = free_port()
    sending = Sending(tmp_path / "state", port, max_attempts=3)
    with answering_pacs(port, lambda sop_class: 0x0110 if sop_class == FIRST else 0x0000) as got:
        assert sending.wait(3) == ("committed", None)
    assert sorted(got) == sorted([*OTHERS, *[FIRST] * 3, SECOND])
    ((refused, error),) = sending.errors("skipped")
    assert refused == FIRST
    assert error.startswith("given up after 3 tries: the PACS failed to store it")


@pytest.mark.parametrize("status", [0x0110, 0xA700])
def test_a_pacs_that_fails_with_everything_gets_no_second_report(tmp_path, status):
    port = free_port()
    sending = Sending(tmp_path / "state", port, max_attempts=2)
    with answering_pacs(port, lambda sop_class: status) as got:
        assert sending.wait(3)[0] == "failed"
    assert sorted(got) == sorted(ALL_BUT_SECOND * 2)
