"""The fixture that starts a PACS."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from orthanc_server import OrthancServer

_NEEDED = ("dcm2niix", "pydicom", "gdcm", "highdicom", "pynetdicom", "dicomweb_client", "reportlab")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py", "gateway"] if _MISSING else []


def pytest_report_header() -> str:
    """Say which tests are left out, and why."""
    return f"pacs is left out: it needs {', '.join(_MISSING)} of the extra pacs" if _MISSING else ""


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
