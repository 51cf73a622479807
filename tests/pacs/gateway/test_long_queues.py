"""Many series, many spoiled headers: memory stays flat, nothing is lost, the process lives."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from gateways import Site, eventually, send
from mr_objects import encoded, mr_image
from raw_dicom import ACCEPT, RawClient

pytestmark = pytest.mark.slow
STATUSES = {0, 0xA700, 0xA900, 0xC000, 0x0122, -1}


def test_a_thousand_waiting_series_take_no_more_memory_and_survive_a_kill(tmp_path, running):
    site = Site(tmp_path, receiver={"quiet_s": 3600})
    gateway = running(site)
    early = 0.0
    for start in range(0, 1000, 100):
        assert send(site.port, [mr_image(f"1.2.{series}") for series in range(start, start + 100)]) == [0] * 100
        early = early or gateway.rss_mb
    print(f"{early:.1f} MB after 100 series, {gateway.rss_mb:.1f} MB after 1,000")
    assert gateway.rss_mb < early + 20
    gateway.kill()
    gateway.start()
    assert site.rows("SELECT count(*), sum(n_instances) FROM series") == [(1000, 1000)]
    assert site.rows("PRAGMA integrity_check") == [("ok",)]
    assert len(site.spooled()) == 1000
    assert {str(path.relative_to(tmp_path / "state" / "spool")) for path in site.spooled()} == {
        file for (file,) in site.rows("SELECT file FROM instances")
    }


def test_five_hundred_spoiled_headers_are_answered(tmp_path, running):
    site = Site(tmp_path, receiver={"quiet_s": 3600, "idle_s": 5})
    gateway = running(site)
    dice = random.Random(17)
    send(site.port, [mr_image()])
    before, found = gateway.rss_mb, Counter()
    sound = bytearray(encoded(mr_image("1.2.3.5", 1)))
    for _ in range(500):
        spoiled = bytearray(sound)
        for _ in range(dice.randint(1, 8)):
            spoiled[dice.randrange(len(spoiled) - 128)] = dice.randrange(256)
        with RawClient(site.port) as client:
            assert client.associate() == ACCEPT
            found[client.store(bytes(spoiled), sop_uid="1.2.3.5.1")] += 1
    print({f"{status:04X}" if status >= 0 else "no answer": number for status, number in found.items()})
    assert set(found) <= STATUSES, found
    assert found[0xC000], "no header was spoiled"
    assert gateway.is_alive()
    assert gateway.rss_mb < before + 40
    assert send(site.port, [mr_image(number=2)]) == [0]
    assert eventually(lambda: site.leftovers() == [])
    assert "Traceback" not in gateway.log.read_text()


def test_an_image_of_200_mb_is_not_held_in_memory(tmp_path, running):
    site = Site(tmp_path, receiver={"quiet_s": 3600})
    gateway = running(site)
    assert send(site.port, [mr_image()]) == [0]
    before = gateway.peak_rss_mb
    assert send(site.port, [mr_image(number=2, PixelData=bytes(200 << 20))], timeout=120) == [0]
    print(f"peak {before:.1f} MB before the image of 200 MB, {gateway.peak_rss_mb:.1f} MB after it")
    assert gateway.peak_rss_mb < before + 40
