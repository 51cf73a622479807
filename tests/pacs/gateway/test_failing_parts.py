"""Parts of a gateway that fail again and again stand as failing in its health, and well again once they work."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import Any

import pytest
import requests
from gateways import InProcess, Site, eventually, free_port, send
from mr_objects import mr_image
from orthanc_server import make_tls

from mhsev_monai.pacs.gateway.service import Part

TLS_FILES = {"certificate": "gateway.pem", "key": "gateway.key", "ca": "ca.pem"}
NO_TLS = {"certificate": "/no.pem", "key": "/no.key", "ca": "/no.pem"}
PACS = {"name": "pacs", "host": "127.0.0.1", "port": 1, "ae_title": "PACS", "tls": NO_TLS}
ARCHIVE = {"name": "archive", "url": "https://127.0.0.1:1", "tls": NO_TLS}
STORE = {"folder": "/nowhere/scans", "site_folder": "/nowhere/site", "consents": "/nowhere/consents"}


def checks(gateway: InProcess) -> dict[str, bool]:
    """What `/health` says of the parts."""
    answer = requests.get(f"http://127.0.0.1:{gateway.site.held['monitor']['port']}/health", timeout=10)
    found: dict[str, bool] = answer.json()["checks"]
    assert answer.status_code == (200 if all(found.values()) else 503)
    return found


def refuse(site: Site, state: str) -> None:
    """Let the journal refuse that a series takes a state."""
    when = f"WHEN NEW.state = '{state}' BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    with sqlite3.connect(site.folder / "state" / "journal.sqlite", timeout=10) as connection:
        connection.execute(f"CREATE TRIGGER full BEFORE UPDATE ON series {when}")
    connection.close()


@pytest.mark.parametrize(
    ("part", "sections"),
    [
        ("reconcile", {"destinations": [PACS], "reconcile": {"through": "pacs", "by": "c-move"}}),
        ("training store", {"training_store": STORE}),
    ],
)
def test_a_part_that_cannot_begin_is_failing(tmp_path, in_process, part, sections: dict[str, Any]):
    site = Site(tmp_path, monitor={"port": free_port()}, **sections)
    site.config.folders.make()
    (tmp_path / "state" / "training_store.txt").write_bytes(b"\xff")
    gateway = in_process(site)
    assert eventually(lambda: checks(gateway)[part] is False)
    assert {"workers", "keeper", "receiver", "journal", "disk", part} <= set(checks(gateway))
    assert checks(gateway)["workers"]


@pytest.mark.parametrize(
    ("part", "loop", "sections"),
    [
        ("sender", "sender.run_courier", {"destinations": [PACS]}),
        ("polling", "reconcile.run_polling", {"sources": [ARCHIVE]}),
    ],
)
def test_a_part_whose_loop_raises_is_failing(tmp_path, in_process, monkeypatch, part, loop, sections: dict[str, Any]):
    """Both catch what comes from the network themselves; a fault of ours is left."""

    def fail(*arguments: object) -> None:
        raise KeyError

    monkeypatch.setattr(f"mhsev_monai.pacs.gateway.{loop}", fail)
    gateway = in_process(Site(tmp_path, monitor={"port": free_port()}, **sections))
    assert eventually(lambda: [name for name, works in checks(gateway).items() if not works] == [part])


def test_a_courier_that_fails_at_each_start_is_failing_until_it_works_and_the_other_delivers(
    tmp_path, in_process, pacs, monkeypatch, caplog
):
    monkeypatch.setattr(Part.__init__, "__defaults__", ("", 0.3))
    tls = {name: str(tmp_path / "tls" / file) for name, file in TLS_FILES.items()}
    closed = PACS | {"name": "closed", "tls": tls}
    site = Site(tmp_path, monitor={"port": free_port()}, destinations=[closed, pacs.destination])
    gateway = in_process(site)
    assert eventually(lambda: not checks(gateway)["sender"])
    send(site.port, [mr_image()])
    assert eventually(lambda: len(pacs.got) == 2)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        # It begins again and fails again; in between it must not look well.
        assert [name for name, works in checks(gateway).items() if not works] == ["sender"]
    told = {each.getMessage() for each in caplog.records if each.name == "mhsev_monai.pacs.gateway.service"}
    assert told == {"the sender to closed failed; it begins again in 0.3 s"}
    make_tls(tmp_path / "tls", "gateway")
    assert eventually(lambda: all(checks(gateway).values()))


@pytest.mark.parametrize(("part", "state"), [("workers", "running"), ("keeper", "ready")])
def test_a_part_that_cannot_note_what_it_does_is_failing(tmp_path, in_process, part, state):
    site = Site(tmp_path, monitor={"port": free_port()}, pipeline={"n_workers": 2})
    gateway = in_process(site)
    assert all(checks(gateway).values())
    refuse(site, state)
    send(site.port, [mr_image()])
    assert eventually(lambda: [name for name, works in checks(gateway).items() if not works] == [part])
    metrics = requests.get(f"http://127.0.0.1:{site.held['monitor']['port']}/metrics", timeout=10).text
    assert f'mhsev_gateway_up{{part="{part}"}} 0' in metrics


def test_a_journal_that_can_only_be_read_is_failing(tmp_path, in_process):
    site = Site(tmp_path, monitor={"port": free_port()})
    gateway = in_process(site)
    gateway.service.journal._database._connection.execute("PRAGMA query_only=ON")
    assert checks(gateway)["journal"] is False


def test_a_part_is_well_again_once_it_has_worked_for_a_while():
    stop, faults = threading.Event(), [True, True]

    def loop(stop: threading.Event) -> None:
        if faults:
            faults.pop()
            raise OSError
        stop.wait()

    part = Part("part", loop, fault_s=0.3)
    part.start(stop)
    assert eventually(lambda: part.failing, 5)
    begun = time.monotonic()
    while faults:
        # It begins again and fails again; in between it must not look well.
        assert not part.works
        time.sleep(0.005)
    assert eventually(lambda: part.works, 5)
    assert time.monotonic() - begun > 2 * 0.3
    stop.set()
    part.thread.join(5)
    assert not part.works
