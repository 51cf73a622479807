"""A POC federation for tests: its jobs may name classes of the tests, and its job processes find them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tiny_study import SITES, TEST_MODULES

from mhsev_flare import poc
from mhsev_flare.allowed_classes import ALLOWED_CLASSES
from mhsev_flare.poc.administrator import FINISHED
from mhsev_flare.poc.following import PatientAdministrator
from mhsev_flare.poc.project import free_port
from mhsev_flare.result import read_run

__all__ = ["PocFederation", "free_port"]


class PocFederation(poc.PocFederation):
    """Server and sites in POC mode.

    Args:
        folder: holds all of it.
        cohort: one BIDS root a site.
        builders: further builders of the provisioning.
    """

    def __init__(self, folder: Path, cohort: Path, builders: Sequence[Mapping[str, Any]] = ()) -> None:
        modules = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        super().__init__(folder, {"PYTHONPATH": modules})
        self.cohort, self.builders = cohort, builders
        self._server = PatientAdministrator(self)

    def start(self) -> None:
        """Provision with this package's site policy, and start server and sites."""
        self.start_on(0)

    def start_on(self, port: int) -> None:
        """The same, with the server's port; 0 takes a free one."""
        if not self.is_prepared:
            data = {site: self.cohort / site for site in SITES}
            self.prepare(data, port, allow=[*ALLOWED_CLASSES, *TEST_MODULES], builders=self.builders)
        super().start()

    def stop(self) -> None:
        """End the connection, and every process."""
        self._server.close()
        super().stop()

    def submit(self, job: Path) -> str:
        """Submit a job; its id."""
        return self._server.ask(lambda administrator: administrator.submit(job))

    def status(self, job_id: str) -> str:
        """What FLARE calls the job."""
        return str(self._server.ask(lambda administrator: administrator.job(job_id)).get("status", ""))

    def wait(self, job_id: str, timeout: float = 240.0) -> None:
        """Wait until FLARE calls the job finished, as whatever, or the time is over."""
        end = time.monotonic() + timeout
        while not self.status(job_id).startswith(FINISHED) and time.monotonic() < end:
            time.sleep(0.5)

    def result(self, job_id: str) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
        """Result, ledger and model path of a job."""
        folder = self.folder / "downloads"
        return read_run(self._server.ask(lambda administrator: administrator.download(job_id, folder)))

    def wait_for(self, what: Callable[[], object], seconds: float) -> None:
        """Wait until ``what()`` is true."""
        if not poc.wait_until(what, seconds):
            raise TimeoutError("it did not happen")
