"""Shells as scanners write them; trace and ADC against numbers computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mhsev_monai.ingest.bvals import B0_MAX
from mhsev_monai.preprocess.diffusion import (
    Shells,
    apparent_diffusion_coefficient,
    mean_b0,
    select_shells,
    trace_weighted,
)


def outside(b_value: int) -> str:
    return f"shell b={b_value} outside 600-1600: no trace or ADC is made of it, b0 alone is used"


def series(*volumes: float) -> torch.Tensor:
    """``(1, 1, 1, N)``: one voxel, one value a volume."""
    return torch.tensor(volumes).reshape(1, 1, 1, -1)


def shells(n_b0: int, n_dwi: int) -> Shells:
    return Shells(tuple(range(n_b0)), tuple(range(n_b0, n_b0 + n_dwi)), 0.0, 1000.0, ())


@pytest.mark.parametrize(
    ("bvals", "b0", "dwi", "b_value", "flags"),
    [
        ([0, 1000, 1000], (0,), (1, 2), 1000, ()),
        ([0, 1000, 0.001, 1000], (0, 2), (1, 3), 1000, ()),  # Philips writes b = 0.001 for a second b0
        ([1.25126, 929.75, 929.75], (0,), (1, 2), 929.75, ()),  # UIH
        ([0, 2500, 2500], (0,), (1, 2), 2500, (outside(2500),)),
        ([1000, 0], (1,), (0,), 1000, ()),
        ([0, 5, 50], (0, 1, 2), (), 0, ()),
        ([0], (0,), (), 0, ()),
        ([0, 700, 1000, 2000], (0,), (2,), 1000, ()),
        ([0, 995, 1005, 1990, 2010], (0,), (1, 2), 1000, ()),
        ([0, 800, 1200], (0,), (1,), 800, ()),  # equally near: the lower one has the better signal
        ([0, 500, 1600], (0,), (2,), 1600, ()),  # 500 is nearer, but not within 600 to 1600
        ([0, 600, 1600.1], (0,), (1,), 600, ()),
        ([0, 599, 1650], (0,), (1,), 599, (outside(599),)),
        ([0, 300, 2900, 3000, 3100], (0,), (1,), 300, (outside(300),)),
        ([0, 400, 1601], (0,), (1,), 400, (outside(400),)),
        ([0, 300, 1601], (0,), (2,), 1601, (outside(1601),)),
        ([0, 2850, 3000, 3150], (0,), (1,), 2850, (outside(2850),)),
        ([0, 60, 1000], (0,), (2,), 1000, ()),  # 60 is on the lowest shell but is no b0
        ([0, 60], (0,), (1,), 60, (outside(60),)),
    ],
)
def test_the_shell_nearest_to_1000_is_chosen(bvals, b0, dwi, b_value, flags):
    chosen = select_shells(bvals)
    assert (chosen.b0, chosen.dwi, chosen.b_value, chosen.flags) == (b0, dwi, b_value, flags)


def test_b_values_without_gaps_are_used_around_1000():
    chosen = select_shells(list(range(0, 3100, 100)))
    assert chosen.dwi == (9, 10, 11)
    assert chosen.b_value == 1000
    assert chosen.flags == ("b-values run on without a gap of 100; those near 1000 are used",)


def test_a_b0_volume_must_be_on_the_lowest_shell():
    assert select_shells([0, 150, 1000], b0_max=200).b0 == (0,)
    assert select_shells([0, 90, 1000], b0_max=200).b0 == (0, 1)


def test_the_means_are_of_the_chosen_volumes():
    chosen = select_shells([0, 10, 990, 1020, 3000])
    assert (chosen.b0_value, chosen.b_value) == (5.0, 1005.0)


def test_the_bound_of_b0_is_that_of_the_reader():
    assert select_shells([0, B0_MAX, 1000]).b0 == (0, 1)
    assert select_shells([0, B0_MAX + 0.1, 1000]).b0 == (0,)


@given(st.permutations(list(enumerate([0.0, 0.001, 45.0, 930.0, 1000.0, 1080.0, 2000.0, 2100.0]))))
def test_the_order_of_the_volumes_does_not_matter(pairs):
    chosen = select_shells(torch.tensor([b for _, b in pairs], dtype=torch.float64))
    assert {pairs[i][0] for i in chosen.b0} == {0, 1, 2}
    assert {pairs[i][0] for i in chosen.dwi} == {3, 4, 5}
    assert chosen.b0 == tuple(sorted(chosen.b0))


@pytest.mark.parametrize("bvals", [[], [-1, 0], [0, math.nan], [math.inf, 0], [51, 1000]])
def test_b_values_without_a_b0_or_out_of_range_are_refused(bvals):
    with pytest.raises(ValueError, match="bvals must"):
        select_shells(bvals)


@pytest.mark.parametrize(
    ("name", "n_b0", "n_dwi", "b_value", "n_flags"),
    [
        ("philips_achieva_whole_b0_b1000", 1, 6, 1000.0, 0),
        ("philips_elition_mb3_b0_b1000", 2, 6, 1000.0, 0),
        ("siemens_prisma_ve11_sag_b0_b2000", 1, 6, 2000.0, 1),
        ("siemens_prisma_xa30_PA_b0_b2500", 1, 6, 2500.0, 1),
        ("uih_umr770_b0_b930", 1, 16, 929.75, 0),
    ],
)
def test_shells_of_real_files(name, n_b0, n_dwi, b_value, n_flags, shared_data: Path):
    chosen = select_shells(np.loadtxt(shared_data / "nifti_dwi" / f"{name}.bval").tolist())
    assert (len(chosen.b0), len(chosen.dwi), chosen.b_value, len(chosen.flags)) == (n_b0, n_dwi, b_value, n_flags)


def test_the_b0_is_the_mean_over_its_finite_volumes():
    assert mean_b0(series(100, 300, 7), shells(2, 1)).item() == 200
    assert mean_b0(series(100, math.nan, math.inf, 7), shells(3, 1)).item() == 100
    assert mean_b0(series(math.nan, -math.inf, 7), shells(2, 1)).item() == 0


def test_the_trace_is_the_geometric_mean():
    # (200 * 400 * 800)^(1/3) = 400.
    assert trace_weighted(series(1000, 200, 400, 800), shells(1, 3)).item() == pytest.approx(400, rel=1e-5)
    assert trace_weighted(series(1000, math.nan, 100, 400), shells(1, 3)).item() == pytest.approx(200, rel=1e-5)


def test_a_direction_without_signal_counts_as_the_floor():
    # The mean positive signal is 100, so the floor is 1: (100 * 100 * 1)^(1/3).
    trace = trace_weighted(series(0, 100, 100, -5), shells(1, 3), floor=0.01)
    assert trace.item() == pytest.approx(1e4 ** (1 / 3), rel=1e-5)
    assert trace_weighted(series(0, 0, -3, math.nan), shells(1, 3)).item() == 0


def test_background_stays_zero_beside_tissue():
    data = torch.zeros(2, 1, 1, 3)
    data[0] = torch.tensor([1000.0, 300.0, 300.0])
    assert trace_weighted(data, shells(1, 2)).flatten().tolist() == pytest.approx([300, 0])


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_trace_and_b0_scale_with_the_signal_and_the_adc_does_not(factor):
    generator = torch.Generator().manual_seed(3)
    data = torch.rand(6, 5, 4, 7, generator=generator) - 0.05
    chosen = shells(2, 5)
    b0, trace = mean_b0(data, chosen), trace_weighted(data, chosen)
    scaled_b0, scaled_trace = mean_b0(data * factor, chosen), trace_weighted(data * factor, chosen)
    torch.testing.assert_close(scaled_b0, b0 * factor, rtol=1e-5, atol=0)
    torch.testing.assert_close(scaled_trace, trace * factor, rtol=1e-5, atol=0)
    # Two logarithms of size 15 in float32, over b = 1000.
    torch.testing.assert_close(
        apparent_diffusion_coefficient(scaled_b0, scaled_trace, 1000),
        apparent_diffusion_coefficient(b0, trace, 1000),
        rtol=0,
        atol=1e-8,
    )


def test_the_mean_of_whole_numbers_is_a_fraction():
    data = torch.tensor([100, 101, 200], dtype=torch.int16).reshape(1, 1, 1, 3)
    assert mean_b0(data, shells(2, 1)).item() == 100.5
    assert trace_weighted(data, shells(2, 1)).item() == pytest.approx(200, rel=1e-5)


@pytest.mark.parametrize(
    ("s0", "sb", "b", "adc"),
    [
        (1000.0, 1000.0 * math.exp(-1), 1000.0, 1e-3),
        (1000.0, 500.0, 1000.0, 0.6931472e-3),
        (500.0, 500.0, 1000.0, 0.0),
        (500.0, 600.0, 1000.0, 0.0),  # noise above the b0
        (1000.0, 1.0, 1000.0, 4e-3),  # ln 1000 / 1000 = 6.9e-3, more than free water
        (1000.0, 0.0, 1000.0, 4e-3),
        (1000.0, -5.0, 1000.0, 4e-3),
        (0.0, 0.0, 1000.0, 0.0),
        (-3.0, 5.0, 1000.0, 0.0),
        (math.nan, 5.0, 1000.0, 0.0),
        (1000.0, math.nan, 1000.0, 0.0),
        (math.inf, 5.0, 1000.0, 0.0),
        (1000.0, math.inf, 1000.0, 0.0),
    ],
)
def test_the_adc_is_the_one_computed_by_hand(s0, sb, b, adc):
    computed = apparent_diffusion_coefficient(torch.tensor([s0]), torch.tensor([sb]), b)
    assert computed.item() == pytest.approx(adc, rel=1e-6)


def test_inputs_are_not_changed():
    data = series(math.nan, 100, 0, 50)
    before = data.clone()
    chosen = shells(2, 2)
    apparent_diffusion_coefficient(mean_b0(data, chosen), trace_weighted(data, chosen), 1000)
    torch.testing.assert_close(data, before, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: trace_weighted(series(1, 2), shells(2, 0)), "no diffusion-weighted volume"),
        (lambda: trace_weighted(series(1, 2), shells(1, 1), floor=0), "floor must be"),
        (lambda: mean_b0(series(1, 2), shells(3, 0)), "N > 2"),
        (lambda: mean_b0(torch.ones(2, 3), shells(1, 0)), r"shape \(2, 3\)"),
        (lambda: apparent_diffusion_coefficient(torch.ones(2), torch.ones(2), 0), "b must be"),
        (lambda: apparent_diffusion_coefficient(torch.ones(2), torch.ones(2), math.nan), "b must be"),
        (lambda: apparent_diffusion_coefficient(torch.ones(2), torch.ones(3), 1000), "same shape"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()
