"""``mhsev view`` as a user meets it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mhsev_flare.cli import main
from mhsev_monai.inputs import DSDInputs
from mhsev_monai.model_file import save_model
from mhsev_monai.networks import SeverityMLP

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_command_line import head


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An untrained model: these tests are about the command, not about its grades."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    inputs = DSDInputs()
    network = SeverityMLP(len(inputs.feature_names), [8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=1)
    save_model(path, network, inputs, "paper", network.state_dict(), {})
    return path


def test_what_cannot_be_shown_is_one_sentence(model, tmp_path, capsys):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"nothing")
    assert main(["view", str(bad), "--model", str(model)]) == 1
    assert capsys.readouterr().err.startswith(f"mhsev: {bad}: ")
    assert main(["view", str(bad), "--model", str(tmp_path / "none.pt")]) == 2
    assert "no model there" in capsys.readouterr().err


def test_a_port_that_cannot_be_used_is_told(model, tmp_path, capsys):
    scan = head(tmp_path / "scan.nii.gz")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 70000):
            assert main(["view", str(scan), "--model", str(model), "--port", str(port)]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"mhsev: port {port} cannot be used")


@pytest.mark.slow
def test_it_prints_an_address_that_works_and_ends_with_control_c(model, tmp_path):
    scan = head(tmp_path / "Doe_Jane_1950-01-02.nii.gz")
    process = subprocess.Popen(
        [sys.executable, "-m", "mhsev_flare.cli", "view", str(scan), "--model", str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        address = re.match(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", told)
        assert address is not None, told
        with urllib.request.urlopen(address[0], timeout=10) as answer:
            page = answer.read().decode()
        assert "Research use only" in page
        assert "Doe" not in page
        assert "1950" not in page
        root = address[0].rsplit("/", 2)[0]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{root}/", timeout=10)
        process.send_signal(signal.SIGINT)
        rest, complaints = process.communicate(timeout=20)
        assert (process.returncode, rest.splitlines()[-1]) == (0, "ended")
        assert "GET" not in complaints
    finally:
        process.kill()
        process.wait()
