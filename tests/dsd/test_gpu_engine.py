"""The Triton kernel without a GPU: run by Triton's interpreter, and compiled for sm_90 (H100) by ptxas."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
source = ASTSource(fn=rank_k_kernel, signature=types, constexprs={"N": size, "NB": LANES[size], "SWEEPS": SWEEPS})
kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
with tempfile.TemporaryDirectory() as folder:
    ptx = pathlib.Path(folder) / "kernel.ptx"
    ptx.write_text(kernel.asm["ptx"])
    command = [knobs.nvidia.ptxas.path, "-v", "--gpu-name=sm_90a", str(ptx), "-o", str(ptx.with_suffix(".cubin"))]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stderr)
"""


@pytest.mark.parametrize("size", [8, 16, 32])
def test_kernel_compiles_for_sm_90_without_spills_or_barriers(size):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\b0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", done.stdout), done.stdout
    assert re.search(r"used 0 barriers", done.stdout), done.stdout
    registers = int(re.search(r"Used (\d+) registers", done.stdout).group(1))
    # 128 registers a thread leave room for 16 warps on a multiprocessor of an H100.
    assert registers <= 128
