"""A .bval file is found where BIDS allows it, nearest first."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest import find_bvals, read_bvals
from mhsev_monai.ingest.bvals import image_stem

IMAGE = "sub-01/ses-2/dwi/sub-01_ses-2_acq-high_dwi.nii.gz"


def tree(root: Path, *names: str) -> Path:
    for name in (IMAGE, *names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{len(Path(name).parts)}")
    return root / IMAGE


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], None),
        (["dwi.bval"], "dwi.bval"),
        (["acq-high_dwi.bval"], "acq-high_dwi.bval"),
        (["acq-low_dwi.bval"], None),  # an entity that the image does not have
        (["bold.bval"], None),  # another suffix
        (["dwi.bval", "acq-high_dwi.bval"], "acq-high_dwi.bval"),  # the more specific of one folder
        (["dwi.bval", "sub-01/sub-01_dwi.bval"], "sub-01/sub-01_dwi.bval"),  # the nearer folder
        (["sub-01/sub-01_dwi.bval", "sub-01/ses-2/dwi/sub-01_dwi.bval"], "sub-01/ses-2/dwi/sub-01_dwi.bval"),
        (["dwi.bval", IMAGE.replace(".nii.gz", ".bval")], IMAGE.replace(".nii.gz", ".bval")),
        (["sub-02/sub-02_dwi.bval"], None),
        (["sub-01/ses-2/sub-01_ses-1_dwi.bval"], None),  # another session
    ],
)
def test_the_nearest_file_that_applies_is_found(names, found, tmp_path):
    image = tree(tmp_path / "root", *names)
    assert find_bvals(image) == (found and tmp_path / "root" / found)


def test_nothing_above_the_root_or_outside_bids_is_taken(tmp_path):
    image = tree(tmp_path / "root")
    (tmp_path / "dwi.bval").write_text("0")
    assert find_bvals(image) is None
    loose = tmp_path / "sub-01_dwi.nii.gz"
    (tmp_path / "scan.bval").write_text("0")
    assert find_bvals(loose) == tmp_path / "dwi.bval"
    assert find_bvals(tmp_path / "scan_dwi.nii.gz") is None


def test_a_path_relative_to_a_folder_of_the_root_finds_the_file_above(tmp_path, monkeypatch):
    tree(tmp_path, "dwi.bval")
    monkeypatch.chdir(tmp_path / "sub-01" / "ses-2")
    assert find_bvals(Path("dwi/sub-01_ses-2_acq-high_dwi.nii.gz")) == tmp_path / "dwi.bval"


def test_two_files_that_apply_equally_are_refused(tmp_path):
    image = tree(tmp_path, "acq-high_dwi.bval", "sub-01_dwi.bval")
    with pytest.raises(ScanError, match=r"2 \.bval files in one folder apply"):
        find_bvals(image)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.nii", "a"), ("a.nii.gz", "a"), ("a.b.NII.GZ", "a.b"), ("a.gz", None), ("a.img", None), ("nii", None)],
)
def test_the_stem_is_the_name_without_the_nifti_ending(name, stem):
    assert image_stem(name) == stem


def test_numbers_are_not_rounded(tmp_path):
    path = tmp_path / "x.bval"
    path.write_text("0.001 1.25126 929.75\n")
    assert read_bvals(path).tolist() == [0.001, 1.25126, 929.75]
