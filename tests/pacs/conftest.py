"""The fixture that starts a PACS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from orthanc_server import OrthancServer


@pytest.fixture
def orthanc(tmp_path) -> Iterator[Callable[..., OrthancServer]]:
    """Starts an Orthanc, ``orthanc(modalities={"mhsev": Modality("MHSEV", port)}, lua=..., tls=...)``; ends it."""
    started = []

    def start(**arguments: Any) -> OrthancServer:
        server = OrthancServer(tmp_path / f"orthanc-{len(started)}", **arguments)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()
