"""What a faulty or hostile sender can do: be refused with a status. The gateway lives, and takes the next image."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest
from gateways import RunningGateway, Site, eventually, send
from mr_objects import CT, MR, encoded, mr_image, nested, with_meta
from pydicom.uid import DeflatedExplicitVRLittleEndian
from raw_dicom import (
    ABORT,
    ACCEPT,
    COMMAND,
    FIND_REQUEST,
    IMPLICIT,
    LAST,
    STORE_REQUEST,
    RawClient,
    associate_request,
    command,
    fragment,
)

RSS_RISE_MB = 40
GOOD = 0x0000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[RunningGateway]:
    site = Site(
        tmp_path_factory.mktemp("gateway"),
        receiver={"association_s": 1, "idle_s": 2, "quiet_s": 3600, "max_associations": 4},
        limits={"max_object_mb": 4, "max_instances": 30},
    )
    running = RunningGateway(site)
    running.start()
    assert send(site.port, [mr_image("1.9", 1)]) == [GOOD]
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture(autouse=True)
def unharmed(gateway) -> Iterator[None]:
    """Whatever a test does: afterwards the gateway is as it was."""
    before = gateway.rss_mb
    yield
    assert gateway.is_alive()
    assert gateway.rss_mb < before + RSS_RISE_MB
    assert eventually(lambda: send(gateway.site.port, [mr_image("1.9", 1)]) == [GOOD])
    assert eventually(lambda: gateway.site.leftovers() == [])
    assert gateway.site.states() == ["collecting"] * len(gateway.site.states())


def n_spooled(gateway: RunningGateway) -> int:
    return len(gateway.site.spooled())


@pytest.mark.parametrize("kind", [1, 4, 7])
def test_a_pdu_that_is_announced_with_4_gib_is_not_read(gateway, kind):
    with RawClient(gateway.site.port) as client:
        if kind == 4:
            assert client.associate() == ACCEPT
        client.send(struct.pack(">BxL", kind, 0xFFFFFFFF))
        sent = 0
        while sent < 300 << 20 and client.send(bytes(1 << 20)):
            sent += 1 << 20
        assert sent < 64 << 20


def test_silent_connections_make_room_again(gateway):
    clients = [RawClient(gateway.site.port) for _ in range(12)]
    try:
        assert eventually(lambda: send(gateway.site.port, [mr_image("1.9", 1)]) == [GOOD], 10)
    finally:
        for client in clients:
            client.__exit__()


def test_a_request_that_comes_byte_by_byte_is_ended(gateway):
    with RawClient(gateway.site.port) as client:
        end = time.monotonic() + 12
        for byte in associate_request():
            if time.monotonic() > end or not client.send(bytes([byte])):
                break
            time.sleep(0.1)
        assert time.monotonic() < end, "the connection was kept open"


def test_a_pdu_that_never_becomes_whole_ends_its_association(gateway):
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        client.send(fragment(COMMAND | LAST, command(STORE_REQUEST)))
        client.send(fragment(0, bytes(1000)))
        client.send(struct.pack(">BxL", 4, 10000) + bytes(10))
        assert client.receive()[0] in (0, ABORT)


def test_an_association_that_breaks_off_leaves_no_file(gateway):
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        client.send(fragment(COMMAND | LAST, command(STORE_REQUEST)) + fragment(0, bytes(5000)))
        assert eventually(lambda: gateway.site.leftovers())
    assert eventually(lambda: gateway.site.leftovers() == [])


def is_closed_on(client: RawClient, piece: bytes, seconds: float = 20.0) -> bool:
    """Whether the other side closes while the piece is sent again and again; what it discards until then depends on
    how fast both are."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not client.send(piece):
            return True
    return False


def test_a_command_without_end_does_not_grow_in_memory(gateway):
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        assert is_closed_on(client, fragment(COMMAND, bytes(16000)))


def test_a_data_set_that_is_not_stored_does_not_grow_in_memory(gateway):
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        client.send(fragment(COMMAND | LAST, command(FIND_REQUEST)))
        assert is_closed_on(client, fragment(0, bytes(16000)))


def test_requests_that_wait_for_no_answer_are_ended(gateway):
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        for number in range(2000):
            request = command(STORE_REQUEST, sop_uid=f"1.9.{number}")
            if not client.send(fragment(COMMAND | LAST, request) + fragment(0, bytes(100)) * 2):
                break
        assert len(gateway.site.leftovers()) <= 5


def test_an_instance_above_the_limit_is_refused_and_not_kept(gateway):
    before = n_spooled(gateway)
    assert send(gateway.site.port, [mr_image("1.8", 1, PixelData=bytes(6 << 20))]) == [0xA700]
    assert n_spooled(gateway) == before


def test_a_series_above_the_limit_is_refused(gateway):
    statuses = send(gateway.site.port, [mr_image("1.7", number) for number in range(32)])
    assert statuses == [GOOD] * 30 + [0xA700] * 2


def test_deflated_data_sets_are_not_offered(gateway):
    image = with_meta(mr_image("1.8", 1), DeflatedExplicitVRLittleEndian)
    assert send(gateway.site.port, [image]) == []


@pytest.mark.parametrize("depth", [100, 500])
def test_nested_sequences_are_passed_over_or_refused(gateway, depth):
    before = n_spooled(gateway)
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        status = client.store(nested(depth), sop_uid="1.8.1")
    assert status in (GOOD, 0xC000)
    assert n_spooled(gateway) == before + (status == GOOD)


@pytest.mark.parametrize(
    "keyword",
    ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"],
)
@pytest.mark.parametrize("uid", ["../../../../tmp/x", "1.2.3/../4", "", "1.02.3", "1." + "2" * 63, "POISON^JANE", "1"])
def test_what_is_no_uid_is_refused(gateway, keyword, uid):
    before = n_spooled(gateway)
    image = mr_image("1.8", 1)
    del image[keyword]
    data = encoded(image) + _element(keyword, uid.encode())
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        assert client.store(data, sop_uid=uid if keyword == "SOPInstanceUID" and uid else "1.8.1") in (
            0xC000,
            0xA900,
            -1,
        )
    assert n_spooled(gateway) == before


def _element(keyword: str, value: bytes) -> bytes:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def test_a_uid_of_a_megabyte_is_not_read(gateway):
    image = mr_image("1.8", 1)
    del image.SeriesInstanceUID
    start = encoded(image)
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        assert client.store(start + _element("SeriesInstanceUID", b"1" * (1 << 20)), sop_uid="1.8.1") == 0xC000


@pytest.mark.parametrize("data", [b"", b"\0", bytes(1000), b"\xff" * 1000, encoded(mr_image())[:40]])
def test_what_is_no_data_set_is_refused(gateway, data):
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        assert client.store(data or b"\0\0", sop_uid="1.2.3.4.1") == 0xC000


def test_uids_other_than_those_of_the_request_are_refused(gateway):
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        assert client.store(encoded(mr_image("1.8", 1)), sop_uid="1.8.2") == 0xA900


def test_another_class_in_the_context_of_mr_is_refused(gateway):
    with RawClient(gateway.site.port) as client:
        assert client.associate() == ACCEPT
        image = mr_image("1.8", 1, SOPClassUID=CT)
        assert client.store(encoded(image), sop_class=CT, sop_uid="1.8.1") == 0x0122
        assert client.store(encoded(image), sop_class=MR, sop_uid="1.8.1") == 0xA900


@pytest.mark.parametrize("modality", ["PT", "", "POISON"])
def test_another_modality_is_refused(gateway, modality):
    assert send(gateway.site.port, [mr_image("1.8", 1, Modality=modality)]) == [0xA900]


def test_other_sop_classes_are_not_offered(gateway):
    assert send(gateway.site.port, [mr_image("1.8", 1, SOPClassUID=CT)]) == []


@pytest.mark.parametrize(("title", "called"), [("STRANGER", "MHSEV"), ("MODALITY", "OTHER"), ("ELSEWHERE", "MHSEV")])
def test_unknown_titles_are_rejected(gateway, title, called):
    assert send(gateway.site.port, [mr_image("1.8", 1)], title=title, called=called) == []


def test_the_log_tells_of_refusals_and_quotes_nothing(gateway):
    log = gateway.log.read_text()
    assert "1.8.1" not in log
    assert "POISON" not in log
    assert "Traceback" not in log
    assert IMPLICIT not in log
