"""Three engines, one answer: against NumPy's SVD, against the loops of the reference, and against each other."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from dsd_phantoms import spotted_head, wavy_head
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matrix_families import matrices
from reference_dsd import reference_dsd

from mhsev_monai.dsd import DSDParameters, dynamic_spectral_decomposition, rank_k_project
from mhsev_monai.dsd.engines import ENGINES, decomposing_engine, reason_against
from mhsev_monai.dsd.engines.portable import decompose as portable_decompose
from mhsev_monai.dsd.engines.window_tables import window_tables

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
AVAILABLE = ["numba", "torch", pytest.param("triton", marks=needs_cuda)]


def device_of(engine):
    return CUDA if engine == "triton" else CPU


def same_answer(ours, theirs, clear):
    np.testing.assert_array_equal(ours.window_size, theirs.window_size)
    np.testing.assert_array_equal(ours.rank.numpy()[clear], np.asarray(theirs.rank)[clear])
    scale = np.abs(np.asarray(theirs.map)).max()
    assert np.abs(ours.map.numpy() - np.asarray(theirs.map)).max() <= 5e-6 * scale
    # A faint bin carries the rounding of the strong ones: 6e-8 of their amplitude.
    np.testing.assert_allclose(ours.noise_scale, np.asarray(theirs.noise_scale), rtol=1e-3, atol=1e-10)
    np.testing.assert_allclose(ours.retained_energy, np.asarray(theirs.retained_energy), atol=5e-4)


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([8, 8, 16]),
    beyond=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    dtype=st.sampled_from(["float32", "float64"]),
    stride_fraction=st.sampled_from([4, 8]),
    gain=st.sampled_from(["wiener", "hard", "soft", "none"]),
    kappa=st.floats(0.5, 4.0),
    energy=st.floats(0.5, 0.98),
    eigenvalues=st.sampled_from(["squared", "singular"]),
    acquired=st.floats(0.2, 0.5),
    least_brain=st.sampled_from([0.0, 0.25]),
    seed=st.integers(0, 2**16),
)
def test_engine_of_each_precision_agrees_with_the_loops_of_the_reference(
    size, beyond, dtype, stride_fraction, gain, kappa, energy, eigenvalues, acquired, least_brain, seed
):
    image, mask = wavy_head((size + beyond[0], size + beyond[1], 1), seed=seed)
    assume(mask.any())
    chosen = {"gain": gain, "kappa": kappa, "energy": energy, "eigenvalues": eigenvalues, "acquired": acquired}
    chosen |= {"stride_fraction": stride_fraction, "least_brain": least_brain}
    theirs = reference_dsd(image, (2.0, 2.0, 4.0), mask, base=size, **chosen)
    clear = theirs.margin > 1e-5
    # One window on the edge of a rule changes the map around it; float32 cannot be asked to side with float64 there.
    assume(clear.all() and theirs.gap.min() > 1e-3)
    engine = "numba" if (eigenvalues, dtype) == ("squared", "float32") else "torch"
    settings_ = DSDParameters(**chosen, window_size=size, dtype=dtype)
    ours = dynamic_spectral_decomposition(image, (2.0, 2.0, 4.0), mask, settings_, engine)
    same_answer(ours, theirs, clear)
    if dtype == "float64":
        assert np.abs(ours.map.numpy() - theirs.map).max() <= 1e-12 * max(np.abs(theirs.map).max(), 1e-3)


@pytest.mark.parametrize("engine", AVAILABLE)
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"gain": "hard"},
        {"gain": "soft", "kappa": 1.0},
        {"gain": "none", "energy": 0.6},
        {"acquired": 0.25, "stride_fraction": 8},
        {"window_size": 32, "dynamic": False},
        {"kappa": 0.0},
    ],
    ids=str,
)
def test_windows_of_three_sizes_agree_with_double_precision(engine, chosen):
    image, mask = wavy_head((120, 104, 3), seed=1)
    settings_ = DSDParameters(**chosen)
    double = dynamic_spectral_decomposition(image, (1.0, 1.2, 4.0), mask, DSDParameters(**chosen, dtype="float64"))
    on_device = torch.from_numpy(image).to(device_of(engine))
    ours = dynamic_spectral_decomposition(on_device, (1.0, 1.2, 4.0), mask, settings_, engine)
    assert ours.map.device.type == device_of(engine).type
    assert torch.equal(ours.window_size.cpu(), double.window_size)
    # No window of these lies on the edge of the criterion.
    assert torch.equal(ours.rank.cpu(), double.rank)
    assert (ours.map.cpu() - double.map).abs().max() <= 5e-6 * double.map.abs().max()


def test_an_oblique_wave_keeps_both_of_its_equal_components():
    n = np.arange(64)
    wave = 0.05 * np.cos(2 * np.pi * (3 * n[:, None] + n[None]) / 16)
    kept = {
        engine: dynamic_spectral_decomposition(
            100 * (1 + wave),
            (1.0, 1.0),
            None,
            DSDParameters(energy=0.4, dynamic=False, clip=10.0, acquired=0.5),
            engine,
        )
        for engine in ("numba", "torch")
    }
    assert torch.equal(kept["numba"].rank, kept["torch"].rank)
    torch.testing.assert_close(kept["numba"].map, kept["torch"].map, rtol=0, atol=3e-7)
    assert kept["numba"].rank[8, 8] == 2


@pytest.mark.parametrize("factor", [8.0, 7.3])
def test_gain_of_the_scanner_does_not_matter_in_float32(factor):
    image, mask = wavy_head((60, 52, 2))
    plain, scaled = (
        dynamic_spectral_decomposition(i, (2.0, 2.0, 4.0), mask, None, "numba") for i in (image, factor * image)
    )
    assert torch.equal(plain.rank, scaled.rank)
    assert (plain.map - scaled.map).abs().max() <= (0 if factor == 8 else 1e-5)


def test_transposed_image_has_the_transposed_map_in_float32():
    image, mask = wavy_head((60, 52, 2))
    plain = dynamic_spectral_decomposition(image, (1.8, 2.4, 4.0), mask, None, "numba")
    turned = dynamic_spectral_decomposition(image.swapaxes(0, 1), (2.4, 1.8, 4.0), mask.swapaxes(0, 1), None, "numba")
    assert torch.equal(turned.rank.swapaxes(0, 1), plain.rank)
    torch.testing.assert_close(turned.map.swapaxes(0, 1), plain.map, rtol=0, atol=1e-5)


def test_two_threads_give_the_bits_of_one():
    image, mask = wavy_head((64, 60, 5))
    results = []
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            results.append(dynamic_spectral_decomposition(image, (2.0, 2.0, 4.0), mask, None, "numba"))
    finally:
        torch.set_num_threads(before)
    for name in ("map", "rank", "noise_scale", "retained_energy", "band_energy", "window_size"):
        assert torch.equal(getattr(results[0], name), getattr(results[1], name))


@pytest.mark.parametrize("value", [-32768.0, -1e10, -3.4e38])
def test_a_voxel_without_data_reaches_no_further_than_its_windows(value):
    """Its windows have no mean to divide by and are left out; their partners in the transform must not notice."""
    image, _ = wavy_head((64, 60, 2), noise=0.05)
    image = image + 50
    image[5, 5, 0] = value
    double, ours = (
        dynamic_spectral_decomposition(image, (2.0, 2.0, 4.0), None, DSDParameters(dtype=dtype))
        for dtype in ("float64", "float32")
    )
    assert (double.window_size[:4, :4, 0] == 0).any()
    assert torch.equal(ours.window_size, double.window_size)
    assert torch.equal(ours.rank, double.rank)
    assert (ours.map - double.map).abs().max() <= 5e-6 * double.map.abs().max()


@pytest.mark.parametrize("engine", ["numba", "torch"])
@pytest.mark.parametrize("setting", ["autocast", "default dtype"])
def test_settings_of_somebody_elses_training_loop_do_not_matter(engine, setting):
    image, mask = wavy_head((48, 44, 2))
    batch = torch.from_numpy(matrices("noise", 20, 12, 12, seed=1))
    plain = dynamic_spectral_decomposition(image, (2.0, 2.0, 4.0), mask, None, engine)
    projected = rank_k_project(batch, 0.9, engine=engine)
    window_tables.cache_clear()
    before = torch.get_default_dtype()
    try:
        if setting == "default dtype":
            torch.set_default_dtype(torch.float64)
        with torch.autocast("cpu", torch.bfloat16, enabled=setting == "autocast"):
            ours = dynamic_spectral_decomposition(image, (2.0, 2.0, 4.0), mask, None, engine)
            again = rank_k_project(batch, 0.9, engine=engine)
    finally:
        torch.set_default_dtype(before)
        window_tables.cache_clear()
    assert torch.equal(ours.map, plain.map)
    assert torch.equal(ours.rank, plain.rank)
    assert torch.equal(again.projected, projected.projected)


def test_threads_of_the_caller_may_decompose_at_the_same_time():
    heads = [wavy_head((48, 44, 2), seed=seed) for seed in range(6)]

    def decompose(head):
        return dynamic_spectral_decomposition(head[0], (2.0, 2.0, 4.0), head[1], None, "numba").map

    alone = [decompose(head) for head in heads]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(decompose, heads))
    assert [torch.equal(a, b) for a, b in zip(alone, together, strict=True)] == [True] * 6


@pytest.mark.parametrize(
    "changed",
    [
        lambda a: a[::-1],
        lambda a: a.astype(">f4"),
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(np.float16),
        lambda a: np.broadcast_to(a[:, :, :1], (*a.shape[:2], 3)),
    ],
    ids=["flipped", "other byte order", "Fortran order", "half", "read only"],
)
def test_arrays_of_any_layout_are_taken(changed):
    image = changed(wavy_head((40, 36, 3))[0].astype(np.float32))
    plain = np.array(image, dtype=np.float32)
    assert torch.equal(*(dynamic_spectral_decomposition(i, (2.0, 2.0, 4.0)).map for i in (image, plain)))


def test_engine_is_chosen_from_the_device_and_what_is_asked_for():
    chosen = {
        "plain": decomposing_engine(None, CPU, DSDParameters()),
        "double": decomposing_engine(None, CPU, DSDParameters(dtype="float64")),
        "literal": decomposing_engine(None, CPU, DSDParameters(literal=True)),
    }
    assert chosen["plain"].__module__ == "mhsev_monai.dsd.engines.cpu"
    assert chosen["double"].func is chosen["literal"].func is portable_decompose


@pytest.mark.parametrize(
    ("engine", "settings_", "message"),
    [
        ("cuda", {}, "engine must be None or one of numba, triton, torch, got 'cuda'"),
        ("numba", {"dtype": "float64"}, "engine 'numba' cannot run: it takes float32, .* and float64 is asked for"),
        ("numba", {"eigenvalues": "singular"}, "engine 'numba' cannot run: .* the singular reading is asked for"),
        ("numba", {"literal": True}, "engine 'numba' cannot run: .* literal=True is asked for"),
        ("triton", {}, "engine 'triton' cannot run: it runs on CUDA, and the image is on cpu; pass engine=None"),
    ],
)
def test_engine_that_cannot_run_says_why(engine, settings_, message, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=message) as caught:
        dynamic_spectral_decomposition(np.full((9, 9), 1.0), (1, 1), None, DSDParameters(**settings_), engine)
    assert "\n" not in str(caught.value)


def test_image_on_a_gpu_is_no_work_for_numba():
    assert reason_against("numba", CUDA) == "it runs on the processor, and the image is on cuda"


def test_what_keeps_an_engine_from_compiling_is_named(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert reason_against("numba", CPU) == "NUMBA_DISABLE_JIT is set, and its kernels exist only compiled"
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    pytest.importorskip("triton")
    assert "neither CC, gcc nor clang is there" in reason_against("triton", CUDA)


def test_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert reason_against("triton", CUDA) == "the package triton is not installed (pip install 'mhsev[gpu]')"
    assert all(reason_against(engine, CPU) for engine in ENGINES if engine != "torch")


FIRST_RESULT = """
import numpy as np
from mhsev_monai.dsd import dynamic_spectral_decomposition
from mhsev_monai.dsd.engines import cpu_kernel
dynamic_spectral_decomposition(np.random.default_rng(0).uniform(1, 2, (40, 40)), (2.0, 2.0), None, None, "numba")
stats = cpu_kernel.decompose_slice.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_second_process_finds_the_compiled_kernel(tmp_path):
    counts = []
    for _ in range(2):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", FIRST_RESULT], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        counts.append(done.stdout.split())
    assert counts == [["0", "1"], ["1", "0"]]


def test_volume_without_structure_has_an_empty_map_in_float32():
    result = dynamic_spectral_decomposition(np.full((24, 24, 2), 250.0), (2.0, 2.0, 4.0), None, None, "numba")
    assert result.map.abs().max() == 0
    assert result.rank.max() == 0
    assert (result.window_size > 0).all()


def test_dark_image_has_no_windows_there_in_float32():
    image, mask = spotted_head((2.0, 2.0, 4.0), 3, side_mm=80, height_mm=8)
    image[:12] = 1.0
    ours, theirs = (
        dynamic_spectral_decomposition(image, (2.0, 2.0, 4.0), np.ones_like(mask), None, engine)
        for engine in ("numba", "torch")
    )
    assert (ours.window_size[1:4] == 0).all()
    for name in ("window_size", "rank"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    for name in ("rank", "noise_scale", "retained_energy", "band_energy"):
        assert (getattr(ours, name)[ours.window_size == 0] == 0).all()
