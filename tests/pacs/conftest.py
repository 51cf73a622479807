"""The fixture that starts a PACS."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from orthanc_server import OrthancServer

_NEEDED = ("dcm2niix", "pydicom", "gdcm", "highdicom", "pynetdicom", "dicomweb_client", "reportlab")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py", "gateway"] if _MISSING else []

# pynetdicom installs a storescp, storescu and echoscu of its own beside the interpreter, and an activated environment
# has them first; these tests mean DCMTK's.
_OWN = str(Path(sys.executable).parent)
_PLACES = os.environ.get("PATH", "").split(os.pathsep)
os.environ["PATH"] = os.pathsep.join(sorted(_PLACES, key=lambda place: place == _OWN))


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
