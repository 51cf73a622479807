"""A disk that fills: what was acknowledged is there, what is not there was refused, and nothing half-written stays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateways import Site, eventually, needs_root, send
from mr_objects import mr_image

from mhsev_monai.pacs.gateway.audit import Audit, Pseudonyms
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.retention import Retention
from mhsev_monai.pacs.gateway.spool import Spool

OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False)
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_root
def test_on_a_full_disk_acknowledged_is_what_is_stored(small_disk, in_process):
    site = Site(small_disk, receiver={"quiet_s": 3600})
    in_process(site)
    images = [mr_image("1.2.3.4", number, PixelData=os.urandom(60000)) for number in range(1, 121)]
    statuses = send(site.port, images)
    assert set(statuses) == {0, OUT_OF_RESOURCES}
    stored = {f"1.2.3.4.{number}" for number, status in enumerate(statuses, 1) if status == 0}
    assert {uid for (uid,) in site.rows("SELECT sop_uid FROM instances")} == stored
    assert len(site.spooled()) == len(stored)
    assert site.leftovers() == []
    assert site.rows("PRAGMA integrity_check") == [("ok",)]


@needs_root
def test_room_that_comes_back_is_used_without_a_restart(small_disk, in_process):
    site = Site(small_disk, receiver={"quiet_s": 3600})
    in_process(site)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((3 << 20) + (1 << 19)))
    large = mr_image(PixelData=os.urandom(1 << 20))
    assert send(site.port, [large]) == [OUT_OF_RESOURCES]
    ballast.unlink()
    assert send(site.port, [large]) == [0]


@needs_root
def test_below_the_reserve_instances_are_refused_before_they_are_written(small_disk, in_process):
    site = Site(small_disk, receiver={"quiet_s": 3600}, limits={"reserve_mb": 5})
    gateway = in_process(site)
    assert send(site.port, [mr_image()]) == [OUT_OF_RESOURCES]
    assert gateway.service.snapshot().accepting is False


@needs_root
def test_finished_series_make_room_when_the_disk_fills(small_disk, in_process):
    site = Site(small_disk, retention={"purge_at": 0.5})
    gateway = in_process(site)
    for number in range(1, 4):
        send(site.port, [mr_image(f"1.2.{number}", PixelData=os.urandom(900000))])
        assert eventually(lambda number=number: site.states() == ["committed"] * number)
    service = gateway.service
    purged = Retention(site.config, service.journal, service.spool, service.audit).tick()
    assert 1 <= purged < 3
    assert site.rows("SELECT min(series_uid) FROM series")[0][0] > "1.2.1", "the oldest went first"
    assert service.spool.used() < 0.5
    assert len(site.spooled()) == 3 - purged


def test_series_are_purged_by_age_with_all_that_belongs_to_them(site, in_process):
    gateway = in_process(site)
    send(site.port, [mr_image()])
    assert eventually(lambda: site.states() == ["committed"])
    service, config = gateway.service, site.config
    now = service.journal.series()[0].changed_at

    def tick(days: float) -> int:
        clock = lambda: now + days * 86400  # noqa: E731
        return Retention(config, service.journal, service.spool, service.audit, clock).tick()

    assert tick(6.9) == 0
    assert tick(7.1) == 1
    assert site.spooled() == []
    assert list((site.folder / "state" / "results").iterdir()) == []
    assert [site.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("series", "instances", "results")] == [
        0,
        0,
        0,
    ]


def test_series_that_are_not_done_are_never_purged(site, tmp_path):
    config = site.config
    config.folders.make()
    journal = Journal(config.folders.journal)
    audit = Audit(config.folders.audit, Pseudonyms(b"k"))
    spool = Spool(config.folders, 1.0, 0)
    from mhsev_monai.pacs.gateway.journal_rows import ReceivedInstance

    for number in range(4):
        journal.add_instance(ReceivedInstance(f"1.{number}", f"1.2.{number}", "1.9", "c", f"{number}", 1, "d", "A"))
    journal.make_ready(0)
    journal.work.claim()
    far = lambda: 4e9  # noqa: E731
    assert Retention(config, journal, spool, audit, far).tick() == 0
    journal.close()
