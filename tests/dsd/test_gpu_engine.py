"""The Triton kernels without a GPU: run by Triton's interpreter, and the larger one compiled for sm_90 by ptxas."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

HERE = Path(__file__).parent

pytest.importorskip("triton", reason="needs triton, which is on PyPI for Linux only")


def interpret(*arguments):
    command = [sys.executable, str(HERE / "interpreted_kernel.py"), *map(str, arguments)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("size", "count", "rows"), [(8, 12, 8), (6, 4, 9), (16, 6, 16), pytest.param(32, 3, 32, marks=pytest.mark.slow)]
)
def test_kernel_in_the_interpreter_agrees_with_the_svd(size, count, rows):
    interpret("matrices", size, count, rows)


@pytest.mark.parametrize(("size", "stride"), [(8, 2), (16, 4), (32, 4)])
def test_overlap_add_in_the_interpreter_agrees_with_torch_s(size, stride):
    interpret("overlap", size, stride)


def test_programs_that_take_many_blocks_in_the_interpreter_agree_with_the_svd():
    interpret("blocks", 8, 12, 4)


def test_volume_in_the_interpreter_agrees_with_double_precision():
    interpret("volume")


COMPILE = """
import sys, subprocess, tempfile, pathlib
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mhsev_monai.dsd.engines.gpu import LANES
from mhsev_monai.dsd.engines.gpu_kernel import SWEEPS, rank_k_kernel

size = int(sys.argv[1])
types = dict.fromkeys(("x", "y", "mixing", "scratch"), "*fp32") | {"ranks": "*i32", "count": "i32", "m": "i32"}
types |= {"energy": "fp32", "near": "fp32", "N": "constexpr", "NB": "constexpr", "SWEEPS": "constexpr"}
types = {name: types[name] for name in rank_k_kernel.arg_names}
source = ASTSource(fn=rank_k_kernel, signature=types, constexprs={"N": size, "NB": LANES, "SWEEPS": SWEEPS},
                   attrs={(i,): [["tt.divisibility", 16]] for i in range(5 + int(sys.argv[2]))})
kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
with tempfile.TemporaryDirectory() as folder:
    ptx = pathlib.Path(folder) / "kernel.ptx"
    ptx.write_text(kernel.asm["ptx"])
    command = [knobs.nvidia.ptxas.path, "-v", "--gpu-name=sm_90a", str(ptx), "-o", str(ptx.with_suffix(".cubin"))]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stderr)
"""


@pytest.mark.parametrize("aligned_count", [0, 1])
@pytest.mark.parametrize("size", [8, 16, 32])
def test_kernel_compiles_for_sm_90_without_spills_or_barriers(size, aligned_count):
    """Pointers are aligned, as torch's are; the number of matrices, argument 5, may or may not be a multiple of 16."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, str(size), str(aligned_count)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\b0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", done.stdout), done.stdout
    assert re.search(r"used 0 barriers", done.stdout), done.stdout
    registers = int(re.search(r"Used (\d+) registers", done.stdout).group(1))
    # 128 registers a thread leave room for 16 warps on a multiprocessor of an H100.
    assert registers <= 128


@pytest.mark.parametrize(
    ("count", "columns", "expected"),
    [
        (1, 8, 1),
        (33, 8, 2),
        (10**6, 8, 16 * 132),
        # 5,776 numbers of scratch for each of 32 lanes, of which 2**28 hold 1,452 times.
        (10**6, 32, 1452),
    ],
)
def test_programs_on_a_device_of_132_processors(count, columns, expected, monkeypatch):
    from mhsev_monai.dsd.engines import gpu

    device = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    assert gpu._launch(count, columns, torch.device("cuda")) == (32, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("size", [8, 16, 32])
def test_more_matrices_than_programs_take_at_once_agree_with_torch(size):
    from mhsev_monai.dsd import rank_k_project

    generator = torch.Generator().manual_seed(size)
    batch = torch.randn(300_001, size, size, generator=generator).cuda()
    found, expected = (rank_k_project(batch, 0.95, engine=engine) for engine in ("triton", "torch"))
    same = found.rank == expected.rank
    assert same.double().mean() > 0.9999
    apart = (found.projected - expected.projected).abs().amax((1, 2)) / batch.norm(dim=(1, 2))
    assert apart[same].quantile(0.99) < 2e-6
