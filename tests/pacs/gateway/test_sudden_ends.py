"""kill -9 at each step: afterwards exactly one set of results is at the PACS, and nothing acknowledged is lost."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gateways import Site, eventually, send
from mr_objects import mr_image

from mhsev_monai.pacs.gateway.journal_rows import Folders

pytestmark = pytest.mark.slow
IMAGES = [mr_image(number=number) for number in range(1, 5)]

# Where the process kills itself, as the first argument of a program that runs a gateway: a function of the receiving
# half, before its work, after it, or once it has found something to do.
KILLED = """
import importlib, os, signal, sys
from mhsev_flare.cli import main
place, when, config = sys.argv[1:]
module, owner, name = place.split(":")
held = importlib.import_module("mhsev_monai.pacs.gateway." + module)
holder = getattr(held, owner) if owner else held
inner = getattr(holder, name)
def killed(*arguments, **named):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    held = inner(*arguments, **named)
    if when == "after" or held:
        os.kill(os.getpid(), signal.SIGKILL)
    return held
setattr(holder, name, killed)
main(["gateway", "--config", config])
"""
PLACES = [
    ("instance_header::read_instance_header", "before"),
    ("spool:Spool:keep", "before"),
    ("spool:Spool:keep", "after"),
    ("journal:Journal:add_instance", "after"),
    ("stabiliser:Stabiliser:tick", "found"),
    ("work_queue:WorkQueue:claim", "found"),
    ("worker::run_child", "before"),
    ("worker::run_child", "after"),
    ("worker::keep_results", "after"),
    ("work_queue:WorkQueue:finish", "before"),
    ("work_queue:WorkQueue:finish", "after"),
    ("deliveries:Deliveries:sent", "before"),
    ("deliveries:Deliveries:sent", "after"),
    ("series_states::settle", "before"),
]


@pytest.mark.parametrize(("place", "when"), PLACES)
def test_a_kill_leaves_one_set_of_results(tmp_path, running, pacs, place, when):
    site = Site(tmp_path, destinations=[pacs.destination], receiver={"quiet_s": 1})
    (tmp_path / "first.yaml").write_text(_yaml(site))
    first = subprocess.Popen([sys.executable, "-c", KILLED, place, when, str(tmp_path / "first.yaml")])
    try:
        acknowledged = _send_until_killed(site, first)
    finally:
        first.kill()
        first.wait(30)
    running(site)
    assert len(site.spooled()) >= acknowledged
    assert send(site.port, IMAGES) == [0] * 4, "the PACS sends again what was not acknowledged"
    assert eventually(lambda: site.states() == ["committed"], 40)
    assert len(site.spooled()) == 4
    assert len(set(pacs.got)) == 2, "a resend has the same UIDs"
    assert eventually(lambda: site.leftovers() == [])
    assert (
        len(list(Folders(tmp_path / "state").results.iterdir())) == site.rows("SELECT count(*) FROM results")[0][0] / 2
    )


def _yaml(site: Site) -> str:
    import yaml

    return yaml.safe_dump(site.held)


def _send_until_killed(site: Site, process: subprocess.Popen) -> int:
    """Send once the gateway listens, and wait until it is gone; gives how many images were acknowledged."""
    statuses: list[int] = []
    assert eventually(lambda: statuses.extend(send(site.port, IMAGES, timeout=5)) or statuses, 60)
    assert eventually(lambda: process.poll() is not None, 30), "the place was never reached"
    return statuses.count(0)


def test_a_series_that_ends_the_gateway_each_time_is_given_up(tmp_path, running):
    site = Site(tmp_path, pipeline={"max_attempts": 2})
    site.wish("hang")
    gateway = running(site)
    send(site.port, IMAGES)
    for number in (1, 2):
        # Not by the runs: where the machine is slow, images that come late end one that counts for nothing.
        tried = [("running", number)]
        assert eventually(lambda tried=tried: site.rows("SELECT state, attempts FROM series") == tried)
        gateway.kill()
        gateway.start()
    assert eventually(lambda: site.states() == ["failed"])
    assert site.rows("SELECT reason FROM series") == [("the gateway ended 2 times while it worked on this series",)]


def test_a_second_gateway_does_not_start_on_the_same_folder(tmp_path, running):
    site = Site(tmp_path)
    gateway = running(site)
    again = subprocess.run(
        [sys.executable, "-m", "mhsev_flare.cli", "gateway", "--config", str(gateway.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 1
    assert "another gateway works with this state folder" in again.stderr
