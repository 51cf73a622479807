"""The pipeline in its child: whatever becomes of it, the series ends in a state with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest
from gateways import Site, eventually, send
from mr_objects import mr_image

from mhsev_monai.pacs.gateway.worker import ResultError, keep_results

TWO = [mr_image(number=number) for number in (1, 2)]


@pytest.mark.parametrize(
    ("mode", "state", "reason", "n_runs"),
    [
        ("refused", "failed", "it is refused by the stand-in", 1),
        ("left out", "left out", "it is left out by the stand-in", 1),
        ("failed", "failed", "it is failed by the stand-in; 2 attempts were made", 2),
        ("crash", "failed", "the pipeline was ended by signal 6 (SIGABRT); 2 attempts were made", 2),
        ("hang", "failed", "the pipeline did not end within 1 s; 2 attempts were made", 2),
        ("memory", "failed", "the pipeline gave no answer; 2 attempts were made", 2),
        ("garbage", "failed", "the pipeline's answer cannot be read; 2 attempts were made", 2),
    ],
)
def test_each_end_of_the_pipeline_has_its_state_and_reason(tmp_path, in_process, mode, state, reason, n_runs):
    site = Site(tmp_path, pipeline={"max_attempts": 2, "timeout_s": 1 if mode == "hang" else 60})
    site.wish(mode)
    in_process(site)
    send(site.port, TWO)
    assert eventually(lambda: site.states() == [state], 40)
    assert site.rows("SELECT reason FROM series") == [(reason,)]
    assert site.n_runs == n_runs
    assert eventually(lambda: site.leftovers() == [])
    assert site.rows("SELECT * FROM results") == []


def test_one_bad_series_does_not_hold_up_the_next(tmp_path, in_process):
    site = Site(tmp_path, pipeline={"max_attempts": 3, "retry_s": 3600})
    site.wish("crash")
    in_process(site)
    send(site.port, TWO)
    assert eventually(lambda: site.rows("SELECT state, attempts FROM series") == [("ready", 1)])
    site.wish("done")
    send(site.port, [mr_image("1.2.9")])
    assert eventually(lambda: site.states() == ["ready", "committed"])


def test_urgent_series_go_first(tmp_path, in_process):
    callers = [
        {"ae_title": "MODALITY", "hosts": ["127.0.0.1"]},
        {"ae_title": "STROKE", "hosts": ["127.0.0.0/8"], "priority": "stat"},
    ]
    site = Site(tmp_path, receiver={"callers": callers, "quiet_s": 1})
    in_process(site)
    for number in range(1, 5):
        send(site.port, [mr_image(f"1.2.{number}")], title="STROKE" if number == 4 else "MODALITY")
    assert eventually(lambda: site.states() == ["committed"] * 4)
    order = site.rows("SELECT series_uid FROM results JOIN series ON series.id = series_id ORDER BY results.id")
    assert order[0][0] == "1.2.4"


def test_the_child_gets_links_to_the_images_and_no_terminal(tmp_path, in_process):
    site = Site(tmp_path)
    site.wish("hang")
    in_process(site)
    send(site.port, TWO)
    assert eventually(lambda: site.n_runs == 1)
    pid = int(site.runs.read_text().split()[0])
    child = psutil.Process(pid)
    assert os.getsid(pid) == pid
    assert [path.stat().st_nlink for path in site.spooled()] == [2, 2]
    assert child.cwd().startswith(str(tmp_path / "state" / "work"))


def test_a_child_does_not_outlive_its_gateway(tmp_path, running):
    site = Site(tmp_path)
    site.wish("hang")
    gateway = running(site)
    send(site.port, TWO)
    assert eventually(lambda: site.n_runs == 1)
    pid = int(site.runs.read_text().split()[0])
    assert psutil.pid_exists(pid)
    gateway.kill()
    assert eventually(lambda: not psutil.pid_exists(pid))


def test_limits_hold_for_the_program():
    program = "from resource import *; print(*(getrlimit(what)[0] for what in (RLIMIT_AS, RLIMIT_FSIZE)))"
    limited = [
        sys.executable,
        "-m",
        "mhsev_monai.pacs.gateway.limited",
        str(1 << 30),
        str(1 << 20),
        str(os.getpid()),
        "--",
    ]
    done = subprocess.run([*limited, sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(1 << 30), str(1 << 20)]


@pytest.mark.parametrize("name", ["../outside.dcm", "absent.dcm", "text.dcm"])
def test_what_is_no_object_below_out_is_no_result(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "outside.dcm").write_bytes(b"x")
    (tmp_path / "out" / "text.dcm").write_text("no DICOM")
    with pytest.raises(ResultError):
        keep_results(tmp_path / "out", [name], tmp_path / "results" / "a")
    assert not (tmp_path / "results" / "a").exists()


def test_stopping_gives_the_series_in_hand_back(tmp_path, running):
    site = Site(tmp_path)
    site.wish("hang")
    gateway = running(site)
    send(site.port, TWO)
    assert eventually(lambda: site.n_runs == 1)
    begun = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - begun < 15
    assert site.rows("SELECT state, attempts FROM series") == [("ready", 0)]
    assert site.leftovers() == []
