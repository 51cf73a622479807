"""The converter's child: bounded, silent, and believed only by what it wrote."""

from __future__ import annotations

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import truth, write_series

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom import convert as module
from mhsev_monai.ingest.dicom.convert import ChildLimits, convert
from mhsev_monai.ingest.dicom.headers import read_header
from mhsev_monai.ingest.dicom.preflight import check_series
from mhsev_monai.ingest.dicom.verify import open_image, verify

PIXEL_DATA = b"\xe0\x7f\x10\x00"


def program(tmp_path: Path, script: str) -> Path:
    """A converter of our own making, for what the real one does too rarely to wait for."""
    path = tmp_path / "converter"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return write_series(tmp_path / "src")


def test_one_series_becomes_one_image(files, tmp_path):
    converted = convert(files, tmp_path)
    assert np.array_equal(np.asarray(nib.load(converted.image).dataobj)[:, ::-1], truth())
    assert converted.bvals is not None
    assert converted.sidecar["MagneticFieldStrength"] == 3


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exec sleep 60", "ended after 1 s"),
        ("kill -SEGV $$", "made no image"),
        ("exit 0", "made no image"),
        ("while :; do :; done", "ended after 1 s|made no image"),
        ('touch "$PWD/a.nii" "$PWD/b.nii"', "made 2 images"),
        ("echo Roe^Jane; echo Roe^Jane >&2; exit 3", "made no image"),
    ],
)
def test_a_child_that_fails_is_a_sentence_in_time(script, words, files, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(module, "converter", lambda: program(tmp_path, script))
    start = time.monotonic()
    with pytest.raises(ScanError, match=words):
        convert(files, tmp_path, ChildLimits(seconds=1))
    assert time.monotonic() - start < 10
    assert "Jane" not in "".join(capfd.readouterr())


def test_memory_is_bounded(files, tmp_path, monkeypatch):
    """The child is refused what it asks for beyond its limit, and no image comes of it."""
    greedy = 'exec python3 -c \'import time; time.sleep(0.3); b = bytearray(3 << 30); open("x.nii", "w")\''
    monkeypatch.setattr(module, "converter", lambda: program(tmp_path, greedy))
    with pytest.raises(ScanError, match="made no image"):
        convert(files, tmp_path, ChildLimits(seconds=20, memory=2 << 30))


def test_the_child_sees_no_file_names_and_no_settings_of_the_user(files, tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    script = f'(env; ls "${{@: -1}}"; pwd) > {seen}; exit 0'
    path = program(tmp_path, script)
    path.write_text(path.read_text().replace("/bin/sh", "/bin/bash"))
    named = files[0].rename(files[0].with_name("Roe^Jane.dcm"))
    monkeypatch.setenv("MHSEV_TEST_NAME", "Roe^Jane")
    monkeypatch.setattr(module, "converter", lambda: path)
    with pytest.raises(ScanError):
        convert([named, *files[1:]], tmp_path)
    assert "000000.dcm" in seen.read_text()
    assert "Jane" not in seen.read_text()


def harmed(image: nib.Nifti1Image, harm: str) -> nib.Nifti1Image:
    data, affine = np.asarray(image.dataobj).copy(), image.affine.copy()
    if harm == "volumes mixed":
        data[:, :, 2, [0, 1]] = data[:, :, 2, [1, 0]]
    elif harm == "slices exchanged":
        data[:, :, [1, 2], :] = data[:, :, [2, 1], :]
    elif harm == "one voxel":
        data[3, 3, 3, 2] += 1
    elif harm == "mirrored":
        data = data[::-1]
    elif harm == "upside down":
        data = data[:, ::-1]
    elif harm == "reversed":
        data = data[:, :, ::-1]
    elif harm == "moved":
        affine[2, 3] += 1.0
    elif harm == "other voxel size":
        affine[0, 0] *= 1.1
    elif harm == "a slice less":
        data = data[:, :, :5]
    elif harm == "a volume less":
        data = data[..., :2]
    return nib.Nifti1Image(data, affine)


HARMS = ["volumes mixed", "slices exchanged", "one voxel", "mirrored", "upside down", "reversed", "moved"]


@pytest.mark.parametrize("harm", [*HARMS, "other voxel size", "a slice less", "a volume less"])
def test_no_harm_to_a_converted_volume_goes_unseen(harm, files, tmp_path):
    plan = check_series([read_header(file) for file in files])
    image = open_image(convert(files, tmp_path).image)
    assert verify(image, plan).volumes == (0, 1, 2)
    nib.save(harmed(image, harm), tmp_path / "harmed.nii")
    with pytest.raises(ScanError):
        verify(open_image(tmp_path / "harmed.nii"), plan)


def test_only_ge_s_pictures_may_be_turned(tmp_path):
    for vendor, allowed in (("SIEMENS", False), ("GE MEDICAL SYSTEMS", True)):
        folder = tmp_path / vendor
        files = write_series(folder / "src", Manufacturer=vendor)
        plan = check_series([read_header(file) for file in files])
        image = open_image(convert(files, folder).image)
        nib.save(harmed(image, "upside down"), folder / "harmed.nii")
        if allowed:
            assert "upside down" in verify(open_image(folder / "harmed.nii"), plan).warnings[0]
        else:
            with pytest.raises(ScanError):
                verify(open_image(folder / "harmed.nii"), plan)


def as_jpeg_lossless(file: Path, target: Path) -> None:
    """The file as archives store it, by another program than the one that decodes it."""
    gdcm = pytest.importorskip("gdcm", reason="needs the extra dicom")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(file))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def test_pictures_in_jpeg_are_compared_too(files, tmp_path, bring):
    (tmp_path / "jpeg").mkdir()
    for file in files:
        as_jpeg_lossless(file, tmp_path / "jpeg" / file.name)
    assert pydicom.dcmread(tmp_path / "jpeg" / files[0].name).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(np.asarray(bring(tmp_path / "jpeg").volume().dataobj)[:, ::-1], truth())


def test_a_jpeg_stream_that_is_cut_off_is_refused(files, tmp_path, bring):
    (tmp_path / "jpeg").mkdir()
    for file in files:
        as_jpeg_lossless(file, tmp_path / "jpeg" / file.name)
    broken = tmp_path / "jpeg" / files[4].name
    raw = broken.read_bytes()
    broken.write_bytes(raw[: raw.rfind(PIXEL_DATA) + 120])
    brought = bring(tmp_path / "jpeg")
    assert (brought.only.outcome, brought.images) == ("refused", [])


def test_a_picture_that_no_decoder_reads_is_refused(files, tmp_path, monkeypatch, bring):
    (tmp_path / "jpeg").mkdir()
    for file in files:
        as_jpeg_lossless(file, tmp_path / "jpeg" / file.name)

    def no_decoder(self) -> None:
        raise RuntimeError("Roe^Jane")

    monkeypatch.setattr(pydicom.FileDataset, "pixel_array", property(no_decoder))
    reason = bring(tmp_path / "jpeg").only.reason
    assert "cannot be decoded" in reason
    assert "Jane" not in reason
