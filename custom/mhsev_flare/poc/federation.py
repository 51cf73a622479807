"""A POC federation from its beginning to its end: prepare, start, run jobs, stop, and leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from mhsev_flare.allowed_classes import ALLOWED_CLASSES
from mhsev_flare.poc import processes
from mhsev_flare.poc.administrator import Administrator, NoServerError
from mhsev_flare.poc.project import ADMIN, PROJECT, SERVER, free_port, is_free, poc_project
from mhsev_flare.provisioning import last_words
from mhsev_flare.simulator import nvflare_command
from mhsev_flare.site import SITE_FILE

STATE_FILE, STATE_SCHEMA = "poc.json", "mhsev-poc/1"
START_SECONDS = 180
STOP_SECONDS = 20
RESULTS = "results"
OWN_FOLDERS, OWN_FILES = ("home", "workspace", "jobs"), ("project.yml", STATE_FILE)
"""What a federation makes in its folder beside the results."""

CONSOLE = "poc_console.log"
"""What a participant prints; FLARE's own POC commands call it so."""

LEFT_OVERS = ("shutdown.fl", "restart.fl", "daemon_pid.fl", "pid.fl")
"""Marks of a stop, or of a process that was killed, by which FLARE's start script would not start another."""


class PocError(RuntimeError):
    """A step of POC mode that could not be done; the message says what to do."""


class PocFederation:
    """Server, sites and administrator as real processes on loopback, all of it in one folder.

    Home folder, FLARE workspace, job store and port are its own, so that several can run side by side and nothing of
    the user's FLARE configuration is touched.

    Args:
        folder: holds all of it.
        environment: further environment variables of its processes.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder.resolve()
        self._environment = dict(environment or {})

    @property
    def kits(self) -> Path:
        """Holds the startup kit of each participant."""
        return self.folder / "workspace" / PROJECT / "prod_00"

    @property
    def is_prepared(self) -> bool:
        """Whether the folder holds a federation, running or not."""
        return (self.folder / STATE_FILE).is_file()

    @property
    def sites(self) -> list[str]:
        """Names of the sites."""
        return list(self._state()["sites"])

    @property
    def port(self) -> int:
        """Of the server."""
        return int(self._state()["port"])

    def check(self) -> None:
        """Raise ``PocError`` unless the folder holds a federation of this version."""
        self._state()

    def prepare(
        self,
        data: Mapping[str, Path],
        port: int = 0,
        allow: Sequence[str] = ALLOWED_CLASSES,
        builders: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Provision kits with this package's site policy, and tell each site where its data lie.

        Args:
            data: folder of each site, by its name.
            port: of the server; 0 takes a free one.
            allow: classes that jobs may name beside FLARE's own; see ``SitePolicyBuilder``.
            builders: further builders of the provisioning.

        Raises:
            PocError: if the folder is in use, the port is taken, or FLARE's provisioning fails.
        """
        if self.is_prepared:
            raise PocError("there is a federation in this folder; end it first with `mhsev poc down`")
        others = sorted(path.name for path in self.folder.glob("*") if path.name != RESULTS)
        if others:
            raise PocError(
                f"the folder holds {', '.join(others[:3])}; name a new one, or one with nothing but {RESULTS}"
            )
        if port and not is_free(port):
            raise PocError(f"port {port} is in use; name another with --port, or leave it out to take a free one")
        # The keys of all participants and of their root lie in it.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        try:
            self._prepare(data, port or free_port(), allow, builders)
        except BaseException:
            self.remove()
            raise

    def _prepare(
        self, data: Mapping[str, Path], port: int, allow: Sequence[str], builders: Sequence[Mapping[str, Any]]
    ) -> None:
        (self.folder / "home").mkdir()
        sites = list(data)
        state = {"schema": STATE_SCHEMA, "sites": sites, "port": port}
        # First of all, so that a call that is cut off can be cleared away with `down`.
        (self.folder / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n")
        project = self.folder / "project.yml"
        # JSON is YAML.
        project.write_text(json.dumps(poc_project(sites, port, allow, builders), indent=1))
        said = self.flare("poc", "prepare", "-i", str(project), "--force")
        if not (self.kits / SERVER / "startup").is_dir():
            raise PocError(f"FLARE did not make the startup kits: {last_words(said)}")
        for site, root in data.items():
            own = {"data_root": str(root.resolve())}
            (self.kits / site / "local" / SITE_FILE).write_text(json.dumps(own, indent=1) + "\n")

    def start(self) -> None:
        """Start what does not run, and wait until every site is registered.

        Raises:
            PocError: if a site is not registered in time.
        """
        for name in (SERVER, *self.sites):
            if not self.processes(name) and not self.watchdogs(name):
                self._start_kit(name)
        self.wait_for_sites()

    def _start_kit(self, name: str) -> None:
        kit = self.kits / name
        for mark in LEFT_OVERS:
            (kit / mark).unlink(missing_ok=True)
        with (kit / CONSOLE).open("ab") as console:
            self._run(
                self.start_command(name),
                cwd=kit,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=True,
            )

    def start_command(self, name: str) -> list[str]:
        """What starts a participant's watchdog, and returns."""
        return ["bash", str(self.kits / name / "startup" / "start.sh")]

    def wait_for_sites(self, seconds: float = START_SECONDS) -> None:
        """Wait until every site is registered at the server: a job does not reach one that comes later.

        Raises:
            PocError: if one is not, in time.
        """
        present: list[str] = []

        def all_there() -> bool:
            present[:] = self.registered()
            return set(present) >= set(self.sites)

        if not processes.wait_until(all_there, seconds, step=1.0):
            late = sorted(set(self.sites) - set(present))
            raise PocError(f"{', '.join(late)} did not register in {seconds:.0f} s; see `mhsev poc logs {late[0]}`")

    def registered(self) -> list[str]:
        """Sites that the server knows now; none where it does not answer."""
        try:
            with self.administrator(seconds=5.0) as administrator:
                return administrator.sites()
        except NoServerError:
            return []

    def administrator(self, seconds: float = 10.0) -> Administrator:
        """A connection as the project's administrator."""
        return Administrator(self.kits / ADMIN, ADMIN, seconds)

    def processes(self, participant: str, job_id: str = "") -> list[psutil.Process]:
        """Running processes of a participant and, where one is given, of a job."""
        return processes.participant_processes(self.folder, self.kits / participant, job_id)

    def watchdogs(self, participant: str) -> list[psutil.Process]:
        """The shells that start a participant again when it ends."""
        return processes.watchdogs(self.folder, self.kits / participant)

    def flare(self, *arguments: str, timeout: float = 300.0) -> str:
        """Run a command of FLARE's in this federation's environment; what it printed."""
        done = self._run([*nvflare_command(), *arguments], capture_output=True, text=True, timeout=timeout)
        return str(done.stdout + done.stderr)

    def _run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        try:
            return subprocess.run(command, env=self.environment(), stdin=subprocess.DEVNULL, **options)
        except (subprocess.SubprocessError, OSError) as error:
            raise PocError(f"{Path(command[0]).name} could not be run ({type(error).__name__})") from error

    def environment(self) -> dict[str, str]:
        """Of all processes of this federation."""
        # What the user has set for sites of another federation would be theirs too.
        users = {name: value for name, value in os.environ.items() if not name.startswith("MHSEV_")}
        return {
            **users,
            **self._environment,
            "HOME": str(self.folder / "home"),
            "NVFLARE_POC_WORKSPACE": str(self.folder / "workspace"),
            "NVFLARE_SECURE_LOGGING": "1",
            "MHSEV_PYTHON": sys.executable,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            processes.MARK: str(self.folder),
        }

    def down(self, keep: bool = False) -> list[str]:
        """Stop, and remove what is not kept; also what a call that was cut off left behind.

        Returns:
            Names of what is left in the folder.

        Raises:
            PocError: if the folder holds no federation, or a process survives.
        """
        self._state()
        self.stop()
        if not keep:
            self.remove()
        return sorted(path.name for path in self.folder.glob("*"))

    def stop(self) -> None:
        """End every process, also where FLARE's own stop cannot, as with a job that a crash left behind.

        Raises:
            PocError: if one survives.
        """
        for kit in self.kits.glob("*"):
            if (kit / "startup").is_dir():
                (kit / "shutdown.fl").touch()
        gone = processes.wait_until(lambda: not processes.federation_processes(self.folder), STOP_SECONDS)
        if not gone:
            processes.end(processes.federation_processes(self.folder))
        left = processes.federation_processes(self.folder)
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            raise PocError(f"processes {pids} cannot be ended; end them, and call `mhsev poc down` again")

    def remove(self) -> None:
        """Delete what was made here but results: kits, keys, job store, logs. The processes must have ended."""
        for name in OWN_FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in OWN_FILES:
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _state(self) -> dict[str, Any]:
        path = self.folder / STATE_FILE
        if not path.is_file():
            raise PocError("there is no POC federation in this folder; begin one with `mhsev poc up`")
        try:
            stored = json.loads(path.read_text())
        except ValueError:
            stored = None
        if not isinstance(stored, dict) or stored.get("schema") != STATE_SCHEMA:
            raise PocError(f"{STATE_FILE} is not of this version ({STATE_SCHEMA}); use the version that made it")
        return dict(stored)
