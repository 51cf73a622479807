"""Checks of the machine: folders that are written, disk, memory, cores, GPU."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import torch

from mhsev_flare.progress import cores
from mhsev_flare.site_check.facts import SiteFacts, existing_folder
from mhsev_flare.site_check.report import FAIL, OK, SKIP, WARN, Finding
from mhsev_flare.site_data import SiteError
from mhsev_flare.site_policy import PolicyError
from mhsev_monai.errors import CohortError
from mhsev_monai.volume_network import SeverityCNN3d

GB = 1e9
BYTES_A_SCAN = 2_000_000
"""Of features a scan and input; files of 0.02 to 1.2 MB were measured over the shipped jobs."""
BYTES_OF_RUNS = 1_000_000_000
"""For FLARE's run folders and logs in the kit."""
LEAST_MEMORY, GOOD_MEMORY = 1.0e9, 2.0e9
"""Computing the features of one simulated scan took 0.5 to 0.7 GB at its peak, by ``ru_maxrss`` of its process."""


def check_cache(facts: SiteFacts) -> Finding:
    """Whether features can be written."""
    try:
        cache = facts.folders.cache_root
    except (SiteError, PolicyError):
        return Finding(SKIP, "cache", "without a data root there is no folder for features")
    return _writable("cache", cache, "mhsev site-config KIT --cache DIR, with a folder that can be written")


def check_kit_writable(facts: SiteFacts) -> Finding:
    """Whether FLARE can write its runs and logs into the kit."""
    return _writable("kit folder", facts.kit.folder, "let the account that runs the site write there")


def _writable(check: str, folder: Path, remedy: str) -> Finding:
    nearest = existing_folder(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".mhsev-"):
            pass
    except OSError as error:
        return Finding(FAIL, check, f"{folder} cannot be written ({type(error).__name__})", remedy)
    return Finding(OK, check, f"{folder} can be {'written' if nearest == folder else 'made'}")


def check_disk(facts: SiteFacts) -> Finding:
    """Whether there is room for features and runs."""
    try:
        folder, n = facts.folders.cache_root, len(facts.cases.cases)
    except (SiteError, PolicyError, CohortError, OSError):
        folder, n = facts.kit.folder, 0
    needed = n * len(facts.spec.all_inputs) * BYTES_A_SCAN
    found = []
    for what, place, least in (("features", folder, needed), ("runs", facts.kit.folder, BYTES_OF_RUNS)):
        free = shutil.disk_usage(existing_folder(place)).free
        found.append(f"{free / GB:.1f} GB free for {what}, up to {least / GB:.1f} GB needed")
        if free < least:
            return Finding(
                FAIL, "disk", found[-1], "make room, or name another folder with `mhsev site-config --cache`"
            )
    return Finding(OK, "disk", "; ".join(found))


def check_memory(facts: SiteFacts) -> Finding:  # noqa: ARG001
    """Whether a scan's features can be computed in the memory that is left."""
    available = psutil.virtual_memory().available
    found = f"{available / GB:.1f} GB available, {GOOD_MEMORY / GB:.0f} GB wanted"
    if available < LEAST_MEMORY:
        return Finding(FAIL, "memory", found, "end other programs, or take another machine")
    if available < GOOD_MEMORY:
        return Finding(WARN, "memory", found, "compute the features before, with `mhsev features --workers 1`")
    return Finding(OK, "memory", found)


def check_cores(facts: SiteFacts) -> Finding:  # noqa: ARG001
    """How many cores there are, and how busy they are."""
    n, load = cores(), os.getloadavg()[1]
    found = f"{n}, load {load:.1f} over 5 minutes"
    if load > 2 * n:
        return Finding(WARN, "cores", found, "rounds will take longer than at other sites; end what else runs")
    return Finding(OK, "cores", found)


def check_gpu(facts: SiteFacts) -> Finding:
    """The GPU, and whether the job gains from one."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found = f"{torch.cuda.get_device_name()}, {free / GB:.1f} of {total / GB:.1f} GB free"
        return Finding(OK, "GPU", found)
    if isinstance(facts.spec.network, SeverityCNN3d):
        remedy = "install a PyTorch that fits the driver, or count on the CPU"
        return Finding(WARN, "GPU", f"none that PyTorch sees; {facts.spec.name} trains a 3-D network", remedy)
    return Finding(OK, "GPU", f"none that PyTorch sees, and {facts.spec.name} needs none")
