"""Slices hang as radiologists hang them, whichever way they are stored, and circles sit on what they mark."""

from __future__ import annotations

import base64
import io
import itertools

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mhsev_monai.report.slices import PANEL_HEIGHT, Mark, hanging, orientation_words, slice_pair_png

PREFIX = "data:image/png;base64,"
RING = np.array([0x56, 0xD0, 0xFF])


def pixels(address):
    assert address.startswith(PREFIX)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address[len(PREFIX) :]))).convert("RGB")).astype(int)


def panels(address):
    picture = pixels(address)
    width = (picture.shape[1] - 8) // 2
    return picture[:, :width], picture[:, width + 8 :]


def centre(mask):
    rows, columns = np.nonzero(mask)
    return rows.mean() / mask.shape[0], columns.mean() / mask.shape[1]


def slice_with_spot(codes, shape=(40, 60)):
    """A slice as stored along ``codes`` with one bright spot in the patient's left front."""
    place = [0.75 if code in "LA" else 0.25 for code in codes]
    spot = [int(share * side) for share, side in zip(place, shape, strict=True)]
    image = np.zeros(shape)
    image[spot[0] - 2 : spot[0] + 3, spot[1] - 2 : spot[1] + 3] = 1.0
    return image, Mark(*spot)


AXIAL = [pair for a, b in (("LR", "AP"), ("AP", "LR")) for pair in itertools.product(a, b)]


@pytest.mark.parametrize("codes", AXIAL)
def test_left_of_the_patient_is_right_and_front_is_up_however_the_slice_is_stored(codes):
    image, _ = slice_with_spot(codes)
    b0, _ = panels(slice_pair_png(image, -image, [], axis_codes=codes))
    row, column = centre(b0[20:-40, 40:-40].min(axis=-1) > 200)
    assert row < 0.45
    assert column > 0.55
    assert hanging(codes).edges == ("R", "L", "A", "P")


@pytest.mark.parametrize("codes", [*AXIAL, None])
def test_the_ring_is_centred_on_the_spot_in_both_panels(codes):
    image, mark = slice_with_spot(codes or ("R", "A"))
    for panel in panels(slice_pair_png(image, -image, [mark], axis_codes=codes)):
        ring = (np.abs(panel - RING).sum(axis=-1) < 30) & (panel[..., 0] < 120)
        bright = panel[..., 0] > 200
        bright[:30], bright[-30:], bright[:, :30], bright[:, -30:] = False, False, False, False  # letters
        assert ring.sum() > 50
        assert centre(ring) == pytest.approx(centre(bright), abs=0.02)


@pytest.mark.parametrize(
    ("codes", "edges"),
    [
        (("A", "S"), ("A", "P", "S", "I")),
        (("P", "S", "R"), ("A", "P", "S", "I")),
        (("S", "A"), ("A", "P", "S", "I")),
        (("L", "S"), ("R", "L", "S", "I")),
        (("R", "I"), ("R", "L", "S", "I")),
    ],
)
def test_sagittal_and_coronal_slices_have_the_top_of_the_head_up(codes, edges):
    assert hanging(codes).edges == edges


def test_the_picture_has_the_proportions_of_the_body_not_of_the_matrix():
    image = np.random.default_rng(0).random((30, 60))
    b0, _ = panels(slice_pair_png(image, image, [], spacing=(4.0, 1.0), axis_codes=("L", "P")))
    assert b0.shape[:2] == (PANEL_HEIGHT, 2 * PANEL_HEIGHT)  # 120 mm wide, 60 mm high
    b0, _ = panels(slice_pair_png(image, image, [], spacing=(4.0, 1.0), axis_codes=("P", "L")))
    assert b0.shape[:2] == (PANEL_HEIGHT, PANEL_HEIGHT // 2)


def test_dark_spots_are_orange_and_bright_ones_blue_on_the_map():
    feature_map = np.zeros((40, 40))
    feature_map[10:14, 18:22], feature_map[26:30, 18:22] = -1.0, 1.0
    _, shown = panels(slice_pair_png(np.zeros((40, 40)), feature_map, []))
    red_over_blue = shown[..., 0] - shown[..., 2]
    # Without axis codes the first axis runs to the right and the second upwards.
    assert centre(red_over_blue > 150)[1] == pytest.approx(12 / 40, abs=0.01)
    assert centre(red_over_blue < -100)[1] == pytest.approx(28 / 40, abs=0.01)


def test_the_words_say_the_orientation_or_that_it_is_not_known():
    assert orientation_words(("R", "A", "S")) == (
        "The patient's left is on the image's right, the front of the head is up."
    )
    assert "unknown" in orientation_words(None)
    assert hanging(None).edges == ()


@pytest.mark.parametrize(
    ("name", "hung"), [("philips_achieva_whole_b0_b1000", "LP"), ("siemens_prisma_ve11_sag_b0_b2000", "PI")]
)
def test_a_real_scan_hangs_as_nibabel_turns_it(shared_data, name, hung):
    scan = nib.load(shared_data / "nifti_dwi" / f"{name}.nii.gz")
    volume = np.asarray(scan.dataobj, dtype=np.float32)[..., 0]
    codes, middle = nib.aff2axcodes(scan.affine), volume.shape[2] // 2
    b0, _ = panels(slice_pair_png(volume[:, :, middle], volume[:, :, middle], [], scan.header.get_zooms()[:2], codes))
    orientation = nib.orientations
    turn = orientation.ornt_transform(orientation.axcodes2ornt(codes), orientation.axcodes2ornt((*hung, codes[2])))
    wanted = orientation.apply_orientation(volume, turn)[:, :, middle].T
    shown = np.asarray(Image.fromarray(b0[..., 0].astype(np.uint8)).resize(wanted.shape[::-1]))

    def agreement(other):
        return np.corrcoef(shown.ravel(), other.ravel())[0, 1]

    # Letters, windowing and interpolation cost a little; a mirrored head is far below.
    assert agreement(wanted) > 0.95 > 0.05 + max(agreement(wanted[::-1]), agreement(wanted[:, ::-1]))


def test_equal_slices_give_equal_pictures_and_are_not_changed():
    image = np.random.default_rng(1).random((20, 24))
    before = image.copy()
    assert slice_pair_png(image, image, [Mark(3, 4)]) == slice_pair_png(image, image, [Mark(3, 4)])
    assert (image == before).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_empty_slice_is_drawn_black(value):
    image = np.full((10, 10), value)
    assert pixels(slice_pair_png(image, image, [])).max() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b0": np.zeros((4, 4, 1))}, "must be a slice"),
        ({"b0": np.zeros((4, 5))}, "one shape"),
        ({"spacing": (0.0, 1.0)}, "positive lengths"),
        ({"axis_codes": ("L", "R")}, "two directions"),
        ({"axis_codes": ("X", "A")}, "two directions"),
    ],
)
def test_a_wrong_argument_is_refused(change, message):
    arguments = {"b0": np.zeros((4, 4)), "dsd": np.zeros((4, 4)), "marks": [], **change}
    with pytest.raises(ValueError, match=message):
        slice_pair_png(**arguments)
