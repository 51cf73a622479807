"""Headers with random bytes: a reason or the right volume, never a crash, never a scrambled volume."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import B_VALUES, truth, write_enhanced, write_series

from mhsev_monai.ingest.identity import SubjectKeys
from mhsev_monai.ingest.site import ingest

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -10], [0, 0, 4, -20], [0, 0, 0, 1]])
PIXEL_DATA = b"\xe0\x7f\x10\x00"


def mutate(path: Path, rng: random.Random, n_bytes: int) -> None:
    """Overwrite some bytes of a header, the length of the pixel data included."""
    raw = bytearray(path.read_bytes())
    end = raw.rfind(PIXEL_DATA) + 12
    for _ in range(n_bytes):
        raw[rng.randrange(128, end)] = rng.randrange(256)
    path.write_bytes(bytes(raw))


def outcome(source: Path, work: Path, keys: SubjectKeys) -> str:
    """What ingest made of a source whose volumes are known."""
    root = work / "bids"
    shutil.rmtree(root, ignore_errors=True)
    summary = ingest(source, root, keys)
    images = sorted(root.glob("sub-*/**/*.nii.gz"))
    if not images:
        assert all(entry.reason for entry in summary.entries)
        assert summary.entries
        return "reason"
    for path in images:
        image = nib.load(path)
        b_values = np.loadtxt(str(path).replace(".nii.gz", ".bval"), ndmin=1)
        check_volumes(np.asarray(image.dataobj)[:, ::-1], b_values)
        assert np.allclose(image.affine, AFFINE, atol=1e-3)
    return "volume"


def check_volumes(data: np.ndarray, b_values: np.ndarray) -> None:
    """Each volume is one of the series, whole and with its b-value."""
    whole = truth()
    for t in range(data.shape[3]):
        same = [v for v in range(3) if np.array_equal(data[..., t], whole[..., v])]
        assert same, "a volume is not one of the series"
        assert min(abs(b_values[t] - B_VALUES[v]) for v in same) < 0.01


def mutated_outcomes(tmp_path: Path, form: str, n_runs: int, seed: int) -> Counter:
    keys, rng = SubjectKeys(tmp_path / "site"), random.Random(seed)
    sound = tmp_path / "sound"
    files = write_series(sound) if form == "classic" else [write_enhanced(sound)]
    outcomes: Counter = Counter()
    for _ in range(n_runs):
        source = tmp_path / "src"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(sound, source)
        mutate(source / rng.choice(files).name, rng, rng.choice([1, 3, 10, 30]))
        outcomes[outcome(source, tmp_path, keys)] += 1
    return outcomes


@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_a_mutated_header_is_a_reason_or_the_right_volume(form, tmp_path):
    outcomes = mutated_outcomes(tmp_path, form, 40, seed=1)
    # Some bytes matter and some do not.
    assert min(outcomes["reason"], outcomes["volume"]) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_five_hundred_mutated_headers_are_reasons_or_right_volumes(form, tmp_path):
    outcomes = mutated_outcomes(tmp_path, form, 500, seed=2)
    assert min(outcomes["reason"], outcomes["volume"]) >= 50


@pytest.mark.parametrize("name", ["siemens_ve11_mosaic_dwi", "canon_enhanced_dwi", "siemens_ve11_classic_dwi"])
def test_a_mutated_header_of_a_scanner_is_a_reason_or_the_right_volume(name, shared_data, tmp_path):
    keys, rng = SubjectKeys(tmp_path / "site"), random.Random(3)
    reference = ingest(shared_data / "dicom" / name, tmp_path / "sound", keys)
    right = nib.load(next((tmp_path / "sound").glob("sub-*/**/*.nii.gz")))
    assert reference.count("accepted") == 1
    for _ in range(12):
        source = tmp_path / "src"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(shared_data / "dicom" / name, source)
        mutate(rng.choice(sorted(source.glob("*.dcm"))), rng, 20)
        shutil.rmtree(tmp_path / "bids", ignore_errors=True)
        summary = ingest(source, tmp_path / "bids", keys)
        assert all(entry.reason or entry.outcome == "accepted" for entry in summary.entries)
        for path in (tmp_path / "bids").glob("sub-*/**/*.nii.gz"):
            image = nib.load(path)
            whole = np.asarray(right.dataobj)
            equal = [
                any(np.array_equal(np.asarray(image.dataobj)[..., t], whole[..., v]) for v in range(whole.shape[3]))
                for t in range(image.shape[3])
            ]
            assert all(equal)
            assert np.allclose(image.affine, right.affine, atol=1e-3)
