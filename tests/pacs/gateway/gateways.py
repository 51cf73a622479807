"""Gateways to test: in this process, or as the real command in another; and a PACS that counts what it gets."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from pydicom.dataset import Dataset

from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.config_reader import build
from mhsev_monai.pacs.gateway.service import Service

STAND_IN = Path(__file__).with_name("stand_in.py")
CALLER = "MODALITY"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something holds; gives what it gave last."""
    end = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return held


class Site:
    """A state folder with a configuration, a wish for the stand-in, and a PACS that it sends to."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.runs = folder / "runs.txt"
        self.model = folder / "model.pt"
        self.wish()
        self.held: dict[str, Any] = {
            "state": str(folder / "state"),
            "model": str(self.model),
            "receiver": {
                "callers": [{"ae_title": CALLER, "hosts": ["127.0.0.1"]}],
                "port": self.port,
                "quiet_s": 0.3,
                **sections.pop("receiver", {}),
            },
            "limits": {"reserve_mb": 0, "refuse_at": 1.0, **sections.pop("limits", {})},
            "pipeline": {
                "command": [sys.executable, str(STAND_IN)],
                "retry_s": 0,
                "memory_mb": 2048,
                **sections.pop("pipeline", {}),
            },
            **sections,
        }

    def wish(self, mode: str = "done", **more: Any) -> None:
        """Say what the stand-in shall do from now on."""
        fresh = self.model.with_suffix(".new")
        fresh.write_text(json.dumps({"mode": mode, "runs": str(self.runs), **more}))
        fresh.rename(self.model)

    @property
    def config(self) -> GatewayConfig:
        return build(GatewayConfig, self.held)

    @property
    def n_runs(self) -> int:
        return len(self.runs.read_text().splitlines()) if self.runs.is_file() else 0

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Look into the journal from beside."""
        path = self.folder / "state" / "journal.sqlite"
        if not path.is_file():
            return []
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()

    def states(self) -> list[str]:
        return [state for (state,) in self.rows("SELECT state FROM series ORDER BY id")]

    def spooled(self) -> list[Path]:
        return sorted((self.folder / "state" / "spool").glob("*/*"))

    def leftovers(self) -> list[Path]:
        """Files that no finished transfer should leave."""
        state = self.folder / "state"
        return [*(state / "incoming").iterdir(), *(state / "work").iterdir()]


class RunningGateway:
    """The command itself in a process of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.path = site.folder / "gateway.yaml"
        self.path.write_text(yaml.safe_dump(site.held))
        self.log = site.folder / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mhsev_flare.cli", "gateway", "--config", str(self.path)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        assert eventually(lambda: self.listens() or not self.is_alive()), self.log.read_text()
        assert self.is_alive(), self.log.read_text()

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.site.port)) == 0

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self.is_alive():
            self._process.send_signal(number)
        return self._process.wait(30)

    @property
    def rss_mb(self) -> float:
        assert self._process is not None
        return psutil.Process(self._process.pid).memory_info().rss / 1e6

    @property
    def peak_rss_mb(self) -> float:
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return float(status.partition("VmHWM:")[2].split()[0]) / 1024


class InProcess:
    """The service in this process, for what needs no kill."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.service = Service(site.config)
        self.service.start()

    def stop(self) -> None:
        self.service.close()


class Pacs:
    """A storage SCP that remembers the SOP Instance UIDs that it was sent, and how often."""

    def __init__(self) -> None:
        from pynetdicom import AE, AllStoragePresentationContexts, evt

        self.port = free_port()
        self.got: list[str] = []
        ae = AE("PACS")
        ae.supported_contexts = AllStoragePresentationContexts
        self._server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    def _store(self, event: Any) -> int:
        self.got.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    @property
    def destination(self) -> dict[str, Any]:
        return {"name": "pacs", "host": "127.0.0.1", "port": self.port, "ae_title": "PACS", "retry_s": 0.1}

    def stop(self) -> None:
        self._server.shutdown()


def send(port: int, images: Iterable[Dataset], title: str = CALLER, called: str = "MHSEV", **more: Any) -> list[int]:
    """Statuses of C-STOREs by pynetdicom, one an image; -1 where there was no answer, [] without an association."""
    from pynetdicom import AE, evt

    images = list(images)
    ae = AE(title)
    ae.dimse_timeout = ae.acse_timeout = ae.network_timeout = more.pop("timeout", 20)
    for pair in {(str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID)) for image in images}:
        ae.add_requested_context(pair[0], pair[1])
    association = ae.associate(
        "127.0.0.1", port, ae_title=called, evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay)], **more
    )
    if not association.is_established:
        return []
    statuses = []
    for number, image in enumerate(images):
        eventually(lambda: not association._is_paused or not association.is_established)
        if not association.is_established:
            statuses.append(-1)
            continue
        answer = association.send_c_store(image, msg_id=number % 65535 + 1)
        statuses.append(answer.Status if "Status" in answer else -1)
    if association.is_established:
        association.release()
    return statuses


def _without_delay(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which needs root")
