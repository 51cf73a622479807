"""Times what runs on CUDA against the processor of the same machine, and says how far the answers are apart.

``python tests/benchmarks/benchmark_cuda.py SCAN.nii.gz`` writes the tables of docs/benchmarks/cuda.md, whose text is
kept by hand. Needs a CUDA device. Times are medians of several runs after one that is not counted, with the device
waited for.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dsd_images import slice_of, table
from monai.transforms import Transform
from torch import Tensor

from mhsev_monai.dsd import DSDParameters, DSDResult, dynamic_spectral_decomposition, rank_k_project
from mhsev_monai.dsd.windows import continue_by_reflection, sine_taper, windows_at_anchors
from mhsev_monai.inputs import DSDCandidateInputs
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.networks import run_network
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures, TrainingParameters, train_severity
from mhsev_monai.volume_inputs import VolumeInputs
from mhsev_monai.volume_network import SeverityCNN3d

Row = Sequence[object]
ROOT = Path(__file__).resolve().parents[2]
THREADS = torch.get_num_threads()
"""As many as torch takes by itself."""


def seconds(work: Callable[[], object], turns: int = 5) -> float:
    """Median time of ``work``, the device waited for."""
    found = []
    for _ in range(turns + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return float(np.median(found[1:]))


def threaded(work: Callable[[], object], threads: int, turns: int = 3) -> float:
    """Median time of ``work`` on so many threads of the processor."""
    torch.set_num_threads(threads)
    try:
        return seconds(work, turns)
    finally:
        torch.set_num_threads(THREADS)


VOLUMES: tuple[tuple[str, int, int, dict[str, Any]], ...] = (
    ("256 x 256 x 60, W = 16, stride 2", 256, 60, {"window_size": 16, "stride_fraction": 8}),
    ("256 x 256 x 40, W = 16, stride 4", 256, 40, {"window_size": 16}),
    ("the same, W by the texture", 256, 40, {"window_size": 16, "dynamic": True}),
    ("256 x 256 x 40, W = 32, stride 8", 256, 40, {"window_size": 32}),
    ("128 x 128 x 60, W = 8, stride 2", 128, 60, {"window_size": 8}),
)


def volume_rows() -> tuple[list[Row], list[Row]]:
    """Whole calls in milliseconds, and how far each engine is from double precision."""
    times: list[Row] = []
    errors: list[Row] = []
    for name, side, n_slices, settings in VOLUMES:
        image = torch.from_numpy(slice_of(side, n_slices).astype(np.float32))
        on_gpu = image.cuda()

        def call(where: Tensor, engine: str, settings: dict[str, Any] = settings, **more: Any) -> DSDResult:
            parameters = DSDParameters(**{"dynamic": False, "acquired": 0.5, **settings, **more})
            return dynamic_spectral_decomposition(where, (1.0, 1.0, 3.0), None, parameters, engine)

        exact = call(on_gpu, "torch", dtype="float64")
        triton = seconds(lambda: call(on_gpu, "triton"))  # noqa: B023  called at once
        plain = seconds(lambda: call(on_gpu, "torch"), 3)  # noqa: B023
        one = threaded(lambda: call(image, "numba"), 1)  # noqa: B023
        every = threaded(lambda: call(image, "numba"), THREADS)  # noqa: B023
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(on_gpu, "triton")
        times.append(
            (
                name,
                f"{int((exact.rank > 0).sum()):,}",
                f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f}",
                f"{1000 * triton:.1f}",
                *(f"{1000 * other:.0f} (x{other / triton:.1f})" for other in (plain, every, one)),
            )
        )
        for engine, where in (("triton", on_gpu), ("torch", on_gpu), ("numba", image)):
            errors.append((name, engine, *_distance(call(where, engine), exact)))
    return times, errors


def _distance(found: DSDResult, exact: DSDResult) -> tuple[str, str, str]:
    """Windows of another rank, and the median and greatest difference of the map over its greatest value."""
    other = int((found.rank.to(exact.rank.device) != exact.rank).sum())
    difference = (found.map.to(exact.map.device).double() - exact.map).abs() / exact.map.abs().max()
    return str(other), f"{float(difference.median()):.1e}", f"{float(difference.max()):.1e}"


def projection_rows() -> Iterator[Row]:
    """Nanoseconds per matrix of the rank-K step, against what torch offers for it on CUDA."""
    image = torch.from_numpy(slice_of(256, 20).astype(np.float32)).permute(2, 0, 1).cuda()
    for size in (8, 16, 32):
        view = windows_at_anchors(continue_by_reflection(image / 100 - 1, 2), size, 2)
        windows = view.reshape(-1, size, size)[: 2**18] * sine_taper(size, image)
        some, few = windows[: 2**14], windows[: 2**11]
        ours = seconds(lambda w=windows: rank_k_project(w, 0.95, engine="triton")) / len(windows)
        gram = seconds(lambda w=some: rank_k_project(w, 0.95, engine="torch")) / len(some)
        whole = seconds(lambda w=few: torch.linalg.svd(w), 2) / len(few)
        others = (f"{1e9 * other:.0f} (x{other / ours:.0f})" for other in (gram, whole))
        yield f"{size} x {size}", f"{1e9 * ours:.1f}", *others


def scan_rows(scan: Path) -> Iterator[Row]:
    """Milliseconds of each step from a loaded scan to described candidates."""
    load, *steps = DSDCandidateInputs().transforms().transforms
    bvals = scan.with_name(scan.name.replace(".nii.gz", ".bval"))
    loaded = load({Keys.IMAGE: str(scan), "bval": str(bvals)})
    columns = []
    for device, threads in (("cuda", THREADS), ("cpu", THREADS), ("cpu", 1)):
        torch.set_num_threads(threads)
        columns.append(_step_times(steps, loaded, device))
    torch.set_num_threads(THREADS)
    for step, *times in zip(steps, *columns, strict=True):
        yield type(step).__name__, *(f"{1000 * t:.0f}" for t in times)
    yield "all", *(f"{1000 * sum(column):.0f}" for column in columns)


def _step_times(steps: Sequence[Transform], loaded: dict[str, Any], device: str) -> list[float]:
    """Median over runs of each step; the first run is not counted."""
    runs = []
    for _ in range(4):
        data = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in loaded.items()}
        times = []
        for step in steps:
            torch.cuda.synchronize()
            start = time.perf_counter()
            data = step(data)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        runs.append(times)
    return [float(t) for t in np.median(runs[1:], axis=0)]


def cnn_rows() -> tuple[list[Row], float]:
    """Seconds of an epoch of 32 cases of the job cnn3d, and how far bfloat16 moves an output."""
    controller = json.loads((ROOT / "jobs/cnn3d/app/config/config_fed_server.json").read_text())["workflows"][0]
    given = controller["args"]["network"]["args"]
    rng = np.random.default_rng(0)
    volumes = rng.normal(size=(32, *VolumeInputs().size, 2)).astype(np.float16)
    data = LabelledFeatures(torch.from_numpy(volumes), torch.tensor([0.0, 2.0, 12.0, 30.0] * 8))
    parameters = TrainingParameters(1, 1e-3, 1e-4, 4, 0.5)

    def epoch(
        device: str, augmentation: list[dict[str, Any]], half: bool = True, backbone: dict[str, Any] = given["backbone"]
    ) -> Callable[[], object]:
        changed = {"backbone": backbone, "augmentation": augmentation, "num_classes": 4, "seed": 1}
        network = SeverityCNN3d(**{**given, **changed}).to(device)
        if not half:
            # As run_network would be without its autocast.
            network.forward = torch.autocast("cuda", enabled=False)(network.forward)  # type: ignore[method-assign]
        return lambda: train_severity(network, data, PAPER_SCALE, parameters, 1)

    rows: list[Row] = []
    for name, augmentation in (("as the job ships it", given["augmentation"]), ("without augmentation", [])):
        found = (
            seconds(epoch("cuda", augmentation)),
            seconds(epoch("cuda", augmentation, half=False)),
            threaded(epoch("cpu", augmentation), THREADS, 1),
            threaded(epoch("cpu", augmentation), 1, 1),
        )
        rows.append((name, f"{found[0]:.3f}", *(f"{other:.3f} (x{other / found[0]:.1f})" for other in found[1:])))
    wide = {**given["backbone"], "_target_": "resnet34", "widen_factor": 1.0}
    found = [seconds(epoch("cuda", [], half, wide), 3) for half in (True, False)]
    rows.append(("`resnet34`, full width", f"{found[0]:.3f}", f"{found[1]:.3f} (x{found[1] / found[0]:.1f})", "", ""))
    network = SeverityCNN3d(**{**given, "augmentation": [], "num_classes": 4, "seed": 1}).eval()
    with torch.no_grad():
        expected = run_network(network, data.features)
        found_half = run_network(network.to("cuda"), data.features)
    return rows, float((found_half - expected).abs().max() / expected.abs().max())


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, help="a scan, SCAN.nii.gz with SCAN.bval beside it")
    parser.add_argument("--out", type=Path, default=Path("build/cuda.md"), help="default: %(default)s")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here; run it where torch.cuda.is_available() is true")
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch", "triton", "numba", "monai"))
    every = f"processor, {THREADS} threads"

    def step(name: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)

    step("volumes")
    times, errors = volume_rows()
    step("rank-K projection")
    projections = list(projection_rows())
    step("a scan")
    scan = list(scan_rows(options.scan))
    step("3-D network")
    cnn, moved = cnn_rows()
    lines = [
        "# On CUDA",
        "",
        f"`python tests/benchmarks/benchmark_cuda.py SCAN.nii.gz` on {torch.cuda.get_device_name()}, "
        f"Python {platform.python_version()}, {packages}.",
        "",
        NOTES,
        "",
        "## The decomposition, whole calls",
        "",
        *table(
            [
                "ms",
                "windows",
                "peak memory on the device, MiB",
                "engine `triton`",
                "engine `torch` on CUDA",
                f"`numba`, {every}",
                "`numba`, one thread",
            ],
            times,
        ),
        "Against double precision (`torch` on CUDA, float64):",
        "",
        *table(["", "engine", "windows of another rank", "median difference of the map", "greatest"], errors),
        "## Rank-K projection",
        "",
        *table(
            ["ns per matrix", "engine `triton`", "engine `torch` on CUDA", "`torch.linalg.svd` on CUDA"],
            projections,
        ),
        "## From a loaded scan to its candidates",
        "",
        *table(["ms", "CUDA", every, "processor, one thread"], scan),
        "## The 3-D network",
        "",
        *table(
            [
                "s per epoch of 32 cases in steps of 4",
                "CUDA, bfloat16",
                "CUDA, float32",
                every,
                "processor, one thread",
            ],
            cnn,
        ),
        f"With bfloat16 an output of the untrained network moves by at most {moved:.1e} of the greatest.",
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines).rstrip() + "\n")
    print(options.out, file=sys.stderr)


NOTES = """Milliseconds and seconds are of a clock, medians of several runs after one that is not counted. Images are
made, smooth structure of 8 % and noise of 3 %; the scan is one of the simulated cohort (`mhsev cohort make`,
realistic), 112 x 112 x 48. "float32" convolves in TF32, as torch does by itself on this device."""


if __name__ == "__main__":
    main()
