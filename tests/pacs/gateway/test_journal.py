"""The journal's states: what each step allows, what survives, what a late slice undoes."""

from __future__ import annotations

import sqlite3

import pytest
from journals import Clock

from mhsev_monai.pacs.gateway.journal import Journal, JournalError, OtherStudyError
from mhsev_monai.pacs.gateway.journal_rows import Arrival, ReceivedInstance, ResultFile

RESULTS = [ResultFile("sr", "1.88", "9.1", "a/sr.dcm"), ResultFile("seg", "1.66", "9.2", "a/seg.dcm")]


def instance(number: int, series: str = "1.2", **more: object) -> ReceivedInstance:
    held = {"study_uid": "1.9", "sop_class": "1.4", "file": f"{series}/{number}", "n_bytes": 10, "digest": "d"}
    return ReceivedInstance(**{"sop_uid": f"{series}.{number}", "series_uid": series, "source": "AE", **held, **more})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path, clock):
    held = Journal(tmp_path / "journal.sqlite", clock)
    yield held
    held.close()


def ready(journal: Journal, clock: Clock):
    clock.now += 61
    journal.make_ready(60)
    return journal.work.claim()


def state_of(journal: Journal, series: str = "1.2") -> str:
    return journal.series_with_uid(series).state


def test_a_series_waits_for_its_quiet_time_from_the_last_new_slice(journal, clock):
    journal.add_instance(instance(1))
    clock.now += 59
    journal.add_instance(instance(2))
    clock.now += 59
    journal.add_instance(instance(2))
    assert journal.make_ready(60) == [], "59 s since the last new slice"
    clock.now += 1
    assert [row.series_uid for row in journal.make_ready(60)] == ["1.2"]


def test_a_clock_that_is_set_back_does_not_hold_a_series(journal, clock):
    journal.add_instance(instance(1))
    clock.now -= 86400
    assert journal.make_ready(60) == []
    clock.now += 60
    assert len(journal.make_ready(60)) == 1


@pytest.mark.parametrize("step", ["ready", "running", "sending", "committed", "failed", "left out"])
def test_a_late_slice_reopens_from_every_state(journal, clock, step):
    journal.add_instance(instance(1))
    clock.now += 61
    journal.make_ready(60)
    if step != "ready":
        work = journal.work.claim()
        ends = {
            "running": lambda: True,
            "sending": lambda: journal.work.finish(work, RESULTS, ["pacs"]),
            "committed": lambda: journal.work.finish(work, RESULTS, []),
            "failed": lambda: journal.work.fail(work, "a slice is missing"),
            "left out": lambda: journal.work.leave_out(work, "a localizer"),
        }
        assert ends[step]()
    assert state_of(journal) == step
    assert journal.add_instance(instance(2)) is Arrival.REOPENED
    row = journal.series_with_uid("1.2")
    assert (row.state, row.revision, row.attempts, row.reason, row.n_instances) == ("collecting", 2, 0, None, 2)
    assert journal.deliveries.due("pacs") == []


def test_work_of_an_older_revision_changes_nothing(journal, clock):
    journal.add_instance(instance(1))
    work = ready(journal, clock)
    journal.add_instance(instance(2))
    assert not journal.work.is_current(work)
    assert not journal.work.finish(work, RESULTS, ["pacs"])
    assert not journal.work.fail(work, "x")
    assert not journal.work.postpone(work, 0, "x")
    journal.work.release(work)
    assert state_of(journal) == "collecting"
    newer = ready(journal, clock)
    assert not journal.work.finish(work, RESULTS, ["pacs"]), "another worker runs the new revision by now"
    assert journal.work.finish(newer, RESULTS, ["pacs"])


def test_a_write_that_changes_nothing_reaches_the_file_and_fails_where_it_cannot(journal, tmp_path):
    log = next(tmp_path.rglob("*.sqlite-wal"))
    before = log.stat().st_size
    journal.try_write()
    assert log.stat().st_size > before
    journal._database._connection.execute("PRAGMA query_only=ON")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        journal.try_write()


def test_results_that_a_pacs_has_of_an_older_revision_do_not_settle_the_new_one(journal, clock):
    journal.add_instance(instance(1))
    journal.work.finish(ready(journal, clock), RESULTS, ["pacs"])
    first, _ = journal.deliveries.due("pacs")
    journal.deliveries.sent([first.id], commitment=True)
    journal.add_instance(instance(2))
    work = ready(journal, clock)
    journal.deliveries.confirmed([first.id])
    assert state_of(journal) == "running"
    assert work.files == ("1.2/1", "1.2/2")


def test_a_series_is_committed_when_each_destination_has_each_result(journal, clock):
    journal.add_instance(instance(1))
    journal.work.finish(ready(journal, clock), RESULTS, ["pacs", "archive"])
    for name in ("pacs", "archive"):
        assert state_of(journal) == "sending"
        journal.deliveries.sent([one.id for one in journal.deliveries.due(name)], commitment=name == "archive")
    waiting = journal.deliveries.awaiting("archive")
    journal.deliveries.requested([one.id for one in waiting], "7.7", clock.now + 600)
    assert len(journal.deliveries.in_transaction("7.7")) == 2
    assert journal.deliveries.awaiting("archive") == []
    journal.deliveries.confirmed([waiting[0].id])
    assert state_of(journal) == "sending"
    journal.deliveries.skip({waiting[1].id: "it takes no SR"})
    assert state_of(journal) == "committed"


def test_a_result_given_up_fails_its_series_once_nothing_else_is_open_and_can_be_retried(journal, clock):
    journal.add_instance(instance(1))
    journal.work.finish(ready(journal, clock), RESULTS, ["pacs"])
    first, second = journal.deliveries.due("pacs")
    journal.deliveries.bury({first.id: "refused"})
    assert state_of(journal) == "sending"
    journal.deliveries.sent([second.id], commitment=False)
    assert journal.series_with_uid("1.2").reason == "1 of 2 results could not be delivered to pacs: refused"
    assert journal.work.retry("1.2") == 1
    assert [one.id for one in journal.deliveries.due("pacs")] == [first.id]
    journal.deliveries.sent([first.id], commitment=False)
    assert state_of(journal) == "committed"


def test_a_refused_series_runs_again_on_retry(journal, clock):
    journal.add_instance(instance(1))
    journal.work.fail(ready(journal, clock), "a slice is missing")
    assert journal.work.retry("9.9") == 0
    assert journal.work.retry() == 1
    assert journal.work.claim().revision == 1


def test_what_is_urgent_and_then_what_waits_longest_goes_first(journal, clock):
    for number, priority in ((1, 0), (2, 0), (3, 2), (4, 1)):
        journal.add_instance(instance(1, f"1.2.{number}", priority=priority))
        clock.now += 1
    clock.now += 60
    journal.make_ready(60)
    order = [journal.work.claim().series_uid for _ in range(4)]
    assert order == ["1.2.3", "1.2.4", "1.2.1", "1.2.2"]
    assert journal.work.claim() is None


def test_after_a_start_what_ran_is_ready_and_keeps_its_attempts(journal, clock):
    journal.add_instance(instance(1))
    for attempt in (1, 2):
        assert (ready(journal, clock) or journal.work.claim()).attempts == attempt
        assert journal.work.recover(max_attempts=3) == (1, 0)
    journal.work.claim()
    assert journal.work.recover(max_attempts=3) == (0, 1)
    assert state_of(journal) == "failed"


def test_another_study_is_an_error_and_changes_nothing(journal):
    journal.add_instance(instance(1))
    with pytest.raises(OtherStudyError):
        journal.add_instance(instance(2, study_uid="1.8"))
    assert journal.n_instances("1.2") == 1
    assert not journal.knows_instance("1.2.2")


def test_what_is_in_the_journal_is_there_after_reopening(tmp_path, clock):
    path = tmp_path / "j.sqlite"
    first = Journal(path, clock)
    first.add_instance(instance(1))
    first.close()
    again = Journal(path, clock)
    assert again.knows_instance("1.2.1")
    assert again.files() == {"1.2/1"}
    again.close()


def test_every_change_waits_for_the_disk(journal):
    connection = journal._database._connection
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_journal_of_another_version_and_a_damaged_one_are_told(tmp_path):
    path = tmp_path / "j.sqlite"
    Journal(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="has version 99, this program knows version 1"):
        Journal(path)
    path.write_bytes(b"no database at all, but of some length" * 100)
    with pytest.raises(JournalError, match=r"cannot be read"):
        Journal(path)


def test_counts_hold_no_identifier(journal, clock):
    journal.add_instance(instance(1))
    journal.add_instance(instance(1))
    journal.work.finish(ready(journal, clock), RESULTS, ["pacs"])
    clock.now += 5
    counts = journal.counts()
    assert counts.series["sending"] == 1
    assert counts.deliveries["pacs"]["pending"] == 2
    assert (counts.n_instances, counts.n_repeats, counts.oldest_pending_s) == (1, 1, 5.0)
    ids = [one.id for one in journal.deliveries.due("pacs")]
    journal.deliveries.sent(ids, commitment=True)
    assert journal.counts().oldest_pending_s == 5.0, "stored is not yet committed"
    journal.deliveries.requested(ids, "7.7", clock.now + 600)
    assert journal.counts().oldest_pending_s == 5.0
    journal.deliveries.confirmed(ids)
    assert journal.counts().oldest_pending_s == 0.0
    assert "1.2" not in repr(counts)


def test_what_was_gone_meanwhile_is_passed_over(journal):
    journal.deliveries.sent([99], commitment=False)
    journal.deliveries.postpone({99: "x"}, 0)
    journal.deliveries.bury({99: "x"})
    assert journal.counts().deliveries == {}
