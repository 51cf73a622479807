"""Health and metrics over real HTTP, in states and counts alone."""

from __future__ import annotations

import dataclasses
import json
import re
import socket

import pytest
import requests
from journals import Clock, add_results, open_journal
from orthanc_server import free_port
from pydicom import dcmread
from result_objects import six_kinds

from mhsev_monai.pacs.gateway.config_sending import MonitorConfig
from mhsev_monai.pacs.gateway.monitor import Snapshot, start_monitor


class Gateway:
    """A monitor whose snapshot a test sets."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.monitor = start_monitor(MonitorConfig(port=free_port()), lambda: self.snapshot)

    def get(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.monitor.port}{path}", timeout=5)


@pytest.fixture
def gateway():
    made = Gateway()
    yield made
    made.monitor.close()


def test_a_gateway_that_works_is_healthy_and_ready(gateway):
    answer = gateway.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert gateway.get("/ready").status_code == 200


@pytest.mark.parametrize(
    ("field", "check", "is_ready"),
    [
        ("journal_ok", "journal", 503),
        ("receiver_alive", "receiver", 503),
        ("accepting", "disk", 503),
    ],
)
def test_what_is_not_well_is_named(gateway, field, check, is_ready):
    gateway.snapshot = dataclasses.replace(gateway.snapshot, **{field: False})
    answer = gateway.get("/health")
    assert answer.status_code == 503
    assert [name for name, works in answer.json()["checks"].items() if not works] == [check]
    assert gateway.get("/ready").status_code == is_ready
    assert f'mhsev_gateway_up{{part="{check}"}} 0' in gateway.get("/metrics").text


def test_a_snapshot_that_raises_is_failing_and_tells_the_type_alone(gateway):
    def raising():
        raise OSError("/spool/Canary^Patricia")

    gateway.monitor._server.RequestHandlerClass.snapshot = staticmethod(raising)
    for path in ("/health", "/ready", "/metrics"):
        answer = gateway.get(path)
        assert answer.status_code == 503
        assert "OSError" in answer.text
        assert "Canary" not in answer.text


def test_metrics_count_what_the_journal_holds_and_hold_no_identifier(gateway, tmp_path):
    clock = Clock()
    journal = open_journal(tmp_path, clock)
    paths = six_kinds(tmp_path / "results")
    add_results(journal, tmp_path, paths, ["pacs", 'odd"\\name'])
    first, *rest = journal.deliveries.due("pacs")
    journal.deliveries.bury({first.id: "refused"})
    journal.deliveries.sent([item.id for item in rest[:2]], commitment=False)
    clock.now += 90
    gateway.snapshot = Snapshot(counts=journal.counts(), disk_used=0.25, started_at=0.0)
    text = gateway.get("/metrics").text
    values = dict(re.findall(r"^(mhsev_gateway_[^ ]+) (\S+)$", text, re.MULTILINE))
    for state, n_results in {"dead": "1", "pending": "3", "committed": "2"}.items():
        assert values[f'mhsev_gateway_deliveries{{destination="pacs",state="{state}"}}'] == n_results
    assert values['mhsev_gateway_series{state="sending"}'] == "1"
    assert float(values["mhsev_gateway_oldest_pending_seconds"]) == pytest.approx(90)
    assert values["mhsev_gateway_disk_used_ratio"] == "0.25"
    # Each line is a comment or a sample, as Prometheus's text format has them.
    sample = re.compile(r'[a-z_]+(\{([a-z]+="(\\.|[^"\\])*",?)+\})? [0-9.e+-]+')
    assert all(line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line) for line in text.splitlines())
    everything = text + json.dumps(gateway.get("/health").json())
    for path in paths:
        data = dcmread(path)
        for identifier in (data.SOPInstanceUID, data.StudyInstanceUID, data.PatientID, "Canary", "CANARY", "20260101"):
            assert str(identifier) not in everything


def test_other_paths_and_methods_are_refused_and_a_silent_client_blocks_nobody(gateway):
    with socket.create_connection(("127.0.0.1", gateway.monitor.port)):
        assert gateway.get("/../etc/passwd").status_code == 404
        assert gateway.get("/metrics?x=1").status_code == 404
        assert requests.post(f"http://127.0.0.1:{gateway.monitor.port}/health", timeout=5).status_code == 501
