"""What a round costs: over FLARE's processes, against FLARE's defaults; and at the server, with up to 100 sites.

Writes ``docs/benchmarks/federation.md``. Run by ``python tests/benchmarks/benchmark_federation.py``; about ten minutes.
With ``--sites 3 10`` only the part by number of sites is measured, and put in the place of the page's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import nvflare

sys.path.insert(0, str(Path(__file__).parents[1] / "flare"))

N_ROUNDS = 15
N_PARAMETERS = 1_000_000
SITES = (3, 10, 30, 100)
RULES = ("mean", "clip", "median")
SCALE_ROUNDS = 3
SIMULATED = (3, 10)
AT_THE_SERVER = "## At the server\n"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "federation.md"


def main() -> None:
    """Measure all, and write the page."""
    options = parse()
    if options.server:
        print(json.dumps(server_cost(options.server[0], int(options.server[1]))))
        return
    if options.sites:
        replace_section(simulated_section(options.sites))
        return
    ours, flares = round_seconds()
    rows = [cost_in_its_own_process(rule, n) for rule in RULES for n in SITES]
    PAGE.write_text(page(ours, flares, simulated_section(SIMULATED), rows))
    print(f"wrote {PAGE}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", metavar="N", help="measure the part by number of sites alone")
    # What the whole benchmark calls itself with, so that a rule's memory is measured in a process of its own.
    parser.add_argument("--server", nargs=2, metavar=("RULE", "N"), help=argparse.SUPPRESS)
    return parser.parse_args()


def simulated_section(sites: Sequence[int]) -> list[str]:
    """The part by number of sites, in FLARE's simulator."""
    from simulated_rounds import section, simulate_rounds

    studies = []
    for n in sites:
        print(f"simulating {n} sites", file=sys.stderr, flush=True)
        studies.append(simulate_rounds(n))
    return section(studies)


def replace_section(lines: list[str]) -> None:
    """Put the part by number of sites before the one about the server, in the place of the one that was there."""
    before, after = PAGE.read_text().split(AT_THE_SERVER)
    before = before.split(lines[0])[0]
    PAGE.write_text(before + "\n".join(lines) + "\n" + AT_THE_SERVER + after)
    print(f"wrote {PAGE}")


def round_seconds() -> tuple[list[float], list[float]]:
    """Seconds from one round's start to the next in POC mode: this package's job, and FLARE's numpy job."""
    from poc_federation import PocFederation
    from tiny_study import export_tiny, make_sites, tiny_spec

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        poc = PocFederation(folder / "poc", make_sites(folder / "cohort"))
        try:
            poc.start()
            own = export_tiny(folder / "own", tiny_spec(num_rounds=N_ROUNDS, epochs=1))
            return measure(poc, own), measure(poc, export_flares(folder / "flare"))
        finally:
            poc.stop()


def measure(poc: Any, job: Path) -> list[float]:
    """Seconds of each round but the first, which waits for processes."""
    print(f"running {job.name}", file=sys.stderr, flush=True)
    job_id = poc.submit(job)
    poc.wait(job_id, 400)
    poc.flare("job", "download", job_id, "-o", str(poc.folder / "downloads"))
    logs = [p.read_text() for p in (poc.folder / "downloads" / job_id).rglob("log.txt")]
    sending = re.compile(r"\d{4}-.*Sending task train to")
    starts = sorted({line for log in logs for line in log.splitlines() if sending.match(line)})
    times = [datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f") for line in starts]
    return [(after - before).total_seconds() for before, after in itertools.pairwise(times[1:])]


def export_flares(folder: Path) -> Path:
    """FLARE's FedAvg with its own trainer that adds a number to an array, all settings its defaults."""
    from nvflare.app_common.np.np_model_persistor import NPModelPersistor
    from nvflare.app_common.np.np_trainer import NPTrainer
    from nvflare.app_common.workflows.fedavg import FedAvg
    from nvflare.job_config.api import FedJob

    job = FedJob(name="flares_numpy", min_clients=3)
    persistor = job.to_server(NPModelPersistor(), id="persistor")
    job.to_server(FedAvg(num_clients=3, num_rounds=N_ROUNDS, persistor_id=persistor))
    job.to_clients(NPTrainer())
    job.set_app_packages(["nvflare", "numpy"])
    job.export_job(str(folder))
    return folder / "flares_numpy"


def cost_in_its_own_process(rule: str, n_sites: int) -> dict[str, Any]:
    """``server_cost`` in a process of its own, whose peak memory then is its own."""
    print(f"{rule}, {n_sites} sites", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--server", rule, str(n_sites)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def server_cost(rule: str, n_sites: int) -> dict[str, Any]:
    """Seconds and peak memory of the aggregator over ``SCALE_ROUNDS`` rounds of ``n_sites`` serialised updates."""
    from nvflare.app_common.decomposers.numpy_decomposers import NumpyArrayDecomposer
    from nvflare.app_common.utils.fl_model_utils import FLModelUtils
    from nvflare.fuel.utils import fobs

    from mhsev_flare.aggregator import SeverityAggregator
    from mhsev_flare.gates import ExpectedUpdate

    fobs.register(NumpyArrayDecomposer)
    aggregator = SeverityAggregator(rule=rule, tolerated=1 if rule == "median" else 0)
    aggregator.expect(ExpectedUpdate({"weight": (N_PARAMETERS,)}, "f"))
    before = memory_mb("VmRSS")
    seconds, n_bytes = [], 0
    for round_number in range(SCALE_ROUNDS):
        aggregator.reset_stats()
        spent = 0.0
        for message in messages(n_sites, round_number):
            n_bytes += len(message)
            begun = time.process_time()
            model = FLModelUtils.from_shareable(fobs.loads(message))
            model.meta["client_name"] = model.meta.pop("site")
            aggregator.accept_model(model)
            spent += time.process_time() - begun
        begun = time.process_time()
        aggregator.aggregate_model()
        seconds.append(spent + time.process_time() - begun)
    return {
        "rule": rule,
        "sites": n_sites,
        "seconds": statistics.median(seconds),
        "peak_mb": memory_mb("VmHWM") - before,
        "bytes": n_bytes / SCALE_ROUNDS,
    }


def memory_mb(entry: str) -> float:
    """Memory of this process by its name in Linux's ``/proc``; unlike ``getrusage``, none of the parent's."""
    status = Path("/proc/self/status").read_text()
    return float(re.search(rf"{entry}:\s+(\d+) kB", status).group(1)) / 1024  # type: ignore[union-attr]


def messages(n_sites: int, round_number: int) -> Iterator[bytes]:
    """One serialised update a site, made when it is asked for."""
    from nvflare.apis.dxo import DXO, DataKind
    from nvflare.fuel.utils import fobs

    from mhsev_flare.protocol import PROTOCOL_VERSION, Meta
    from mhsev_monai.metrics import SeverityTable

    common = np.random.default_rng(round_number).normal(size=N_PARAMETERS).astype(np.float32)
    for site in range(n_sites):
        own = np.random.default_rng([site, round_number]).normal(size=N_PARAMETERS).astype(np.float32)
        meta = {
            "site": f"site-{site:03d}",
            Meta.PROTOCOL: PROTOCOL_VERSION,
            Meta.FINGERPRINT: "f",
            Meta.N_SAMPLES: 100,
            Meta.TABLE: SeverityTable.empty().to_json(),
            Meta.TRAIN_LOSS: 0.5,
            Meta.VALIDATION_LOSS: 0.5,
        }
        yield fobs.dumps(DXO(DataKind.WEIGHT_DIFF, {"weight": common + own}, meta).to_shareable())


def page(ours: list[float], flares: list[float], by_sites: list[str], rows: list[dict[str, Any]]) -> str:
    """The page, in Markdown."""
    lines = [
        "# What a round costs",
        "",
        f"`python tests/benchmarks/benchmark_federation.py`, NVIDIA FLARE {nvflare.__version__}, two cores, one run.",
        "",
        "## Over FLARE's processes",
        "",
        "POC mode on one machine: a server and three sites. Seconds from the start of a round to that of the next,",
        f"median of {len(ours)} rounds (lowest to highest). The model is tiny, so nearly all of it is waiting and",
        "messages. FLARE's numpy job has FLARE's FedAvg and trainer with all settings at their defaults; its sites ask",
        "for work every two seconds, ours ten times a second.",
        "",
        "| job | s a round |",
        "| --- | --- |",
        f"| a perceptron over three features, `SeverityFedAvg` | {shown(ours)} |",
        f"| FLARE's numpy job | {shown(flares)} |",
        "",
        *by_sites,
        AT_THE_SERVER,
        f"Updates of {N_PARAMETERS:,} float32 parameters, serialised by FLARE's FOBS, taken in, checked and combined",
        "by `SeverityAggregator` in one process, one after the other. Seconds are of processor time, median of",
        f"{SCALE_ROUNDS} rounds; memory is the peak above that of the process before the first update.",
        "",
        "| rule | sites | s a round | ms a site | peak, MB | received, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{row['rule']}` | {row['sites']} | {row['seconds']:.2f} | {1e3 * row['seconds'] / row['sites']:.0f} | "
        f"{row['peak_mb']:.0f} | {row['bytes'] / 1e6:.0f} |"
        for row in rows
    ]
    lines += [
        "",
        "`mean` is reduced as updates arrive. Every other rule compares updates, so it keeps those of a round.",
        "",
    ]
    return "\n".join(lines)


def shown(seconds: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
