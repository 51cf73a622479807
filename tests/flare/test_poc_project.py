"""The project of POC mode, how its processes are told from others, and what its commands refuse."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from mhsev_flare.cli import main
from mhsev_flare.poc import PocError, PocFederation
from mhsev_flare.poc.overview import JobRow, Overview, ParticipantRow, describe
from mhsev_flare.poc.processes import MARK, end, federation_processes, participant_processes, wait_until
from mhsev_flare.poc.project import KEYS_FOR_ENCRYPTED_JOBS, SITES, free_port, is_free, poc_project

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / "poc" / "project.yml").is_file(), reason="needs the checkout, not the wheel alone")
def test_the_project_file_is_what_the_command_makes():
    assert yaml.safe_load((ROOT / "poc" / "project.yml").read_text()) == poc_project()


@pytest.mark.skipif(not (ROOT / "poc" / "project.yml").is_file(), reason="needs the checkout, not the wheel alone")
def test_the_project_with_keys_is_what_the_command_makes():
    stored = yaml.safe_load((ROOT / "poc" / "project_he.yml").read_text())
    assert stored == poc_project(builders=[KEYS_FOR_ENCRYPTED_JOBS])


def test_further_builders_stand_between_the_policy_and_the_certificates():
    builders = poc_project(["a"], 9000, builders=[{"path": "x.Y"}])["builders"]
    paths = [builder["path"].rpartition(".")[2] for builder in builders]
    assert paths[2:] == ["SitePolicyBuilder", "Y", "CertBuilder", "SignatureBuilder"]


@pytest.mark.parametrize("sites", [[], ["a", "a"], ["server", "b"]])
def test_sites_have_different_names(sites):
    with pytest.raises(ValueError, match="different names"):
        poc_project(sites)


def test_a_port_is_free_until_somebody_listens():
    port = free_port()
    assert is_free(port)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not is_free(port)


@pytest.fixture
def sleeper():
    """Starts processes that do nothing, and ends them."""
    started = []

    def start(mark: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-c", "import time; time.sleep(60)", *arguments]
        started.append(subprocess.Popen(command, env={**os.environ, MARK: mark}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_processes_are_found_by_their_mark_and_by_nothing_else(tmp_path, sleeper):
    """An editor that shows a file of the federation is none of its processes."""
    folder = tmp_path / "poc"
    marked = sleeper(str(folder))
    sleeper("", str(folder / "workspace"), str(folder))
    sleeper(str(tmp_path / "poc2"))
    sleeper(f"/var{folder}")
    assert {process.pid for process in federation_processes(folder)} == {marked.pid}


def test_processes_of_a_participant_name_its_kit_as_a_word(tmp_path, sleeper):
    folder = tmp_path / "poc"
    kit = folder / "site-1"
    own = sleeper(str(folder), "-m", str(kit))
    of_job = sleeper(str(folder), "-m", str(kit / "startup"), "-n", "job-1")
    sleeper(str(folder), "-m", str(folder / "site-11"))
    sleeper("", "-m", str(kit))
    assert {process.pid for process in participant_processes(folder, kit)} == {own.pid, of_job.pid}
    assert {process.pid for process in participant_processes(folder, kit, "job-1")} == {of_job.pid}


def test_processes_are_ended(tmp_path, sleeper):
    marked = sleeper(str(tmp_path))
    end(federation_processes(tmp_path))
    assert not psutil.pid_exists(marked.pid)


def test_waiting_ends_with_the_time():
    assert wait_until(lambda: True, 0)
    assert not wait_until(lambda: False, 0.3, step=0.1)


def test_a_folder_with_anything_in_it_is_not_taken(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(PocError, match=r"holds mine\.txt"):
        PocFederation(tmp_path).prepare({"site-1": tmp_path})
    assert (tmp_path / "mine.txt").read_text() == "x"


def test_secret_keys_of_encrypted_jobs_are_closed_to_others(tmp_path):
    pytest.importorskip("tenseal")
    federation = PocFederation(tmp_path / "poc")
    federation.prepare({"site-1": tmp_path, "site-2": tmp_path}, builders=[KEYS_FOR_ENCRYPTED_JOBS])
    keys = sorted(federation.kits.rglob("client_context.tenseal"))
    assert [key.parents[1].name for key in keys] == ["site-1", "site-2"]
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    federation.down()


def test_a_preparation_that_fails_leaves_nothing(tmp_path):
    federation = PocFederation(tmp_path / "poc")
    with pytest.raises(PocError, match="did not make the startup kits"):
        federation.prepare({"site-1": tmp_path}, builders=[{"path": "no.such.Builder"}])
    assert not federation.folder.exists()


def test_kits_are_for_this_user_alone_and_a_second_federation_may_follow_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MHSEV_DATA_ROOT", "/of/another")
    federation = PocFederation(tmp_path / "poc")
    results = federation.folder / "results" / "earlier.txt"
    results.parent.mkdir(parents=True)
    results.write_text("x")
    federation.prepare({"site-1": tmp_path})
    assert federation.folder.stat().st_mode & 0o777 == 0o700
    assert "MHSEV_DATA_ROOT" not in federation.environment()
    with pytest.raises(PocError, match="end it first"):
        federation.prepare({"site-1": tmp_path})
    assert federation.down() == ["results"]
    assert results.is_file()


def test_a_taken_port_is_refused_before_anything_is_made(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(PocError, match=f"port {port} is in use"):
            PocFederation(tmp_path / "new").prepare({"site-1": tmp_path}, port=port)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("state", "complaint"), [(None, "no POC federation"), ("{}", "not of this version"), ("[", "not")]
)
def test_down_deletes_nothing_that_is_no_federation(tmp_path, capsys, state, complaint):
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "mine.txt").write_text("x")
    if state is not None:
        (tmp_path / "poc.json").write_text(state)
    assert main(["poc", "down", str(tmp_path)]) == 1
    assert complaint in capsys.readouterr().err
    assert (tmp_path / "workspace" / "mine.txt").is_file()


def test_down_leaves_what_somebody_else_put_there(tmp_path, capsys):
    federation = PocFederation(tmp_path / "poc")
    federation.folder.mkdir()
    (federation.folder / "poc.json").write_text('{"schema": "mhsev-poc/1", "sites": ["a"], "port": 1}')
    (federation.folder / "notes.txt").write_text("x")
    assert main(["poc", "down", str(federation.folder)]) == 0
    assert "holds notes.txt" in capsys.readouterr().out


def test_down_keeps_downloaded_results(tmp_path):
    federation = PocFederation(tmp_path / "poc")
    kept = federation.folder / "results" / "job" / "result.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    (federation.folder / "workspace").mkdir()
    (federation.folder / "poc.json").write_text('{"schema": "mhsev-poc/1", "sites": ["a"], "port": 1}')
    federation.down()
    assert [path for path in federation.folder.rglob("*") if path.is_file()] == [kept]
    assert not federation.is_prepared


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["poc", "up", "F"], "say where the sites' data lie"),
        (["poc", "up", "F", "--cohort", "nowhere"], "site-1, site-2, site-3: the BIDS root is not a folder"),
        (["poc", "up", "F", "--site", "a"], "NAME=DIR"),
        (["poc", "up", "F", "--site", "a=/", "--site", "a=/"], "each name once"),
        (["poc", "up", "F", "--site", "server=/"], "a site cannot be called server"),
        (["poc", "run", "F", "dsd_mlp"], "begin one with `mhsev poc up`"),
        (["poc", "status", "F"], "begin one with `mhsev poc up`"),
        (["poc", "logs", "F"], "begin one with `mhsev poc up`"),
    ],
)
def test_a_wrong_call_says_what_is_accepted(tmp_path, capsys, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_is_none_is_refused_with_those_that_there_are(tmp_path, capsys):
    (tmp_path / "poc.json").write_text('{"schema": "mhsev-poc/1", "sites": ["a"], "port": 1}')
    assert main(["poc", "run", str(tmp_path), "no_such_job"]) == 2
    assert "there is no job no_such_job; there are dsd_mlp" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["poc.json"]


def test_the_overview_says_who_is_missing_and_how_far_a_job_is():
    rows = (
        ParticipantRow("server", (11, 12), 1, 300, None),
        ParticipantRow("site-1", (13,), 0, 90, True),
        ParticipantRow("site-2", (), 0, 0, False),
    )
    overview = Overview(8002, True, rows, (JobRow("j1", "tiny", "RUNNING", "round  3   2 sites"),))
    assert not overview.is_up
    lines = describe(overview).splitlines()
    assert lines[1].split() == ["server", "300", "MB,", "1", "jobs,", "pids", "11", "12"]
    assert lines[2].endswith("registered")
    assert lines[3].split() == ["site-2", "not", "running", "not", "registered"]
    assert lines[4].split() == ["RUNNING", "tiny", "j1", "round", "3", "2", "sites"]


def test_sites_of_the_command_are_those_of_the_project():
    from mhsev_flare import poc_commands

    assert poc_commands.SITES == SITES
