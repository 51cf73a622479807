"""Times bias field and brain mask against SimpleITK and dipy, and the whole preprocessing of a large scan, in one run.

``make benchmark`` installs the peers and writes docs/benchmarks/preprocess.md. Rows whose peer or scan is absent are
left out. Processor time of one thread, one run each, unless a row says otherwise: nothing here is a test.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mask_peers
import numpy as np
import torch
from benchmark_dsd import Row, machine, table
from n4_peers import head_rows, scan_rows

sys.path.append(str(Path(__file__).resolve().parents[1] / "preprocess"))
from head_phantoms import head_with_skull
from real_heads import T2_HEADS, WHOLE_HEADS

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
"""Real scans beside the checkout, where they are."""


def pipeline_rows() -> Iterator[Row]:
    """A head of 256 x 256 x 60 voxels of 0.9 x 0.9 x 2.5 mm in a process of its own."""
    arrays = {}
    for key, levels in (("b0", (1.0, 0.5, 0.4)), ("trace", (0.06, 0.36, 0.40))):
        head = head_with_skull((192, 220, 56), levels)
        arrays[key] = np.pad(head.image, ((32, 32), (18, 18), (2, 2)), constant_values=0.02)
    script = Path(__file__).with_name("preprocess_pipeline.py")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "scan.npz", spacing=(0.9, 0.9, 2.5), **arrays)
        command = [sys.executable, str(script), str(Path(folder) / "scan.npz")]
        done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    yield (
        f"{done['wall_s']:.1f}",
        f"{done['processor_s']:.1f}",
        f"{done['imports_mib']:.0f}",
        f"{done['peak_mib']:.0f}",
    )


def others() -> str:
    """Versions of what only this page compares with or runs on."""
    found = ""
    for name in ("scipy", "monai", "SimpleITK"):
        try:
            found += f", {name} {version(name)}"
        except PackageNotFoundError:
            found += f", {name} absent"
    return found


N4_NOTES = """Three levels of at most 50 iterations, tolerance 1e-3. SimpleITK: `Shrink`,
`N4BiasFieldCorrection`, and the field evaluated at full resolution; ours: `estimate_log_bias`. The
phantom has a known field (standard deviation .12 in the brain); residual: standard deviation of what is
left of it."""

MASK_NOTES = """dipy: `median_otsu` with its defaults (`median_radius=4, numpass=4`) on the mean b0; ours:
`dwi_brain_mask`, and its search mask, in which lesions are looked for. No manual masks of diffusion scans
are at hand, so two measures that need none. Spots: 20 dark balls of each of 4, 8 and 12 mm (80 % signal
loss) are planted before masking, with centres 1.5 to 4 mm inside the surface of what dipy's mask and our
brain mask both hold of the unplanted scan, cut to it; stated is the share of their voxels that each mask
then holds. A wider mask holds more, so dipy's is also stated after a dilation by 3 mm, which our search
mask has had. Coil: a further smooth field of four coils is put over the scan, at most a factor of 2.0
from its mean; stated is the Dice of each mask with itself before, since a brain does not depend on the
coil."""

T2_NOTES = """Dice with the published masks of T2-weighted heads that are not fat-suppressed; both methods
see every fourth voxel in plane (2 to 2.4 mm), means of four by four."""

PHANTOM_NOTES = """Dice with the exact brain of phantoms, b0 and trace, under coil shading of at most the
stated logarithm."""


def sections() -> Iterator[str]:
    """The page's tables."""
    header = ["b0, 1 thread", "shrink", "SimpleITK, s", "mhsev, s", "ratio", "SimpleITK, residual", "mhsev, residual"]
    yield from ["## Bias field", "", N4_NOTES, "", *table(header, [*head_rows(), *scan_rows(DATA)])]
    header = ["scan", "method", "ml", "s", "4 mm", "8 mm", "12 mm", "coil"]
    rows = [row for name in WHOLE_HEADS for row in mask_peers.scan_rows(DATA, name)]
    if rows:
        yield from [
            "## Brain mask: dark spots at the surface, and coil shading",
            "",
            MASK_NOTES,
            "",
            *table(header, rows),
        ]
    rows = [row for patient in T2_HEADS for row in mask_peers.t2_rows(DATA, patient)]
    if rows:
        yield from ["## Brain mask: T2-weighted heads", "", T2_NOTES, "", *table(["head", "dipy", "mhsev"], rows)]
    header = ["shading", "dipy", "mhsev"]
    yield from ["## Brain mask: phantoms", "", PHANTOM_NOTES, "", *table(header, mask_peers.phantom_rows())]
    header = ["wall, s", "processor, s", "after imports, MiB", "peak, MiB"]
    yield from ["## One large scan", "", PIPELINE_NOTES, "", *table(header, pipeline_rows())]


PIPELINE_NOTES = """`DWIBrainMaskd`, `N4BiasFieldCorrectiond`, `ZScoreInMaskd` on b0 and trace of 256 x
256 x 60 voxels of 0.9 x 0.9 x 2.5 mm, one thread; memory is resident memory of the whole process with its
imports."""


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/preprocess.md"), help="the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load, start = os.getloadavg()[0], time.perf_counter()
    text = [
        "# Bias field and brain mask, measured",
        "",
        f"`python tests/benchmarks/benchmark_preprocess.py` (in `make benchmark`) on {machine()}{others()}; "
        f"load average {load:.1f} at the start. Scans are named as in the folder of real scans that the tests use.",
        "",
        *sections(),
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(text).rstrip() + "\n")
    print(f"{options.out} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
