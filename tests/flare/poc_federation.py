"""FLARE's POC mode as a fixture: a server and three sites as real processes on loopback, in folders of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from tiny_study import SITES, TEST_MODULES

from mhsev_flare.result import read_run
from mhsev_flare.simulator import PACKAGE_PREFIXES
from mhsev_flare.site import SITE_FILE

PROJECT = "mhsev_test"


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PocFederation:
    """Server and sites in POC mode.

    Args:
        folder: holds all of it; processes are found again by its path.
        cohort: one BIDS root a site.
    """

    def __init__(self, folder: Path, cohort: Path) -> None:
        self.folder, self.cohort = folder, cohort
        self.workspace = folder / "poc"
        self.environment = {
            **os.environ,
            "HOME": str(folder / "home"),
            "NVFLARE_POC_WORKSPACE": str(self.workspace),
            "NVFLARE_SECURE_LOGGING": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }

    @property
    def kits(self) -> Path:
        """Holds a folder a participant."""
        return self.workspace / PROJECT / "prod_00"

    def flare(self, *arguments: str, timeout: float = 240.0) -> str:
        """Run a command of FLARE's; its output."""
        command = [str(Path(sys.executable).with_name("nvflare")), *arguments]
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
        return done.stdout + done.stderr

    def start(self) -> None:
        """Provision with this package's site policy, and start server and sites."""
        (self.folder / "home").mkdir(parents=True)
        project = self.folder / "project.yml"
        project.write_text(yaml.safe_dump(self._project()))
        self.flare("poc", "prepare", "-i", str(project), "--force")
        for site in SITES:
            own = {"data_root": str(self.cohort / site)}
            (self.kits / site / "local" / SITE_FILE).write_text(json.dumps(own))
        said = self.flare("poc", "start", "--timeout", "120")
        if not self.processes("server"):
            raise RuntimeError(f"POC did not start: {said}")

    def _project(self) -> dict[str, Any]:
        policy = {
            "allow": [*PACKAGE_PREFIXES, *TEST_MODULES],
            "heart_beat_timeout": 60,
            "storage": str(self.folder / "storage"),
        }
        lighter = "nvflare.lighter.impl"
        return {
            "api_version": 3,
            "name": PROJECT,
            "description": "POC of the tests",
            "participants": [
                {
                    "name": "server",
                    "type": "server",
                    "org": "o",
                    "default_host": "localhost",
                    "fed_learn_port": free_port(),
                },
                {"name": "admin@nvidia.com", "type": "admin", "org": "o", "role": "project_admin"},
                *({"name": site, "type": "client", "org": "o"} for site in SITES),
            ],
            "builders": [
                {"path": f"{lighter}.workspace.WorkspaceBuilder", "args": {"template_file": ["master_template.yml"]}},
                {"path": f"{lighter}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
                {"path": "mhsev_flare.provision.SitePolicyBuilder", "args": policy},
                {"path": f"{lighter}.cert.CertBuilder"},
                {"path": f"{lighter}.signature.SignatureBuilder"},
            ],
        }

    def submit(self, job: Path) -> str:
        """Submit a job; its id."""
        for _ in range(10):
            said = self.flare("job", "submit", "-j", str(job))
            found = re.search(r"job_id:?\s*[\"']?([0-9a-f-]{36})", said)
            if found:
                return found.group(1)
            time.sleep(3)
        raise RuntimeError(f"the job was not taken: {said}")

    def wait(self, job_id: str, timeout: int = 240) -> None:
        """Wait until FLARE calls the job finished, as whatever."""
        self.flare("job", "monitor", job_id, "--timeout", str(timeout), timeout=timeout + 60)

    def result(self, job_id: str) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
        """Result, ledger and model path of a job, from its folder at the server or from its archive."""
        target = self.folder / "downloads"
        self.flare("job", "download", job_id, "-o", str(target))
        return read_run(target / job_id)

    def processes(self, participant: str = "", job_id: str = "") -> list[psutil.Process]:
        """Running processes of a participant and, where one is given, of a job."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                line = " ".join(process.cmdline())
                if str(self.kits / participant) in line and job_id in line and "python" in line:
                    found.append(process)
        return found

    def watchdogs(self, participant: str) -> list[psutil.Process]:
        """The shells that start a participant again when it ends."""
        script = f"{self.kits / participant}/startup/sub_start.sh"
        return [process for process in self._all() if script in " ".join(process.cmdline())]

    def wait_for(self, what: Any, seconds: float) -> None:
        """Wait until ``what()`` is true."""
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                raise TimeoutError("it did not happen")
            time.sleep(0.2)

    def stop(self) -> None:
        """End every process of this POC, also where FLARE's own command cannot."""
        for kit in self.kits.glob("*"):
            if (kit / "startup").is_dir():
                (kit / "shutdown.fl").touch()
        with contextlib.suppress(TimeoutError):
            self.wait_for(lambda: not self._all(), 20)
        for process in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _all(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if str(self.folder) in " ".join(process.cmdline()) and process.pid != os.getpid():
                    found.append(process)
        return found
