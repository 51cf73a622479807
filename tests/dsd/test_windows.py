from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from mhsev_monai.dsd import windows


@pytest.mark.parametrize(
    ("spacing", "size"),
    [((1.0, 1.0), 16), ((2.2, 2.2), 8), ((1.75, 1.75), 8), ((0.5, 0.5), 32), ((3.5, 3.5), 8), ((0.1, 0.1), 32)],
)
def test_base_window_is_nearest_to_16_mm(spacing, size):
    assert windows.base_window_size(spacing, 256) == size


@pytest.mark.parametrize(("largest", "size"), [(32, 32), (31, 16), (15, 8), (7, 8)])
def test_base_window_fits_the_image_where_one_does(largest, size):
    assert windows.base_window_size((0.5, 0.5), largest) == size


@pytest.mark.parametrize("shape", [(1, 3, 40), (2, 17, 60), (2, 90, 70)])
def test_continued_volume_agrees_with_numpy(shape):
    volume = torch.rand(shape, dtype=torch.float64)
    ours = windows.continue_by_reflection(volume, 4).numpy()
    beyond = [length - windows.MARGIN - n for length, n in zip(ours.shape[1:], shape[1:], strict=True)]
    theirs = np.pad(volume.numpy(), ((0, 0), *((windows.MARGIN, b) for b in beyond)), mode="reflect")
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_boxes_and_gathered_windows_are_those_of_the_view(stride):
    volume = torch.rand(2, 37, 29, dtype=torch.float64)
    view = windows.windows_at_anchors(windows.continue_by_reflection(volume, stride), 16, stride)
    torch.testing.assert_close(windows.boxes_at_anchors(volume, 16, stride), view.mean((-2, -1)), rtol=1e-13, atol=0)
    anchors = torch.ones(view.shape[:3]).nonzero()[::7]
    assert torch.equal(windows.gather_windows(volume, anchors, 16, stride), view[tuple(anchors.T)])


@pytest.mark.parametrize("size", [1, 2, 3, 17, 40])
def test_reflection_agrees_with_numpy(size):
    line = np.random.default_rng(0).random(size)
    index = windows.reflected(torch.arange(-50, size + 50), size).numpy()
    np.testing.assert_array_equal(line[index], np.pad(line, 50, mode="reflect"))


@pytest.mark.parametrize(("size", "sigma"), [(30, 1.8), (5, 2.3), (1, 2.0)])
def test_gaussian_matrix_agrees_with_scipy(size, sigma):
    line = np.random.default_rng(0).random(size)
    ours = windows.gaussian_matrix(size, sigma, torch.zeros(0, dtype=torch.float64)).numpy() @ line
    np.testing.assert_allclose(ours, gaussian_filter1d(line, sigma, truncate=4, mode="mirror"), rtol=1e-12)


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_windows_lie_where_the_docstring_says(size, stride):
    volume = torch.arange(2 * 37 * 29, dtype=torch.float64).reshape(2, 37, 29)
    view = windows.windows_at_anchors(windows.continue_by_reflection(volume, stride), size, stride)
    a_x, a_y = windows.anchor_shape(37, 29, stride)
    assert view.shape == (2, a_x, a_y, size, size)
    padded = np.pad(volume.numpy(), ((0, 0), (64, 64), (64, 64)), mode="reflect")
    for i, j in ((0, 0), (3, 2), (a_x - 1, a_y - 1)):
        x, y = 64 + i * stride - size // 2, 64 + j * stride - size // 2
        np.testing.assert_array_equal(view[1, i, j].numpy(), padded[1, x : x + size, y : y + size])


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("stride", [2, 4])
def test_windows_of_a_volume_add_up_to_the_volume(size, stride):
    volume = torch.rand(3, 21, 34, dtype=torch.float64)
    padded = windows.continue_by_reflection(volume, stride)
    view = windows.windows_at_anchors(padded, size, stride)
    anchors = tuple(torch.ones(view.shape[:3]).nonzero().T)
    taper = windows.sine_taper(size, volume)
    total = windows.OverlapAdd(padded, stride)
    total.add(anchors, taper * view[anchors], taper)
    torch.testing.assert_close(total.result(21, 34), volume, rtol=0, atol=1e-14)


def test_squared_taper_is_a_hann_window_whose_copies_add_up_to_a_constant():
    squared = windows.sine_taper(16, torch.zeros(0, dtype=torch.float64)).square()
    total = sum(torch.roll(squared, (4 * a, 4 * b), (0, 1)) for a in range(4) for b in range(4))
    torch.testing.assert_close(total, torch.full_like(total, 4.0), rtol=0, atol=1e-14)
    assert squared.mean().item() == pytest.approx(0.25, abs=1e-15)


def test_flat_tissue_takes_large_windows_and_busy_tissue_small_ones():
    rng = np.random.default_rng(0)
    contrast = 1 + 0.1 * rng.standard_normal((1, 160, 64))
    contrast[:, :50] = 1 + 0.02 * rng.standard_normal((1, 50, 64))
    contrast[:, 110:] = 1 + 0.5 * rng.standard_normal((1, 50, 64))
    grid = windows.anchor_shape(160, 64, 4)
    inside = torch.ones(1, *grid, dtype=torch.bool)
    inside[:, -1] = False
    sizes = windows.choose_window_sizes(torch.from_numpy(contrast), inside, (1.0, 1.0), 16, 4)[0]
    assert (sizes[3:9] == 32).all()
    assert (sizes[16:23] == 16).float().mean() > 0.95
    assert (sizes[33:38] == 8).all()
