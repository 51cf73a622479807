"""Two network namespaces with a cable between them, one for a federation and one for a hospital of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

RELAY = Path(__file__).with_name("relay.py")


def may_make_namespaces() -> bool:
    """Whether this machine and user allow it."""
    name = f"mhsev-try-{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return made


class Cable:
    """Namespaces ``core`` and ``hospital``, each with a loopback, and a cable that can be pulled.

    A hospital's process finds the server at its own loopback: a relay carries its connections through the cable, so
    that the server need listen on no other address and its certificate fits.

    Args:
        port: of the server, on the loopback of ``core``.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.core, self.hospital = (f"mhsev-{name}-{os.getpid()}" for name in ("core", "hospital"))
        self._relays: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cable:
        for name in (self.core, self.hospital):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        ends = [("mhsevc", self.core, "10.213.0.1/30"), ("mhsevh", self.hospital, "10.213.0.2/30")]
        _ip("link", "add", ends[0][0], "netns", self.core, "type", "veth", "peer", ends[1][0], "netns", self.hospital)
        for device, name, address in ends:
            _ip("-n", name, "address", "add", address, "dev", device)
            _ip("-n", name, "link", "set", device, "up")
        self._relay(self.core, "10.213.0.1", "127.0.0.1")
        self._relay(self.hospital, "127.0.0.1", "10.213.0.1")
        return self

    def __exit__(self, *_: object) -> None:
        for relay in self._relays:
            relay.kill()
            relay.wait()
        for name in (self.hospital, self.core):
            _ip("netns", "delete", name)

    def pull(self) -> None:
        """Cut: what is sent is lost, and no connection is told."""
        _ip("-n", self.hospital, "link", "set", "mhsevh", "down")

    def plug(self) -> None:
        """Mend."""
        _ip("-n", self.hospital, "link", "set", "mhsevh", "up")

    def inside(self, name: str, command: Sequence[str]) -> list[str]:
        """The command that runs ``command`` in a namespace."""
        return ["ip", "netns", "exec", name, *command]

    def _relay(self, name: str, listen: str, target: str) -> None:
        command = [sys.executable, str(RELAY), listen, target, str(self.port)]
        self._relays.append(subprocess.Popen(self.inside(name, command)))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
