"""From a C-STORE to a committed series: each once, whatever comes twice or late."""

from __future__ import annotations

import pytest
from gateways import eventually, send
from mr_objects import mr_image

TWO = [mr_image(number=number) for number in (1, 2)]


@pytest.fixture
def site(site):
    """Slices of one call of ``send`` come together also where the machine has other work."""
    site.held["receiver"]["quiet_s"] = 1.5
    return site


def test_a_series_is_received_graded_and_sent(site, pacs, in_process):
    site.held["destinations"] = [pacs.destination]
    in_process(site)
    assert send(site.port, TWO) == [0, 0]
    assert eventually(lambda: site.states() == ["committed"])
    assert len(pacs.got) == len(set(pacs.got)) == 2
    assert site.n_runs == 1
    assert site.leftovers() == []


def test_instances_that_come_again_make_no_new_work(site, in_process):
    in_process(site)
    send(site.port, TWO)
    assert eventually(lambda: site.states() == ["committed"])
    assert send(site.port, TWO * 30) == [0] * 60
    assert site.rows("SELECT state, revision, n_repeats, n_changed FROM series") == [("committed", 1, 60, 0)]
    assert site.n_runs == 1
    assert len(site.spooled()) == 2


def test_another_content_under_a_known_uid_is_counted_and_the_first_kept(site, in_process):
    in_process(site)
    send(site.port, TWO)
    (first, _) = [path.read_bytes() for path in site.spooled()]
    assert send(site.port, [mr_image(number=1, InstanceNumber=7), mr_image(number=2, InstanceNumber=7)]) == [0, 0]
    assert site.spooled()[0].read_bytes() == first
    assert site.rows("SELECT n_repeats, n_changed FROM series") == [(2, 2)]


def test_late_slices_reopen_a_committed_series(site, pacs, in_process):
    site.held["destinations"] = [pacs.destination]
    in_process(site)
    send(site.port, TWO)
    assert eventually(lambda: site.states() == ["committed"])
    send(site.port, [mr_image(number=3)])
    assert eventually(lambda: site.rows("SELECT state, revision FROM series") == [("committed", 2)])
    assert site.runs.read_text().split()[1::2] == ["2", "3"]
    assert len(set(pacs.got)) == 4, "results of other images have other UIDs"


def test_late_slices_reopen_a_failed_series(site, in_process):
    site.wish("done", files=3)
    in_process(site)
    send(site.port, TWO)
    assert eventually(lambda: site.states() == ["failed"])
    assert site.rows("SELECT reason FROM series") == [("it is refused by the stand-in",)]
    send(site.port, [mr_image(number=3)])
    assert eventually(lambda: site.states() == ["committed"])
    assert site.n_runs == 2


def test_slices_that_come_while_the_pipeline_works_end_that_run(site, in_process):
    site.wish("hang")
    in_process(site)
    send(site.port, TWO)
    assert eventually(lambda: site.n_runs == 1)
    site.wish("done")
    send(site.port, [mr_image(number=3)])
    assert eventually(lambda: site.states() == ["committed"])
    assert site.runs.read_text().split()[1::2] == ["2", "3"]
    assert site.rows("SELECT revision FROM results") == [(2,), (2,)]


def test_a_series_is_not_ready_while_its_slices_come(site, in_process):
    site.held["receiver"]["quiet_s"] = 4
    in_process(site)
    for number in range(1, 4):
        send(site.port, [mr_image(number=number)])
        eventually(lambda: False, 0.5)
    assert site.n_runs == 0
    assert eventually(lambda: site.states() == ["committed"])
    assert site.runs.read_text().split()[1::2] == ["3"]


def test_a_slice_of_another_study_does_not_join_a_series(site, in_process):
    in_process(site)
    statuses = send(site.port, [*TWO, mr_image(number=3, StudyInstanceUID="1.2.9")])
    assert statuses == [0, 0, 0xA900]
    assert len(site.spooled()) == 2
