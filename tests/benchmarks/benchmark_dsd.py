"""Times the decomposition against everything that its users could pick instead, in one run on one machine.

``make benchmark`` installs the Python peers and writes docs/benchmarks/dsd.md; ``dwidenoise`` is timed where MRtrix is
installed. Processor time of one thread, best of several runs, unless a row says otherwise: nothing here is a test.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import peers
import torch
from counted_lanes import count_operations
from dsd_images import slice_of, table
from roofline import peak_gflops

from mhsev_monai.dsd import DSDParameters, dynamic_spectral_decomposition, rank_k_project
from mhsev_monai.dsd.engines import cpu, portable
from mhsev_monai.dsd.lattice import Lattice, lay_windows
from mhsev_monai.dsd.windows import gather_windows

SIZES = (8, 16, 32)
Row = Sequence[object]


def lattice_of(image: np.ndarray, size: int, fraction: int) -> tuple[Lattice, DSDParameters]:
    """Every window of one size, the threshold and criterion of the defaults, nothing clipped."""
    parameters = DSDParameters(window_size=size, stride_fraction=fraction, dynamic=False, acquired=0.5, clip=10.0)
    volume = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    volume = volume / volume.median()
    inside = torch.ones_like(volume, dtype=torch.bool)
    return lay_windows(volume, volume, inside, (1.0, 1.0, 3.0), parameters), parameters


def nanoseconds(seconds: float, count: int) -> float:
    """Of one of ``count``."""
    return seconds / count * 1e9


def kernel_rows() -> tuple[list[Row], dict[str, dict[int, float]]]:
    """Nanoseconds per window of each way to compute a slice of 256 x 256."""
    image = slice_of(256)
    times: dict[str, dict[int, float]] = {}
    for size in SIZES:
        lattice, parameters = lattice_of(image, size, 8)
        every = torch.ones_like(lattice.sizes).nonzero()
        anchors = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:1024]]
        windows = gather_windows(torch.from_numpy(image).permute(2, 0, 1), anchors, size, lattice.stride)
        few = windows[:200].numpy()
        single = windows.float()
        coarse = lattice_of(image, size, 4)[0]
        noise = lattice_of(100 + 3 * np.random.default_rng(1).standard_normal((256, 256, 1)), size, 8)[0]
        entries: dict[str, tuple[Callable[[], object], int]] = {
            "literal NumPy loop, complex SVD, float64": (lambda few=few: peers.literal_loop(few), len(few)),
            "torch, batched complex SVD, float32": (lambda w=single: peers.batched_complex_svd(w), len(single)),
            "engine `torch` (batched `eigh` of Gram matrices)": (
                lambda c=coarse, p=parameters: portable.decompose(c, p),
                coarse.sizes.numel(),
            ),
            "engine `numba`": (lambda c=lattice, p=parameters: cpu.decompose(c, p), len(every)),
            "engine `numba`, noise without structure": (lambda c=noise, p=parameters: cpu.decompose(c, p), len(every)),
        }
        for name, (work, count) in entries.items():
            times.setdefault(name, {})[size] = nanoseconds(
                peers.best_cpu_seconds(work, 3 if "loop" in name else 7), count
            )
    literal = times["literal NumPy loop, complex SVD, float64"]
    rows = [
        [name, *(f"{t[size]:,.0f} (x{literal[size] / t[size]:.0f})" for size in SIZES)] for name, t in times.items()
    ]
    return rows, times


def denoiser_rows(ours: float) -> Iterator[Row]:
    """Nanoseconds per patch of denoisers that solve an eigenproblem of 16 columns for every voxel."""
    batch = torch.from_numpy(np.random.default_rng(0).standard_normal((4096, 16, 16)).astype(np.float32))
    projection = nanoseconds(peers.best_cpu_seconds(lambda: rank_k_project(batch, 0.95, engine="numba")), len(batch))
    yield "`rank_k_project`, engine `numba`, 16 x 16 noise", f"{projection:,.0f}", ""
    yield "whole DSD window W = 16, engine `numba`", f"{ours:,.0f}", ""
    for extent in ((5, 5, 5), (5, 3, 1)):
        shape = f"{np.prod(extent)} x 16"
        found = {
            "MRtrix `dwidenoise`, float32, with start and files": peers.dwidenoise_seconds_per_patch(extent),
            "dipy `mppca`": peers.dipy_seconds_per_patch("mppca", extent),
            "dipy `localpca`": peers.dipy_seconds_per_patch("localpca", extent) if extent[2] > 1 else None,
        }
        for name, seconds in found.items():
            if seconds is None:
                if extent[2] > 1:
                    yield f"{name}, {shape}", "not installed", ""
                continue
            yield f"{name}, {shape}", f"{seconds * 1e9:,.0f}", f"x{seconds * 1e9 / ours:.1f}"


def volume_rows(literal: dict[int, float]) -> Iterator[Row]:
    """Whole calls, from the array to the result: wall seconds, one thread."""
    cases = [
        ("256 x 256 x 40, 1 mm, W = 16, stride 4", (256, 40), 1.0, {"window_size": 16, "dynamic": False}),
        ("the same, W by the texture", (256, 40), 1.0, {"window_size": 16}),
        (
            "256 x 256 x 40, 1 mm, W = 16, stride 2",
            (256, 40),
            1.0,
            {"window_size": 16, "dynamic": False, "stride_fraction": 8},
        ),
        ("128 x 128 x 60, 2 mm, W = 8, stride 2", (128, 60), 2.0, {"window_size": 8, "dynamic": False}),
    ]
    for name, (side, n_slices), spacing, chosen in cases:
        image = slice_of(side, n_slices).astype(np.float32)
        parameters = DSDParameters(**chosen)
        seconds = {}
        for engine in ("numba", "torch"):
            work = partial(dynamic_spectral_decomposition, image, (spacing, spacing, 3.0), None, parameters, engine)

            result = work()
            seconds[engine] = min(wall(work) for _ in range(3 if engine == "numba" else 1))
        n_windows = int((result.window_size > 0).sum())
        by_loop = n_windows * literal[chosen["window_size"]] / 1e9
        yield name, f"{n_windows:,}", f"{seconds['numba']:.2f}", f"{seconds['torch']:.1f}", f"{by_loop:,.0f}"


def wall(work: Callable[[], object]) -> float:
    """Seconds of the clock on the wall."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def mask_row() -> Row:
    """A call on a brain of 170 x 136 mm in slices of 256 x 256 mm, with and without its mask: seconds, and a ratio."""
    image = slice_of(256, 20)
    x, y = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    mask = np.repeat((np.hypot((x - 128) / 85, (y - 128) / 68) < 1)[..., None], 20, 2)
    parameters = DSDParameters(window_size=16, dynamic=False, acquired=0.5)
    calls = [
        lambda m=m: dynamic_spectral_decomposition(image, (1.0, 1.0, 3.0), m, parameters, "numba") for m in (None, mask)
    ]
    whole, masked = (min(wall(call) for _ in range(5)) for call in calls)
    return f"{mask.mean():.2f}", f"{whole:.3f}", f"{masked:.3f}", f"{whole / masked:.2f}"


def thread_rows() -> Iterator[Row]:
    """Kernel and whole call with one and two threads, in turns, on a volume of 256 x 256 x 40."""
    image = slice_of(256, 40)
    lattice, parameters = lattice_of(image, 16, 8)
    calls: dict[str, Callable[[], object]] = {
        "kernel over all slices, stride 2": lambda: cpu.decompose(lattice, parameters),
        "whole call, stride 2": lambda: dynamic_spectral_decomposition(
            image, (1.0, 1.0, 3.0), None, parameters, "numba"
        ),
    }
    for name, call in calls.items():
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(6):
            for n_threads, seconds in times.items():
                torch.set_num_threads(n_threads)
                seconds.append(wall(call))
        torch.set_num_threads(1)
        # The first turn warms up.
        one, two = min(times[1][1:]), min(times[2][1:])
        yield name, f"{one:.2f}", f"{two:.2f}", f"{one / two:.2f}"


MEMORY = """
import pathlib, re, sys
import numpy as np, torch
from mhsev_monai.dsd import DSDParameters, dynamic_spectral_decomposition
torch.set_num_threads(1)
engine, side, fraction = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def call(side, fraction):
    image = np.random.default_rng(0).uniform(90, 110, (side, side)).astype(np.float32)
    parameters = DSDParameters(window_size=16, stride_fraction=fraction, dynamic=False, acquired=0.5)
    return dynamic_spectral_decomposition(image, (1.0, 1.0), None, parameters, engine)
def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text()).group(1))
call(64, 4)
before = memory("VmRSS")
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
result = call(side, fraction)
print(result.rank.numel(), (memory("VmHWM") - before) / 1024)
"""


def memory_rows() -> Iterator[Row]:
    """Greatest growth of resident memory during one call, after a call on the same slice that is not counted."""
    for engine in ("numba", "torch"):
        for side, fraction in ((256, 4), (256, 8), (512, 8)):
            command = [sys.executable, "-c", MEMORY, engine, str(side), str(fraction)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            windows, growth = done.stdout.split()
            yield (
                f"engine `{engine}`, {side} x {side}, stride {16 // fraction}",
                f"{int(windows):,}",
                f"{float(growth):.0f}",
            )


START = """
import time
import numpy as np
import mhsev_monai.dsd.functional as dsd
image = np.random.default_rng(0).uniform(90, 110, (64, 64, 2))
times = []
for _ in range(2):
    start = time.perf_counter()
    dsd.dynamic_spectral_decomposition(image, (2.0, 2.0, 3.0), None, None, "numba")
    times.append(time.perf_counter() - start)
print(times[0] - times[1])
"""


def start_seconds(folder: Path) -> tuple[float, float]:
    """What the first result of a process costs beyond the second: without compiled code on disk, and with it."""
    found = []
    for _ in range(2):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
        command = [sys.executable, "-c", START]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found.append(float(done.stdout))
    return found[0], found[1]


def roofline_rows(times: dict[int, float]) -> Iterator[Row]:
    """Operations of one window, and the share of the peak that they reach."""
    peak = peak_gflops()
    for size in SIZES:
        # Four groups of 32 neighbours from different places of the slice that was timed.
        lattice, parameters = lattice_of(slice_of(256), size, 8)
        some = torch.zeros_like(lattice.sizes)
        every = torch.arange(some.numel())
        groups = every[: len(every) // 32 * 32].reshape(-1, 32)
        some.view(-1)[groups[:: len(groups) // 4][:4].flatten()] = size
        four_groups = lattice._replace(sizes=some)
        expected = cpu.decompose(four_groups, parameters)
        operations, counted = count_operations(lambda g=four_groups, p=parameters: cpu.decompose(g, p))
        if not torch.equal(counted.rank, expected.rank):
            raise RuntimeError("what was counted is not what the compiled kernel does")
        operations /= 4
        rate = operations / times[size]
        yield f"W = {size}", f"{operations:,.0f}", f"{rate:.0f}", f"{peak:.0f}", f"{100 * rate / peak:.0f} %"


def machine() -> str:
    """Processor and versions, without a name of the machine."""
    model, wide = platform.processor() or platform.machine(), ""
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text()
        model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), model)
        wide = next((f" ({name})" for name in ("avx512f", "avx2", "asimd") if f" {name}" in text), "")
    packages = []
    for name in ("numpy", "torch", "numba", "llvmlite", "dipy", "triton"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"{name} absent")
    return f"{model}{wide}, {os.cpu_count()} processors, Python {platform.python_version()}, {', '.join(packages)}"


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("docs/benchmarks/dsd.md"), help="the page (default: %(default)s)"
    )
    parser.add_argument(
        "--scratch", type=Path, default=Path("build/benchmark-cache"), help="an empty folder for the cache"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]

    def step(name: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)

    step("windows")
    rows, times = kernel_rows()
    header = ["ns of processor time per window (times the loop)", *(f"W = {size}" for size in SIZES)]
    lines = ["## One window, 256 x 256 slice", "", *table(header, rows)]
    numba = times["engine `numba`"]
    step("denoisers")
    lines += [
        "## Denoisers: one patch",
        "",
        *table(["", "ns per patch", "over a DSD window"], denoiser_rows(numba[16])),
    ]
    step("volumes")
    header = ["whole call, one thread", "windows", "`numba`, s", "`torch`, s", "literal loop, s (windows times ns)"]
    lines += ["## Whole volumes", "", *table(header, volume_rows(times["literal NumPy loop, complex SVD, float64"]))]
    step("mask")
    header = ["share of the slices inside", "without mask, s", "with mask, s", "ratio"]
    lines += ["## A mask", "", *table(header, [mask_row()])]
    step("threads")
    header = ["256 x 256 x 40, W = 16", "one thread, s", "two threads, s", "ratio"]
    lines += ["## Threads", "", *table(header, thread_rows())]
    step("memory")
    header = ["one slice, W = 16", "windows", "growth of peak memory, MiB"]
    lines += ["## Memory", "", *table(header, memory_rows())]
    step("start")
    first, second = start_seconds(options.scratch)
    lines += ["## Start of a process", ""]
    lines += table(
        ["compiling, once for a processor, s", "every later process, s"], [[f"{first:.1f}", f"{second:.2f}"]]
    )
    step("roofline")
    header = ["engine `numba`", "operations per window", "GFLOP/s", "peak of multiply-add, GFLOP/s", "share"]
    lines += ["## Roofline, one core", "", *table(header, roofline_rows(numba))]
    lines += ["On CUDA: [its own page](cuda.md)."]
    text = [
        "# The decomposition, timed",
        "",
        f"`make benchmark` on {machine()}; load average {load:.1f} at the start.",
        "",
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join([*text, NOTES, "", *lines]).rstrip() + "\n")
    print(options.out)


NOTES = """Times are processor time of one thread, best of several runs; whole volumes and threads are seconds of a
clock. Images are made: smooth structure of 8 % and noise of 3 %, for which windows of 16 keep about three components;
one row is of noise alone, which keeps more. A window of `numba` and `torch` is everything from image to map: taper,
transforms, median, threshold, projection, overlap-add, energies of the bands. The literal loop and the complex SVD
leave the overlap-add and the bands out. `dwidenoise` and dipy solve an eigenproblem of 16 columns for every voxel and
keep one voxel of it: the same core, another purpose."""


if __name__ == "__main__":
    main()
