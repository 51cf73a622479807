"""The demonstration with real processes, whole, on a few simulated subjects."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from mhsev_flare.poc.processes import federation_processes

pytestmark = pytest.mark.slow

SITES = {"site-1", "site-2", "site-3"}


def test_three_sites_train_in_every_round_and_nothing_is_left_but_the_report(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mhsev_flare.cli", "poc", "demo", str(out), "--subjects", "45", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    ledger = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert result["status"] == "completed"
    assert len(ledger) == result["num_rounds"] + 1
    assert [set(row["sites"]) for row in ledger[:-1]] == [SITES] * result["num_rounds"]
    page = (out / "report.html").read_text()
    assert all(site in page for site in SITES)
    gibibytes = float(re.search(r"memory, at most +([\d.]+) GiB", done.stdout).group(1))
    assert 0.5 < gibibytes < 6
    assert federation_processes((out / "federation").resolve()) == []
    assert {path.name for path in (out / "federation").iterdir()} == {"results"}
