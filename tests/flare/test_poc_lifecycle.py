"""POC federations from up to down: two side by side, a job by the command line, and an end without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from analysis_sites import add_clinical, check_attributions, clinical_model
from poc_federation import PocFederation
from tiny_study import SITES, export_tiny, make_sites, tiny_spec

from mhsev_flare.analysis.result import read_explanation
from mhsev_flare.poc.processes import federation_processes
from mhsev_flare.poc.project import SERVER, is_free
from mhsev_flare.result import read_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The user's own home folder, where FLARE would keep its configuration."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def pair(tmp_path_factory, home):
    """Two federations that run at the same time."""
    folder = tmp_path_factory.mktemp("pair")
    cohort = make_sites(folder / "cohort")
    for seed, site in enumerate(SITES):
        add_clinical(cohort / site, seed)
    both = [PocFederation(folder / name, cohort) for name in ("first", "second")]
    kept, os.environ["HOME"] = os.environ.get("HOME", ""), str(home)
    try:
        for federation in both:
            federation.start()
        yield both
    finally:
        os.environ["HOME"] = kept
        for federation in both:
            federation.stop()


def mhsev(federation: PocFederation, *arguments: str, timeout: float = 400) -> subprocess.CompletedProcess:
    """The command, as a user runs it."""
    command = [sys.executable, "-m", "mhsev_flare.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


def test_two_run_side_by_side_and_touch_nothing_of_the_users(pair, home):
    first, second = pair
    assert first.port != second.port
    for federation in pair:
        assert federation.registered() == list(SITES)
        seen = json.loads(mhsev(federation, "poc", "status", str(federation.folder), "--json").stdout)
        assert seen["is_up"]
        assert [row["name"] for row in seen["participants"]] == [SERVER, *SITES]
        assert all(row["pids"] for row in seen["participants"])
    pids = [{process.pid for process in federation_processes(federation.folder)} for federation in pair]
    assert all(pids)
    assert not pids[0] & pids[1]
    assert list(home.iterdir()) == []


def test_a_job_is_run_and_reported_by_the_command_line(pair, tmp_path):
    federation = pair[0]
    job = export_tiny(tmp_path, tiny_spec())
    done = mhsev(federation, "poc", "run", str(federation.folder), str(job))
    assert done.returncode == 0, done.stderr
    rounds = [line.split() for line in done.stderr.splitlines() if line.strip().startswith("round")]
    assert [line[1:4] for line in rounds[:4]] == [[str(n), "3", "sites"] for n in range(4)]
    facts = dict(line.split(None, 1) for line in done.stdout.splitlines())
    folder = federation.folder / "results" / facts["job"]
    result, ledger, model = read_run(folder)
    assert result["status"] == "completed"
    assert [set(row["sites"]) for row in ledger[:4]] == [set(SITES)] * 4
    assert model.is_file()
    # Its inputs are a class of the tests, which no model file may name; the result is fetched all the same.
    assert "only classes of mhsev_monai" in done.stdout
    listed = mhsev(federation, "poc", "status", str(federation.folder)).stdout
    assert facts["job"] in listed
    logs = mhsev(federation, "poc", "logs", str(federation.folder), "site-2", "--lines", "5")
    assert len(logs.stdout.splitlines()) == 5


def test_a_model_is_explained_over_the_sites_by_the_command_line(pair, tmp_path):
    federation = pair[0]
    model = clinical_model(tmp_path / "model.pt")
    done = mhsev(federation, "poc", "run", str(federation.folder), "explain", "--model", str(model))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FLARE calls it FINISHED:COMPLETED" in done.stdout
    facts = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert "sites          3   (site-1, site-2, site-3)" in done.stdout
    result = read_explanation(federation.folder / "results" / facts["job"])
    assert result["refused"] == {}
    check_attributions(result, model, federation.cohort, tmp_path / "cache")


def test_a_job_that_fails_ends_with_status_1_and_its_reason(pair, tmp_path):
    federation = pair[0]
    faults = {site: [{"kind": "exception", "at": 0}] for site in SITES[:2]}
    job = export_tiny(tmp_path, tiny_spec(name="failing"), faults)
    done = mhsev(federation, "poc", "run", str(federation.folder), str(job))
    assert done.returncode == 1
    assert "1 usable answers where 2 are needed" in done.stdout


def test_a_call_that_is_interrupted_ends_its_job(pair, tmp_path):
    federation = pair[0]
    faults = {"site-1": [{"kind": "slow", "at": 1, "seconds": 300.0}]}
    job = export_tiny(tmp_path, tiny_spec(name="interrupted"), faults)
    command = [sys.executable, "-m", "mhsev_flare.cli", "poc", "run", str(federation.folder), str(job)]
    # A shell's background jobs are born with SIGINT ignored, and so would be what they start.
    heeding = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding)
    job_id = run.stdout.readline().split()[1]
    checkpoints = federation.kits / SERVER / "mhsev_checkpoints" / "interrupted" / job_id
    federation.wait_for(lambda: (checkpoints / "round-0001").is_dir(), 150)
    run.send_signal(signal.SIGINT)
    _, complaint = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "goes on from its last round with --resume" in complaint
    federation.wait(job_id, 120)
    assert federation.status(job_id).startswith("FINISHED")


def test_what_was_stopped_is_started_again_with_its_jobs(pair):
    federation = pair[0]
    jobs = [job["job_id"] for job in federation_jobs(federation)]
    assert mhsev(federation, "poc", "down", str(federation.folder), "--keep").returncode == 0
    assert federation_processes(federation.folder) == []
    assert is_free(federation.port)
    up = mhsev(federation, "poc", "up", str(federation.folder))
    assert up.returncode == 0, up.stderr
    assert [job["job_id"] for job in federation_jobs(federation)] == jobs != []


def test_a_connection_from_before_a_restart_takes_a_job(pair, tmp_path):
    """FLARE refuses an upload as the first command of such a session, by an AssertionError of its own."""
    federation = pair[0]
    first = federation.submit(export_tiny(tmp_path, tiny_spec(name="before")))
    federation.wait(first)
    assert mhsev(federation, "poc", "down", str(federation.folder), "--keep").returncode == 0
    assert mhsev(federation, "poc", "up", str(federation.folder)).returncode == 0
    job_id = federation.submit(export_tiny(tmp_path, tiny_spec(name="after")))
    federation.wait(job_id)
    assert federation.status(job_id) == "FINISHED:COMPLETED"


def federation_jobs(federation):
    with federation.administrator() as administrator:
        return administrator.jobs()


def test_a_stuck_federation_comes_down_clean_and_leaves_the_other_alone(pair, tmp_path):
    """The server and its job are killed, with the watchdog; FLARE's own stop fails here and leaves all running."""
    stuck, other = pair
    faults = {"site-1": [{"kind": "slow", "at": 0, "seconds": 300.0}]}
    job_id = stuck.submit(export_tiny(tmp_path, tiny_spec(name="stuck"), faults))
    stuck.wait_for(lambda: len(stuck.processes(SERVER, job_id)) > 0, 120)
    for process in [*stuck.watchdogs(SERVER), *stuck.processes(SERVER)]:
        process.kill()
    port = stuck.port
    done = mhsev(stuck, "poc", "down", str(stuck.folder))
    assert done.returncode == 0, done.stderr
    assert federation_processes(stuck.folder) == []
    assert is_free(port)
    assert {path.name for path in stuck.folder.iterdir()} == {"results"}
    assert other.registered() == list(SITES)


def test_down_removes_all_where_nothing_was_downloaded(pair):
    federation = pair[1]
    assert mhsev(federation, "poc", "down", str(federation.folder)).returncode == 0
    assert not federation.folder.exists()
    assert mhsev(federation, "poc", "down", str(federation.folder)).returncode == 1
