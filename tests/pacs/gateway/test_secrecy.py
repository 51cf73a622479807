"""A patient's name that stands in every text of an image stands nowhere that the gateway writes, but in the image."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateways import eventually, send
from mr_objects import encoded, mr_image
from raw_dicom import ACCEPT, RawClient

from mhsev_monai.pacs.gateway.audit import Audit, PseudonymKeyError, Pseudonyms

CANARIES = (b"POISON", b"19500203")
UID = "1.2.826.0.1.7654321"


def test_no_name_and_no_uid_is_in_logs_file_names_journal_or_audit(site, running):
    site.wish("refused")
    gateway = running(site)
    send(site.port, [mr_image(UID, number) for number in (1, 2)])
    assert eventually(lambda: site.states() == ["failed"])
    site.wish("garbage")
    send(site.port, [mr_image(UID, 3), mr_image(UID, 1), mr_image(UID, 4, Modality="POISON")])
    send(site.port, [mr_image(UID, 5, StudyInstanceUID="1.2.9")])
    send(site.port, [mr_image()], title="POISON^JANE")
    with RawClient(site.port) as client:
        assert client.associate(title="POISON^JANE") != ACCEPT
    with RawClient(site.port) as client:
        assert client.associate() == ACCEPT
        client.store(encoded(mr_image())[:200], sop_uid="POISON^JANE")
    with RawClient(site.port) as client:
        client.send(b"POISON^JANE" * 10)
    assert eventually(lambda: site.states() == ["failed"])
    gateway.stop()
    state = site.folder / "state"
    written = [path for path in state.rglob("*") if path.is_file() and path.suffix != ".dcm"] + [gateway.log]
    assert {"journal.sqlite", "audit.jsonl", "pseudonym.key", "log.txt"} <= {path.name for path in written}
    for path in written:
        held = path.read_bytes()
        assert not any(canary in held for canary in CANARIES), path.name
        if path.name != "journal.sqlite":
            assert UID.encode() not in held, path.name
    names = " ".join(str(path.relative_to(state)) for path in state.rglob("*"))
    assert "POISON" not in names
    assert UID not in names
    assert b"POISON" in next(state.glob("spool/*/*.dcm")).read_bytes(), "the canary was there to be leaked"


def test_what_belongs_to_the_gateway_is_closed_to_other_users(site, in_process):
    in_process(site)
    state = site.folder / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "pseudonym.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((state / "audit.jsonl").stat().st_mode) == 0o600


def test_pseudonyms_stay_over_a_restart_and_differ_between_sites(tmp_path):
    one, again = (Pseudonyms.from_file(tmp_path / "key").of("1.2.3") for _ in range(2))
    assert one == again
    assert one != Pseudonyms.from_file(tmp_path / "other").of("1.2.3")
    assert len(one) == 16


@pytest.mark.parametrize("held", ["", "00" * 31, "00" * 33, "no key", "é"])
def test_a_damaged_key_is_refused_and_kept(tmp_path, held):
    (tmp_path / "key").write_text(held)
    with pytest.raises(PseudonymKeyError, match="key is damaged: it must hold 32 bytes"):
        Pseudonyms.from_file(tmp_path / "key")
    assert (tmp_path / "key").read_text() == held


def test_a_key_that_cannot_be_written_whole_is_not_there(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Pseudonyms.from_file(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert Pseudonyms.from_file(tmp_path / "key").of("1.2") == Pseudonyms.from_file(tmp_path / "key").of("1.2")


def test_processes_that_start_together_have_one_key(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: Pseudonyms.from_file(tmp_path / "key").of("1.2"), range(32)))
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_each_new_file_of_the_audit_is_closed_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr("mhsev_monai.pacs.gateway.audit._FILE_BYTES", 200)
    (tmp_path / "audit.jsonl.1").write_text("of an earlier version")
    (tmp_path / "audit.jsonl.1").chmod(0o644)
    before = os.umask(0)
    try:
        audit = Audit(tmp_path / "audit.jsonl", Pseudonyms(b"k"))
        for _ in range(5):
            audit.note("x" * 100)
        audit.close()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) > 4
    assert set(modes.values()) == {0o600}


def test_the_audit_log_tells_who_what_and_when(tmp_path):
    import json

    audit = Audit(tmp_path / "audit.jsonl", Pseudonyms(b"k"), clock=lambda: 1.5)
    audit.note("series ready", source="MODALITY", instances=3)
    audit.close()
    assert json.loads(Path(tmp_path / "audit.jsonl").read_text()) == {
        "time": "1970-01-01T00:00:01.500Z",
        "event": "series ready",
        "source": "MODALITY",
        "instances": 3,
    }
