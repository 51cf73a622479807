"""A job from its submission to its result: rounds as they end, and an end also where FLARE sees none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mhsev_flare.poc.administrator import FINISHED, Administrator, NoServerError
from mhsev_flare.poc.federation import RESULTS, PocError, PocFederation
from mhsev_flare.poc.processes import federation_processes, resident_bytes
from mhsev_flare.poc.project import SERVER
from mhsev_flare.protocol import LEDGER_FILE, RUN_FOLDER

LOST_AFTER = 150.0
"""Seconds without a process of the job at the server after which it is lost, whatever FLARE calls it.

FLARE waits as long as its heart beat, a minute, for the outcome of a site that is gone, and packs the results then."""

ANSWER_SECONDS = 120.0
"""How long a server that is started again by its watchdog may be silent."""

POLL_SECONDS = 1.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class JobEnd:
    """How a job ended.

    Attributes:
        job_id: FLARE's.
        status: FLARE's, which does not tell whether the study came to its end: read the result.
        folder: what the job left at the server, downloaded.
        most_bytes: highest resident memory of all processes together that was seen on the way.
    """

    job_id: str
    status: str
    folder: Path
    most_bytes: int


def run_job(
    federation: PocFederation,
    job: Path,
    on_row: Callable[[Mapping[str, Any]], None] = lambda row: None,
    on_start: Callable[[str], None] = lambda job_id: None,
) -> JobEnd:
    """Submit a job, report its rounds, and fetch its result.

    Args:
        federation: that runs, with all its sites.
        job: folder of an exported job.
        on_row: called with each row of the ledger.
        on_start: called with the job's id.

    Raises:
        PocError: if the server does not take it, or the job is lost.
    """
    federation.wait_for_sites()
    server = PatientAdministrator(federation)
    try:
        job_id = server.ask(lambda administrator: administrator.submit(job))
        on_start(job_id)
        follower = JobFollower(federation, server, job_id)
        try:
            for row in follower.rows():
                on_row(row)
        except (KeyboardInterrupt, SystemExit):
            # Left alone it would run on, and a second one of the same study would drop its checkpoints.
            server.ask(lambda administrator: administrator.abort(job_id))
            raise
        folder = server.ask(lambda administrator: administrator.download(job_id, federation.folder / RESULTS))
    finally:
        server.close()
    return JobEnd(job_id, follower.status, folder, follower.most_bytes)


@dataclass
class JobFollower:
    """Follows one job until it has ended.

    Attributes:
        federation: where it runs.
        server: who is asked.
        job_id: FLARE's.
        status: the last that FLARE told.
        most_bytes: highest resident memory of all processes together so far.
    """

    federation: PocFederation
    server: PatientAdministrator
    job_id: str
    status: str = ""
    most_bytes: int = 0

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows of the ledger, each as soon as it is written; ends with the job.

        Raises:
            PocError: if the job is lost or the server gone.
        """
        seen, alive_at = 0, time.monotonic()
        while not self.status.startswith(FINISHED):
            yield from (new := self._new_rows(seen))
            seen += len(new)
            self.most_bytes = max(self.most_bytes, resident_bytes(federation_processes(self.federation.folder)))
            if self.federation.processes(SERVER, self.job_id) or self.status in ("", "SUBMITTED", "DISPATCHED"):
                alive_at = time.monotonic()
            if time.monotonic() - alive_at > LOST_AFTER:
                raise PocError(f"job {self.job_id}, {self.status}, has no process left; run it again with --resume")
            time.sleep(POLL_SECONDS)
            self._ask()
        yield from self._new_rows(seen)

    def _ask(self) -> None:
        self.status = str(self.server.ask(lambda administrator: administrator.job(self.job_id)).get("status", ""))

    def _new_rows(self, seen: int) -> list[dict[str, Any]]:
        # The ledger is replaced whole at each round, so what is there is never half a line.
        path = self.federation.kits / SERVER / self.job_id / RUN_FOLDER / LEDGER_FILE
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:  # not yet, or no more
            return []
        return [json.loads(line) for line in lines[seen:]]


@dataclass
class PatientAdministrator:
    """An administrator whose connection is made anew while a watchdog starts the server again.

    Attributes:
        federation: whose server is asked.
    """

    federation: PocFederation
    _connected: Administrator | None = None

    def ask(self, question: Callable[[Administrator], Answer]) -> Answer:
        """What ``question`` makes of a connection.

        Raises:
            PocError: if the server stays silent.
        """
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                self._connected = self._connected or self.federation.administrator()
                return question(self._connected)
            except NoServerError as error:
                self.close()
                if time.monotonic() > end:
                    raise PocError(f"{error}; see `mhsev poc logs server`") from error
            time.sleep(2)

    def close(self) -> None:
        """End the connection, whose threads would keep this process from ending."""
        if self._connected is not None:
            self._connected.close()
        self._connected = None
