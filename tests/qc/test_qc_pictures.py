"""Mosaics hang as the report's slices do, outlines lie on the mask, colours say the field."""

from __future__ import annotations

import base64
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from mhsev_monai.qc.pictures import COLUMNS, Layout, band_colours, field_mosaic, head_mosaic

BLUE = np.array([86, 208, 255])
SPACING = (2.0, 2.0, 4.0)
AXIAL = [(*pair, "S") for a, b in (("LR", "AP"), ("AP", "LR")) for pair in itertools.product(a, b)]


def pixels(address, kind):
    head, _, content = address.partition(",")
    assert head == f"data:image/{kind};base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)


def tiles(picture, n):
    rows = -(-n // COLUMNS)
    height, width = picture.shape[0] // rows, picture.shape[1] // COLUMNS
    return [
        picture[i // COLUMNS * height :, i % COLUMNS * width :][:height, :width] for i in range(n)
    ]  # fmt: skip


def ball(shape=(60, 80, 20), centre=(30, 40, 10), radius=15.0, squeeze=(1.0, 1.0, 2.0)):
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, squeeze, strict=True)) < radius**2


@pytest.mark.parametrize("codes", AXIAL)
def test_left_of_the_patient_is_right_and_front_is_up_however_the_scan_is_stored(codes):
    brain = ball()
    b0 = 100.0 * brain
    # A bright spot in the patient's left front: 8 voxels from the middle along each axis.
    x, y = (centre + (8 if code in "LA" else -8) for centre, code in zip((30, 40), codes, strict=False))
    b0[x - 2 : x + 3, y - 2 : y + 3] = 1000.0
    layout = Layout.around(brain, SPACING, codes)
    shown = tiles(pixels(head_mosaic(np.where(brain, b0, 0) * 0.2, brain, brain, layout), "jpeg"), len(layout.slices))
    middle = shown[len(shown) // 2]
    # The percentile that ends the grey scale lies below the spot: grey is dark beside it.
    rows, columns = np.nonzero(middle.min(axis=-1) > 200)
    assert rows.mean() < 0.47 * middle.shape[0]
    assert columns.mean() > 0.53 * middle.shape[1]


def test_slices_run_evenly_through_the_brain_and_no_further():
    layout = Layout.around(ball(shape=(60, 80, 64), centre=(30, 40, 40), squeeze=(1, 1, 0.75)), SPACING, "LAS")
    assert len(layout.slices) == 16
    assert min(layout.slices) >= 21
    assert max(layout.slices) <= 59
    assert set(np.diff(layout.slices)) <= {2, 3}
    assert len(Layout.around(ball(), SPACING, "LAS").slices) == 15  # the brain has 15 slices


def test_the_outline_lies_on_the_edge_of_the_mask():
    brain = ball()
    layout = Layout.around(brain, SPACING, "LPS")
    shown = tiles(pixels(head_mosaic(100.0 * brain, brain, brain, layout), "jpeg"), len(layout.slices))
    middle = shown[len(shown) // 2]
    line = np.abs(middle - BLUE).sum(axis=-1) < 120
    rows, columns = np.nonzero(line)
    # 25 mm around a brain 29 voxels wide are 12 voxels of each side: 53 voxels in 168 pixels.
    radius = np.hypot(rows - middle.shape[0] / 2, columns - middle.shape[1] / 2) * 53 / 168
    assert line.sum() > 150
    assert radius.mean() == pytest.approx(14.5, abs=0.7)
    assert radius.std() < 1.0


def test_the_field_is_shown_relative_to_the_brain_and_clipped_at_the_ends():
    brain = ball()
    log_bias = np.full(brain.shape, 3.0)
    log_bias[:30] += 5.0
    log_bias[30:] -= 5.0
    layout = Layout.around(brain, SPACING, "LPS")
    shown = pixels(field_mosaic(log_bias, brain, brain, layout), "png")
    colours = {tuple(c) for c in shown.reshape(-1, 3)}
    assert colours == {(0, 0, 0), band_colours()[0], band_colours()[-1]}
    flat = pixels(field_mosaic(np.full(brain.shape, 3.0), brain, brain, layout), "png")
    assert {tuple(c) for c in flat.reshape(-1, 3)} == {(0, 0, 0), band_colours()[12]}


def test_a_mosaic_has_the_proportions_of_the_body():
    brain = ball(shape=(60, 40, 20), centre=(30, 20, 10), squeeze=(1, 2, 2))
    layout = Layout.around(brain, (2.0, 4.0, 4.0), "LPS")
    tile = tiles(pixels(field_mosaic(np.zeros(brain.shape), brain, brain, layout), "png"), len(layout.slices))[0]
    # 53 voxels of 2 mm across; 15 + 2 x 6 voxels of 4 mm down.
    assert tile.shape[0] / tile.shape[1] == pytest.approx(27 * 4 / (53 * 2), abs=0.02)
