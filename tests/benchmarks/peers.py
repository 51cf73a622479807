"""What a user could take instead: the literal loop, batched SVDs of torch, denoisers that solve the same problem."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mhsev_monai.dsd.spectrum import noise_bins

KAPPA, ENERGY = 3.0, 0.95


def taper_of(size: int) -> np.ndarray:
    """The sine taper of :func:`mhsev_monai.dsd.windows.sine_taper`, written anew."""
    side = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    return np.outer(side, side)


def literal_loop(windows: np.ndarray) -> np.ndarray:
    """The paper's steps as one would type them: window after window, complex FFT and SVD in double precision."""
    size = windows.shape[-1]
    taper = taper_of(size)
    bins = noise_bins(size, (0.5, 0.5)).numpy()
    rows, columns = np.unravel_index(bins, (size, size // 2 + 1))
    rebuilt = np.empty_like(windows)
    for number, window in enumerate(windows):
        mean = (taper * window).sum() / taper.sum()
        spectrum = np.fft.fft2(taper * (window - mean) / mean, norm="ortho")
        power = np.abs(spectrum) ** 2
        threshold = KAPPA * np.median(power[rows, columns]) / np.log(2)
        gain = np.maximum(1 - threshold / np.maximum(power, 1e-30), 0)
        gain[0, 0] = 0
        left, singular, right = np.linalg.svd(gain * spectrum)
        cumulative = np.cumsum(singular**2)
        rank = int(np.searchsorted(cumulative, ENERGY * cumulative[-1], side="right")) + 1
        truncated = (left[:, :rank] * singular[:rank]) @ right[:rank]
        rebuilt[number] = taper * np.fft.ifft2(truncated, norm="ortho").real
    return rebuilt


def batched_complex_svd(windows: torch.Tensor) -> torch.Tensor:
    """The same in one batch of torch: FFT, gain, complex SVD, inverse."""
    size = windows.shape[-1]
    taper = torch.from_numpy(taper_of(size)).to(windows)
    mean = (taper * windows).sum((1, 2), keepdim=True) / taper.sum()
    spectrum = torch.fft.fft2(taper * (windows - mean) / mean, norm="ortho")
    power = spectrum.abs().square()
    bins = noise_bins(size, (0.5, 0.5))
    rows, columns = bins // (size // 2 + 1), bins % (size // 2 + 1)
    noise = power[:, rows, columns].median(1).values / np.log(2)
    gain = (1 - KAPPA * noise[:, None, None] / power.clamp(min=1e-30)).clamp(min=0)
    gain[:, 0, 0] = 0
    left, singular, right = torch.linalg.svd(gain * spectrum)
    energy = singular.square().cumsum(1)
    kept = torch.cat([torch.zeros_like(energy[:, :1]), energy[:, :-1]], 1) <= ENERGY * energy[:, -1:]
    truncated = (left * (singular * kept)[:, None]) @ right
    return taper * torch.fft.ifft2(truncated, norm="ortho").real


def best_cpu_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Least processor time of this thread over some runs, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


def dipy_seconds_per_patch(name: str, extent: tuple[int, int, int], volumes: int = 16) -> float | None:
    """Processor time of dipy's ``mppca`` or ``localpca`` for each voxel that it denoises; None: dipy is absent."""
    try:
        from dipy.denoise import localpca
    except ImportError:
        return None
    data = np.random.default_rng(0).normal(1000, 50, (14, 14, 9, volumes)).astype(np.float32)
    radius = tuple(side // 2 for side in extent)
    if name == "mppca":
        seconds = best_cpu_seconds(lambda: localpca.mppca(data, patch_radius=np.array(radius)), 2)
    else:
        seconds = best_cpu_seconds(lambda: localpca.localpca(data, sigma=50.0, patch_radius=np.array(radius)), 2)
    return seconds / np.prod([n - 2 * r for n, r in zip(data.shape[:3], radius, strict=True)])


def dwidenoise_seconds_per_patch(extent: tuple[int, int, int], volumes: int = 16) -> float | None:
    """Processor time of MRtrix's ``dwidenoise`` (single precision, one thread) for each voxel; None: it is absent."""
    if shutil.which("dwidenoise") is None:
        return None
    import nibabel as nib

    with tempfile.TemporaryDirectory() as folder:
        data = np.random.default_rng(0).normal(1000, 50, (48, 48, 24, volumes)).astype(np.float32)
        source, target = Path(folder) / "in.nii", Path(folder) / "out.nii"
        nib.save(nib.Nifti1Image(data, np.eye(4)), source)
        command = ["dwidenoise", "-quiet", "-force", "-nthreads", "0", "-datatype", "float32"]
        command += ["-extent", ",".join(map(str, extent)), str(source), str(target)]
        times = []
        for _ in range(3):
            before = os.times()
            subprocess.run(command, check=True, capture_output=True)
            after = os.times()
            times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(times) / np.prod(data.shape[:3])
