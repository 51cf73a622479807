"""`/health`, `/ready` and `/metrics` over HTTP: how the gateway does, in states and counts, with nothing about anybody.

`/health` answers 200 or 503 with its checks as JSON: 503 asks for a person. `/ready` answers whether series are taken
right now; it says no where the disk is full, which heals by itself. `/metrics` is Prometheus text format. Standard
library only, one thread a request, GET only.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mhsev_monai.pacs.gateway.config_sending import MonitorConfig
from mhsev_monai.pacs.gateway.journal_rows import Counts
from mhsev_monai.pacs.gateway.journal_schema import DELIVERY_STATES, SERIES_STATES

# A client that sends its request slower than this is let go.
_CLIENT_S = 5.0


@dataclass(frozen=True)
class Snapshot:
    """How the gateway does at one moment.

    Attributes:
        counts: of the journal.
        disk_used: part of the disk in use, 0 to 1.
        accepting: whether an instance that came now would be stored.
        parts: by name, whether each loop works; there is one only where the configuration asks for it.
        journal_ok: whether the journal could be read and written just now.
        started_at: seconds since 1970.
    """

    counts: Counts = field(default_factory=Counts)
    disk_used: float = 0.0
    accepting: bool = True
    receiver_alive: bool = True
    parts: Mapping[str, bool] = field(default_factory=dict)
    journal_ok: bool = True
    started_at: float = 0.0


def health(snapshot: Snapshot) -> dict[str, Any]:
    """The answer of ``/health``: ``status`` is ok or failing, ``checks`` says of each part whether it works."""
    checks = {
        "journal": snapshot.journal_ok,
        "receiver": snapshot.receiver_alive,
        **snapshot.parts,
        "disk": snapshot.accepting,
    }
    return {"status": "ok" if all(checks.values()) else "failing", "checks": checks}


def ready(snapshot: Snapshot) -> bool:
    """Whether series are taken now."""
    return snapshot.receiver_alive and snapshot.journal_ok and snapshot.accepting


def metrics(snapshot: Snapshot, now: float) -> str:
    """Prometheus's text format, version 0.0.4."""
    counts, checks = snapshot.counts, health(snapshot)["checks"]
    series = {f'state="{state}"': counts.series.get(state, 0) for state in SERIES_STATES}
    deliveries = {
        f'destination="{_label(name)}",state="{state}"': held.get(state, 0)
        for name, held in sorted(counts.deliveries.items())
        for state in DELIVERY_STATES
    }
    families: list[tuple[str, str, str, Mapping[str, float]]] = [
        ("up", "gauge", "1 where the part works", {f'part="{name}"': int(works) for name, works in checks.items()}),
        ("series", "gauge", "Series in the journal by state", series),
        ("deliveries", "gauge", "Results in the journal by destination and state", deliveries),
        ("instances", "gauge", "Instances in the journal", {"": counts.n_instances}),
        ("repeats", "gauge", "Instances of the series in the journal that came again", {"": counts.n_repeats}),
        ("oldest_waiting_seconds", "gauge", "Age of the oldest series that waits", {"": counts.oldest_waiting_s}),
        ("oldest_pending_seconds", "gauge", "Age of the oldest undelivered result", {"": counts.oldest_pending_s}),
        ("disk_used_ratio", "gauge", "Part of the disk in use", {"": snapshot.disk_used}),
        ("uptime_seconds", "gauge", "Since the start", {"": max(0.0, now - snapshot.started_at)}),
    ]
    return "".join(line + "\n" for family in families for line in _lines(*family))


def _lines(name: str, kind: str, told: str, values: Mapping[str, float]) -> Iterator[str]:
    name = f"mhsev_gateway_{name}"
    yield f"# HELP {name} {told}."
    yield f"# TYPE {name} {kind}"
    for labels, value in values.items():
        yield f"{name}{{{labels}}} {value:g}" if labels else f"{name} {value:.17g}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Monitor:
    """The HTTP server; it listens when it is made, and ends with `close`.

    Args:
        settings: where it listens.
        snapshot: asked at each request; what it raises is answered with 503.
    """

    def __init__(self, settings: MonitorConfig, snapshot: Callable[[], Snapshot]) -> None:
        handler = type("Handler", (_Handler,), {"snapshot": staticmethod(snapshot)})
        self._server = ThreadingHTTPServer((settings.host, settings.port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="monitor", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def start_monitor(settings: MonitorConfig, snapshot: Callable[[], Snapshot]) -> Monitor:
    """Listen; see `Monitor`.

    Raises:
        OSError: if the port is taken.
    """
    return Monitor(settings, snapshot)


class _Handler(BaseHTTPRequestHandler):
    snapshot: Callable[[], Snapshot]
    timeout = _CLIENT_S
    server_version, sys_version = "mhsev-gateway", ""

    def do_GET(self) -> None:
        if self.path not in ("/health", "/ready", "/metrics"):
            self._answer(404, "text/plain", "there are /health, /ready and /metrics\n")
            return
        try:
            snapshot = type(self).snapshot()
        except Exception as error:
            # The edge to the network: what failed is named by its type, since a message may hold anything.
            failed = {"status": "failing", "checks": {"snapshot": False}, "error": type(error).__name__}
            self._answer(503, "application/json", json.dumps(failed) + "\n")
            return
        if self.path == "/metrics":
            self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics(snapshot, time.time()))
        elif self.path == "/ready":
            taken = ready(snapshot)
            self._answer(200 if taken else 503, "application/json", json.dumps({"ready": taken}) + "\n")
        else:
            told = health(snapshot)
            self._answer(200 if told["status"] == "ok" else 503, "application/json", json.dumps(told) + "\n")

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not logged: probes come every few seconds."""
