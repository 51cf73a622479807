"""A study in FLARE's simulator with a process a site: seconds a round, memory of the server and of all, bytes."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import psutil
import torch

TESTS = Path(__file__).parents[1] / "flare"
sys.path.insert(0, str(TESTS))

N_ROUNDS = 8
CASES = 30
"""Of each site: so few that a round is all but messages and waiting."""
SITE_PROCESS = "simulator_worker"


@dataclass(frozen=True)
class SimulatedStudy:
    """What one study cost.

    Attributes:
        sites: processes beside the server's.
        seconds: from the start of each round to that of the next, but for the first.
        server_mb: peak of the resident memory of the server's process.
        all_mb: the same of all processes together.
        update_bytes: of one site's update as FLARE serialises it.
        load: of the machine before it began, FLARE's own processes not among it.
    """

    sites: int
    seconds: list[float]
    server_mb: float
    all_mb: float
    update_bytes: int
    load: float


def simulate_rounds(n_sites: int) -> SimulatedStudy:
    """Run a tiny perceptron over three features with ``n_sites``.

    Raises:
        RuntimeError: if the study did not complete, or left a site out of a round.
    """
    from small_site import make_root
    from tiny_study import allow_test_modules, export_tiny, tiny_spec

    from mhsev_flare.participation import RoundPolicy
    from mhsev_flare.result import read_run
    from mhsev_flare.simulator import prepare_workspace, run_simulator

    with tempfile.TemporaryDirectory() as temporary, test_modules():
        folder = Path(temporary)
        for number in range(1, n_sites + 1):
            make_root(folder / "cohort" / f"site-{number}", CASES, seed=number)
        spec = tiny_spec(num_rounds=N_ROUNDS, epochs=1, policy=RoundPolicy(min_sites=0))
        job, workspace = export_tiny(folder / "jobs", spec), folder / "workspace"
        prepare_workspace(workspace, folder / "cohort")
        allow_test_modules(workspace)
        load = os.getloadavg()[0]
        with Memory() as memory:
            run_simulator(job, workspace, n_sites=n_sites, threads=n_sites)
        result, ledger, model = read_run(workspace)
        trained = [row for row in ledger if row["anomalies"]]
        if result["status"] != "completed" or any(len(row["sites"]) != n_sites for row in trained):
            raise RuntimeError(f"the study of {n_sites} sites was {result['status']}: {result['reason']}")
        log = workspace.with_name(f"{workspace.name}-simulator.log").read_text(errors="replace")
        weights = torch.load(model, weights_only=True)["weights"]
        arrays = {key: value.numpy() for key, value in weights.items()}
        return SimulatedStudy(n_sites, round_seconds(log), memory.server, memory.all, update_size(arrays), load)


@contextlib.contextmanager
def test_modules() -> Iterator[None]:
    """Let FLARE's processes import the tests' classes."""
    known = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), known]))
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = known


def round_seconds(log: str) -> list[float]:
    """From FLARE's log: seconds between the starts of rounds, without the first, which waits for processes."""
    pattern = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}).*Sending task train to")
    starts = [datetime.strptime(t, "%Y-%m-%d %H:%M:%S,%f") for t in pattern.findall(log)]
    return [(after - before).total_seconds() for before, after in itertools.pairwise(starts[1:])]


def update_size(arrays: dict[str, np.ndarray]) -> int:
    """Bytes of an update of these arrays with what a site sends beside it."""
    from nvflare.apis.dxo import DXO, DataKind
    from nvflare.app_common.decomposers.numpy_decomposers import NumpyArrayDecomposer
    from nvflare.fuel.utils import fobs

    from mhsev_flare.protocol import BUFFERS, PROTOCOL_VERSION, Meta
    from mhsev_monai.metrics import SeverityTable

    fobs.register(NumpyArrayDecomposer)
    meta = {
        Meta.PROTOCOL: PROTOCOL_VERSION,
        Meta.FINGERPRINT: "0" * 64,
        Meta.BASE: "0" * 64,
        Meta.ROUND: 1,
        Meta.N_SAMPLES: 20,
        Meta.TABLE: SeverityTable.empty().to_json(),
        Meta.TRAIN_LOSS: 0.5,
        Meta.VALIDATION_LOSS: 0.5,
    }
    own = {key: value for key, value in arrays.items() if key not in BUFFERS}
    return len(fobs.dumps(DXO(DataKind.WEIGHT_DIFF, own, meta).to_shareable()))


class Memory:
    """Peak of the resident memory of this process' descendants, looked at twice a second, in MB."""

    def __init__(self) -> None:
        self.server = self.all = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            server, everything = 0.0, 0.0
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    size = process.memory_info().rss / 2**20
                    everything += size
                    if not any(SITE_PROCESS in word for word in process.cmdline()):
                        server = max(server, size)
            self.server, self.all = max(self.server, server), max(self.all, everything)
            time.sleep(0.5)


def section(studies: Sequence[SimulatedStudy]) -> list[str]:
    """The page's part, in Markdown."""
    numbers = " ".join(str(study.sites) for study in studies)
    lines = [
        "## By number of sites",
        "",
        f"`python tests/benchmarks/benchmark_federation.py --sites {numbers}`, one run.",
        "",
        "FLARE's simulator on one machine, a process a site, a perceptron over three features. Seconds from the start",
        f"of a round to that of the next, median of {N_ROUNDS - 2} rounds (lowest to highest). All processes share two",
        "cores, so each further site adds its own share. Load is the mean number of other processes at work in the",
        "minute before. Memory is resident, at its peak: of the server's process, and of all together. An update is as",
        "FOBS serialises it.",
        "",
        "| sites | s a round | load | server, MB | all processes, MB | an update, kB | received in a round, kB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for study in studies:
        seconds = sorted(study.seconds)
        size = study.update_bytes / 1e3
        lines.append(
            f"| {study.sites} | {np.median(seconds):.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f}) | {study.load:.0f} | "
            f"{study.server_mb:.0f} | {study.all_mb:.0f} | {size:.1f} | {size * study.sites:.0f} |"
        )
    return [*lines, ""]
