"""What runs in a POC federation, at a glance: participants, memory, jobs, and the round that each has reached."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhsev_flare.poc.administrator import FINISHED, NoServerError
from mhsev_flare.poc.federation import PocFederation
from mhsev_flare.poc.processes import is_job_process, resident_bytes
from mhsev_flare.poc.project import SERVER
from mhsev_flare.protocol import LEDGER_FILE, RUN_FOLDER
from mhsev_flare.rounds import round_line

SHOWN_JOBS = 10


@dataclass(frozen=True)
class ParticipantRow:
    """One participant: ``n_jobs`` of its ``pids`` run a job; ``registered`` is None for the server."""

    name: str
    pids: tuple[int, ...]
    n_jobs: int
    megabytes: int
    registered: bool | None


@dataclass(frozen=True)
class JobRow:
    """One job; ``reached`` is the last row of its ledger in words, empty once the job has ended."""

    job_id: str
    name: str
    status: str
    reached: str


@dataclass(frozen=True)
class Overview:
    """All of it; ``answers`` tells whether the server does."""

    port: int
    answers: bool
    participants: tuple[ParticipantRow, ...]
    jobs: tuple[JobRow, ...]

    @property
    def is_up(self) -> bool:
        """Whether the server answers and every site is registered."""
        return self.answers and all(row.registered is not False for row in self.participants)


def look(federation: PocFederation) -> Overview:
    """What runs now.

    Raises:
        PocError: if the folder holds no federation.
    """
    registered: Sequence[str] = ()
    jobs: Sequence[Mapping[str, Any]] = ()
    answers = bool(federation.processes(SERVER))
    if answers:
        try:
            with federation.administrator(seconds=5.0) as administrator:
                registered, jobs = administrator.sites(), administrator.jobs()
        except NoServerError:
            answers = False
    names = (SERVER, *federation.sites)
    return Overview(
        port=federation.port,
        answers=answers,
        participants=tuple(_participant(federation, name, registered) for name in names),
        jobs=tuple(_job(federation.kits / SERVER, job) for job in jobs[:SHOWN_JOBS]),
    )


def _participant(federation: PocFederation, name: str, registered: Sequence[str]) -> ParticipantRow:
    own = federation.processes(name)
    return ParticipantRow(
        name=name,
        pids=tuple(process.pid for process in own),
        n_jobs=sum(is_job_process(process) for process in own),
        megabytes=resident_bytes(own) // 2**20,
        registered=None if name == SERVER else name in registered,
    )


def _job(server_kit: Path, job: Mapping[str, Any]) -> JobRow:
    job_id, status = str(job.get("job_id", "")), str(job.get("status", ""))
    path = server_kit / job_id / RUN_FOLDER / LEDGER_FILE
    running = path.is_file() and not status.startswith(FINISHED)
    rows = path.read_text().splitlines() if running else []
    return JobRow(job_id, str(job.get("job_name", "")), status, round_line(json.loads(rows[-1])) if rows else "")


def describe(overview: Overview) -> str:
    """One fact a line, for the terminal."""
    lines = [f"server         localhost:{overview.port}   {'answers' if overview.answers else 'does not answer'}"]
    for row in overview.participants:
        what = "not running" if not row.pids else f"{row.megabytes} MB, {row.n_jobs} jobs, pids {_listed(row.pids)}"
        joined = "" if row.registered is None else "   registered" if row.registered else "   not registered"
        lines.append(f"{row.name:<14} {what}{joined}")
    lines += [f"{job.status:<22} {job.name}   {job.job_id}   {job.reached}".rstrip() for job in overview.jobs]
    return "\n".join(lines if overview.jobs else [*lines, "no jobs"])


def _listed(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
