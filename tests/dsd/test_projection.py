"""Truncated SVD of anyone's patches: every engine against NumPy's SVD in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_families import FAMILIES, matrices, truncate

from mhsev_monai.dsd import rank_k_project

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
AVAILABLE = ["numba", "torch", pytest.param("triton", marks=needs_cuda)]


def device_of(engine):
    return CUDA if engine == "triton" else CPU


def check_projection(batch, energy, engine, *, singular=False):
    """K exactly, and the matrix within what rounding may turn components: its unit over the gap (Davis and Kahan)."""
    reading = "singular" if singular else "squared"
    found = rank_k_project(torch.from_numpy(batch).to(device_of(engine)), energy, eigenvalues=reading, engine=engine)
    expected = truncate(batch, energy, singular_reading=singular)
    clear = expected.clear
    np.testing.assert_array_equal(found.rank.cpu().numpy()[clear], expected.rank[clear])
    error = np.abs(found.projected.cpu().numpy() - expected.projected).max((1, 2))
    size = np.maximum(np.linalg.norm(batch, axis=(1, 2)), 1e-30)
    bound = 5e-7 * (1 + 1 / np.maximum(expected.gap, 1e-12))
    assert (error[clear] <= np.minimum(bound, 1)[clear] * size[clear] + 1e-30).all(), (error / size / bound)[
        clear
    ].max()
    return clear


@pytest.mark.parametrize("engine", AVAILABLE)
@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("family", FAMILIES)
def test_projection_agrees_with_the_svd_in_double_precision(engine, size, family):
    assert check_projection(matrices(family, 70, size, size, seed=size), 0.95, engine).mean() > 0.5


@settings(max_examples=100, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    m=st.integers(1, 40),
    n=st.integers(1, 32),
    count=st.integers(1, 40),
    energy=st.floats(0.2, 0.995),
    reading=st.sampled_from([("numba", False), ("torch", False), ("torch", True)]),
    seed=st.integers(0, 2**16),
)
def test_matrices_of_any_kind_and_shape_are_projected_as_the_svd_does(family, m, n, count, energy, reading, seed):
    engine, singular = reading
    check_projection(matrices(family, count, m, n, seed), energy, engine, singular=singular)


@pytest.mark.parametrize("engine", AVAILABLE)
def test_most_windows_are_within_1e_6_of_the_svd(engine):
    batch = np.concatenate(
        [matrices(family, 300, 16, 16, 3) for family in ("noise", "blob in noise", "waves with ties")]
    )
    projected = rank_k_project(torch.from_numpy(batch).to(device_of(engine)), 0.95, engine=engine).projected.cpu()
    error = np.abs(projected.numpy() - truncate(batch, 0.95).projected).max((1, 2)) / np.linalg.norm(batch, axis=(1, 2))
    assert np.median(error) < 3e-7
    assert np.quantile(error, 0.99) < 2e-6


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
def test_size_of_the_entries_does_not_matter(scale):
    batch = matrices("blob in noise", 40, 16, 16, seed=5)
    plain = rank_k_project(torch.from_numpy(batch), 0.95, engine="numba")
    scaled = rank_k_project(torch.from_numpy(batch) * scale, 0.95, engine="numba")
    assert torch.equal(plain.rank, scaled.rank)
    torch.testing.assert_close(scaled.projected / scale, plain.projected, rtol=0, atol=1e-5)


def test_transposed_matrices_are_projected_to_the_transpose():
    batch = torch.from_numpy(matrices("noise", 50, 16, 16, seed=2))
    plain, turned = (rank_k_project(b, 0.9, engine="numba") for b in (batch, batch.mT))
    assert torch.equal(plain.rank, turned.rank)
    torch.testing.assert_close(turned.projected.mT, plain.projected, rtol=0, atol=2e-5)


def test_matrix_in_a_batch_is_projected_as_if_alone():
    """Lanes do not see each other: bit for bit, whatever lies beside."""
    batch = torch.from_numpy(np.concatenate([matrices(family, 9, 16, 12, 4) for family in FAMILIES]))
    together = rank_k_project(batch, 0.95, engine="numba")
    for place in (0, 17, 40, 98):
        alone = rank_k_project(batch[place : place + 1], 0.95, engine="numba")
        assert torch.equal(alone.rank[0], together.rank[place])
        assert torch.equal(alone.projected[0], together.projected[place])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_matrices_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="matrices must be finite"):
        rank_k_project(torch.tensor([[1.0, bad], [0.0, 1.0]]), 0.95)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_matrices_come_back_in_the_type_in_which_they_came(kind):
    batch = torch.from_numpy(matrices("one component", 5, 9, 7, seed=0)).to(kind)
    projected, rank = rank_k_project(batch, 0.95)
    assert projected.dtype == kind
    assert rank.tolist() == [1] * 5
    torch.testing.assert_close(projected, batch, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"matrices": torch.ones(2, 3, 3, dtype=torch.int16)},
            "matrices must be real floating-point .* got int16 of shape",
        ),
        ({"matrices": np.ones((2, 3), dtype=bool)}, "got bool of shape"),
        ({"matrices": torch.ones(3)}, "at least two axes"),
        ({"tie": 1.0}, "tie must be from 0 to below 1, got 1.0"),
        ({"tie": float("nan")}, "tie must be from 0 to below 1, got nan"),
        ({"energy": 1.0}, "energy must be between 0 and 1"),
        ({"eigenvalues": "cubed"}, "eigenvalues must be one of squared, singular"),
        ({"engine": "jax"}, "engine must be None or one of"),
    ],
)
def test_call_that_cannot_be_used_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        rank_k_project(**{"matrices": torch.ones(2, 3, 3), "energy": 0.9, **arguments})


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 4, 0)])
def test_no_matrices_give_no_matrices(shape):
    projected, rank = rank_k_project(torch.ones(shape), 0.95)
    assert (projected.shape, rank.shape) == (shape, shape[:1])


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_without_the_tie_rule_equal_values_are_cut_where_the_criterion_falls(engine):
    assert rank_k_project(torch.eye(8), 0.4, tie=0, engine=engine).rank == 4
    assert rank_k_project(torch.eye(8), 0.4, engine=engine).rank == 8


def test_tall_matrices_are_left_to_torch():
    tall = torch.randn(1, 3000, 8)
    with pytest.raises(ValueError, match="matrices of more than 1024 rows is asked for"):
        rank_k_project(tall, 0.95, engine="numba")
    assert rank_k_project(tall, 0.95).rank.shape == (1,)


def test_large_matrices_are_left_to_torch():
    batch = torch.randn(2, 40, 36)
    with pytest.raises(ValueError, match="matrices of more than 32 by 32 is asked for"):
        rank_k_project(batch, 0.95, engine="numba")
    assert rank_k_project(batch, 0.95).projected.shape == batch.shape
