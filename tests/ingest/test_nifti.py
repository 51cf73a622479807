"""Every broken file is one clear sentence; every sound one equals what nibabel reads."""

from __future__ import annotations

import gzip
import logging
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest import nifti, read_dwi

SHAPE = (12, 10, 4, 3)
BVALS = "0 1000 1000\n"
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
PATIENT = "Roe^Jane"


def voxels(shape: tuple[int, ...] = SHAPE, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(5).integers(1, 2000, shape).astype(dtype)


def save(path: Path, data: np.ndarray | None = None, affine: np.ndarray = AFFINE, bvals: str | None = BVALS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = voxels() if data is None else data
    nib.save(nib.Nifti1Image(data, affine, dtype=data.dtype), path)
    if bvals is not None:
        path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".bval").write_text(bvals)
    return path


def scan(folder: Path, *args, **kwargs) -> Path:
    return save(folder / f"{PATIENT}.nii.gz", *args, **kwargs)


def with_bytes(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def with_header(folder: Path, offset: int, content: bytes) -> Path:
    path = save(folder / "x.nii")
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(bytes(raw))
    return path


def dangling_link(folder: Path) -> Path:
    (folder / "x.nii.gz").symlink_to(folder / "annex" / "nothing")
    return folder / "x.nii.gz"


def cut(folder: Path, name: str, keep: float) -> Path:
    path = save(folder / name)
    raw = path.read_bytes()
    return with_bytes(folder, name, raw[: int(len(raw) * keep)])


def flipped_bit(folder: Path) -> Path:
    # Stored without compression, so that the stream stays readable and only the checksum can tell.
    raw = bytearray(gzip.compress(save(folder / "x.nii").read_bytes(), compresslevel=0))
    raw[len(raw) // 2] ^= 1
    return with_bytes(folder, "x.nii.gz", bytes(raw))


def renamed(folder: Path, old: str, new: str) -> Path:
    save(folder / old).rename(folder / new)
    return folder / new


def with_nan(folder: Path, share: float, value: float = np.nan, volume: int = 1) -> Path:
    data = voxels()
    data[..., volume].reshape(-1)[: round(share * data[..., volume].size)] = value
    return scan(folder, data)


def rgb(folder: Path) -> Path:
    return scan(folder, np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))


def analyze(folder: Path) -> Path:
    nib.save(nib.AnalyzeImage(voxels(SHAPE, np.int16), AFFINE), folder / "x.img")
    return folder / "x.img"


def coded(folder: Path, sform: np.ndarray | None, qform: np.ndarray | None = None) -> Path:
    """An image put together by hand: nibabel mends or refuses odd orientations when it saves."""
    header = nib.Nifti1Image(voxels(), AFFINE).header
    header.set_data_offset(352)
    header.set_qform(qform, code=0 if qform is None else 1)
    if sform is None:
        header["sform_code"] = 0
    else:
        header["srow_x"], header["srow_y"], header["srow_z"], header["sform_code"] = *sform[:3], 1
    (folder / "x.bval").write_text(BVALS)
    return with_bytes(folder, "x.nii", header.binaryblock + bytes(4) + voxels().tobytes(order="F"))


def singular() -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 1] = [2.0, 0.0, 0.0]
    return affine


BROKEN: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "missing": (lambda f: f / "x.nii.gz", ["no such file", "check the name"]),
    "dangling link": (dangling_link, ["link", "git annex get"]),
    "folder": (lambda f: f, ["folder", ".nii.gz", "give the file"]),
    "empty": (lambda f: with_bytes(f, "x.nii.gz", b""), ["empty, 0 bytes", "copy"]),
    "text as .nii": (lambda f: with_bytes(f, "x.nii", b"not found" * 99), ["not a NIfTI file", ".nii.gz", "dcm2niix"]),
    "text as .nii.gz": (lambda f: with_bytes(f, "x.nii.gz", b"not found" * 99), ["not a NIfTI file", "dcm2niix"]),
    "three bytes": (lambda f: with_bytes(f, "x.nii", b"abc"), ["not a NIfTI file"]),
    "zipped text": (lambda f: with_bytes(f, "x.nii.gz", gzip.compress(b"a" * 999)), ["compressed", "not NIfTI"]),
    "zipped nothing": (lambda f: with_bytes(f, "x.nii.gz", gzip.compress(b"")), ["compressed", "not NIfTI"]),
    "dicom": (lambda f: with_bytes(f, "x.nii", b"\0" * 128 + b"DICM" + b"\0" * 500), ["DICOM", "dcm2niix"]),
    "analyze": (analyze, ["not a NIfTI file"]),
    "four bytes": (lambda f: with_bytes(f, "x.nii", (348).to_bytes(4, "little")), ["cut off"]),
    "cut .nii.gz": (lambda f: cut(f, "x.nii.gz", 0.6), ["cut off", "copy"]),
    "cut .nii": (lambda f: cut(f, "x.nii", 0.6), ["cut off", "copy"]),
    "checksum": (flipped_bit, ["damaged", "copy"]),
    "gz named .nii": (lambda f: renamed(f, "x.nii.gz", "x.nii"), ["gzip-compressed", "rename", ".nii.gz"]),
    "nii named .gz": (lambda f: renamed(f, "x.nii", "x.nii.gz"), ["not compressed", "rename", ".nii"]),
    "unknown voxel type": (lambda f: with_header(f, 70, (9999).to_bytes(2, "little")), ["header is damaged"]),
    "negative axis": (lambda f: with_header(f, 42, (-5).to_bytes(2, "little", signed=True)), ["header is damaged"]),
    "axis of 0": (lambda f: with_header(f, 46, b"\0\0"), ["12 x 10 x 0 x 3", "at least 8 x 8"]),
    "2-D": (lambda f: scan(f, voxels((12, 10))), ["2-D (12 x 10)", "3-D and 4-D"]),
    "5-D": (lambda f: scan(f, voxels((12, 10, 4, 1, 3))), ["5-D (12 x 10 x 4 x 1 x 3)", "fourth axis"]),
    "5-D of 2 x 2": (lambda f: scan(f, voxels((12, 10, 4, 2, 2))), ["5-D", "fourth axis"]),
    "colours": (rgb, ["colours", "real numbers"]),
    "complex": (lambda f: scan(f, voxels().astype(np.complex64)), ["complex", "magnitude"]),
    "one slice": (lambda f: scan(f, voxels((12, 10, 1, 3))), ["12 x 10 x 1 x 3", "2 slices", "whole series"]),
    "narrow": (lambda f: scan(f, voxels((7, 10, 4, 3))), ["7 x 10 x 4 x 3", "8 x 8"]),
    "zero": (lambda f: scan(f, np.zeros(SHAPE, np.int16)), ["zero only", "dcm2niix"]),
    "constant": (lambda f: scan(f, np.full(SHAPE, 7, np.int16)), ["single value"]),
    "constant b0": (lambda f: scan(f, voxels() * np.array([0, 1, 1], np.float32)), ["b = 0 volume", "single value"]),
    "2 % NaN": (lambda f: with_nan(f, 0.02), ["2.1%", "NaN or infinite", "1%"]),
    "2 % infinite": (lambda f: with_nan(f, 0.02, -np.inf), ["NaN or infinite", "set what lies outside"]),
    "beyond float32": (lambda f: scan(f, np.full(SHAPE, 1e300)), ["100.0%", "infinite"]),
    "affine zero": (lambda f: coded(f, np.zeros((4, 4))), ["affine is all zero"]),
    "affine NaN": (lambda f: coded(f, AFFINE * np.nan), ["affine is not finite"]),
    "affine singular": (lambda f: coded(f, singular()), ["singular"]),
    "affine flat": (lambda f: coded(f, np.diag([2.0, 2.0, 0.0, 1.0])), ["2 x 2 x 0 mm", "0.2 to 12 mm"]),
    "53 mm": (lambda f: coded(f, np.diag([53.0, 53.0, 53.0, 1.0])), ["53 x 53 x 53 mm", "0.2 to 12 mm"]),
    "metres": (lambda f: coded(f, np.diag([0.002, 0.002, 0.005, 1.0])), ["0.002 x", "0.2 to 12 mm"]),
    "no bval": (lambda f: scan(f, bvals=None), ["no .bval", "beside the image", "--b0-only"]),
    "no bval, 3-D": (lambda f: scan(f, voxels((12, 10, 4)), bvals=None), ["no .bval", "--b0-only"]),
    "too few bvals": (lambda f: scan(f, bvals="0 1000"), ["image: 3", ".bval file: 2"]),
    "too many bvals": (lambda f: scan(f, bvals="0 1000 1000 1000"), ["image: 3", ".bval file: 4", "ADC"]),
    "bvec": (lambda f: scan(f, bvals="0 1 0\n0 0 1\n0 0 0\n"), [".bvec", "give the .bval"]),
    "words": (lambda f: scan(f, bvals=f"0 1000 {PATIENT}"), ["not a number"]),
    "negative b": (lambda f: scan(f, bvals="0 1000 -1000"), ["negative"]),
    "NaN b": (lambda f: scan(f, bvals="0 1000 nan"), ["non-finite"]),
    "GE bias": (lambda f: scan(f, bvals="0 1000001000 1000001000"), ["1e+09", "dcm2niix"]),
    "empty bval": (lambda f: scan(f, bvals=" \n"), [".bval file is empty"]),
    "no b0": (lambda f: scan(f, bvals="800 1000 1000"), ["no volume has b <= 50", "lowest is 800", "join"]),
}


@pytest.mark.parametrize(("make", "words"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_used_is_one_sentence_that_names_no_file(make, words, tmp_path):
    path = make(tmp_path)
    with pytest.raises(ScanError) as caught:
        read_dwi(path)
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message
    assert not message.endswith(".")
    told = message + "".join(traceback.format_exception(caught.value))
    assert PATIENT not in told
    assert str(tmp_path) not in told


def test_a_series_larger_than_memory_allows_is_refused_by_its_header(tmp_path, monkeypatch):
    path = scan(tmp_path)
    monkeypatch.setattr(nifti, "_MAX_VOXELS", 1439)
    with pytest.raises(ScanError, match="holds 1440 voxels; up to 1439"):
        read_dwi(path)


def test_bytes_that_are_no_text_are_not_a_bval_file(tmp_path):
    path = scan(tmp_path)
    path.with_name(f"{PATIENT}.bval").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ScanError, match="not text"):
        read_dwi(path)


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


# numpy says so when nibabel casts a ruined sform.
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_header_with_ruined_bytes_is_read_or_refused_in_a_sentence(tmp_path):
    path = coded(tmp_path, AFFINE, AFFINE)
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        raw = bytearray(sound)
        for offset in rng.integers(0, 352, 3):
            raw[offset] = rng.choice([0, 1, 127, 128, 255])
        path.write_bytes(bytes(raw))
        try:
            assert np.isfinite(read_dwi(path).data).all()
        except ScanError:
            refused += 1
    # Most bytes of a header are free text or unused, so some of either kind must come.
    assert 40 < refused < 360


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
