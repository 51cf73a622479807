"""Processes that are killed, jobs that are aborted, names that must not travel: in FLARE's POC mode, four processes and
those of each job, as on hospital machines.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch
from poc_federation import PocFederation
from tiny_study import SITES, export_tiny, make_sites, tiny_spec

from mhsev_flare.participation import RoundPolicy
from mhsev_flare.poc.processes import federation_processes
from mhsev_flare.poc.project import is_free

pytestmark = pytest.mark.slow

CANARY = b"DOE^JANE"


@pytest.fixture(scope="module")
def poc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poc")
    federation = PocFederation(folder / "federation", make_sites(folder / "cohort"))
    try:
        federation.start()
        yield federation
    finally:
        federation.stop()


@pytest.fixture(scope="module")
def clean(poc):
    job_id = poc.submit(export_tiny(poc.folder / "clean", tiny_spec()))
    poc.wait(job_id)
    return poc.result(job_id)


def weights(path):
    return torch.load(path, weights_only=True)["weights"]


def resumed(poc, folder, clean):
    """Send the job again with resume; it must end as the run that nothing had befallen."""
    job_id = poc.submit(export_tiny(folder, tiny_spec(resume=True)))
    poc.wait(job_id)
    result, ledger, model = poc.result(job_id)
    assert result["status"] == "completed", result["reason"]
    assert result["resumed"]["round"] == 2
    assert ledger == clean[1]
    for key, value in weights(clean[2]).items():
        torch.testing.assert_close(value, weights(model)[key], rtol=0, atol=1e-6)


def test_no_name_of_a_patient_reaches_the_server(poc, clean):
    """Site 2's executor fails with a path that holds a name; its exception, log and reply must not carry it.

    Site 3 fails so in an event, whose exception FLARE alone catches and logs.
    """
    faults = {
        "site-2": [{"kind": "exception", "at": 1}, {"kind": "extra key", "at": 2}],
        "site-3": [{"kind": "event", "at": -1}],
    }
    job_id = poc.submit(export_tiny(poc.folder / "canary", tiny_spec(), faults))
    poc.wait(job_id)
    result, ledger, _ = poc.result(job_id)
    assert result["status"] == "completed", result["reason"]
    assert ledger[1]["absent"] == ["site-2"]
    at_server = [poc.kits / "server", poc.folder / "downloads"]
    files = [f for folder in at_server for f in folder.rglob("*") if f.is_file()]
    assert len(files) > 20
    assert [f.name for f in files if CANARY in content(f)] == []
    log = (poc.kits / "site-3" / job_id / "log.txt").read_text()
    assert "OSError" in log


def content(path: Path) -> bytes:
    """Of a file; nothing where FLARE has cleared it away since it was listed, as it does with what was downloaded."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_a_killed_job_process_of_a_site_ends_the_job_and_resume_goes_on(poc, clean, tmp_path):
    """FLARE 2.9 fails the job when a site's job process dies; what was reached is not lost."""
    faults = {"site-3": [{"kind": "kill", "at": 2}]}
    job_id = poc.submit(export_tiny(tmp_path / "killed", tiny_spec(), faults))
    poc.wait(job_id)
    result, ledger, _ = poc.result(job_id)
    assert result["status"] == "failed"
    assert "2 of 4 rounds" in result["reason"]
    assert "send the job again with resume" in result["reason"]
    assert ledger == clean[1][:2]
    resumed(poc, tmp_path / "again", clean)


def test_abort_ends_training_within_five_seconds(poc, tmp_path):
    spec = tiny_spec(epochs=1_000_000, name="endless")
    job_id = poc.submit(export_tiny(tmp_path, spec))
    poc.wait_for(lambda: all(is_training(poc, site, job_id) for site in SITES), 150)
    time.sleep(2)
    poc.flare("job", "abort", job_id, "--force")
    poc.wait_for(lambda: not any(poc.processes(site, job_id) for site in SITES), 60)
    for site in SITES:
        log = (poc.kits / site / job_id / "log.txt").read_text()
        told, stopped = (logged_at(log, words) for words in ("Received command to abort job", "train aborted: stopped"))
        assert timedelta(0) <= stopped - told < timedelta(seconds=5), site


def is_training(poc, site, job_id):
    log = poc.kits / site / job_id / "log.txt"
    return log.is_file() and any("task_name=train" in li and "invoking" in li for li in log.read_text().splitlines())


def logged_at(log, words):
    """When the first line with these words was written."""
    line = next(line for line in log.splitlines() if words in line)
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")


def test_a_killed_server_is_resumed_from(poc, clean, tmp_path):
    faults = {"site-1": [{"kind": "slow", "at": 2, "seconds": 60.0}]}
    job_id = poc.submit(export_tiny(tmp_path / "cut", tiny_spec(), faults))
    checkpoints = poc.kits / "server" / "mhsev_checkpoints" / "tiny" / job_id
    poc.wait_for(lambda: (checkpoints / "round-0002").is_dir(), 120)
    for process in poc.processes("server"):
        process.kill()
    # FLARE's own watchdog starts the server again, and the sites register anew; the job is not restored.
    poc.wait_for_sites()
    # FLARE 2.9 leaves it RUNNING for ever, and its own `poc stop` then fails.
    assert poc.status(job_id) == "FINISHED:ABNORMAL"
    resumed(poc, tmp_path / "again", clean)


@pytest.mark.parametrize("returns", [True, False], ids=["it comes back", "it stays away"])
def test_the_others_go_on_without_a_machine_that_is_gone(poc, clean, tmp_path, returns):
    """Both processes of site 3 are killed at once; its watchdog starts the site again, or is killed first."""
    faults = {"site-3": [{"kind": "slow", "at": 1, "seconds": 120.0}]}
    spec = tiny_spec(name=f"gone-{returns}", policy=RoundPolicy(min_sites=2, grace_seconds=5.0))
    job_id = poc.submit(export_tiny(tmp_path, spec, faults))
    checkpoints = poc.kits / "server" / "mhsev_checkpoints" / spec.name / job_id
    poc.wait_for(lambda: (checkpoints / "round-0001").is_dir(), 150)
    for process in ([] if returns else poc.watchdogs("site-3")) + poc.processes("site-3"):
        process.kill()
    poc.wait(job_id, 400)
    result, ledger, _ = poc.result(job_id)
    assert result["status"] == "completed", result["reason"]
    assert [row["absent"] for row in ledger[:4]] == [[], ["site-3"], ["site-3"], ["site-3"]]
    assert result["left_out"] == {"site-3": 3}
    assert set(result["test"]["sites"]) == {"site-1", "site-2"}
    assert result["absent"]["validate test"] == ["site-3"]


def test_after_all_of_it_no_job_runs_and_no_process_is_left(poc, clean):
    """The last of this file: what was killed above is finished in FLARE's books, and the rest comes down."""
    with poc.administrator() as administrator:
        jobs = administrator.jobs()
    assert len(jobs) >= 8
    # FLARE waits for an outcome of a site that is gone until it takes it for dead.
    for job in jobs:
        poc.wait(job["job_id"], 300)
    assert {job["job_id"]: poc.status(job["job_id"])[:8] for job in jobs} == {job["job_id"]: "FINISHED" for job in jobs}
    port = poc.port
    poc.down()
    assert federation_processes(poc.folder) == []
    assert is_free(port)
    assert not poc.is_prepared
