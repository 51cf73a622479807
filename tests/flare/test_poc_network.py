"""A hospital whose network is cut for two minutes in the middle of a job, without a word to anybody."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from network import Cable, may_make_namespaces
from poc_federation import PocFederation, free_port
from tiny_study import SITES, export_tiny, make_sites, tiny_spec

from mhsev_flare.participation import RoundPolicy
from mhsev_flare.poc.processes import federation_processes
from mhsev_flare.result import read_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces"),
]

CUT = "site-3"
CUT_SECONDS = 120
N_ROUNDS = 10


class FarHospital(PocFederation):
    """A federation of which one site stands at the other end of a cable."""

    def __init__(self, folder: Path, cohort: Path, cable: Cable) -> None:
        super().__init__(folder, cohort)
        self.cable = cable

    def start_command(self, name):
        return self.cable.inside(self.cable.hospital if name == CUT else self.cable.core, super().start_command(name))

    def mhsev(self, *arguments: str) -> subprocess.Popen:
        """The command line, where the server is."""
        command = self.cable.inside(self.cable.core, [sys.executable, "-m", "mhsev_flare.cli", *arguments])
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def registered(self):
        told, _ = self.mhsev("poc", "status", str(self.folder), "--json").communicate(timeout=60)
        return [row["name"] for row in json.loads(told)["participants"] if row["registered"]]


def test_a_hospital_without_network_for_two_minutes_costs_its_own_rounds_alone(tmp_path):
    port = free_port()
    with Cable(port) as cable:
        federation = FarHospital(tmp_path / "federation", make_sites(tmp_path / "cohort"), cable)
        try:
            federation.start_on(port)
            # Twenty seconds a round, so that the two minutes lie in the middle of training.
            slow = [{"kind": "slow", "at": n, "seconds": 20.0} for n in range(1, N_ROUNDS)]
            faults = {"site-1": slow, "site-2": slow}
            spec = tiny_spec(num_rounds=N_ROUNDS, policy=RoundPolicy(min_sites=2, grace_seconds=10.0))
            run = federation.mhsev("poc", "run", str(federation.folder), str(export_tiny(tmp_path, spec, faults)))
            checkpoints = federation.kits / "server" / "mhsev_checkpoints" / "tiny"
            federation.wait_for(lambda: any(checkpoints.glob("*/round-0002")), 240)
            cable.pull()
            time.sleep(CUT_SECONDS)
            cable.plug()
            told, complaints = run.communicate(timeout=600)
            assert run.returncode == 0, complaints
            job_id = re.search(r"^job +(\S+)", told, re.MULTILINE).group(1)
            result, ledger, _ = read_run(federation.folder / "results" / job_id)
            federation.wait_for_sites()
        finally:
            federation.stop()
        assert federation_processes(federation.folder) == []
    assert result["status"] == "completed"
    trained = ledger[:N_ROUNDS]
    assert [set(row["sites"]) >= {"site-1", "site-2"} for row in trained] == [True] * N_ROUNDS
    without = [row["round"] for row in trained if row["absent"] == [CUT]]
    # A round without it takes 20 s and the 10 s of grace, or somewhat more on a busy machine, and it came back.
    assert 2 <= len(without) <= 6
    assert trained[-1]["absent"] == []
    # It trains at once and the others take 20 s, so its answer to round 2 may have left before the cable was pulled.
    assert without[0] in (2, 3)
    assert without == list(range(without[0], without[0] + len(without)))
    assert result["left_out"] == {CUT: len(without)}
    assert set(SITES) == set(ledger[0]["sites"]) == set(ledger[1]["sites"])
