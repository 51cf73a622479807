"""A client that writes DICOM's upper layer by hand (PS3.8, 9.3), so that it can write it wrong."""

from __future__ import annotations

import socket
import struct

ASSOCIATE, ACCEPT, DATA, RELEASE, ABORT = 1, 2, 4, 5, 7
COMMAND, LAST = 1, 2
MR = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT = "1.2.840.10008.1.2"
STORE_REQUEST, FIND_REQUEST = 0x0001, 0x0020


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def associate_request(title: str = "MODALITY", called: str = "MHSEV", sop_class: str = MR) -> bytes:
    syntaxes = item(0x30, sop_class.encode()) + item(0x40, IMPLICIT.encode())
    context = item(0x20, struct.pack("Bxxx", 1) + syntaxes)
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    head = struct.pack(">Hxx16s16s32x", 1, called.ljust(16).encode(), title.ljust(16).encode())
    return pdu(ASSOCIATE, head + item(0x10, b"1.2.840.10008.3.1.1.1") + context + user)


def fragment(control: int, data: bytes) -> bytes:
    """One P-DATA-TF with one fragment in presentation context 1."""
    return pdu(DATA, struct.pack(">LBB", len(data) + 2, 1, control) + data)


def command(field: int, sop_class: str = MR, sop_uid: str = "1.2.3.4.1", with_data: bool = True) -> bytes:
    """A command set."""
    parts = [(0x0002, _uid(sop_class)), (0x0100, struct.pack("<H", field)), (0x0110, struct.pack("<H", 1))]
    parts += [(0x0700, struct.pack("<H", 0)), (0x0800, struct.pack("<H", 1 if with_data else 0x0101))]
    parts += [(0x1000, _uid(sop_uid))]
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in parts)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


class RawClient:
    """One TCP connection."""

    def __init__(self, port: int, timeout: float = 15.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """False if the other side has closed."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[int, bytes]:
        """Kind and body of the next PDU; kind 0 if the other side closed, -1 if nothing came in time."""
        try:
            head = self._exactly(6)
            return (head[0], self._exactly(struct.unpack(">L", head[2:])[0])) if head else (0, b"")
        except TimeoutError:
            return -1, b""
        except OSError:
            return 0, b""

    def _exactly(self, n_bytes: int) -> bytes:
        got = b""
        while len(got) < n_bytes and (read := self.socket.recv(n_bytes - len(got))):
            got += read
        return got if len(got) == n_bytes else b""

    def associate(self, **names: str) -> int:
        """The kind of the answer: 2 accepted, 3 rejected, 0 closed."""
        self.send(associate_request(**names))
        return self.receive()[0]

    def store(self, data: bytes, **names: str) -> int:
        """The status of a C-STORE, -1 where there is none."""
        self.send(fragment(COMMAND | LAST, command(STORE_REQUEST, **names)))
        for start in range(0, len(data), 16000):
            rest = len(data) - start <= 16000
            self.send(fragment(LAST if rest else 0, data[start : start + 16000]))
        return self.status()

    def status(self) -> int:
        kind, body = self.receive()
        place = body.find(struct.pack("<HHL", 0, 0x0900, 2))
        return struct.unpack("<H", body[place + 8 : place + 10])[0] if kind == DATA and place >= 0 else -1
