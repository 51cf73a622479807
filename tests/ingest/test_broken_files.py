"""Every broken file is one clear sentence."""

from __future__ import annotations

import gzip
import traceback
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_files import AFFINE, PATIENT, SHAPE, coded, save, scan, voxels, with_bytes

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest import nifti, read_dwi


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
