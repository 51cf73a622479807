"""Images are written with a header of our own, whole, and equal for equal input."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from mhsev_monai.ingest.scan_writer import NewScan, move_scan, scan_from_nifti, with_scales, write_scan

AFFINE = np.array([[0.0, 0, -2.5, 60], [-2, 0, 0, 90], [0, 2, 0, -80], [0, 0, 0, 1]])


def stored(dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 200, (9, 8, 5, 3)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_an_image_reads_back_as_it_was(dtype, tmp_path):
    scan = NewScan(stored(dtype), AFFINE, slope=0.5, intercept=-3.0, b_values=np.array([0, 929.75, 0.001]))
    path = write_scan(scan, tmp_path, "x_dwi")
    image = nib.load(path)
    assert image.get_data_dtype() == dtype
    assert np.array_equal(image.get_fdata(), stored() * 0.5 - 3.0)
    assert np.allclose(image.affine, AFFINE)
    assert (tmp_path / "x_dwi.bval").read_text() == "0 929.75 0.001\n"
    assert np.allclose(image.get_qform(), AFFINE)


def test_nothing_of_the_old_header_is_taken_along(tmp_path):
    old = nib.Nifti1Image(stored(), AFFINE)
    old.header["descrip"], old.header["aux_file"], old.header["db_name"] = b"Roe^Jane", b"13:45:02", b"PID-17"
    old.header["intent_name"] = b"Roe^Jane"
    old.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Roe^Jane was here"))
    nib.save(old, tmp_path / "old.nii.gz")
    path = write_scan(scan_from_nifti(nib.load(tmp_path / "old.nii.gz")), tmp_path, "new")
    content = gzip.decompress(path.read_bytes())
    assert [word for word in (b"Roe", b"13:45", b"PID") if word in content] == []
    assert np.array_equal(nib.load(path).get_fdata(), old.get_fdata())


def test_equal_scans_are_equal_bytes(tmp_path):
    first, second = (write_scan(NewScan(stored(), AFFINE), tmp_path / name, "x").read_bytes() for name in "ab")
    assert first == second


def test_a_header_without_orientation_stays_one(tmp_path):
    image = nib.Nifti1Image(stored(), AFFINE)
    image.set_sform(AFFINE, code=0)
    image.set_qform(AFFINE, code=0)
    nib.save(image, tmp_path / "old.nii")
    path = write_scan(scan_from_nifti(nib.load(tmp_path / "old.nii")), tmp_path, "x")
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)


def test_scales_that_differ_are_applied_and_equal_ones_kept_beside_the_values():
    scan = NewScan(stored(), AFFINE)
    equal = with_scales(scan, np.broadcast_to([2.0, 1.0], (5, 3, 2)))
    assert (equal.slope, equal.intercept, equal.stored.dtype) == (2.0, 1.0, np.int16)
    scales = np.stack([np.arange(1.0, 16).reshape(5, 3), np.full((5, 3), -1.0)], axis=-1)
    real = with_scales(scan, scales)
    assert real.stored[4, 4, 2, 1] == stored()[4, 4, 2, 1] * 8.0 - 1.0
    assert (real.slope, real.stored.dtype) == (1.0, np.float32)


def test_a_scan_moves_with_its_companions_and_leaves_no_old_ones(tmp_path):
    folder = tmp_path / "to"
    folder.mkdir()
    (folder / "y_dwi.bvec").write_text("of an earlier image")
    path = write_scan(
        NewScan(stored(), AFFINE, b_values=np.zeros(3), sidecar={"EchoTime": 0.1}), tmp_path / "a", "x_dwi"
    )
    moved = move_scan(path, folder, "y_dwi")
    assert sorted(p.name for p in folder.iterdir()) == ["y_dwi.bval", "y_dwi.json", "y_dwi.nii.gz"]
    assert moved == folder / "y_dwi.nii.gz"
