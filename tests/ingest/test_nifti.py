"""Every sound series equals what nibabel reads, and what is odd about it is a warning."""

from __future__ import annotations

import gzip
import logging
import shutil

import nibabel as nib
import numpy as np
import pytest
from scan_files import AFFINE, BVALS, PATIENT, SHAPE, coded, save, scan, voxels

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest import read_dwi


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_scaled_integers_of_either_byte_order_equal_nibabel(suffix, order, image_class, tmp_path):
    header = image_class.header_class(endianness=order)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
    image = image_class(voxels(dtype=np.int16), AFFINE, header)
    image.header.set_slope_inter(0.5, -10)
    path = tmp_path / f"x{suffix}"
    nib.save(image, path)
    (tmp_path / "x.bval").write_text(BVALS)
    oracle = nib.load(path)
    assert oracle.dataobj.slope == 0.5
    series = read_dwi(path)
    # 0.5 n - 10 with n < 2000 is exact in float32.
    np.testing.assert_array_equal(series.data, oracle.get_fdata())
    assert series.data.dtype == np.float32
    assert series.data.dtype.isnative
    np.testing.assert_array_equal(series.affine, oracle.affine)
    assert series.spacing == (2.0, 2.0, 5.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
def test_every_real_voxel_type_is_read(dtype, tmp_path):
    data = voxels() % 100
    series = read_dwi(save(tmp_path / "x.nii", data.astype(dtype)))
    np.testing.assert_array_equal(series.data, data)


@pytest.mark.parametrize(
    "bvals", ["0 1000 1000", "0\n1000\n1000\n", "0\t1000\t1000\r\n", "\ufeff0,1000,1000", "0 1e3 1000.0"]
)
def test_a_row_and_a_column_of_b_values_are_the_same(bvals, tmp_path):
    assert read_dwi(scan(tmp_path, bvals=bvals)).bvals.tolist() == [0.0, 1000.0, 1000.0]


def test_b_values_are_kept_as_written(tmp_path):
    assert read_dwi(scan(tmp_path, bvals="1.25126 929.75 0.001")).bvals.tolist() == [1.25126, 929.75, 0.001]


@pytest.mark.parametrize("shape", [(12, 10, 4), (12, 10, 4, 1), (12, 10, 4, 1, 1)])
def test_a_single_volume_is_a_series_of_one(shape, tmp_path):
    data = voxels(shape)
    for series in (
        read_dwi(save(tmp_path / "a.nii.gz", data, bvals=None), b0_only=True),
        read_dwi(save(tmp_path / "b.nii.gz", data, bvals="0")),
    ):
        np.testing.assert_array_equal(series.data, data.reshape(12, 10, 4, 1))
        assert series.bvals.tolist() == [0.0]


def test_axes_of_length_one_after_the_fourth_are_dropped(tmp_path):
    data = voxels()
    assert read_dwi(scan(tmp_path, data[..., None])).data.shape == SHAPE


def test_volumes_announced_as_b0_need_no_bval_and_contradict_none(tmp_path):
    assert read_dwi(scan(tmp_path / "a", bvals=None), b0_only=True).bvals.tolist() == [0.0, 0.0, 0.0]
    assert read_dwi(scan(tmp_path / "b", bvals="0 5 0"), b0_only=True).bvals.tolist() == [0.0, 5.0, 0.0]
    with pytest.raises(ScanError, match="up to 1000 s/mm\\^2; leave out --b0-only"):
        read_dwi(scan(tmp_path / "c"), b0_only=True)


def test_the_bval_file_given_goes_before_the_one_beside(tmp_path):
    path = scan(tmp_path, bvals="words")
    other = tmp_path / "other.txt"
    other.write_text(BVALS)
    assert read_dwi(path, other).bvals.tolist() == [0.0, 1000.0, 1000.0]
    with pytest.raises(ScanError, match="missing or cannot be opened"):
        read_dwi(path, tmp_path / "none.bval")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_few_voxels_that_are_not_finite_become_zero_with_a_warning(bad, tmp_path):
    data = voxels()
    data[3, 2, 1, 2] = data[0, 0, 0, 2] = bad
    series = read_dwi(scan(tmp_path, data))
    assert series.warnings == ("2 voxels are NaN or infinite and set to 0",)
    assert series.data[3, 2, 1, 2] == 0
    assert np.isfinite(series.data).all()
    # 2 of 480 voxels of the third volume; all others are untouched.
    assert (series.data != data).sum() == 2


def test_a_volume_of_a_single_value_is_left_out_with_its_b_value(tmp_path):
    data = voxels()
    data[..., 1] = 0
    series = read_dwi(scan(tmp_path, data, bvals="0 1000 2000"))
    assert series.bvals.tolist() == [0.0, 2000.0]
    np.testing.assert_array_equal(series.data, data[..., [0, 2]])
    assert series.warnings == ("of 3 volumes these hold a single value and are left out: 2",)


def sheared(cosine: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 2] = [5 * cosine, 0, 5 * np.sqrt(1 - cosine**2)]
    return affine


@pytest.mark.parametrize(
    ("sform", "qform", "words"),
    [
        (AFFINE, AFFINE, []),
        (AFFINE, None, []),
        (None, AFFINE, []),
        (None, None, ["no orientation"]),
        (sheared(0.3), None, ["sheared", "0.30"]),
        (sheared(0.005), None, []),
        (AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0]), AFFINE, ["sform and qform", "disagree"]),
        (np.diag([1.0, 1.0, 1.0, 1.0]), None, ["voxel size is 2 x 2 x 5 mm but its affine's 1 x 1 x 1 mm"]),
    ],
)
def test_an_odd_orientation_is_a_warning(sform, qform, words, tmp_path):
    warnings = read_dwi(coded(tmp_path, sform, qform)).warnings
    assert len(warnings) == bool(words)
    assert all(word in warnings[0] for word in words)


def test_a_quaternion_that_is_no_rotation_is_a_warning_if_an_sform_is_there(tmp_path):
    path = coded(tmp_path, AFFINE, AFFINE)
    raw = bytearray(path.read_bytes())
    raw[256:268] = np.array([2, 2, 2], np.float32).tobytes()
    path.write_bytes(bytes(raw))
    assert read_dwi(path).warnings == ("the qform of the header cannot be read; the sform is used",)


def test_b_values_in_another_unit_are_suspected(tmp_path):
    (warning,) = read_dwi(scan(tmp_path, bvals="0 1 1")).warnings
    assert "multiply by 1000" in warning
    assert read_dwi(scan(tmp_path, bvals="0 0.001 0.004")).warnings == ()


def test_free_text_of_the_header_leaves_no_trace(tmp_path, caplog):
    image = nib.Nifti1Image(voxels(), AFFINE)
    for text_field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[text_field] = PATIENT
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, PATIENT.encode()))
    path = tmp_path / f"{PATIENT}.nii.gz"
    nib.save(image, path)
    path.with_name(f"{PATIENT}.bval").write_text(BVALS)
    assert PATIENT.encode() in gzip.decompress(path.read_bytes())
    with caplog.at_level(logging.DEBUG):
        series = read_dwi(path)
    np.testing.assert_array_equal(series.data, voxels())
    assert PATIENT not in repr(series) + caplog.text


REAL = {
    "philips_achieva_whole_b0_b1000": [0] + [1000] * 6,
    "philips_elition_mb3_b0_b1000": [0, 1000, 1000, 1000, 0.001, 1000, 1000, 1000],
    "philips_ingenia_mb2_b0_b1000": [0] + [1000] * 6,
    "siemens_prisma_ve11_sag_b0_b2000": [0] + [2000] * 6,
    "siemens_prisma_xa30_PA_b0_b2500": [0] + [2500] * 6,
    "uih_umr770_b0_b930": [1.25126] + [929.75] * 16,
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_series_equals_nibabel_and_raises_no_warning(name, shared_data):
    path = shared_data / "nifti_dwi" / f"{name}.nii.gz"
    series = read_dwi(path)
    oracle = nib.load(path)
    assert series.bvals.tolist() == REAL[name]
    assert series.data.shape == oracle.shape
    np.testing.assert_array_equal(series.data, oracle.get_fdata(dtype=np.float32))
    # The header keeps voxel sizes as float32.
    np.testing.assert_allclose(series.spacing, oracle.header.get_zooms()[:3], rtol=1e-5)
    assert series.warnings == ()


def test_a_real_spin_echo_series_without_diffusion_is_read_as_b0(shared_data, tmp_path):
    source = shared_data / "nifti_dwi" / "ge_signauhp_seepi_b0like.nii.gz"
    with pytest.raises(ScanError, match="--b0-only"):
        read_dwi(source)
    # Copied, since it is read-only there and a link must be followed too.
    shutil.copy(source, tmp_path / "real.nii.gz")
    (tmp_path / "x.nii.gz").symlink_to(tmp_path / "real.nii.gz")
    series = read_dwi(tmp_path / "x.nii.gz", b0_only=True)
    assert series.data.shape == (128, 128, 60, 2)
    assert series.bvals.tolist() == [0.0, 0.0]
