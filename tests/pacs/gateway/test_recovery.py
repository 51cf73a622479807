"""Files and journal agree after a start, and after each fault between the two."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
from gateways import Site
from mr_objects import mr_image, written

from mhsev_monai.pacs.gateway.audit import Audit, Pseudonyms
from mhsev_monai.pacs.gateway.intake import Intake
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import Arrival
from mhsev_monai.pacs.gateway.recovery import AlreadyRunningError, StateLock, recover
from mhsev_monai.pacs.gateway.spool import Spool

OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def parts(tmp_path):
    """Configuration, journal, spool and intake without a network."""
    config = Site(tmp_path).config
    config.folders.make()
    journal = Journal(config.folders.journal)
    spool = Spool(config.folders, 1.0, 0)
    audit = Audit(config.folders.audit, Pseudonyms(b"k"))
    yield config, journal, spool, Intake(spool, journal, config.limits, audit)
    journal.close()
    audit.close()


def files_below(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def take(intake: Intake, number: int = 1, **elements: object):
    return intake.accept(written(mr_image(number=number, **elements), intake.new_file()), "WEB")


def test_a_start_removes_what_the_journal_does_not_know(parts):
    config, journal, spool, intake = parts
    assert take(intake).arrival is Arrival.NEW
    (kept,) = files_below(config.folders.spool)
    written(mr_image(number=2), config.folders.incoming / "x.part")
    orphan = spool.place("1.2.9", "1.2.9.1")
    spool.keep(config.folders.incoming / "x.part", orphan)
    (config.folders.work / "a").mkdir()
    (config.folders.results / "b").mkdir()
    (config.folders.results / "b" / "sr.dcm").write_bytes(b"x")
    recover(config, journal, spool)
    assert files_below(config.folders.spool) == [kept]
    for folder in (config.folders.incoming, config.folders.work, config.folders.results):
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "fault",
    [sqlite3.OperationalError("database or disk is full"), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "x")],
)
def test_what_could_not_be_noted_is_not_kept(parts, monkeypatch, fault):
    config, journal, _, intake = parts

    def full(_instance: object) -> None:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(journal, "add_instance", full)
        assert take(intake).status == OUT_OF_RESOURCES
    assert files_below(config.folders.spool) == files_below(config.folders.incoming) == []
    assert take(intake).arrival is Arrival.NEW


def test_a_fault_of_ours_leaves_no_file_either(parts, monkeypatch):
    config, journal, _, intake = parts
    monkeypatch.setattr(journal, "add_instance", lambda instance: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        take(intake)
    assert files_below(config.folders.spool) == files_below(config.folders.incoming) == []


def test_an_acknowledged_image_was_waited_for_on_the_disk(parts, monkeypatch):
    import os

    config, _, _, intake = parts
    synced = []
    inner = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: (synced.append(str(Path(f"/proc/self/fd/{number}").readlink())), inner(number))
    )
    take(intake)
    (file,) = config.folders.spool.rglob("*.dcm")
    assert [path.rpartition(".")[2] for path in synced[:1]] == ["part"], "the content, under its first name"
    assert synced[1:] == [str(config.folders.spool), str(file.parent)], "then the names"


def test_only_one_gateway_has_a_state_folder(tmp_path):
    lock = StateLock(tmp_path)
    with pytest.raises(AlreadyRunningError):
        StateLock(tmp_path)
    lock.release()
    StateLock(tmp_path).release()
