"""A study that costs nothing to compute, with FLARE's own processes: three sites of vectors, a small MLP."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvflare.job_config.api import FedJob
from small_site import NumbersInFile, make_root

from mhsev_flare.job_spec import JobSpec
from mhsev_flare.jobs import INSTALLED_PACKAGES, JOBS, severity_job
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.result import read_run
from mhsev_flare.simulator import prepare_workspace, run_simulator
from mhsev_monai.networks import SeverityMLP

SITES = ("site-1", "site-2", "site-3")
TEST_MODULES = ("small_site.", "faulty_sites.")


def make_sites(folder: Path, sizes: tuple[int, ...] = (40, 30, 24)) -> Path:
    """One BIDS root a site under ``folder``."""
    for number, (site, n) in enumerate(zip(SITES, sizes, strict=True)):
        make_root(folder / site, n, seed=number)
    return folder


def tiny_spec(**changes: Any) -> JobSpec:
    """A job over three numbers a case."""
    network = SeverityMLP(in_features=3, hidden_features=[8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=3)
    spec = dataclasses.replace(
        JOBS["dsd_mlp_literal"],
        name="tiny",
        inputs=NumbersInFile(),
        network=network,
        num_rounds=4,
        epochs=2,
        site_models=False,
        policy=RoundPolicy(min_sites=2, grace_seconds=5.0),
    )
    return dataclasses.replace(spec, **changes)


def export_tiny(
    folder: Path,
    spec: JobSpec,
    faults: dict[str, list[dict[str, Any]]] | None = None,
    make: Callable[[JobSpec], FedJob] = severity_job,
) -> Path:
    """Write the job; with faults, its executor is the faulty one."""
    made = make(spec)
    made.set_app_packages([*INSTALLED_PACKAGES, *(module.rstrip(".") for module in TEST_MODULES)])
    made.export_job(str(folder))
    job = folder / spec.name
    if faults:
        for path in job.rglob("config_fed_client.json"):
            config = json.loads(path.read_text())
            for entry in config["executors"]:
                entry["executor"]["path"] = "faulty_sites.FaultySite"
                entry["executor"]["args"]["faults"] = faults
            path.write_text(json.dumps(config))
    return job


def allow_test_modules(workspace: Path) -> None:
    """Let a prepared simulator workspace load the classes of these tests."""
    path = workspace / "local" / "resources.json"
    resources = json.loads(path.read_text())
    resources["class_allow_list"] += TEST_MODULES
    path.write_text(json.dumps(resources))


def simulate(
    folder: Path, cohort: Path, spec: JobSpec, faults: dict[str, list[dict[str, Any]]] | None = None, **options: Any
) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    """Run the job in FLARE's simulator with a process a site; result, ledger and model path."""
    job, workspace = export_tiny(folder / "jobs", spec, faults), folder / "workspace"
    prepare_workspace(workspace, cohort)
    allow_test_modules(workspace)
    here = str(Path(__file__).parent)
    known = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, known]))
    try:
        run_simulator(job, workspace, n_sites=len(SITES), threads=len(SITES), **options)
    finally:
        os.environ["PYTHONPATH"] = known
    return read_run(workspace)
