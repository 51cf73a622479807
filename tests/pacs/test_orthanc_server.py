"""The PACS of the tests: it starts, answers those it knows, and is ended."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from orthanc_server import AET, Modality, free_port, needs_orthanc

pytestmark = [
    needs_orthanc,
    pytest.mark.skipif(shutil.which("echoscu") is None, reason="needs echoscu: apt-get install dcmtk"),
]


def echo(calling: str, port: int) -> int:
    command = ["echoscu", "-aet", calling, "-aec", AET, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, timeout=20).returncode


def test_it_answers_the_modality_it_knows_and_nobody_else_and_ends(orthanc):
    server = orthanc(modalities={"mhsev": Modality("MHSEV", free_port())})
    assert echo("MHSEV", server.dicom_port) == 0
    assert echo("STRANGER", server.dicom_port) != 0
    assert any(name == "dicom-web" for name in server.get("/plugins"))
    process = server.process
    server.stop()
    assert process.returncode is not None
    assert echo("MHSEV", server.dicom_port) != 0
