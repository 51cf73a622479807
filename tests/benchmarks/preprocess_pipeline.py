"""The preprocessing of one scan in a process of its own, which prints its time and its peak memory.

Usage: ``preprocess_pipeline.py SCAN.npz`` with float32 arrays ``b0`` and ``trace`` ``(X, Y, Z)`` and ``spacing`` in mm.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose

from mhsev_monai.preprocess import DWIBrainMaskd, N4BiasFieldCorrectiond, ZScoreInMaskd


def peak_mib() -> float:
    """Greatest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count what the parent held when it forked.
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text()).group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Mask, field and z-scores of b0 and trace, once."""
    torch.set_num_threads(1)
    with np.load(sys.argv[1]) as scan:
        affine = torch.diag(torch.tensor([*scan["spacing"], 1.0]))
        data = {key: MetaTensor(torch.from_numpy(scan[key][None]), affine=affine) for key in ("b0", "trace")}
    steps = Compose(
        [
            DWIBrainMaskd(),
            N4BiasFieldCorrectiond(keys=["b0", "trace"], reference_key="b0"),
            ZScoreInMaskd(keys=["b0", "trace"]),
        ]
    )
    before = peak_mib()
    wall, processor = time.perf_counter(), time.process_time()
    done = steps(data)
    result = {
        "wall_s": time.perf_counter() - wall,
        "processor_s": time.process_time() - processor,
        "imports_mib": before,
        "peak_mib": peak_mib(),
        "brain_ml": done["quality"]["brain_mask_ml"],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
