"""What a row costs beside its training: bytes between sites and server, and seconds to grade one scan."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import torch

from mhsev_flare.benchmark.rows import Row
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.protocol import BUFFERS
from mhsev_monai.cases import read_cases
from mhsev_monai.errors import ScanError
from mhsev_monai.networks import predict_severity


def bytes_exchanged(row: Row, n_sites: int) -> int | None:
    """Of the weights in a federated training: the model to each site and its difference back, each round; None: no job.

    The last model goes out once more to be validated, the best one to be tested. Tables of counts and sums for the
    standardisation, some kilobytes, come on top, and what FLARE writes around them.
    """
    if not isinstance(row.method, JobSpec):
        return None
    state = row.method.network.state_dict()
    down = sum(value.numel() * value.element_size() for value in state.values())
    up = sum(value.numel() * value.element_size() for key, value in state.items() if key not in BUFFERS)
    return n_sites * (row.method.num_rounds * (down + up) + 2 * down)


def seconds_per_scan(row: Row, folder: Path, n_scans: int = 2) -> float | None:
    """From the files of a scan to its grade, on one thread: the fewest seconds of the first few usable scans.

    Args:
        row: its network is as it was initialised, which costs the same.
        folder: of the cohort.
        n_scans: scans to time; the first one may also compile kernels.
    """
    roots = sorted(path.parent for path in folder.glob("*/participants.tsv"))
    seconds: list[float] = []
    for case in read_cases(roots[0]).cases:
        if len(seconds) == n_scans:
            break
        start = time.perf_counter()
        try:
            features = torch.from_numpy(row.inputs.assemble(row.inputs(case)))[None]
        except ScanError:
            continue
        if isinstance(row.method, JobSpec):
            predict_severity(copy.deepcopy(row.method.network), features, row.scale)
        seconds.append(time.perf_counter() - start)
    return min(seconds, default=None)
