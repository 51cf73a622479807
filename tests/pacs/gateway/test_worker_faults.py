"""Faults of the gateway itself around the pipeline: a series is not left running, and what has no result is told."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gateways import Site, eventually, send
from mr_objects import mr_image

from mhsev_monai.pacs.gateway.audit import Audit, Pseudonyms
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import ReceivedInstance, ResultFile
from mhsev_monai.pacs.gateway.spool import Spool
from mhsev_monai.pacs.gateway.worker import Worker

WHAT = "SELECT state, attempts, reason FROM series"
RESULT = ResultFile("sr", "1.2", "1.3", "a/sr.dcm")


@contextmanager
def refusing(site: Site, when: str) -> Iterator[None]:
    """The journal refuses a change of a series, as it does on a full disk."""
    path = site.folder / "state" / "journal.sqlite"
    refuse = f"BEFORE UPDATE ON series WHEN {when} BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    with sqlite3.connect(path, timeout=10) as connection:
        connection.execute(f"CREATE TRIGGER full {refuse}")
    yield
    with sqlite3.connect(path, timeout=10) as connection:
        connection.execute("DROP TRIGGER full")
    connection.close()


@pytest.fixture
def ready(site) -> Iterator[Worker]:
    """A worker, and one series that is ready."""
    folders, limits = site.config.folders, site.config.limits
    folders.make()
    journal, spool = Journal(folders.journal), Spool(folders, limits.refuse_at, limits.reserve_mb)
    (folders.spool / "a").mkdir()
    (folders.spool / "a" / "b.dcm").write_bytes(b"x")
    journal.add_instance(ReceivedInstance("1.1", "1.2", "1.3", "c", "a/b.dcm", 1, "d", "A"))
    journal.make_ready(0)
    audit = Audit(folders.audit, Pseudonyms(b"k"))
    yield Worker(site.config, journal, spool, audit)
    audit.close()
    journal.close()


def test_without_room_for_the_childs_folder_the_series_is_tried_again(site, ready):
    work = site.config.folders.work
    work.rmdir()
    assert ready.work_once(threading.Event())
    assert site.rows(WHAT) == [("ready", 1, "the gateway failed with FileNotFoundError")]
    work.mkdir()
    assert ready.work_once(threading.Event())
    assert site.states() == ["committed"]


def test_a_series_whose_end_cannot_be_noted_is_given_back_at_once(site, ready):
    site.wish("crash")
    with refusing(site, "NEW.reason IS NOT NULL"), pytest.raises(sqlite3.Error, match="disk is full"):
        ready.work_once(threading.Event())
    assert site.rows(WHAT) == [("ready", 0, None)]


def test_a_series_that_cannot_be_given_back_either_is_taken_up_when_the_journal_can_be_written(site, ready):
    with refusing(site, "OLD.state = 'running'"):
        for _ in range(2):
            with pytest.raises(sqlite3.Error, match="disk is full"):
                ready.work_once(threading.Event())
            assert site.rows(WHAT) == [("running", 1, None)]
    assert ready.work_once(threading.Event())
    assert site.rows(WHAT) == [("committed", 1, None)]
    assert site.leftovers() == []


def test_of_a_series_graded_in_part_the_results_are_sent_and_the_rest_is_told(tmp_path, in_process, pacs):
    site = Site(tmp_path, destinations=[pacs.destination])
    site.wish("partly")
    in_process(site)
    send(site.port, [mr_image()])
    assert eventually(lambda: site.states() == ["committed"])
    assert len(pacs.got) == 2
    told = "slices are missing; the pipeline failed with a fault"
    assert site.rows("SELECT reason FROM series") == [(f"a part was not graded: {told}",)]
    lines = [json.loads(line) for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    assert [line.get("ungraded") for line in lines if line["event"] == "series graded"] == [told]


def test_a_retry_of_the_sending_keeps_what_was_not_graded(site, ready):
    journal = Journal(site.config.folders.journal)
    work = journal.work.claim()
    assert work is not None
    journal.work.finish(work, [RESULT], ["pacs"], "slices are missing")
    for deliver, reason in (
        (
            lambda number: journal.deliveries.bury({number: "refused"}),
            "1 of 1 results could not be delivered to pacs: refused; a part was not graded: slices are missing",
        ),
        (
            lambda number: journal.deliveries.sent([number], commitment=False),
            "a part was not graded: slices are missing",
        ),
    ):
        (due,) = journal.deliveries.due("pacs")
        deliver(due.id)
        assert site.rows("SELECT reason FROM series") == [(reason,)]
        journal.work.retry()
    assert site.states() == ["committed"]
    journal.close()
