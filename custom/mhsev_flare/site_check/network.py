"""The check of the connection: FLARE's own preflight check as a child process."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Sequence

import psutil

from mhsev_flare.simulator import nvflare_command
from mhsev_flare.site_check.facts import SiteFacts
from mhsev_flare.site_check.report import FAIL, OK, SKIP, WARN, Finding

SECONDS = 60
"""FLARE waits 10 s for a connection and lets the site run for 5 s; a slow machine needs 20 s to start Python."""

_ROW = re.compile(r"^\|\s*(?P<check>[A-Z][^|]*?)\s*\|\s*(?P<problem>[^|]*?)\s*\|\s*(?P<fix>[^|]*?)\s*\|\s*$")


def check_server(facts: SiteFacts, network: bool = True) -> Finding:
    """Whether the server answers, and the site can be started.

    FLARE's preflight check starts the site for five seconds where the server answers. It is left out for a site that
    runs, whose place the second process would take.
    """
    target = server_target(facts)
    if not network:
        return Finding(SKIP, "server", f"{target} was not tried (--no-network)")
    running = facts.processes()
    if running:
        return Finding(SKIP, "server", f"{target} was not tried: this site runs already, process {running[0].pid}")
    command = [*nvflare_command(), "preflight-check", "-p", str(facts.kit.folder)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        # FLARE starts the site in a session of its own, which outlives its check. None ran before, so it is that one.
        _end(facts.processes())
        return Finding(WARN, "server", f"FLARE's check of {target} had not ended after {SECONDS} s", "try it again")
    except OSError as error:
        remedy = "install nvflare beside this Python"
        return Finding(FAIL, "server", f"nvflare cannot be started ({type(error).__name__})", remedy)
    return server_finding(done.stdout, done.returncode, target)


def _end(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def server_finding(said: str, returncode: int, target: str) -> Finding:
    """A sentence of what FLARE's table says.

    Args:
        said: output of ``nvflare preflight-check``.
        returncode: its exit status.
        target: host and port of the server.
    """
    rows = [match.groupdict() for line in said.splitlines() if (match := _ROW.match(line))]
    rows = [row for row in rows if row["check"] != "Checks"]
    bad = next((row for row in rows if row["problem"] != "PASSED"), None)
    if bad is not None and bad["check"] == "Check server available":
        remedy = f"ask whether the server runs, and let this machine reach {target} (outgoing, one port)"
        return Finding(FAIL, "server", f"{target} does not answer", remedy)
    if bad is not None:
        problem = bad["problem"].rstrip(".")
        return Finding(FAIL, "server", f"{target} answers, but: {problem}", "see `nvflare preflight-check -p KIT`")
    if returncode or not rows:
        found = f"FLARE's check ended with status {returncode} and {len(rows)} results"
        return Finding(FAIL, "server", found, "see `nvflare preflight-check -p KIT`")
    return Finding(OK, "server", f"{target} answers, and the site can be started")


def server_target(facts: SiteFacts) -> str:
    """Host and port of the server, as the kit names them."""
    try:
        stored = json.loads((facts.kit.startup / "fed_client.json").read_text())
        return str(stored["servers"][0]["service"]["target"])
    except (OSError, ValueError, LookupError, TypeError):
        return "the server"
